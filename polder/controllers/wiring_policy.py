"""Which change concerns which quota, budget, role or certificate."""

from __future__ import annotations

from polder.api.meta import ref_of
from polder.api.polder import Tenant
from polder.api.policy import ResourceQuota
from polder.base.ref import Ref
from polder.controllers.caches import Caches
from polder.controllers.quotas import is_settled
from polder.controllers.runners import Runners


class PolicyWiring:
    """Turns changes of caches into keys of queues."""

    def __init__(self, caches: Caches, runners: Runners) -> None:
        self._caches = caches
        self._runners = runners

    def attach(self) -> None:
        """Hears every change from here on, and of every object that is known already."""
        self._caches.quotas.on_change(self._quota)
        self._caches.tenants.on_change(self._tenant)

    def resync(self) -> None:
        """Has every quota counted anew."""
        for quota in self._caches.quotas.values():
            self._runners.quotas.add(ref_of(quota))
        for tenant in self._caches.tenants.values():
            if tenant.spec.quota is not None:
                self._runners.quotas.add(ref_of(tenant))

    def _quota(self, ref: Ref, _old: ResourceQuota | None, new: ResourceQuota | None) -> None:
        if new is not None and not is_settled(new):
            self._runners.quotas.add(ref)

    def _tenant(self, ref: Ref, old: Tenant | None, new: Tenant | None) -> None:
        if new is not None and new.spec.quota != (old.spec.quota if old is not None else None):
            self._runners.quotas.add(ref)
