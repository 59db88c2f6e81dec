"""``metrics.k8s.io``: what pods and nodes use, from what the agents report, for pods and nodes that the caller's tenant has.

A report is believed only of pods that are bound to the node that gave it. A tenant's node is a share of a machine: what it
uses there are its own pods.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, Protocol

from aiohttp import web

from polder.api.errors import ApiError, method_not_allowed, not_found
from polder.api.kinds import built_in
from polder.api.meta import Raw
from polder.api.resourcemetrics import NodeUsage, PodUsage, Usage, node_metrics, pod_metrics
from polder.apiserver.answers import json_answer
from polder.apiserver.catalog import Resource
from polder.apiserver.hooks import Call, Handler
from polder.apiserver.objects import decode, encode
from polder.apiserver.reads import renderer_of
from polder.apiserver.render import ListMeta
from polder.apiserver.selection import Selection, prefix_of, selection_of
from polder.base.clock import Clock
from polder.base.ids import EVERY_TENANT, ROOT
from polder.store.protocol import Entry, Key, Store

API: Final = "metrics.k8s.io/v1beta1"
PODS: Final = Resource(built_in("v1", "pods"))
NODES: Final = Resource(built_in("v1", "nodes"))
POD_METRICS: Final = Resource(built_in(API, "pods"))
NODE_METRICS: Final = Resource(built_in(API, "nodes"))
_STEP: Final = 50
"""Pods that are parsed in one go: about two milliseconds."""


class Reports(Protocol):
    """What nodes say that they use."""

    async def of(self, nodes: Sequence[str]) -> Mapping[str, NodeUsage]:
        """The reports of these nodes, as far as they give one."""
        ...


@dataclass(frozen=True, slots=True)
class _Seen:
    """What of an object its metrics carry. ``uid`` and ``node`` are a pod's."""

    key: Key
    revision: int
    labels: Mapping[str, str]
    uid: str = ""
    node: str = ""


@dataclass(frozen=True, slots=True)
class ResourceMetrics:
    """Serves the API; ``store`` has the projections."""

    store: Store
    reports: Reports
    clock: Clock

    def handlers(self) -> dict[tuple[str, str], Handler]:
        """By resource, as ``Parts.subresources``."""
        return {(POD_METRICS.kind.resource, ""): self.pods, (NODE_METRICS.kind.resource, ""): self.nodes}

    async def pods(self, call: Call) -> web.StreamResponse:
        """get and list of PodMetrics. Raises ApiError 404, 405."""
        seen = await self._read(call, PODS, POD_METRICS)
        reports = await self.reports.of(sorted({one.node for one in seen}))
        made = []
        for one in seen:
            usage = reports[one.node].pods.get(one.uid) if one.node in reports else None
            if usage is not None and usage.containers:
                raw = pod_metrics(one.key.namespace, one.key.name, one.labels, usage)
                made.append(_entry(POD_METRICS, one, raw))
        return await self._answer(call, POD_METRICS, made)

    async def nodes(self, call: Call) -> web.StreamResponse:
        """get and list of NodeMetrics. Raises ApiError 404, 405."""
        if call.info.tenant == EVERY_TENANT:
            raise method_not_allowed(NODE_METRICS.kind, f"{call.info.verb} over all tenants")
        seen = await self._read(call, NODES, NODE_METRICS)
        reports = await self.reports.of([one.key.name for one in seen])
        own = await self._own(call) if call.info.tenant != ROOT else None
        made = []
        for one in seen:
            report = reports.get(one.key.name)
            found = None if report is None else _whole(report) if own is None else _part(report, own, one.key.name)
            if found is not None:
                made.append(_entry(NODE_METRICS, one, node_metrics(one.key.name, one.labels, *found)))
        return await self._answer(call, NODE_METRICS, made)

    async def _own(self, call: Call) -> Mapping[str, list[str]]:
        """The UIDs of the tenant's pods on each node."""
        found: dict[str, list[str]] = {}
        async with aclosing(self._list(call, PODS, None)) as pods:
            async for one in pods:
                found.setdefault(one.node, []).append(one.uid)
        return found

    async def _read(self, call: Call, source: Resource, shown: Resource) -> list[_Seen]:
        """The objects whose metrics are asked for. Raises ApiError."""
        info = call.info
        if info.verb not in {"get", "list"}:
            raise method_not_allowed(shown.kind, info.verb)
        if not info.name:
            async with aclosing(self._list(call, source, selection_of(call, source, None))) as found:
                return [one async for one in found]
        if info.tenant == EVERY_TENANT:
            raise method_not_allowed(shown.kind, "get of one object over all tenants")
        key = Key(source.kind.resource, info.tenant, info.namespace, info.name)
        entry = await self.store.get(key)
        if entry is None:
            raise _missing(shown, call)
        one = _seen(entry.key, entry.revision, decode(entry.value, entry.revision))
        return [one] if one is not None else []

    async def _list(self, call: Call, source: Resource, selection: Selection | None) -> AsyncGenerator[_Seen, None]:
        after, revision = None, None
        prefix = prefix_of(source, call.info.tenant, call.info.namespace if selection is not None else "")
        while True:
            page = await self.store.list(prefix, limit=_STEP, after=after, revision=revision)
            after, revision = page.after, page.revision
            for entry in page.entries:
                obj = decode(entry.value, entry.revision)
                if selection is None or selection.matches(obj):
                    one = _seen(entry.key, entry.revision, obj)
                    if one is not None:
                        yield one
            if after is None:
                return
            await asyncio.sleep(0)

    async def _answer(self, call: Call, shown: Resource, made: Sequence[Entry]) -> web.StreamResponse:
        renderer, now = renderer_of(call, shown), self.clock.now()
        if not call.info.name:
            meta = ListMeta(await self.store.revision())
            return json_answer(renderer.many(made, meta, now), media=renderer.accepted.media)
        if not made:
            raise _missing(shown, call)
        return json_answer(renderer.one(made[0], now), media=renderer.accepted.media)


def _missing(shown: Resource, call: Call) -> ApiError:
    place = f"{call.info.namespace}/" if call.info.namespace else ""
    return not_found(shown.kind, f"{place}{call.info.name}")


def _seen(key: Key, revision: int, obj: Raw) -> _Seen | None:
    """What counts of an object; None for a pod that is nowhere or has ended."""
    meta = obj["metadata"]
    labels = meta.get("labels") or {}
    if key.resource != PODS.kind.resource:
        return _Seen(key, revision, labels)
    node = (obj.get("spec") or {}).get("nodeName") or ""
    ended = (obj.get("status") or {}).get("phase") in {"Succeeded", "Failed"}
    return None if not node or ended else _Seen(key, revision, labels, meta["uid"], node)


def _whole(report: NodeUsage) -> tuple[tuple[float, float], Usage] | None:
    return None if report.node is None else ((report.time, report.window), report.node)


def _part(report: NodeUsage, own: Mapping[str, list[str]], node: str) -> tuple[tuple[float, float], Usage] | None:
    """What a tenant's pods use of a node."""
    if report.node is None:
        return None
    pods: list[PodUsage] = [report.pods[uid] for uid in own.get(node, ()) if uid in report.pods]
    totals = [pod.total() for pod in pods]
    usage = Usage(sum(one.cpu for one in totals), sum(one.memory for one in totals))
    return (report.time, report.window), usage


def _entry(shown: Resource, one: _Seen, raw: Raw) -> Entry:
    key = Key(shown.kind.resource, one.key.tenant, one.key.namespace, one.key.name)
    return Entry(key, encode(raw), one.revision)
