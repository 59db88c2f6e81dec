"""What a tenant's API serves, by discovery, and objects of any kind by their metadata alone.

A controller that must reach every kind, custom resources included, knows objects as ``Object`` (metadata only) and writes
them through patches, so that nothing of what they hold is lost.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import quote

import msgspec
import orjson

from polder.api.errors import ApiError
from polder.api.kinds import Kind
from polder.api.meta import Object, Raw, Struct
from polder.base.ids import TenantName
from polder.base.ref import Ref
from polder.client.client import Client
from polder.client.errors import BadAnswerError, UnreachableError

S = TypeVar("S", bound=Struct)

MERGE_PATCH = "application/merge-patch+json"
LISTING = 60.0
"""Seconds for all pages of a collection."""
PAGE = 500
"""Objects asked for at a time, so that a big collection is never held as a whole text."""


@dataclass(frozen=True, slots=True, order=True)
class Resource:
    """A kind of objects as URLs name it. ``group`` is empty for core."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool

    @property
    def api_version(self) -> str:
        """``v1`` or ``group/version``."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def name(self) -> str:
        """``plural.group``, ``plural`` for core."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @classmethod
    def of(cls, kind: Kind) -> Resource:
        """A row of the table of kinds."""
        return cls(kind.group, kind.version, kind.plural, kind.kind, kind.namespaced)


class _ApiResource(Struct, frozen=True, kw_only=True):
    name: str
    kind: str
    namespaced: bool = True
    verbs: list[str] = []


class _ApiResourceList(Struct, frozen=True, kw_only=True):
    resources: list[_ApiResource] | None = None


class _ListMeta(Struct, frozen=True, kw_only=True):
    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")


class _PartialList(Struct, frozen=True, kw_only=True):
    metadata: _ListMeta = _ListMeta()
    items: list[Object] | None = None


def collection_path(tenant: TenantName, resource: Resource, namespace: str = "") -> str:
    """The URL path of a collection; no namespace means all of them."""
    base = f"/apis/{resource.group}/{resource.version}" if resource.group else f"/api/{resource.version}"
    inside = f"/namespaces/{quote(namespace)}" if namespace and resource.namespaced else ""
    return f"/tenants/{quote(tenant, safe='*')}{base}{inside}/{resource.plural}"


def object_path(resource: Resource, ref: Ref) -> str:
    """The URL path of one object."""
    return f"{collection_path(ref.tenant, resource, ref.namespace)}/{quote(ref.name)}"


def _decode(body: bytes, kind: type[S], path: str) -> S:
    """Raises BadAnswerError."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.MsgspecError as error:
        raise BadAnswerError(f"the server's answer to GET {path} is no {kind.__name__.strip('_')}: {error}") from error


async def _get(client: Client, path: str, kind: type[S]) -> S:
    return _decode(await client.raw("GET", path), kind, path)


async def serves(client: Client, tenant: TenantName, group_version: str) -> list[Resource]:
    """The resources of one group version that can be listed and deleted. Raises ApiError."""
    group, _, version = group_version.rpartition("/")
    root = "apis" if group else "api"
    listed = await _get(client, f"/tenants/{tenant}/{root}/{group_version}", _ApiResourceList)
    return [
        Resource(group, version, r.name, r.kind, r.namespaced)
        for r in listed.resources or []
        if "/" not in r.name and {"list", "delete"} <= set(r.verbs)
    ]


async def list_objects(client: Client, tenant: TenantName, resource: Resource, namespace: str = "") -> list[Object]:
    """All objects of a collection by their metadata, read in pages. Raises ApiError; an unknown resource is empty. Raises
    UnreachableError where it does not end: a server of the tenant's own may say for ever that there is more.
    """
    path = collection_path(tenant, resource, namespace)
    try:
        async with asyncio.timeout(LISTING):
            return await _all_pages(client, path)
    except TimeoutError as error:
        raise UnreachableError(f"GET {path}: the list has no end") from error


async def _all_pages(client: Client, path: str) -> list[Object]:
    found: list[Object] = []
    after = ""
    while True:
        query = f"?limit={PAGE}" + (f"&continue={quote(after, safe='')}" if after else "")
        try:
            page = await _get(client, path + query, _PartialList)
        except ApiError as error:
            if error.is_not_found:
                return []
            raise
        found += page.items or []
        after = page.metadata.continue_
        if not after:
            return found


async def get_object(client: Client, resource: Resource, ref: Ref, *, served: bool = False) -> Object | None:
    """One object's metadata, read from the server; None if it does not exist. With ``served`` only where the server says so
    of the object: a version that is not served any more says nothing about what it was served of. Raises ApiError.
    """
    try:
        return await _get(client, object_path(resource, ref), Object)
    except ApiError as error:
        if error.is_not_found and (not served or error.details.get("name") == ref.name):
            return None
        raise


class _Preconditions(Struct, frozen=True, kw_only=True):
    uid: str | None = None
    resource_version: str | None = None


class _DeleteOptions(Struct, frozen=True, kw_only=True):
    api_version: str
    kind: str
    preconditions: _Preconditions | None = None
    propagation_policy: str | None = None


async def delete_object(
    client: Client, resource: Resource, ref: Ref, seen: Object, *, unchanged: bool = False, propagation: str = ""
) -> None:
    """Deletes the object of the UID that was seen, on demand only if nobody changed it since. Gone already is well.

    Raises ApiError, a conflict if another object of that name has taken its place.
    """
    options = _DeleteOptions(
        api_version="v1",
        kind="DeleteOptions",
        preconditions=_Preconditions(
            uid=seen.metadata.uid, resource_version=seen.metadata.resource_version if unchanged else None
        ),
        propagation_policy=propagation or None,
    )
    try:
        await client.raw("DELETE", object_path(resource, ref), msgspec.json.encode(options))
    except ApiError as error:
        if not error.is_not_found:
            raise


async def delete_collection(client: Client, tenant: TenantName, resource: Resource, namespace: str) -> None:
    """Deletes every object of a namespace's collection. Raises ApiError."""
    await client.raw("DELETE", collection_path(tenant, resource, namespace))


async def patch_metadata(client: Client, resource: Resource, ref: Ref, seen: Object, metadata: Raw) -> None:
    """Merges into the metadata of exactly the object that was seen, if nobody changed it since. Gone already is well.

    Raises ApiError, a conflict if it was changed.
    """
    known = {"uid": seen.metadata.uid, "resourceVersion": seen.metadata.resource_version}
    body = orjson.dumps({"metadata": {**known, **metadata}})
    try:
        await client.raw("PATCH", object_path(resource, ref), body, content_type=MERGE_PATCH)
    except ApiError as error:
        if not error.is_not_found:
            raise
