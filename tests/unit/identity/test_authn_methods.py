"""Users by certificate, file, bootstrap token and front proxy: whose they are, and what forged ones get."""

from __future__ import annotations

import asyncio
import base64
from collections import Counter
from datetime import timedelta

import orjson
import pytest

from polder.api.errors import ApiError
from polder.apiserver import authn_static
from polder.apiserver.authn import Anonymous
from polder.apiserver.authn_build import AuthnSettings, UseCertificates, UseFrontProxy, UsePasswords, UseStaticTokens
from polder.apiserver.authn_method import CredentialError, Shown
from polder.apiserver.authn_proxy import ProxySettings
from polder.apiserver.authn_static import hash_password, parse_passwords, parse_static_tokens
from polder.apiserver.types import Connection, Role
from polder.base.ids import ROOT, TenantName
from polder.store.protocol import Delete, Key
from polder.system.pki import (
    COMPONENTS,
    NODES,
    PLATFORM_ADMINS,
    ROOT_URN,
    TENANT_ADMINS,
    PkiError,
    ensure_pki,
    new_request,
    tenant_urn,
)
from polder.system.pki.authority import Wanted
from polder.system.pki.leaves import CLIENT_USAGES, make_subject
from tests.unit.identity.asking import OPEN, bearer, refused

from .conftest import certificate_der


def shown(pem, pin=None):
    return Connection(certificate_der(pem), TenantName(pin) if pin else None)


async def record(world, name):
    found = await world.tenants.get(TenantName(name))
    assert found is not None
    return found


async def test_a_signed_request_makes_a_user_of_its_tenant_and_of_no_other(world):
    acme = await record(world, "acme")
    request = new_request("alice", ["dev", "system:masters"]).certificate
    pem = world.pki.sign_tenant_client(request, acme.name, acme.uid)
    who = await world.authn.authenticate(shown(pem), {})
    assert (who.name, who.role, who.home) == ("alice", Role.USER, "acme")
    assert who.groups == ("dev", "system:masters", "system:authenticated")
    assert who.extra["authentication.kubernetes.io/credential-id"][0].startswith("X509SHA256=")
    assert (await world.authn.authenticate(shown(pem, "acme"), {})).home == "acme"
    await refused(world.authn, shown(pem, "globex"))
    await world.remove_tenant("acme")
    await refused(world.authn, shown(pem))
    await world.add_tenant("acme")
    await refused(world.authn, shown(pem))


async def test_a_request_signed_in_root_makes_a_user_of_the_platform(world):
    pem = world.pki.sign_tenant_client(new_request("bob", ["ops"]).certificate, ROOT, "root")
    who = await world.authn.authenticate(shown(pem), {})
    assert (who.name, who.role, who.home) == ("bob", Role.USER, ROOT)


@pytest.mark.parametrize("group", [PLATFORM_ADMINS, TENANT_ADMINS, COMPONENTS, "Polder:x"])
async def test_groups_of_polder_are_signed_for_nobody_and_believed_of_nobody(world, group):
    acme = await record(world, "acme")
    if group.islower():
        with pytest.raises(PkiError, match="given out by the platform only"):
            world.pki.sign_tenant_client(new_request("eve", [group]).certificate, acme.name, acme.uid)
    for uri in (ROOT_URN, tenant_urn(acme.name, acme.uid)):
        await refused(world.authn, world.certificate("eve", f"{group}2", uri))


async def test_an_authority_signs_for_nothing_that_is_anothers(world):
    """A node's name by the clients' authority, a person's by the agents', anything by the proxies'."""
    acme = await record(world, "acme")

    def by(authority, name, groups):
        return world.pki.authority(authority).issue(Wanted(make_subject(name, groups), (), CLIENT_USAGES)).certificate

    assert (await world.authn.authenticate(shown(by("agents", "system:node:n1", [NODES])), {})).role is Role.NODE
    for authority, name, groups in (
        ("clients", "system:node:n1", [NODES]),
        ("agents", "admin", [PLATFORM_ADMINS]),
        ("agents", "system:polder:scheduler", [COMPONENTS]),
        ("front-proxy", "system:node:n1", [NODES]),
        ("front-proxy", "system:polder:scheduler", [COMPONENTS]),
        ("serving", "system:polder:scheduler", [COMPONENTS]),
        ("agents", "system:node:n1", [NODES, "system:masters"]),
    ):
        await refused(world.authn, shown(by(authority, name, groups)))
    two = [f"{tenant_urn(acme.name, acme.uid)}", "urn:polder:tenant:root"]
    from cryptography import x509

    names = [x509.UniformResourceIdentifier(uri) for uri in two]
    leaf = world.pki.clients.issue(Wanted(make_subject("eve"), names, CLIENT_USAGES))
    await refused(world.authn, shown(leaf.certificate))


async def test_a_certificate_of_another_cluster_is_nobodys(world, tmp_path):
    strange = ensure_pki(tmp_path / "strange")
    await refused(world.authn, shown(strange.issue_client("admin", [PLATFORM_ADMINS], ROOT_URN).certificate))


