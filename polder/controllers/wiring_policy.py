"""Which change concerns which quota, budget, role, token or certificate."""

from __future__ import annotations

from polder.api.certificates import CertificateSigningRequest
from polder.api.clusterroles import ClusterRole
from polder.api.core import ConfigMap, Secret, ServiceAccount
from polder.api.meta import ref_of
from polder.api.podfacts import ControlledPod
from polder.api.polder import Tenant
from polder.api.policy import PodDisruptionBudget, ResourceQuota
from polder.base.ids import TenantName
from polder.base.ref import Ref
from polder.controllers.bootstrap_tokens import CLUSTER_INFO, PUBLIC
from polder.controllers.caches import Caches, namespace_of
from polder.controllers.disruption import choose
from polder.controllers.endpoints_pure import is_ready
from polder.controllers.members import speaks_of_members
from polder.controllers.quotas import is_settled
from polder.controllers.runners import Runners


class PolicyWiring:
    """Turns changes of caches into keys of queues."""

    def __init__(self, caches: Caches, runners: Runners) -> None:
        self._caches = caches
        self._runners = runners

    def attach(self) -> None:
        """Hears every change from here on, and of every object that is known already."""
        caches = self._caches
        caches.quotas.on_change(self._quota)
        caches.tenants.on_change(self._tenant)
        caches.budgets.on_change(self._budget)
        caches.pods.on_change(self._pod)
        caches.roles.on_change(self._role)
        caches.requests.on_change(self._request)
        caches.account_tokens.on_change(self._account_token)
        caches.accounts.on_change(self._account)
        caches.bootstrap_tokens.on_change(self._bootstrap_token)
        caches.cluster_infos.on_change(self._cluster_info)

    def resync(self) -> None:
        """Has every quota counted anew, and old certificate requests looked at."""
        for quota in self._caches.quotas.values():
            self._runners.quotas.add(ref_of(quota))
        for tenant in self._caches.tenants.values():
            if tenant.spec.quota is not None:
                self._runners.quotas.add(ref_of(tenant))
        for request in self._caches.requests.values():
            self._runners.requests.add(ref_of(request))

    def show(self) -> None:
        """Has the status of every tenant with a quota say what is used."""
        for tenant in self._caches.tenants.values():
            if tenant.spec.quota is not None:
                self._runners.usages.add(ref_of(tenant))

    def _quota(self, ref: Ref, _old: ResourceQuota | None, new: ResourceQuota | None) -> None:
        if new is not None and not is_settled(new):
            self._runners.quotas.add(ref)

    def _tenant(self, ref: Ref, old: Tenant | None, new: Tenant | None) -> None:
        if new is not None and new.spec.quota != (old.spec.quota if old is not None else None):
            self._runners.quotas.add(ref)
            self._runners.usages.add(ref)
        if new is not None and (old is None or new.spec.members != old.spec.members) and speaks_of_members(new):
            self._runners.members.add(ref)
        if old is None or new is None or old.metadata.uid != new.metadata.uid:
            for tenant in self._caches.tenants.by_index("member", ref.name):
                self._runners.members.add(ref_of(tenant))

    def _budget(self, ref: Ref, _old: PodDisruptionBudget | None, new: PodDisruptionBudget | None) -> None:
        if new is not None:
            self._runners.budgets.add(ref)

    def _pod(self, _ref: Ref, old: ControlledPod | None, new: ControlledPod | None) -> None:
        if old is not None and new is not None and _seen(old) == _seen(new):
            return
        for pod in (old, new):
            if pod is None:
                continue
            for budget in self._caches.budgets.by_index("namespace", namespace_of(pod)):
                if choose(budget.spec.selector, [pod]):
                    self._runners.budgets.add(ref_of(budget))

    def _role(self, ref: Ref, _old: ClusterRole | None, _new: ClusterRole | None) -> None:
        for role in self._caches.roles.by_index("tenant", ref.tenant):
            if role.aggregation_rule is not None:
                self._runners.roles.add(ref_of(role))

    def _request(self, ref: Ref, _old: CertificateSigningRequest | None, new: CertificateSigningRequest | None) -> None:
        if new is not None:
            self._runners.requests.add(ref)

    def _account_token(self, ref: Ref, _old: Secret | None, new: Secret | None) -> None:
        if new is not None:
            self._runners.account_tokens.add(ref)

    def _account(self, ref: Ref, _old: ServiceAccount | None, _new: ServiceAccount | None) -> None:
        for secret in self._caches.account_tokens.by_index("account", ref):
            self._runners.account_tokens.add(ref_of(secret))

    def _bootstrap_token(self, ref: Ref, _old: Secret | None, _new: Secret | None) -> None:
        self._runners.bootstrap_tokens.add(ref)
        self._sign(ref.tenant)

    def _cluster_info(self, ref: Ref, _old: ConfigMap | None, new: ConfigMap | None) -> None:
        if new is not None and ref.namespace == PUBLIC:
            self._sign(ref.tenant)

    def _sign(self, tenant: TenantName) -> None:
        at = Ref(tenant, PUBLIC, CLUSTER_INFO)
        if self._caches.cluster_infos.get(at) is not None:
            self._runners.bootstrap_tokens.add(at)


def _seen(pod: ControlledPod) -> tuple[object, ...]:
    """What a budget counts of a pod."""
    meta = pod.metadata
    return (meta.uid, meta.labels, meta.owner_references, meta.deletion_timestamp is not None, is_ready(pod))
