"""The configuration of authorization and audit, and `polder audit`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from polder.apiserver.abac import Abac
from polder.apiserver.audit_files import AuditFiles, AuditFileSettings
from polder.apiserver.authz_modes import AlwaysDeny, RbacMode
from polder.apiserver.authz_webhook import Webhook
from polder.base.clock import SystemClock
from polder.base.errors import PermanentError
from polder.main import audit
from polder.main.authorization import make_audit, read_modes
from polder.main.config import ServerConfig, dump
from polder.main.config_authz import AuditConfig, Mode
from polder.system.pki import write_private

CLOCK = SystemClock()
LINE = json.dumps({
    "apiVersion": "abac.authorization.kubernetes.io/v1beta1", "kind": "Policy",
    "spec": {"user": "x", "resource": "pods", "namespace": "*", "apiGroup": "*"},
})  # fmt: skip


def modes(*found: Any) -> Any:
    return read_modes(msgspec.convert(list(found), tuple[Mode, ...]), CLOCK)


def test_the_chain_keeps_its_order(tmp_path: Path) -> None:
    file = tmp_path / "policy"
    file.write_text(LINE)
    settings = modes(
        {"type": "ABAC", "file": str(file)}, {"type": "Node"}, {"type": "RBAC"},
        {"type": "Webhook", "url": "https://127.0.0.1:1/x", "failurePolicy": "Deny"}, {"type": "AlwaysDeny"},
    )  # fmt: skip
    made = [make(None) for make in settings.modes]
    assert [type(mode) for mode in made] == [Abac, RbacMode, Webhook, AlwaysDeny]
    assert settings.nodes and settings.files == (made[0],) and settings.webhooks == (made[2],)
    assert made[2].settings.fail_closed
    assert not modes({"type": "RBAC"}).nodes


@pytest.mark.parametrize(
    ("mode", "problem"),
    [
        ([{"type": "ABAC", "file": "/nonexistent"}], "/nonexistent"),
        ([{"type": "Webhook", "url": "http://x"}], "no https URL"),
        ([{"type": "Webhook", "url": "https://x", "failurePolicy": "Maybe"}], "Maybe"),
        ([{"type": "Webhook", "url": "https://x", "authorityFile": "/nonexistent"}], "Webhook"),
        ([{"type": "RBAC"}, {"type": "RBAC"}], "twice"),
    ],
)
def test_what_cannot_be_is_refused(mode: list[Any], problem: str) -> None:
    with pytest.raises(PermanentError, match=problem):
        modes(*mode)


def test_a_bad_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "policy").write_text(f"{LINE}\n{{}}\n")
    with pytest.raises(PermanentError, match="line 2"):
        modes({"type": "ABAC", "file": str(tmp_path / "policy")})


def test_an_audit_without_a_policy_or_with_a_bad_one(tmp_path: Path) -> None:
    assert make_audit(None, CLOCK) is None
    made = make_audit(AuditConfig(directory=str(tmp_path / "a")), CLOCK)
    assert made is not None
    made.files.close()
    (tmp_path / "policy").write_text("rules: [{level: Loud}]")
    for file, problem in ((str(tmp_path / "policy"), "Loud"), ("/nonexistent", "nonexistent")):
        with pytest.raises(PermanentError, match=problem):
            make_audit(AuditConfig(directory=str(tmp_path / "a"), policy_file=file), CLOCK)


def event(user: str, verb: str, **more: Any) -> bytes:
    found = {
        "user": {"username": user}, "verb": verb, "requestURI": "/x", "stage": "ResponseComplete",
        "requestReceivedTimestamp": "2026-01-01T00:00:00.000000Z", "responseStatus": {"code": 200}, **more,
    }  # fmt: skip
    return json.dumps(found).encode() + b"\n"


def test_polder_audit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    files = AuditFiles(AuditFileSettings(tmp_path / "audit", max_bytes=1))
    ref = {"resource": "pods", "namespace": "default", "name": "web", "subresource": "log"}
    files.put("acme", event("jane", "create", objectRef=ref))
    files.put("acme", event("admin\x1b[2J", "delete", impersonatedUser={"username": "joe"}))
    files.put("acme", b'{"cut')
    files.close()
    config = ServerConfig(listen=[], store="s", pki="p", audit=AuditConfig(directory=str(tmp_path / "audit")))
    write_private(tmp_path / "server.yaml", dump(config).encode())
    monkeypatch.setattr(audit, "cluster_of", lambda state: SimpleNamespace(server_folder=tmp_path))

    def said(**more: str) -> list[str]:
        args = {"state": tmp_path, "tenant": "acme", "user": "", "verb": "", "output": "table", **more}
        assert audit.command(argparse.Namespace(**args)) == 0
        return capsys.readouterr().out.splitlines()

    assert said() == [
        "2026-01-01T00:00:00.000000Z  200  jane  create  pods/log default/web",
        "2026-01-01T00:00:00.000000Z  200  admin?[2J as joe  delete  /x",
    ]
    assert len(said(user="joe")) == len(said(verb="create")) == 1
    assert [json.loads(line)["verb"] for line in said(output="json")] == ["create", "delete"]
    assert said(tenant="globex") == []
    with pytest.raises(PermanentError, match="no tenant's name"):
        said(tenant="../acme")
