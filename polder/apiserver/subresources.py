"""Subresources that are no plain status: which there are, a pod's binding, and the clear refusal of the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from polder.api.conform import conform_to
from polder.api.connections import CONNECTIONS
from polder.api.errors import (
    ApiError,
    Field,
    bad_request,
    conflict,
    forbidden,
    invalid,
    method_not_allowed,
    no_such_path,
    not_found,
)
from polder.api.kinds import built_in
from polder.api.meta import Raw
from polder.api.scale import SUBRESOURCE
from polder.api.schemas import named
from polder.apiserver import connects, objectmeta
from polder.apiserver.admission import AdmissionContext, Subject
from polder.apiserver.answers import raw_answer, success
from polder.apiserver.body import media_type, parse_object
from polder.apiserver.catalog import Resource
from polder.apiserver.components import Components
from polder.apiserver.evictions import Evictions
from polder.apiserver.hooks import Call, Handler
from polder.apiserver.objects import decode
from polder.apiserver.parts import PARTS, Part
from polder.apiserver.patches import Patcher
from polder.apiserver.reads import Reader, renderer_of
from polder.apiserver.scales import Scales
from polder.apiserver.writes import ATTEMPTS, Writer
from polder.base.clock import stamp
from polder.store.protocol import ConflictError, Key

_Change = Callable[[Raw], Raw]
BINDING: Final = built_in("v1", "bindings")


def refuse(resource: Resource, subresource: str) -> ApiError:
    """What is not served answers: 501 for a kind that upstream knows, 404 otherwise."""
    if not subresource and not resource.kind.stored:
        message = f"{resource.kind.qualified}: {resource.kind.kind} is not supported by this server"
        return ApiError(501, "NotImplemented", message, {"kind": resource.kind.plural})
    return no_such_path()


@dataclass(slots=True)
class Subresources:
    """Serves what is below an object."""

    writer: Writer
    reader: Reader
    patcher: Patcher
    scales: Scales
    evictions: Evictions
    given: Mapping[tuple[str, str], Handler]

    async def serve(self, call: Call, resource: Resource) -> web.StreamResponse:
        """One request for a subresource other than status. Raises ApiError."""
        where = (resource.kind.resource, call.info.subresource)
        if (connection := CONNECTIONS.get(where)) is not None:
            if call.request.method.lower() not in connection.methods:
                raise method_not_allowed(resource.kind, f"{call.info.verb} of {call.info.subresource}")
            await connects.admit(self.writer.chain, call, resource)
        handler = self.given.get(where)
        if handler is not None:
            return await handler(call)
        if where in {("pods", "binding"), ("bindings", "")}:
            _only(call, resource, "create")
            return await self._bind(call, resource)
        if where == ("componentstatuses", ""):
            return await Components(self.writer.store, self.writer.clock).serve(call, resource)
        if where == ("pods", "eviction"):
            _only(call, resource, "create")
            return await self.evictions.evict(call, resource)
        if where[1] == SUBRESOURCE:
            return await self.scales.serve(call, resource)
        if (part := PARTS.get(where)) is not None:
            return await self._part(call, resource, part)
        raise refuse(resource, call.info.subresource)

    async def _bind(self, call: Call, resource: Resource) -> web.StreamResponse:
        """Gives a pod its node, once."""
        sent = parse_object(await self.writer.body(call), media_type(call.request))
        objectmeta.check_kind(Resource(BINDING), sent)
        meta = objectmeta.check_metadata(sent)
        binding = conform_to(named("io.k8s.api.core.v1.Binding"), BINDING, sent).obj
        name = call.info.name or meta.get("name") or ""
        target = binding.get("target") or {}
        if meta.get("name") not in {None, "", name}:
            raise bad_request(f"metadata.name: {meta['name']} is not the pod in the path, {name}")
        if target.get("kind") not in {"", None, "Node"} or not target.get("name"):
            field = Field("target") / ("name" if not target.get("name") else "kind")
            problem = field.required() if not target.get("name") else field.not_supported(target["kind"], ["Node"])
            raise invalid(BINDING, name, [problem])
        key = Key("pods", call.info.tenant, call.info.namespace, name)
        body = {**binding, "apiVersion": BINDING.api_version, "kind": BINDING.kind}

        def take(context: AdmissionContext, changed: Raw) -> None:
            if changed.get("target") != body["target"]:
                raise forbidden(resource.kind, name, "only who binds a pod chooses its node")
            assert context.obj is not None and context.old is not None
            context.obj.update(self._bound(context.old, changed, resource))

        subject = Subject(BINDING, body, take=take)
        await self._retry(call, resource, key, lambda pod: self._bound(pod, body, resource), subject)
        return raw_answer(success(), 201)

    def _bound(self, pod: Raw, binding: Raw, resource: Resource) -> Raw:
        meta, node = pod["metadata"], binding["target"]["name"]
        uid = binding["metadata"].get("uid")
        if uid and uid != meta["uid"]:
            raise conflict(resource.kind, meta["name"], f"the UID in the binding is {uid}, the pod's is {meta['uid']}")
        if meta.get("deletionTimestamp"):
            raise conflict(
                resource.kind, meta["name"], f"pod {meta['name']} is being deleted, cannot be assigned to a host"
            )
        if pod["spec"].get("nodeName"):
            why = f'pod {meta["name"]} is already assigned to node "{pod["spec"]["nodeName"]}"'
            raise conflict(resource.kind, meta["name"], why)
        if pod["spec"].get("schedulingGates"):
            raise conflict(resource.kind, meta["name"], f"pod {meta['name']} has non-empty .spec.schedulingGates")
        status = dict(pod.get("status") or {})
        others = [c for c in status.get("conditions") or [] if c.get("type") != "PodScheduled"]
        scheduled = {
            "type": "PodScheduled",
            "status": "True",
            "lastProbeTime": None,
            "lastTransitionTime": stamp(self.writer.clock.now()),
        }
        status["conditions"] = [*others, scheduled]
        annotations = {**(meta.get("annotations") or {}), **(binding["metadata"].get("annotations") or {})}
        return {
            **pod,
            "metadata": {**meta, "annotations": annotations},
            "spec": {**pod["spec"], "nodeName": node},
            "status": status,
        }

    async def _retry(
        self, call: Call, resource: Resource, key: Key, change: _Change, subject: Subject | None = None
    ) -> bytes:
        """Changes what stands, again where somebody was faster; admission looks at the result."""
        for _ in range(ATTEMPTS):
            current = await self.writer.store.get(key)
            if current is None:
                raise not_found(resource.kind, key.name)
            old = decode(current.value, current.revision)
            context = AdmissionContext(
                call.who, call.info.tenant, "update", resource, key.namespace, key.name, call.info.subresource,
                change(old), old, self.writer.options(call, "UpdateOptions").dry_run, subject=subject,
            )  # fmt: skip
            await self.writer.chain.look(context)
            try:
                entry = await self.writer.replace(context, current)
            except ConflictError:
                continue
            return renderer_of(call, resource).one(entry, self.writer.clock.now())
        raise conflict(resource.kind, key.name)

    async def _part(self, call: Call, resource: Resource, part: Part) -> web.StreamResponse:
        """A subresource that is a part of its object."""
        verb = call.info.verb
        if verb not in part.verbs:
            raise method_not_allowed(resource.kind, f"{verb} of {call.info.subresource}")
        if verb == "get":
            return await self.reader.get(call, resource)
        if verb == "patch":
            return await self.patcher.patch(call, resource)
        return await self.writer.update(call, resource)


def _only(call: Call, resource: Resource, verb: str) -> None:
    if call.info.verb != verb:
        raise method_not_allowed(resource.kind, f"{call.info.verb} of {call.info.subresource}")