async def test_a_token_file_has_users_of_tenants_and_of_the_platform(world):
    acme = await record(world, "acme")
    text = f'a,ann,1,"dev,ops"\nb,ben,2,dev,acme:{acme.uid}\nc,cat,3\nd,dan,4,polder:tenant-admins,acme:{acme.uid}\n'
    authn = world.known.chain(AuthnSettings((UseStaticTokens(parse_static_tokens(text)),)))
    found = [await authn.authenticate(OPEN, bearer(token)) for token in "abcd"]
    assert [(w.name, w.role, w.home, w.uid, w.groups[:-1]) for w in found] == [
        ("ann", Role.USER, "root", "1", ("dev", "ops")),
        ("ben", Role.USER, "acme", "2", ("dev",)),
        ("cat", Role.USER, "root", "3", ()),
        ("dan", Role.TENANT_ADMIN, "acme", "4", ("polder:tenant-admins",)),
    ]
    await refused(authn, Connection(pin=TenantName("acme")), bearer("a"))
    await world.remove_tenant("acme")
    await refused(authn, OPEN, bearer("b"))


async def test_passwords_are_off_unless_configured_and_checked_by_their_hash(world):
    def basic(pair):
        return {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}

    await refused(world.authn, OPEN, basic("ann:secret"))
    file = f"{hash_password('secret')},ann,1,dev\n"
    assert "secret" not in file
    authn = world.known.chain(AuthnSettings((UsePasswords(parse_passwords(file)),)))
    for _ in range(2):
        who = await authn.authenticate(OPEN, basic("ann:secret"))
        assert (who.name, who.role, who.groups) == ("ann", Role.USER, ("dev", "system:authenticated"))
    for pair in ("ann:Secret", "ann:", "ann", "ben:secret", ":secret", ":"):
        await refused(authn, OPEN, basic(pair))
    for header in ("Basic", "Basic !!", "Basic " + base64.b64encode(b"\xff:\xff").decode(), "Bearer ann:secret"):
        await refused(authn, OPEN, {"Authorization": header})
    for text in ("plain,ann,1\n", "scrypt$1048576$64$64$AAAA$AAAA,ann,1\n", file + file):
        with pytest.raises(CredentialError):
            parse_passwords(text)


async def test_so_many_tries_of_passwords_wait_and_no_more(world, monkeypatch):
    monkeypatch.setattr(authn_static, "PASSWORDS_WAITING", 4)
    passwords = world.known.method(UsePasswords(parse_passwords(f"{hash_password('secret')},ann,1\n")))
    coded = base64.b64encode(b"ann:wrong").decode()
    shown_ = Shown(OPEN, {"Authorization": f"Basic {coded}"}, "", ("x",))
    tries = await asyncio.gather(*(passwords.authenticate(shown_) for _ in range(6)), return_exceptions=True)
    assert Counter(str(t) for t in tries) == {
        "the user or the password is wrong": 4,
        "too many passwords are being tried": 2,
    }


async def put_bootstrap_token(world, tenant, identifier="abcdef", secret="0123456789abcdef", type_=None, **data):
    fields = {
        "token-id": identifier, "token-secret": secret, "usage-bootstrap-authentication": "true", **data,
    }  # fmt: skip
    coded = {k: base64.b64encode(v.encode()).decode() for k, v in fields.items()}
    await world.put(
        "secrets", tenant, "kube-system", f"bootstrap-token-{identifier}", data=coded,
        type=type_ or "bootstrap.kubernetes.io/token",
    )  # fmt: skip


async def test_bootstrap_tokens(world):
    group = "system:bootstrappers:polder:agents"
    await put_bootstrap_token(world, "root", **{"auth-extra-groups": group})
    who = await world.authn.authenticate(OPEN, bearer("abcdef.0123456789abcdef"))
    assert (who.name, who.role, who.home) == ("system:bootstrap:abcdef", Role.USER, ROOT)
    assert who.groups == ("system:bootstrappers", group, "system:authenticated")
    await refused(world.authn, OPEN, bearer("abcdef.0123456789abcdeg"))
    await refused(world.authn, OPEN, bearer("abcdeg.0123456789abcdef"))
    await refused(world.authn, Connection(pin=TenantName("acme")), bearer("abcdef.0123456789abcdef"))
    await world.store.commit([Delete(Key("secrets", "root", "kube-system", "bootstrap-token-abcdef"))])
    await refused(world.authn, OPEN, bearer("abcdef.0123456789abcdef"))


@pytest.mark.parametrize(
    "broken",
    [
        {"type_": "Opaque"},
        {"usage-bootstrap-authentication": "false"},
        {"token-id": "abcdeg"},
        {"expiration": "2020-01-01T00:00:00Z"},
        {"expiration": "tomorrow"},
        {"expiration": "2999-01-01T00:00:00"},
        {"auth-extra-groups": "system:masters"},
        {"auth-extra-groups": "system:bootstrappers:x,polder:platform-admins"},
    ],
)
async def test_bootstrap_tokens_that_are_not_good(world, broken):
    await put_bootstrap_token(world, "root", **broken)
    await refused(world.authn, OPEN, bearer("abcdef.0123456789abcdef"))


