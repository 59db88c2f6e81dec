"""Which change concerns which StatefulSet or DaemonSet."""

from __future__ import annotations

import msgspec

from polder.api.core import Node
from polder.api.labelselector import matcher_of
from polder.api.meta import LabelSelector, Object, ref_of
from polder.api.podfacts import ControlledPod
from polder.api.sets import KnownDaemonSet, KnownStatefulSet
from polder.base.ids import ROOT
from polder.base.ref import Ref
from polder.client.informer import Informer
from polder.controllers.caches import Caches, namespace_of
from polder.controllers.daemons_pure import Fitting
from polder.controllers.disruption import controller_of
from polder.controllers.nodeviews import NodeViews
from polder.controllers.runners import Runners
from polder.loop.pauses import Pauses
from polder.loop.runner import Runner

APPS = "apps/v1"


class SetWiring:
    """Turns changes of caches into sets to look at."""

    def __init__(self, caches: Caches, runners: Runners) -> None:
        self._caches = caches
        self._runners = runners
        self._views = NodeViews(caches.nodes)
        self._queues: dict[str, tuple[Informer[KnownStatefulSet] | Informer[KnownDaemonSet], Runner[Ref]]] = {
            "StatefulSet": (caches.stateful, runners.stateful),
            "DaemonSet": (caches.daemons, runners.daemons),
        }
        self.nodes: Runner[Ref] = Runner("nodes of daemons", self._sets_of_node, 2)

    def attach(self) -> None:
        """Hears every change from here on, and of every object that is known already."""
        self._caches.stateful.on_change(self._stateful)
        self._caches.daemons.on_change(self._daemons)
        self._caches.pods.on_change(self._pod)
        self._caches.nodes.on_change(self._node)

    def _stateful(self, ref: Ref, _old: Object | None, _new: Object | None) -> None:
        self._runners.stateful.add(ref)

    def _daemons(self, ref: Ref, _old: Object | None, _new: Object | None) -> None:
        self._runners.daemons.add(ref)

    def _pod(self, ref: Ref, old: ControlledPod | None, new: ControlledPod | None) -> None:
        owners = {owner.uid: owner for pod in (old, new) if pod and (owner := controller_of(pod))}
        for owner in owners.values():
            if owner.kind in self._queues and owner.api_version == APPS:
                self._queues[owner.kind][1].add(Ref(ref.tenant, ref.namespace, owner.name))
        if new is not None and controller_of(new) is None:
            self._orphan(new)

    def _orphan(self, pod: ControlledPod) -> None:
        """A pod that nobody owns may be somebody's."""
        for known, queue in self._queues.values():
            for found in known.by_index("namespace", namespace_of(pod)):
                if _selects(found.spec.selector, pod):
                    queue.add(ref_of(found))

    def _node(self, ref: Ref, old: Node | None, new: Node | None) -> None:
        if old is None or new is None or _seen(old) != _seen(new):
            self.nodes.add(ref)

    async def _sets_of_node(self, ref: Ref) -> float | None:
        """Finds the DaemonSets that a change of a node concerns: all tenants' for one of the platform, else the tenant's own."""
        sets = self._caches.daemons
        concerned = sets.values() if ref.tenant == ROOT else sets.by_index("tenant", ref.tenant)
        pauses = Pauses()
        pods = self._caches.pods
        there = {self._owner(pod) for name in ("node", "target") for pod in pods.by_index(name, ref.name)}
        for found in concerned:
            if self._concerns(found, ref.name, there):
                self._runners.daemons.add(ref_of(found))
            await pauses.here()
        return None

    def _owner(self, pod: ControlledPod) -> str:
        owner = controller_of(pod)
        return owner.uid if owner is not None and owner.kind == "DaemonSet" else ""

    def _concerns(self, found: KnownDaemonSet, node: str, there: set[str]) -> bool:
        """Whether the node lacks the set's pod, or has one that must go or is counted as misplaced."""
        place = self._views.place(ref_of(found).tenant, node)
        if place is None:
            return True  # pods that are made for the node and not placed go
        should, stays = Fitting(found.spec.template.spec)(place)
        has = found.metadata.uid in there
        return (should and not has) or (has and (not should or not stays or found.status.number_misscheduled > 0))


def _selects(selector: LabelSelector | None, pod: ControlledPod) -> bool:
    chosen = msgspec.to_builtins(selector) if selector is not None else None
    return bool(chosen) and matcher_of(chosen).matches_labels(pod.metadata.labels or {})


def _seen(node: Node) -> object:
    """What decides about the pods on a node."""
    return node.metadata.labels, node.spec.taints
