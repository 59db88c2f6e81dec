"""A store with two tenants of the same addresses, and everything that decides about identity on it."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from polder.api.meta import Raw
from polder.apiserver.authn import TENANT_ADMINS, Authenticator, parse_static_tokens, tenant_urn
from polder.apiserver.authn_build import AuthnSettings, Known, UseStaticTokens
from polder.apiserver.authz import Authorizer
from polder.apiserver.authz_build import AuthzSettings, authorization
from polder.apiserver.bootstrap import Bootstrap
from polder.apiserver.noderules import NodeRules
from polder.apiserver.objects import encode
from polder.apiserver.share import Share
from polder.apiserver.tenancy import Tenancy, TenantRecord, Tenants, tenant_key
from polder.apiserver.token_requests import TokenRequests
from polder.apiserver.tokens import Tokens
from polder.apiserver.types import Connection
from polder.base.ids import TenantName
from polder.store.memory import MemoryStore
from polder.store.protocol import Delete, Key, Prefix, Put
from polder.system.pki import Pki, ensure_pki


class HandClock:
    """A clock that moves by hand, from the machine's time on (certificates carry that)."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def monotonic(self) -> float:
        return self.ahead.total_seconds()


def certificate_der(pem: bytes) -> bytes:
    import ssl

    return ssl.PEM_cert_to_DER_cert(pem.decode())


@dataclass
class World:
    pki: Pki
    store: MemoryStore
    clock: HandClock
    tenants: Tenants
    tenancy: Tenancy
    tokens: Tokens
    requests: TokenRequests
    known: Known
    share: Share
    authn: Authenticator
    authz: Authorizer
    bootstrap: Bootstrap

    async def add_tenant(self, name: str) -> TenantRecord:
        meta = {"name": name, "uid": str(uuid.uuid4()), "creationTimestamp": "2026-01-01T00:00:00Z"}
        tenant: Raw = {"apiVersion": "polder.dev/v1alpha1", "kind": "Tenant", "metadata": meta, "spec": {}}
        value = encode(tenant)
        key = tenant_key(TenantName(name))
        await self.store.commit([Put(key, value, 0), *self.bootstrap.tenant(value)])
        record = await self.tenants.get(TenantName(name))
        assert record is not None
        return record

    async def remove_tenant(self, name: str) -> None:
        tenant = TenantName(name)
        ops = [Delete(tenant_key(tenant)), *await self.bootstrap.farewell(tenant)]
        await self.store.commit(ops + [Delete(key) for key in await self.keys(name)])

    async def keys(self, tenant: str) -> list[Key]:
        found = []
        for resource in await self.store.resources(tenant):
            if not resource.startswith("internal:"):
                found += [e.key for e in (await self.store.list(Prefix(resource, tenant))).entries]
        return found

    async def put(self, resource: str, tenant: str, namespace: str, name: str, **body: object) -> str:
        uid = str(uuid.uuid4())
        obj: Raw = {"apiVersion": "v1", "kind": "X", "metadata": {"name": name, "uid": uid}, **body}
        await self.store.commit([Put(Key(resource, tenant, namespace, name), encode(obj))])
        return uid

    async def pod(self, tenant: str, name: str, node: str, **spec: object) -> str:
        return await self.put("pods", tenant, "default", name, spec={"nodeName": node, **spec})

    async def token(self, tenant: str, account: str = "default", **spec: object) -> str:
        answer = await self.requests.issue(TenantName(tenant), "default", account, {"spec": spec})
        return str(answer["status"]["token"])

    def tenant_admin(self, record: TenantRecord, pin: str | None = None) -> Connection:
        leaf = self.pki.issue_client("admin", [TENANT_ADMINS], tenant_urn(record.name, record.uid))
        return Connection(certificate_der(leaf.certificate), TenantName(pin) if pin else None)

    def certificate(self, name: str, group: str, uri: str = "", pin: str | None = None) -> Connection:
        leaf = self.pki.issue_client(name, [group] if group else [], uri)
        return Connection(certificate_der(leaf.certificate), TenantName(pin) if pin else None)


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return ensure_pki(Path(tmp_path_factory.mktemp("pki")))


@pytest.fixture
async def world(pki: Pki) -> World:
    store, clock = MemoryStore(), HandClock()
    tenants = Tenants(store, "10.0.0.0/16", "10.96.0.0/16")
    tokens, share = Tokens(store, tenants, clock), Share(store)
    bootstrap = Bootstrap(clock, lambda: pki.trust)
    await bootstrap.ensure_root(store, tenants)
    static = parse_static_tokens("# for tests\nplain-secret,ops,1,polder:platform-admins\n")
    known = Known(store, pki, tenants, tokens, clock)
    authn = known.chain(AuthnSettings((*AuthnSettings().methods, UseStaticTokens(static))))
    requests = TokenRequests(store, tenants, tokens.keys, clock)
    authz = authorization(AuthzSettings(), store, NodeRules(store, share), tenants).authorizer
    made = World(
        pki, store, clock, tenants, Tenancy(tenants, authz), tokens, requests, known, share, authn, authz, bootstrap,
    )  # fmt: skip
    await made.add_tenant("acme")
    await made.add_tenant("globex")
    return made


@pytest.fixture
async def chain_of(world):
    """Makes chains of methods, and closes them."""
    made = []

    def make(*methods):
        made.append(world.known.chain(AuthnSettings(methods)))
        return made[-1]

    yield make
    for chain in made:
        await chain.close()