async def test_a_tenants_bootstrap_token_reaches_that_tenant_only(world):
    await put_bootstrap_token(world, "acme")
    token = bearer("abcdef.0123456789abcdef")
    await refused(world.authn, OPEN, token)
    await refused(world.authn, Connection(pin=TenantName("globex")), token)
    who = await world.authn.authenticate(Connection(pin=TenantName("acme")), token)
    assert (who.home, who.role) == ("acme", Role.USER)


SAID = {"X-Remote-User": "ann", "x-remote-group": "dev", "X-Remote-Uid": "7", "X-Remote-Extra-Acme.com%2fTeam": "Red"}


@pytest.fixture
def proxied(world):
    return world.known.chain(AuthnSettings((UseFrontProxy(ProxySettings(frozenset({"gate", "system:polder:gate"}))),
                                            UseCertificates())))  # fmt: skip


async def test_a_front_proxy_is_believed_by_its_certificate_and_name(world, proxied):
    gate = shown(world.pki.issue_front_proxy("gate").certificate)
    who = await proxied.authenticate(gate, SAID)
    assert (who.name, who.role, who.home, who.uid) == ("ann", Role.USER, ROOT, "7")
    assert who.groups == ("dev", "system:authenticated")
    assert who.extra == {"acme.com/team": ("Red",)}
    for forged in (
        (OPEN, {**SAID, "Authorization": "Bearer x"}),
        (shown(world.pki.issue_front_proxy("door").certificate), SAID),
        (shown(world.pki.issue_front_proxy("system:polder:gate").certificate), SAID),
        (gate, {}),
        (gate, {**SAID, "X-Remote-User": ""}),
        (gate, {**SAID, "X-Remote-Group": "polder:platform-admins", "x-remote-group": "dev"}),
        (shown(world.pki.issue_client("gate", ["dev"], ROOT_URN).certificate, "acme"), SAID),
        (shown(world.pki.issue_front_proxy("gate").certificate, "acme"), SAID),
    ):
        await refused(proxied, *forged)
    world.clock.ahead = timedelta(days=91)
    await refused(proxied, gate, SAID)


async def test_a_proxys_headers_without_its_certificate_mean_nothing(world, proxied):
    assert (await proxied.authenticate(OPEN, SAID)).name == "system:anonymous"
    person = world.pki.issue_client("gate", ["dev"], ROOT_URN)
    assert (await proxied.authenticate(shown(person.certificate), SAID)).name == "gate"
    assert (await world.authn.authenticate(OPEN, SAID)).name == "system:anonymous"
    await refused(world.authn, shown(world.pki.issue_front_proxy("gate").certificate), SAID)


async def test_nobody_may_be_switched_off_or_kept_to_paths(world):
    off = world.known.chain(AuthnSettings(anonymous=Anonymous(enabled=False)))
    await refused(off, OPEN)
    some = world.known.chain(AuthnSettings(anonymous=Anonymous(paths=("/healthz",))))
    assert (await some.authenticate(OPEN, {}, "/healthz")).role is Role.NONE
    with pytest.raises(ApiError):
        await some.authenticate(OPEN, {}, "/healthz/x")


async def test_a_browsers_websocket_shows_its_token_among_the_protocols(world):
    coded = base64.urlsafe_b64encode((await world.token("acme")).encode()).rstrip(b"=").decode()
    headers = {
        "Upgrade": "websocket",
        "Sec-WebSocket-Protocol": f"v5.channel, base64url.bearer.authorization.k8s.io.{coded}",
    }
    assert (await world.authn.authenticate(OPEN, headers)).home == "acme"
    assert (await world.authn.authenticate(OPEN, {**headers, "Upgrade": ""})).role is Role.NONE
    headers["Sec-WebSocket-Protocol"] = "base64url.bearer.authorization.k8s.io.AAAA"
    await refused(world.authn, OPEN, headers)


async def test_no_secret_is_in_what_is_logged_or_shown_of_settings(world, caplog):
    caplog.set_level("DEBUG")
    await refused(world.authn, OPEN, bearer("abcdef.0123456789abcdef"))
    token = await world.token("acme")
    await refused(world.authn, OPEN, bearer(token[:-6] + "AAAAAA"))
    assert "credential" in caplog.text
    assert "0123456789abcdef" not in caplog.text
    assert token[:40] not in caplog.text
    leaf = world.pki.issue_client("x", ["dev"], ROOT_URN)
    assert b"PRIVATE" not in repr(leaf).encode()
    users = parse_static_tokens("topsecret,ann,1\n")
    assert "topsecret" not in repr(UseStaticTokens(users)) + repr(users)


async def test_a_jwt_of_no_issuer_that_is_known_is_nobodys(world):
    part = base64.urlsafe_b64encode(orjson.dumps({"iss": "https://elsewhere", "alg": "RS256"})).decode().rstrip("=")
    await refused(world.authn, OPEN, bearer(f"{part}.{part}.AAAA"))
