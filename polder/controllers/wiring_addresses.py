"""Which change concerns which range of service addresses, load balancer and pool."""

from __future__ import annotations

from polder.api.addresses import AddressPool, ExternalAddress, ServiceCIDR
from polder.api.core import Service
from polder.api.meta import ref_of
from polder.base.ids import ROOT
from polder.base.ref import Ref
from polder.controllers.balancers import ASSIGNED, service_of
from polder.controllers.caches import Caches
from polder.controllers.pools import BALANCER
from polder.controllers.runners import Runners
from polder.controllers.service_ranges import is_settled


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

    def _range(self, ref: Ref, _old: ServiceCIDR | None, new: ServiceCIDR | None) -> None:
        if new is not None and not is_settled(new):
            self._runners.service_ranges.add(ref)
        elif new is not None:
            self._waiting_ranges(ref)

    def _waiting_ranges(self, ref: Ref) -> None:
        """A change may have freed those of the tenant that are in deletion."""
        for found in self._caches.service_ranges.by_index("going", ref.tenant):
            self._runners.service_ranges.add(ref_of(found))

    def _service(self, ref: Ref, old: Service | None, new: Service | None) -> None:
        if BALANCER in (found.spec.type for found in (old, new) if found is not None):
            self._runners.balancers.add(ref)
        if old is not None and (new is None or new.spec.cluster_ips != old.spec.cluster_ips):
            self._waiting_ranges(ref)

    def _pool(self, ref: Ref, _old: AddressPool | None, new: AddressPool | None) -> None:
        if new is not None:
            self._runners.pools.add(ref)
        self._wanting()

    def _wanting(self) -> None:
        """Something is free that was not: whoever lacks an address is looked at."""
        for service in self._caches.services.by_index("type", BALANCER):
            conditions = service.status.conditions or ()
            if not any(c.type == ASSIGNED and c.status == "True" for c in conditions):
                self._runners.balancers.add(ref_of(service))

    def _claim(self, ref: Ref, old: ExternalAddress | None, new: ExternalAddress | None) -> None:
        for claim in (old, new):
            if claim is not None:
                self._runners.pools.add(Ref(ROOT, "", claim.spec.pool))
        if new is None:
            self._wanting()
            if old is not None:
                self._runners.balancers.add(service_of(old))
            return
        service = self._caches.services.get(service_of(new))
        if service is None or service.metadata.uid != new.spec.service_uid or service.spec.type != BALANCER:
            self._runners.claims.add(ref)
