"""Which change concerns which pod because of its node: taints that it must bear, nodes out of service, records of the ended."""

from __future__ import annotations

from polder.api.core import Node, Taint
from polder.api.meta import ref_of
from polder.api.podfacts import ControlledPod
from polder.base.ids import ROOT
from polder.base.ref import Ref
from polder.controllers.caches import Caches
from polder.controllers.node_health import is_out_of_service
from polder.controllers.nodeviews import NO_EXECUTE, NodeViews
from polder.controllers.pods import surplus
from polder.controllers.runners import Runners


class NodeWiring:
    """Turns changes of caches into pods to look at."""

    def __init__(self, caches: Caches, runners: Runners) -> None:
        self._caches = caches
        self._runners = runners
        self._views = NodeViews(caches.nodes)

    def attach(self) -> None:
        """Hears every change from here on, and of every object that is known already."""
        self._caches.nodes.on_change(self._node)
        self._caches.pods.on_change(self._pod)

    def sweep(self, keep: int) -> None:
        """Has records of ended pods removed, beyond ``keep`` of each tenant."""
        for ref in surplus(self._caches.pods.values(), keep):
            self._runners.ended.add(ref)

    def _node(self, ref: Ref, old: Node | None, new: Node | None) -> None:
        """A node of the platform concerns everybody's pods, what a tenant put on it the tenant's own."""
        changed = _evicting(old) != _evicting(new)
        gone = new is not None and ref.tenant == ROOT and is_out_of_service(new)
        if not changed and not gone:
            return
        for pod in self._caches.pods.by_index("node", ref.name):
            at = ref_of(pod)
            if changed and ref.tenant in (ROOT, at.tenant):
                self._runners.evictions.add(at)
            if gone and pod.metadata.deletion_timestamp is not None:
                self._runners.pods.add(at)

    def _pod(self, ref: Ref, old: ControlledPod | None, new: ControlledPod | None) -> None:
        pod = new or old
        if pod is None or not pod.spec.node_name:
            return
        if self._views.evicting(ref.tenant, pod.spec.node_name):
            self._runners.evictions.add(ref)
        if new is not None and new.metadata.deletion_timestamp is not None:
            node = self._caches.node(pod.spec.node_name)
            if node is not None and is_out_of_service(node):
                self._runners.pods.add(ref)


def _evicting(node: Node | None) -> list[Taint]:
    return [taint for taint in node.spec.taints or () if taint.effect == NO_EXECUTE] if node is not None else []
