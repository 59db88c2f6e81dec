"""Which change is worth which look. Handlers only enqueue; a look too many costs a request, a look too few a leak.

They are attached when all caches have had their first list, so that what another cache says of an object can be relied on
to leave out the thousands that are as they should be.
"""

from __future__ import annotations

from polder.api.core import ConfigMap, Namespace, Node, ServiceAccount
from polder.api.discovery import Lease
from polder.api.extensions import CustomResourceDefinition as Definition
from polder.api.meta import ref_of
from polder.api.podfacts import ControlledPod
from polder.api.polder import (
    DEFAULT_ROUTER,
    SYSTEM_NAMESPACE,
    TENANT_FINALIZER,
    Address,
    Network,
    Port,
    Router,
    Segment,
    Tenant,
    service_cidrs_of,
)
from polder.base.ids import TenantName
from polder.base.ref import Ref
from polder.controllers.caches import Caches, network_of, port_of, root_ref
from polder.controllers.namespace_content import ACCOUNT, CERTIFICATE, CERTIFICATE_KEY
from polder.controllers.network import is_settled
from polder.controllers.runners import Runners
from polder.controllers.vni import segment_name


class Wiring:
    """Turns changes of caches into keys of queues."""

    def __init__(self, caches: Caches, runners: Runners, root_ca: str) -> None:
        self._caches = caches
        self._runners = runners
        self._root_ca = root_ca

    def attach(self) -> None:
        """Hears every change from here on, and of every object that is known already."""
        caches = self._caches
        caches.tenants.on_change(self._tenant)
        caches.namespaces.on_change(self._namespace)
        caches.accounts.on_change(self._account)
        caches.certificates.on_change(self._certificate)
        caches.on_node(self._node)
        caches.leases.on_change(self._lease)
        caches.pods.on_change(self._pod)
        caches.networks.on_change(self._network)
        caches.segments.on_change(self._segment)
        caches.routers.on_change(self._router)
        caches.ports.on_change(self._port)
        caches.addresses.on_change(self._address)
        caches.definitions.on_change(self._definition)

    def sweep(self) -> None:
        """Looks at everything that holds an address once more, for what no change has told."""
        for port in self._caches.ports.values():
            self._port(ref_of(port), None, port)
        for address in self._caches.addresses.values():
            self._address(ref_of(address), None, address)
        for pod in self._caches.pods.values():
            self._pod(ref_of(pod), None, pod)

    def _tenant(self, ref: Ref, _old: Tenant | None, new: Tenant | None) -> None:
        if new is None:
            for port in self._caches.router_ports(TenantName(ref.name)):
                self._runners.ports.add(port)
            return
        if new.metadata.deletion_timestamp or TENANT_FINALIZER not in (new.metadata.finalizers or ()):
            self._runners.tenants.add(ref)
        router = self._caches.routers.get(Ref(TenantName(ref.name), SYSTEM_NAMESPACE, DEFAULT_ROUTER))
        if router is None or service_cidrs_of(router.spec) != service_cidrs_of(new.spec):
            self._runners.routers.add(ref)

    def _left(self, ref: Ref) -> None:
        """Something went that its namespace, or its tenant, may be waiting for."""
        if ref.namespace and self._caches.is_namespace_going(ref):
            self._runners.namespaces.add(Ref(ref.tenant, "", ref.namespace))
        if self._caches.is_tenant_going(ref.tenant):
            self._runners.tenants.add(root_ref(ref.tenant))

    def _namespace(self, ref: Ref, old: Namespace | None, new: Namespace | None) -> None:
        if new is None:
            self._left(ref)
        elif new.metadata.deletion_timestamp:
            # What is said in its status is the reconciler's own, and must not wake it.
            if old is None or old.metadata.deletion_timestamp is None or old.spec != new.spec:
                self._runners.namespaces.add(ref)
        else:
            account = self._caches.accounts.get(Ref(ref.tenant, ref.name, ACCOUNT))
            if account is None or self._caches.certificates.get(Ref(ref.tenant, ref.name, CERTIFICATE)) is None:
                self._runners.contents.add(ref)

    def _account(self, ref: Ref, _old: ServiceAccount | None, new: ServiceAccount | None) -> None:
        if new is None and ref.name == ACCOUNT:
            self._runners.contents.add(Ref(ref.tenant, "", ref.namespace))

    def _certificate(self, ref: Ref, _old: ConfigMap | None, new: ConfigMap | None) -> None:
        if new is None or new.data != {CERTIFICATE_KEY: self._root_ca}:
            self._runners.contents.add(Ref(ref.tenant, "", ref.namespace))

    def _node(self, ref: Ref, _old: Node | None, new: Node | None) -> None:
        self._runners.nodes.add(ref)
        if new is None:
            for pod in self._caches.pods.by_index("node", ref.name):
                self._runners.pods.add(ref_of(pod))
            for port in self._caches.ports.by_index("node", ref.name):
                self._runners.ports.add(ref_of(port))

    def _lease(self, _ref: Ref, _old: Lease | None, new: Lease | None) -> None:
        if new is not None:
            self._runners.health.see(new)

    def _pod(self, ref: Ref, old: ControlledPod | None, new: ControlledPod | None) -> None:
        if new is None:
            self._left(ref)
            for port in self._caches.ports.by_index("pod", old.metadata.uid if old else ""):
                self._runners.ports.add(ref_of(port))
        elif new.spec.node_name:
            if not self._caches.has_node(new.spec.node_name):
                self._runners.pods.add(ref)
        elif new.metadata.deletion_timestamp:
            self._runners.pods.add(ref)

    def _network(self, ref: Ref, old: Network | None, new: Network | None) -> None:
        if old is not None and (new is None or new.metadata.uid != old.metadata.uid):
            self._left(ref)
            for segment in self._caches.segments.by_index("network", old.metadata.uid):
                self._runners.segments.add(ref_of(segment))
        if new is not None and not is_settled(new, self._holder(new.status.vni)):
            self._runners.networks.add(ref)

    def _holder(self, vni: int) -> str:
        segment = self._caches.segments.get(root_ref(segment_name(vni))) if vni else None
        return segment.spec.network_uid if segment else ""

    def _segment(self, ref: Ref, old: Segment | None, new: Segment | None) -> None:
        known = new or old
        if known is None:
            return
        namespace, _, name = known.spec.network.partition("/")
        at = Ref(TenantName(known.spec.tenant), namespace, name)
        network = self._caches.networks.get(at)
        stands = network is not None and network.metadata.uid == known.spec.network_uid
        if new is None and stands:
            self._runners.networks.add(at)
        elif new is not None and not (stands and network and network.status.vni == new.spec.vni):
            self._runners.segments.add(ref)

    def _router(self, ref: Ref, old: Router | None, new: Router | None) -> None:
        if new is None or (old is not None and old.spec != new.spec):
            self._left(ref)
            self._runners.routers.add(root_ref(ref.tenant))

    def _port(self, ref: Ref, old: Port | None, new: Port | None) -> None:
        if new is None:
            self._left(ref)
            for address in self._caches.addresses.by_index("port", ref):
                self._runners.addresses.add(ref_of(address))
            if old is not None:
                self._released(network_of(old))
                if old.spec.router_of and self._caches.is_tenant_going(TenantName(old.spec.router_of)):
                    self._runners.tenants.add(root_ref(old.spec.router_of))
        elif not self._is_served(new):
            self._runners.ports.add(ref)

    def _is_served(self, port: Port) -> bool:
        """Whether node and pod (or tenant) of a Port are there, as far as the caches know."""
        if not self._caches.has_node(port.spec.node):
            return False
        if port.spec.router_of:
            tenant = TenantName(port.spec.router_of)
            return tenant == ref_of(port).tenant or self._caches.tenants.get(root_ref(tenant)) is not None
        pods = self._caches.pods.by_index("uid", port.spec.pod_uid)
        return any(pod.spec.node_name in ("", port.spec.node) for pod in pods)

    def _address(self, ref: Ref, old: Address | None, new: Address | None) -> None:
        if new is None:
            self._left(ref)
            if old is not None:
                self._released(network_of(old))
        elif self._caches.ports.get(port_of(new)) is None:
            self._runners.addresses.add(ref)

    def _released(self, network: Ref) -> None:
        if self._caches.is_network_going(network):
            self._runners.networks.add(network)

    def _definition(self, ref: Ref, _old: Definition | None, new: Definition | None) -> None:
        if new is None:
            self._left(ref)
