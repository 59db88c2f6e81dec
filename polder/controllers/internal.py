"""What the API server answers to Polder's own components from its indexes: dependents, contents, garbage."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from urllib.parse import quote, urlencode

import msgspec

from polder.api.meta import OwnerReference, Struct
from polder.base.ids import TenantName
from polder.base.ref import Ref
from polder.client.client import Client
from polder.client.errors import BadAnswerError
from polder.controllers.resources import Resource

GARBAGE = "/tenants/*/polder/v1/garbage"


@dataclass(frozen=True, slots=True)
class Item:
    """One object in all tenants and times, and how to reach it."""

    ref: Ref
    resource: Resource
    uid: str

    @property
    def tenant(self) -> TenantName:
        """Whose it is: queues take turns by it."""
        return self.ref.tenant


class _Place(Struct, frozen=True, kw_only=True):
    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool

    @property
    def resource(self) -> Resource:
        """The same as controllers know it."""
        return Resource(self.group, self.version, self.plural, self.kind, self.namespaced)


class Told(_Place, frozen=True, kw_only=True):
    """An object as the server tells of it: where it is, who owns it, and whether it waits for its own dependents."""

    tenant: str
    namespace: str
    name: str
    uid: str
    leaving: bool = False
    owner_references: list[OwnerReference] = []

    @property
    def item(self) -> Item:
        """The object."""
        return Item(Ref(TenantName(self.tenant), self.namespace, self.name), self.resource, self.uid)

    def blocks(self, owner: str) -> bool:
        """Whether the owner of that UID asked to outlive it in a foreground deletion."""
        return any(o.uid == owner and bool(o.block_owner_deletion) for o in self.owner_references)


class _Dependents(Struct, frozen=True, kw_only=True):
    items: list[Told]
    after: str = ""


class _Counted(_Place, frozen=True, kw_only=True):
    count: int


class _Contents(Struct, frozen=True, kw_only=True):
    resources: list[_Counted]
    aggregated: list[str] = []


class GarbageLine(Struct, frozen=True, kw_only=True):
    """One line of the stream: an item to look at, or the revision up to which everything has been told."""

    item: Told | None = None
    revision: int = 0


@dataclass(frozen=True, slots=True)
class Contents:
    """What has rows in a namespace or in a tenant, and the group versions that servers of the tenant's own serve."""

    counts: dict[Resource, int]
    aggregated: tuple[str, ...] = ()


def _decode(body: bytes, kind: type[Struct]) -> Struct:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.MsgspecError as error:
        raise BadAnswerError(f"the server's answer is no {kind.__name__.strip('_')}: {error}") from error


async def dependents(client: Client, owner: Item) -> AsyncGenerator[Told, None]:
    """What an object owns. Raises ApiError, UnreachableError."""
    after = ""
    while True:
        asked = {"uid": owner.uid, "namespace": owner.ref.namespace, **({"after": after} if after else {})}
        path = f"/tenants/{quote(owner.tenant)}/polder/v1/dependents?{urlencode(asked)}"
        body = await client.raw("GET", path)
        page = _decode(body, _Dependents)
        assert isinstance(page, _Dependents)
        for told in page.items:
            yield told
        after = page.after
        if not after:
            return


async def contents(client: Client, tenant: TenantName, namespace: str | None = None) -> Contents:
    """What there is in a namespace, or in the whole tenant. Raises ApiError, UnreachableError."""
    query = "" if namespace is None else f"?{urlencode({'namespace': namespace})}"
    found = _decode(await client.raw("GET", f"/tenants/{quote(tenant)}/polder/v1/contents{query}"), _Contents)
    assert isinstance(found, _Contents)
    return Contents({c.resource: c.count for c in found.resources}, tuple(found.aggregated))


async def garbage(client: Client, since: int) -> AsyncGenerator[GarbageLine, None]:
    """What the garbage collector has to look at; since 0 is from the beginning. Ends when the server ends it."""
    path = f"{GARBAGE}?since={since}" if since else GARBAGE
    async with aclosing(client.lines(path)) as lines:
        async for line in lines:
            told = _decode(line, GarbageLine)
            assert isinstance(told, GarbageLine)
            yield told
