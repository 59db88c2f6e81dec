"""From a request to its handler: who asks, for which tenant, which resource, whether they may; and errors to Status."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from aiohttp import web

from polder.api.errors import ApiError, internal, method_not_allowed, no_such_path, not_acceptable
from polder.apiserver.aggregation_proxy import Proxy
from polder.apiserver.answers import SOFTWARE, add_warning, error_answer, finished
from polder.apiserver.aside import Aside
from polder.apiserver.asked_selectors import with_selectors
from polder.apiserver.audit_trail import Trail
from polder.apiserver.catalog import Catalog, Resource
from polder.apiserver.deletes import Deleter
from polder.apiserver.failures import status_of
from polder.apiserver.fairness import Fairness
from polder.apiserver.hooks import Call, Handler, Parts
from polder.apiserver.listener import connection_of
from polder.apiserver.listing import send_whole
from polder.apiserver.metrics import Metrics
from polder.apiserver.negotiate import JSON, PROTOBUF, YAML, Form, accepted
from polder.apiserver.patches import Patcher
from polder.apiserver.reads import Reader
from polder.apiserver.requestinfo import ParsedPath, parse
from polder.apiserver.subresources import Subresources
from polder.apiserver.types import RequestInfo, Role
from polder.apiserver.watches import Watches
from polder.apiserver.writes import Writer
from polder.base.ids import ROOT
from polder.store.protocol import StoreFailedError, TooLargeError

log = logging.getLogger(__name__)
audit = logging.getLogger("polder.audit")


@dataclass(frozen=True, slots=True)
class Verbs:
    """What serves resources."""

    reader: Reader
    writer: Writer
    patcher: Patcher
    deleter: Deleter
    watches: Watches
    subresources: Subresources

    async def serve(self, call: Call, resource: Resource) -> web.StreamResponse:
        """One request for a resource. Raises ApiError."""
        info = call.info
        if info.subresource == "status" and resource.has_status:
            return await self._status(call, resource)
        if not resource.kind.stored and info.verb == "create":
            _check_plain(call)
        if info.subresource or not resource.kind.stored:
            return await self.subresources.serve(call, resource)
        if info.verb not in resource.kind.verbs:
            raise method_not_allowed(resource.kind, info.verb)
        match info.verb:
            case "get":
                return await self.reader.get(call, resource)
            case "list":
                return await self.reader.list(call, resource)
            case "watch":
                return await self.watches.watch(call, resource)
            case "create" if not info.name:
                return await self.writer.create(call, resource)
            case "update" if info.name:
                return await self.writer.update(call, resource)
            case "patch" if info.name:
                return await self.patcher.patch(call, resource)
            case "delete":
                return await self.deleter.delete(call, resource)
            case "deletecollection":
                return await self.deleter.delete_collection(call, resource)
        raise method_not_allowed(resource.kind, info.verb)

    async def _status(self, call: Call, resource: Resource) -> web.StreamResponse:
        match call.info.verb:
            case "get":
                return await self.reader.get(call, resource)
            case "update":
                return await self.writer.update(call, resource)
            case "patch":
                return await self.patcher.patch(call, resource)
        raise method_not_allowed(resource.kind, f"{call.info.verb} of status")


@dataclass(frozen=True, slots=True)
class Dispatcher:
    """Handles every request of the server."""

    parts: Parts
    catalog: Catalog
    verbs: Verbs
    paths: Mapping[str, Handler]
    metrics: Metrics
    fairness: Fairness
    aggregated: Proxy | None = None
    aside: Aside = field(default_factory=Aside)
    """For answers in other forms; what writes need of it is not held up by them."""

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Never raises but for cancellation: every error is answered as a Status."""
        began = time.monotonic()
        path = request.rel_url.raw_path
        parsed = parse(request.method, path, request.query)
        request_id = secrets.token_hex(8)
        trail = Trail(self.parts.auditor, request, request_id)
        call: Call | None = None
        try:
            call = await self._admit(request, parsed, request_id, trail)
            async with self.fairness.seated(call.who, call.info):
                response = await self._serve(call, trail)
                await finished(response, request, self.aside, call.info.tenant)
                await send_whole(call, response)
        except ApiError as refused:
            response = error_answer(refused)
        except (StoreFailedError, TooLargeError) as failed:
            log.error("request %s: %s", request_id, failed)  # noqa: TRY400 - the store logged the cause
            response = error_answer(status_of(failed, parsed.verb))
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("request %s %s %s failed", request_id, request.method, path)
            response = error_answer(internal(f"request {request_id} failed; the server's log says why"))
        if not response.prepared:
            response.headers["Audit-Id"] = request_id
            response.headers["Server"] = SOFTWARE
        seconds = time.monotonic() - began
        self.metrics.observe(parsed, response.status, seconds)
        trail.done(response)
        _log(parsed, call, request, response.status, (request_id, seconds))
        return response

    async def _admit(self, request: web.BaseRequest, parsed: ParsedPath, request_id: str, trail: Trail) -> Call:
        connection = connection_of(request)
        who = await self.parts.authenticator.authenticate(connection, request.headers, parsed.path)
        trail.asks(connection, who, parsed.info(ROOT))
        tenant = await self.parts.tenancy.resolve(who, connection, parsed.tenant)
        info = with_selectors(parsed.info(tenant), request.query)
        exists = who.role is not Role.NONE or bool(await self.parts.tenancy.phase(tenant))
        noted = info if exists else parsed.info(ROOT)  # nobody makes up whose file it is noted in
        trail.asks(connection, who, noted)
        if self.parts.impersonation is not None:
            who = await self.parts.impersonation.apply(who, info, request.headers)
        trail.asks(connection, who, noted)
        trail.enters()
        return Call(request, who, info, connection, request_id, parsed.rest)

    async def _serve(self, call: Call, trail: Trail) -> web.StreamResponse:
        info = call.info
        trail.allowed(await self.parts.authorizer.authorize(call.who, info))  # first: who may not is told nothing
        if self.aggregated is not None and (remote := await self.aggregated.find(info)) is not None:
            return await self.aggregated.serve(call, remote)
        if not info.is_resource:
            return await self._path(call)
        resource = await self.catalog.find(info.tenant, info.group, info.version, info.resource)
        _check_scope(resource, info)
        if resource.read_only and info.verb not in {"get", "list", "watch"}:
            raise method_not_allowed(resource.kind, info.verb)
        response = await self.verbs.serve(call, resource)
        warning = resource.kind.warning if resource.custom is None else resource.custom.warning
        if warning and not response.prepared:
            add_warning(response, warning)
        return response

    async def _path(self, call: Call) -> web.StreamResponse:
        path = call.info.path.rstrip("/") or "/"
        own = path in self.parts.paths or path.startswith("/polder/")
        if call.info.verb not in {"get", "head"} and not own:
            raise ApiError(405, "MethodNotAllowed", f"{call.request.method} is not allowed on {path}")
        handler = self.parts.paths.get(path) or self.paths.get(path) or self.paths.get(_family(path))
        if handler is None:
            raise no_such_path()
        return await handler(call)


