"""Which change concerns which range of service addresses, load balancer and pool."""

from __future__ import annotations

from collections.abc import Iterable

from polder.api.addresses import AddressPool, ExternalAddress, ServiceCIDR
from polder.api.core import Node, Service
from polder.api.discovery import EndpointSlice
from polder.api.meta import ref_of
from polder.api.polder import Port
from polder.base.ids import ROOT
from polder.base.ref import Ref
from polder.controllers.announcers import has_way, is_healthy
from polder.controllers.balancers import a_few_of_each, service_of
from polder.controllers.caches import Caches, root_ref
from polder.controllers.caches import service_of as sliced_service
from polder.controllers.pools import BALANCER
from polder.controllers.runners import Runners
from polder.controllers.service_ranges import OWN, is_settled

SIX = "::"
"""Any address of IPv6."""


class AddressWiring:
    """Turns changes of caches into keys of queues."""

    def __init__(self, caches: Caches, runners: Runners) -> None:
        self._caches = caches
        self._runners = runners

    def attach(self) -> None:
        """Hears every change from here on, and of every object that is known already."""
        self._caches.service_ranges.on_change(self._range)
        self._caches.services.on_change(self._service)
        self._caches.pools.on_change(self._pool)
        self._caches.external.on_change(self._claim)
        self._caches.slices.on_change(self._slice)
        self._caches.on_node(self._node)
        self._caches.ports.on_change(self._port)
        self._runners.pulse.on_change(self.node_lost)

    def _range(self, ref: Ref, old: ServiceCIDR | None, new: ServiceCIDR | None) -> None:
        if ref.name != OWN and (old is None or new is None):
            self._runners.routers.add(root_ref(ref.tenant))
        if new is not None and not is_settled(new):
            self._runners.service_ranges.add(ref)
        elif new is not None:
            self._waiting_ranges(ref)

    def _waiting_ranges(self, ref: Ref) -> None:
        """A change may have freed those of the tenant that are in deletion."""
        for found in self._caches.service_ranges.by_index("going", ref.tenant):
            self._runners.service_ranges.add(ref_of(found))

    def _service(self, ref: Ref, old: Service | None, new: Service | None) -> None:
        if new is not None and new.spec.external_ips and (old is None or old.spec != new.spec):
            self._runners.external_ips.add(ref)
        if BALANCER in (found.spec.type for found in (old, new) if found is not None):
            self._runners.balancers.add(ref)
            self._place(self._caches.external.by_index("service", ref))
        if old is not None and (new is None or new.spec.cluster_ips != old.spec.cluster_ips):
            self._waiting_ranges(ref)

    def _pool(self, ref: Ref, old: AddressPool | None, new: AddressPool | None) -> None:
        if new is not None:
            self._runners.pools.add(ref)
        if (old.spec if old else None) != (new.spec if new else None):
            for service in self._caches.services.by_index("wanting", True):
                self._runners.balancers.add(ref_of(service))

    def _claim(self, ref: Ref, old: ExternalAddress | None, new: ExternalAddress | None) -> None:
        for claim in (old, new):
            if claim is not None:
                self._runners.pools.add(Ref(ROOT, "", claim.spec.pool))
        if new is None:
            for waiting in a_few_of_each(self._caches.services.by_index("wanting", True)):
                self._runners.balancers.add(waiting)
            if old is not None:
                self._runners.balancers.add(service_of(old))
            return
        self._runners.announcers.add(ref)
        if old is not None and old.status.node != new.status.node:
            self._runners.balancers.add(service_of(new))
        service = self._caches.services.get(service_of(new))
        if service is None or service.metadata.uid != new.spec.service_uid or service.spec.type != BALANCER:
            self._runners.claims.add(ref)

    def _place(self, claims: Iterable[ExternalAddress]) -> None:
        for claim in claims:
            self._runners.announcers.add(ref_of(claim))

    def _slice(self, _ref: Ref, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        for found in (old, new):
            for service in sliced_service(found) if found is not None else ():
                self._place(self._caches.external.by_index("service", service))

    def _node(self, ref: Ref, old: Node | None, new: Node | None) -> None:
        """Who left a node looks for another; who has none looks at one that came."""
        if (is_healthy(old), has_way(old, SIX)) != (is_healthy(new), has_way(new, SIX)):
            self._place(self._caches.external.by_index("node", "" if is_healthy(new) else ref.name))

    def node_lost(self, name: str) -> None:
        """A node stopped answering, or answers again."""
        self._place(self._caches.external.by_index("node", name))
        self._place(self._caches.external.by_index("node", ""))

    def _port(self, _ref: Ref, old: Port | None, new: Port | None) -> None:
        """A tenant's router came to a node, or left it."""
        if (old is None or new is None) and (port := new or old) is not None and port.spec.router_of:
            self._place(self._caches.external.by_index("tenant", port.spec.router_of))
