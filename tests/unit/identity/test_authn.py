"""Who asks, on open and on pinned connections."""

from __future__ import annotations

import base64
from datetime import timedelta

import orjson
import pytest

from polder.apiserver.authn import (
    COMPONENTS,
    NODES,
    PLATFORM_ADMINS,
    ROOT_URN,
    TENANT_ADMINS,
    CredentialError,
    parse_static_tokens,
    tenant_urn,
)
from polder.apiserver.types import Connection, Role
from polder.base.ids import ROOT, TenantName
from polder.store.protocol import Delete, Key
from tests.unit.identity.asking import OPEN, bearer, refused


@pytest.mark.parametrize(
    ("name", "group", "uri", "role", "node"),
    [
        ("root-admin", PLATFORM_ADMINS, ROOT_URN, Role.PLATFORM_ADMIN, ""),
        ("system:polder:scheduler", COMPONENTS, "", Role.COMPONENT, ""),
        ("system:node:n1", NODES, "", Role.NODE, "n1"),
    ],
)
async def test_platform_certificates(world, name, group, uri, role, node):
    who = await world.authn.authenticate(world.certificate(name, group, uri), {})
    assert (who.name, who.role, who.home, who.node) == (name, role, ROOT, node)


@pytest.mark.parametrize(
    ("name", "group", "uri"),
    [
        ("admin", PLATFORM_ADMINS, ""),
        ("admin", PLATFORM_ADMINS, "urn:polder:tenant:acme:1"),
        ("admin", TENANT_ADMINS, ""),
        ("admin", TENANT_ADMINS, ROOT_URN),
        ("admin", TENANT_ADMINS, "urn:polder:tenant:root:root"),
        ("admin", TENANT_ADMINS, "urn:polder:tenant:acme:"),
        ("admin", TENANT_ADMINS, "urn:polder:tenant:acme:00000000-0000-0000-0000-000000000000"),
        ("admin", TENANT_ADMINS, "urn:polder:tenant:nobody:1"),
        ("scheduler", COMPONENTS, ""),
        ("n1", NODES, ""),
        ("system:node:", NODES, ""),
        ("admin", "system:masters", ""),
        ("admin", "", ""),
    ],
)
async def test_certificates_of_no_known_form_are_refused(world, name, group, uri):
    await refused(world.authn, world.certificate(name, group, uri))


async def test_tenant_admin_has_its_tenant_as_home(world):
    acme = await world.tenants.get(TenantName("acme"))
    who = await world.authn.authenticate(world.tenant_admin(acme), {})
    assert (who.role, who.home) == (Role.TENANT_ADMIN, "acme")


async def test_an_expired_certificate_is_refused_on_a_connection_that_lives_on(world):
    acme = await world.tenants.get(TenantName("acme"))
    conn = world.tenant_admin(acme)
    await world.authn.authenticate(conn, {})
    world.clock.ahead = timedelta(days=90, seconds=1)
    await refused(world.authn, conn)


async def test_nobody_is_anonymous_but_a_bad_credential_is_not(world):
    assert (await world.authn.authenticate(OPEN, {})).role is Role.NONE
    for header in ("Bearer nonsense", "Bearer a.b.c", "Bearer", "Basic YTpi", "Bearer ..", "Bearer é.ü.ö"):
        await refused(world.authn, OPEN, {"Authorization": header})


async def test_static_tokens(world):
    assert (await world.authn.authenticate(OPEN, bearer("plain-secret"))).role is Role.PLATFORM_ADMIN
    await refused(world.authn, OPEN, bearer("plain-secret2"))
    for text in (
        "a,b", "a,b,c,d,acme:1,x", "a,b,c,polder:tenant-admins", "a,b,c,polder:tenant-admins,acme", "a,b,c,g,acme",
        "a,b,c,polder:platform-admins,acme:1", 'a,b,c,"polder:platform-admins,x"', "a,b,c,polder:components", "a,b,c,g,root:1",
        ",b,c,polder:platform-admins", "a,,c",
    ):  # fmt: skip
        with pytest.raises(CredentialError, match="line 1"):
            parse_static_tokens(text)


async def test_a_service_account_is_known_by_its_token(world):
    who = await world.authn.authenticate(OPEN, bearer(await world.token("acme")))
    assert (who.name, who.role, who.home) == ("system:serviceaccount:default:default", Role.SERVICE_ACCOUNT, "acme")
    assert "system:serviceaccounts:default" in who.groups


