"""/openapi/v2 and /openapi/v3 of each tenant. Documents are shared by content and have an ETag.

Source: Kubernetes documentation, "The Kubernetes API: OpenAPI interface definition".
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass, field

import orjson
from aiohttp import web

from polder.api import openapi
from polder.api.errors import no_such_path, not_acceptable
from polder.api.openapi_merge import Other, merged_v2
from polder.apiserver.aggregation_discovery import RemoteDocuments
from polder.apiserver.catalog import Catalog
from polder.apiserver.custom import Custom
from polder.apiserver.hooks import Call
from polder.apiserver.negotiate import JSON, OPENAPI_V2_PROTO, clauses
from polder.apiserver.openapi_documents import Document, Documents

_PROTO = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
"""What is answered to a request for ``OPENAPI_V2_PROTO``, whose ``@`` no RFC 9110 media type may have."""
_AT_ONCE = 1024 * 1024
"""Bytes of schemas of which the digest is made between turns of the event loop."""
_OLD_PROTO = "application/com.github.googleapis.gnostic.openapiv2@68f4ded+protobuf"


@dataclass(slots=True)
class OpenApi:
    """Serves the documents."""

    catalog: Catalog
    remote: RemoteDocuments | None = None
    documents: Documents = field(default_factory=Documents)

    async def v2(self, call: Call) -> web.StreamResponse:
        """``/openapi/v2`` as JSON or protobuf. Raises ApiError 406."""
        if call.info.path.rstrip("/") != "/openapi/v2":
            raise no_such_path()
        media = _media_v2(call.request.headers.get("Accept", ""))
        what = await self._served(call)
        others = await self._others(call)
        if others:
            digest = hashlib.sha256(b"".join(other.body for other in others)).hexdigest()
            key, proto = (f"v2 {media} {digest}", what.digest), media != JSON
            return _answer(call, await self.documents.get(key, lambda: merged_v2(what, others, proto=proto)), media)
        build = openapi.v2_json if media == JSON else openapi.v2_proto
        return _answer(call, await self.documents.get((f"v2 {media}", what.digest), lambda: build(what)), media)

    async def v3(self, call: Call) -> web.StreamResponse:
        """``/openapi/v3`` and the group versions below it; with ``hash`` a document that never changes. Raises ApiError
        404.
        """
        what = await self._served(call)
        rest = call.info.path.removeprefix("/openapi/v3").strip("/").split("/")
        prefix = call.request.rel_url.raw_path.partition("/openapi/v3")[0]
        if rest == [""]:
            key = (f"index {prefix}", what.digest)
            index = await self.documents.get(key, lambda: openapi.v3_index(what, prefix))
            return _answer(call, await self._with_remote(call, index, prefix), JSON)
        if rest[0] == "api" and len(rest) == 2:
            group, version = "", rest[1]
        elif rest[0] == "apis" and len(rest) == 3:
            group, version = rest[1], rest[2]
        else:
            raise no_such_path()
        remote = await self._remote(call, group, version)
        if remote:
            return _answer(call, made(remote), JSON)
        part = what.part(group, version)
        if not part.kinds and not part.custom:
            raise no_such_path()
        wanted = call.query.get("hash", "")
        if wanted and wanted != part.digest.upper():
            where = f"{prefix}/openapi/v3/{'/'.join(rest)}?hash={part.digest.upper()}"
            return web.Response(status=301, headers={"Location": where})
        document = await self.documents.get(("v3", part.digest), lambda: openapi.v3_json(part))
        return _answer(call, document, JSON, lasting=bool(wanted))

    async def _others(self, call: Call) -> list[Other]:
        """The documents of the aggregated APIs; what gives none is left out."""
        remote = self.remote
        if remote is None:
            return []
        found = await remote.versions(call.info.tenant)
        bodies = await asyncio.gather(*(remote.fetch(call.info.tenant, one, "/openapi/v2") for one in found))
        return [Other(one.group, one.version, body) for one, body in zip(found, bodies, strict=True) if body]

    async def _remote(self, call: Call, group: str, version: str) -> bytes:
        """The document of an aggregated API, as its server gives it."""
        for one in await self.remote.versions(call.info.tenant) if self.remote is not None else ():
            if (one.group, one.version) == (group, version) and self.remote is not None:
                return await self.remote.fetch(call.info.tenant, one, f"/openapi/v3/apis/{group}/{version}")
        return b""

    async def _with_remote(self, call: Call, index: Document, prefix: str) -> Document:
        """The index with the aggregated APIs in it."""
        found = await self.remote.versions(call.info.tenant) if self.remote is not None else []
        if not found:
            return index
        document = orjson.loads(index.body)
        for one in found:
            path = f"apis/{one.group}/{one.version}"
            document["paths"][path] = {"serverRelativeURL": f"{prefix}/openapi/v3/{path}"}
        return made(orjson.dumps(document))

    async def _served(self, call: Call) -> openapi.Served:
        found = await self.catalog.all(call.info.tenant)
        kinds = [r.kind for r in found if r.custom is None]
        custom = [r.custom for r in found if isinstance(r.custom, Custom)]
        if sum(len(version.text) for version in custom) <= _AT_ONCE:
            return openapi.served(kinds, custom)
        return await asyncio.to_thread(openapi.served, kinds, custom)


def made(body: bytes) -> Document:
    """A document that is not kept."""
    return Document(body, f'"{hashlib.sha256(body).hexdigest().upper()}"', 0.0)


def _media_v2(accept: str) -> str:
    for clause in clauses(accept):
        if clause.media in {OPENAPI_V2_PROTO.lower(), _PROTO, _OLD_PROTO}:
            return _PROTO
        if clause.media in {JSON, "*/*", "application/*"}:
            return JSON
    if accept:
        raise not_acceptable((JSON, OPENAPI_V2_PROTO))
    return JSON


def _answer(call: Call, document: Document, media: str, *, lasting: bool = False) -> web.Response:
    """The document, or 304 where the caller has it."""
    keep = "public, immutable" if lasting else "no-cache, private"
    headers = {"ETag": document.tag, "Vary": "Accept", "Cache-Control": keep}
    if call.request.headers.get("If-None-Match") == document.tag:
        return web.Response(status=304, headers=headers)
    return web.Response(body=document.body, headers={**headers, "Content-Type": media})
