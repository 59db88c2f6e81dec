"""Nodes that fall silent: Ready becomes Unknown, taints keep new pods off and let those that are there go after a while, until
the node is back. Follows upstream's node lifecycle controller.

The agent writes its own conditions; the controller writes only what a silent agent cannot say: the conditions of the node, that
its pods are not ready, and the taints that follow. ``taint_evictions.py`` deletes the pods that do not bear them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from polder.api.core import Node, NodeCondition
from polder.api.discovery import Lease
from polder.api.errors import ApiError
from polder.api.meta import ref_of
from polder.api.podfacts import ControlledPod
from polder.base.clock import stamp
from polder.base.ids import ROOT
from polder.base.ref import Ref
from polder.client.client import Client
from polder.client.events import Recorder
from polder.controllers.batch import each
from polder.controllers.endpoints_pure import is_ready
from polder.controllers.node_health import (
    Evict,
    Heartbeats,
    overwritten,
    readiness,
    still_unknown,
    unknown_conditions,
    wanted_taints,
    whole,
)
from polder.controllers.node_zones import Zones, zone_of
from polder.controllers.settings import ControllerSettings

PodsOn = Callable[[str], Iterable[ControlledPod]]
"""The pods of a node, of all tenants, as a cache knows them."""
LEASES = "kube-node-lease"


class NodeController:
    """Reconciles root's Nodes; key: the Node's reference."""

    def __init__(
        self, client: Client, settings: ControllerSettings, pods_on: PodsOn, recorder: Recorder | None = None
    ) -> None:
        self._client = client
        self._pods_on = pods_on
        self._recorder = recorder
        self._zones = Zones(settings.node_eviction, settings.node_grace)
        self._clock = settings.clock
        self._heartbeats = Heartbeats(settings.node_grace, settings.node_startup_grace)
        self._tick = settings.node_tick
        self._said: dict[str, list[NodeCondition]] = {}
        self._marked: dict[str, set[str]] = {}
        self._was: dict[str, bool] = {}

    def see(self, lease: Lease) -> None:
        """A Lease as the watch shows it: a sign of life if it changed."""
        if lease.metadata.namespace == LEASES:
            self._heartbeats.observe(lease.metadata.name, lease.metadata.resource_version, self._clock.monotonic())

    async def reconcile(self, ref: Ref) -> float | None:
        """One look. The seconds until the next one, None when the node is gone."""
        try:
            node = await self._client.get(Node, ref)
        except ApiError as error:
            if error.is_not_found:
                self._heartbeats.forget(ref.name)
                self._zones.forget(ref.name)
                self._said.pop(ref.name, None)
                self._marked.pop(ref.name, None)
                self._was.pop(ref.name, None)
                return None
            raise
        if await self._is_silent(ref.name, is_new=not readiness(node)):
            node = await self._mark_silent(ref, node)
        elif ref.name in self._said:
            node = await self._restore(ref, node)
        ready = readiness(node) == "True"
        self._zones.see(ref.name, zone_of(node), ready, self._clock.monotonic())
        self._note(node, ready)
        await self._taint(ref, node)
        if ready:
            self._marked.pop(ref.name, None)
        elif readiness(node):
            await self._mark_pods(node)
        return self._tick

    def _note(self, node: Node, ready: bool) -> None:
        """Reports a node that is new to us, and one that is ready no more."""
        name = node.metadata.name
        was, self._was[name] = self._was.get(name), ready
        if self._recorder is None:
            return
        if was is None:
            words = f"Node {name} event: Registered Node {name} in Controller"
            self._recorder.event(node, "Normal", "RegisteredNode", words)
        elif was and not ready:
            self._recorder.event(node, "Normal", "NodeNotReady", f"Node {name} status is now: NodeNotReady")

    async def _is_silent(self, name: str, *, is_new: bool) -> bool:
        """Late by what was seen, and then by what the server says now (our own watch may be what is late)."""
        now = self._clock.monotonic()
        if not self._heartbeats.is_watched(name):
            self._heartbeats.observe(name, await self._lease(name), now)
        if not self._heartbeats.is_late(name, now, is_new=is_new):
            return False
        self._heartbeats.observe(name, await self._lease(name), now)
        return self._heartbeats.is_late(name, now, is_new=is_new)

    async def _lease(self, name: str) -> str:
        try:
            lease = await self._client.get(Lease, Ref(ROOT, LEASES, name))
        except ApiError as error:
            if error.is_not_found:
                return ""
            raise
        return lease.metadata.resource_version

    async def _mark_silent(self, ref: Ref, node: Node) -> Node:
        conditions = unknown_conditions(node, stamp(self._clock.now()))
        if not conditions:
            return node
        self._said[ref.name] = overwritten(node, conditions)
        return await self._write(ref, node, conditions)

    async def _restore(self, ref: Ref, node: Node) -> Node:
        """The lease moves again: what the agent said last holds again, for an agent writes only what changes."""
        conditions = still_unknown(node, self._said[ref.name])
        if conditions:
            node = await self._write(ref, node, conditions)
        del self._said[ref.name]
        return node

    async def _write(self, ref: Ref, node: Node, conditions: list[NodeCondition]) -> Node:
        patch = {
            "metadata": {"uid": node.metadata.uid, "resourceVersion": node.metadata.resource_version},
            "status": {"conditions": [whole(condition) for condition in conditions]},
        }
        return await self._client.patch(Node, ref, patch, how="strategic", subresource="status")

    async def _taint(self, ref: Ref, node: Node) -> None:
        at, evict = stamp(self._clock.now()), self._evict(node)
        taints = wanted_taints(node, at, evict)
        if taints is None:
            return
        patch = {
            "metadata": {"uid": node.metadata.uid, "resourceVersion": node.metadata.resource_version},
            "spec": {"taints": msgspec.to_builtins(taints) or None},
        }
        await self._client.patch(Node, ref, patch)

    def _evict(self, node: Node) -> Evict:
        """Asks for a turn only where the taint that makes pods go is missing."""
        if readiness(node) in ("True", ""):
            return "never"
        if wanted_taints(node, "", "hold") == wanted_taints(node, "", "go"):
            return "never" if self._zones.is_dark else "hold"
        return self._zones.may_evict(node.metadata.name, self._clock.monotonic())

    async def _mark_pods(self, node: Node) -> None:
        """Pods of a node that is not ready are not ready: nothing may rest on what was said of them last. What an agent that is
        there says of them after that counts again.
        """
        pods = [pod for pod in self._pods_on(node.metadata.name) if is_ready(pod)]
        marked = self._marked.get(node.metadata.name, set())
        await each([self._mark_pod(pod) for pod in pods if pod.metadata.uid not in marked])
        self._marked[node.metadata.name] = marked | {pod.metadata.uid for pod in pods}

    async def _mark_pod(self, pod: ControlledPod) -> None:
        said = {"type": "Ready", "status": "False", "lastTransitionTime": stamp(self._clock.now())}
        patch = {"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [said]}}
        try:
            await self._client.patch(ControlledPod, ref_of(pod), patch, how="strategic", subresource="status")
        except ApiError as error:
            if not (error.is_not_found or error.is_conflict):
                raise
            return
        if self._recorder is not None:
            self._recorder.event(pod, "Warning", "NodeNotReady", "Node is not ready")
