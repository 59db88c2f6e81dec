"""Which change concerns which Service."""

from __future__ import annotations

from polder.api.core import Node, Service
from polder.api.discovery import EndpointSlice
from polder.api.endpoints import Endpoints
from polder.api.meta import ref_of
from polder.api.podfacts import ControlledPod
from polder.base.ref import Ref
from polder.controllers.caches import ZONE, Caches, namespace_of, service_of
from polder.controllers.endpoints_pure import is_ready, selects
from polder.controllers.runners import Runners


class ServiceWiring:
    """Turns changes of caches into Services to look at."""

    def __init__(self, caches: Caches, runners: Runners) -> None:
        self._caches = caches
        self._runners = runners

    def attach(self) -> None:
        """Hears every change from here on, and of every object that is known already."""
        self._caches.services.on_change(self._service)
        self._caches.slices.on_change(self._slice)
        self._caches.endpoints.on_change(self._endpoints)
        self._caches.pods.on_change(self._pod)
        self._caches.on_node(self._node)

    def _service(self, ref: Ref, _old: Service | None, _new: Service | None) -> None:
        self._runners.endpoints.add(ref)

    def _slice(self, _ref: Ref, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        if self._runners.own_endpoints.has(new):
            return
        for found in (old, new):
            for service in service_of(found) if found is not None else ():
                self._runners.endpoints.add(service)

    def _endpoints(self, ref: Ref, _old: Endpoints | None, new: Endpoints | None) -> None:
        if not self._runners.own_endpoints.has(new):
            self._runners.endpoints.add(ref)

    def _pod(self, _ref: Ref, old: ControlledPod | None, new: ControlledPod | None) -> None:
        if old is not None and new is not None and _seen(old) == _seen(new):
            return
        for pod in (old, new):
            if pod is not None:
                self._selecting(pod)

    def _selecting(self, pod: ControlledPod) -> None:
        for service in self._caches.services.by_index("namespace", namespace_of(pod)):
            if selects(service.spec.selector or {}, pod.metadata.labels):
                self._runners.endpoints.add(ref_of(service))

    def _node(self, ref: Ref, old: Node | None, new: Node | None) -> None:
        """Endpoints show the zone of their node."""
        if old is not None and _zone(old) != _zone(new):
            for pod in self._caches.pods.by_index("node", ref.name):
                self._selecting(pod)


def _zone(node: Node | None) -> str:
    return (node.metadata.labels or {}).get(ZONE, "") if node is not None else ""


def _seen(pod: ControlledPod) -> tuple[object, ...]:
    """What endpoints show of a pod."""
    meta, status = pod.metadata, pod.status
    going = meta.deletion_timestamp is not None
    return (meta.uid, meta.labels, going, pod.spec, is_ready(pod), status.phase, status.pod_ip, status.pod_ips)