async def test_a_pinned_connection_takes_credentials_of_its_tenant_only(world):
    acme, globex = [await world.tenants.get(TenantName(n)) for n in ("acme", "globex")]
    pinned = Connection(pin=TenantName("acme"))
    assert (await world.authn.authenticate(pinned, bearer(await world.token("acme")))).home == "acme"
    assert (await world.authn.authenticate(world.tenant_admin(acme, "acme"), {})).home == "acme"
    nobody = await world.authn.authenticate(pinned, {})
    assert (nobody.name, nobody.role, nobody.home) == ("system:anonymous", Role.NONE, "acme")
    await refused(world.authn, pinned, bearer(await world.token("globex")))
    await refused(world.authn, pinned, bearer("plain-secret"))
    await refused(world.authn, world.tenant_admin(globex, "acme"))
    for name, group, uri in (
        ("root-admin", PLATFORM_ADMINS, ROOT_URN),
        ("system:polder:scheduler", COMPONENTS, ""),
        ("system:node:n1", NODES, ""),
    ):
        await refused(world.authn, world.certificate(name, group, uri, "acme"))
        await refused(world.authn, world.certificate(name, group, uri, "root"))


async def test_a_successor_of_the_same_name_takes_no_credential_of_the_old_tenant(world):
    old = await world.tenants.get(TenantName("acme"))
    conn, token = world.tenant_admin(old), await world.token("acme")
    await world.authn.authenticate(OPEN, bearer(token))
    await world.remove_tenant("acme")
    await refused(world.authn, conn)
    await refused(world.authn, OPEN, bearer(token))
    new = await world.add_tenant("acme")
    assert new.uid != old.uid
    await refused(world.authn, conn)
    await refused(world.authn, OPEN, bearer(token))
    await refused(world.authn, world.certificate("admin", TENANT_ADMINS, tenant_urn(old.name, old.uid)))
    assert (await world.authn.authenticate(OPEN, bearer(await world.token("acme")))).home == "acme"
    assert (await world.authn.authenticate(world.tenant_admin(new), {})).home == "acme"


async def test_a_token_dies_with_what_it_names(world):
    uid = await world.pod("acme", "web", "n1")
    token = await world.token("acme", boundObjectRef={"apiVersion": "v1", "kind": "Pod", "name": "web", "uid": uid})
    who = await world.authn.authenticate(OPEN, bearer(token))
    assert who.extra["authentication.kubernetes.io/pod-uid"] == (uid,)
    await world.pod("acme", "web", "n1")  # the same name, another pod
    await refused(world.authn, OPEN, bearer(token))

    plain = await world.token("acme")
    await world.store.commit([Delete(Key("serviceaccounts", "acme", "default", "default"))])
    await refused(world.authn, OPEN, bearer(plain))


async def test_a_token_expires_and_is_for_one_audience(world):
    token = await world.token("acme", expirationSeconds=600)
    world.clock.ahead = timedelta(seconds=599)
    await world.authn.authenticate(OPEN, bearer(token))
    world.clock.ahead = timedelta(seconds=600)
    await refused(world.authn, OPEN, bearer(token))
    world.clock.ahead = timedelta()
    await refused(world.authn, OPEN, bearer(await world.token("acme", audiences=["vault"])))


def reencode(token, change):
    head, body, mark = token.split(".")
    claims = orjson.loads(base64.urlsafe_b64decode(body + "=="))
    change(claims)
    changed = base64.urlsafe_b64encode(orjson.dumps(claims)).rstrip(b"=").decode()
    return ".".join((head, changed, mark))


async def test_a_changed_token_or_one_without_signature_is_refused(world):
    token = await world.token("acme")
    globex = await world.tenants.get(TenantName("globex"))

    def other_tenant(claims):
        claims["polder.dev/tenant"] = {"name": "globex", "uid": globex.uid}

    def later(claims):
        claims["exp"] += 1000

    await refused(world.authn, OPEN, bearer(reencode(token, other_tenant)))
    await refused(world.authn, OPEN, bearer(reencode(token, later)))
    none = base64.urlsafe_b64encode(b'{"alg":"none"}').rstrip(b"=").decode()
    await refused(world.authn, OPEN, bearer(f"{none}.{token.split('.')[1]}."))
    await refused(world.authn, OPEN, bearer(token[:-4] + "AAAA"))
    for odd in (b"[]", b'"x"', b"1", b'{"kubernetes.io":[]}', b"\xff"):
        part = base64.urlsafe_b64encode(odd).rstrip(b"=").decode()
        await refused(world.authn, OPEN, bearer(f"{part}.{part}.AAAA"))