def _check_plain(call: Call) -> None:
    """What is answered and forgotten has no Table and no metadata alone. Raises ApiError 406."""
    if accepted(call.request.headers.get("Accept", "")).form is not Form.OBJECT:
        raise not_acceptable((JSON, YAML, PROTOBUF))


def _family(path: str) -> str:
    """The path whose handler serves everything below it."""
    first, _, rest = path[1:].partition("/")
    if first == "openapi":
        return f"/openapi/{rest.partition('/')[0]}"
    return f"/{first}"


def _check_scope(resource: Resource, info: RequestInfo) -> None:
    """A namespace in the path belongs to namespaced kinds, and every object of these has one."""
    if info.namespace and not resource.kind.namespaced:
        raise no_such_path()
    if resource.kind.namespaced and info.name and not info.namespace:
        raise no_such_path()


def _log(parsed: ParsedPath, call: Call | None, request: web.BaseRequest, status: int, done: tuple[str, float]) -> None:
    """One line for each request: reads at debug, writes and refusals at info."""
    level = logging.DEBUG if parsed.verb in {"get", "list", "watch"} and status < 400 else logging.INFO
    if not audit.isEnabledFor(level):
        return
    who, tenant = (call.who.name, call.info.tenant) if call else ("-", parsed.tenant or "-")
    audit.log(
        level, "%s %s %s tenant=%s user=%s status=%d ms=%.1f", done[0], request.method, parsed.path, tenant, who,
        status, done[1] * 1000,
    )  # fmt: skip
