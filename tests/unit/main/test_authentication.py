"""The configuration of authentication: an ordered list of methods, everything unknown refused by name."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import yaml

from polder.apiserver.authn_build import (
    UseCertificates,
    UseFrontProxy,
    UseOidc,
    UsePasswords,
    UseServiceAccounts,
    UseStaticTokens,
    UseWebhook,
)
from polder.apiserver.authn_static import parse_passwords
from polder.base.errors import PermanentError
from polder.main.authentication import read_methods
from polder.main.config import ServerConfig, load
from polder.main.entry import main

JWT = {
    "issuer": {"url": "https://issuer", "audiences": ["polder"], "discoveryURL": "https://elsewhere/d"},
    "claimMappings": {"username": {"claim": "sub", "prefix": "corp:"}, "groups": {"expression": "claims.groups"}},
    "claimValidationRules": [{"claim": "hd", "requiredValue": "example.com"}],
    "tenant": {"claim": "org"},
}


def configured(tmp_path: Path, methods: object) -> ServerConfig:
    path = tmp_path / "server.yaml"
    document = {"apiVersion": "config.polder.dev/v1alpha1", "kind": "ServerConfig", "listen": ["127.0.0.1:1"], "store": "s",
                "pki": "p", "authentication": methods}  # fmt: skip
    path.write_text(yaml.safe_dump(document))
    return load(path, ServerConfig)


def test_methods_are_asked_in_the_order_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("secret\n"))
    assert main(["password"]) == 0
    (tmp_path / "passwords").write_text(f"{capsys.readouterr().out.strip()},ann,1,dev\n")
    (tmp_path / "tokens").write_text('t,ann,1,"a,b"\n')
    (tmp_path / "ours").write_text("bearer\n")
    config = configured(
        tmp_path,
        [
            {"type": "FrontProxy", "allowedNames": ["gate"], "usernameHeaders": ["X-User"]},
            {"type": "ServiceAccount"},
            {"type": "TokenFile", "file": str(tmp_path / "tokens")},
            {"type": "Anonymous", "paths": ["/healthz"]},
            {"type": "PasswordFile", "file": str(tmp_path / "passwords")},
            {"type": "OpenIDConnect", "jwt": [JWT]},
            {"type": "Webhook", "url": "https://hook", "tokenFile": str(tmp_path / "ours"), "tenant": "acme"},
            {"type": "Certificate"},
        ],
    )
    settings = read_methods(config.authentication)
    assert [type(use) for use in settings.methods] == [
        UseFrontProxy, UseServiceAccounts, UseStaticTokens, UsePasswords, UseOidc, UseWebhook, UseCertificates,
    ]  # fmt: skip
    assert settings.anonymous.paths == ("/healthz",)
    proxy, _, _, passwords, oidc, webhook, _ = settings.methods
    assert (proxy.proxy.user, proxy.proxy.names) == (("X-User",), {"gate"})
    assert list(passwords.users) == ["ann"]
    assert (oidc.issuers[0].tenant.claim, oidc.issuers[0].place.document) == ("org", "https://elsewhere/d")
    assert (webhook.webhook.bearer, webhook.webhook.tenant) == ("bearer", "acme")
    assert "bearer" not in repr(settings)


def test_without_anonymous_nobody_is_anybody(tmp_path: Path) -> None:
    assert read_methods(configured(tmp_path, [{"type": "Certificate"}]).authentication).anonymous.enabled is False
    assert read_methods(ServerConfig(listen=[], store="", pki="").authentication).anonymous.enabled is True


@pytest.mark.parametrize(
    ("methods", "says"),
    [
        ([{"type": "Kerberos"}], "Kerberos"),
        ([{"type": "Certificate", "file": "x"}], "file"),
        ([{"type": "TokenFile"}], "file"),
        ([{"type": "FrontProxy", "allowedNames": []}], "allowedNames"),
        ([{"type": "Certificate"}, {"type": "Certificate"}], "twice"),
        ([{"type": "TokenFile", "file": "/nonexistent/tokens"}], "/nonexistent/tokens"),
        ([{"type": "Webhook", "url": "http://hook"}], "no https URL"),
        ([{"type": "OpenIDConnect", "jwt": [{**JWT, "colour": "blue"}]}], "colour"),
        ([{"type": "OpenIDConnect", "jwt": [JWT, JWT]}], "twice"),
    ],
)
def test_what_cannot_be_meant_is_named(tmp_path: Path, methods: object, says: str) -> None:
    with pytest.raises(PermanentError, match=says):
        read_methods(configured(tmp_path, methods).authentication)


def test_a_file_that_cannot_be_read_as_what_it_should_be_is_named_without_its_secrets(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text("topsecret,ann,1,polder:components\n")
    with pytest.raises(PermanentError, match="line 1") as caught:
        read_methods(configured(tmp_path, [{"type": "TokenFile", "file": str(path)}]).authentication)
    assert "topsecret" not in str(caught.value)
    assert parse_passwords("# nobody\n") == {}
