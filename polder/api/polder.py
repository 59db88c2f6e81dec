"""Polder's own kinds, group ``polder.dev``, version ``v1alpha1``.

Tenant and Segment are cluster-scoped in ``root``. Network is written by the tenant. Router, Port and Address are
written by Polder's identities only; a tenant reads its own.
"""

from __future__ import annotations

from polder.api.meta import Condition, Object, Struct

GROUP = "polder.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

SERVICE_CIDR6 = "fd00:10:96::/112"
"""The services of a tenant with IPv6 that says nothing of them."""
DEFAULT_NETWORK = "default"
DEFAULT_ROUTER = "default"
SYSTEM_NAMESPACE = "kube-system"
"""Holds a tenant's default network and router."""
NETWORK_ANNOTATION = "polder.dev/network"
"""On a Namespace: its default network, ``namespace/name``. On a Pod: the network of eth0, likewise."""
ADDRESS_ANNOTATION = "polder.dev/address"
"""On a Pod: the static address of eth0; of both families with a comma between them."""
MAC_ANNOTATION = "polder.dev/mac"
"""On a Pod: the static MAC of eth0."""
DEFAULT_POLICY_ANNOTATION = "polder.dev/default-policy"
"""On a Namespace: what its pods may where no policy speaks: ``allow``, ``deny-ingress``, ``deny`` or ``namespace``. On
kube-system: likewise for all of the tenant's that say nothing."""
EGRESS_ANNOTATION = "polder.dev/egress-addresses"
"""On a Node of root: the addresses from which tenants' traffic leaves it, with a comma between them. Written by its agent."""
DEFAULT_POLICIES = ("allow", "deny", "deny-ingress", "namespace")
HOLDER_ANNOTATION = "polder.dev/holder"
"""On an Address: the UID of the Port that took it up again."""
PORT_FINALIZER = "polder.dev/datapath"
"""On a Port: removed by the node's agent when the link is gone, so that the address is free only then."""
TENANT_FINALIZER = "polder.dev/tenant"
NETWORK_FINALIZER = "polder.dev/network"


class TenantMember(Struct, frozen=True, kw_only=True):
    """Who may enter a tenant besides its own identities, and as what: ``admin``, ``edit`` or ``view``, of everything in it.

    ``kind`` is User, Group (of the platform) or ServiceAccount (of ``tenant``, of this one where that is empty).
    ``tenant_uid`` is written by the server: the member is nothing once that tenant is gone, whoever has its name then.
    """

    kind: str
    name: str
    role: str
    namespace: str = ""
    tenant: str = ""
    tenant_uid: str = ""


class TenantQuota(Struct, frozen=True, kw_only=True):
    """What a tenant may use: the names of a ResourceQuota, over all its namespaces, and ``objects``, ``objects.bytes`` (what
    they take in the store, each rounded up to 1 KiB), ``namespaces`` and ``customresourcedefinitions``.
    """

    hard: dict[str, str | int | float] | None = None


class TenantSpec(Struct, frozen=True, kw_only=True):
    """What a tenant is given. CIDRs may be the same as every other tenant's. The lists have one prefix of each family at most,
    the tenant's own family first; the single fields are the first of the lists.
    """

    pod_cidr: str = "10.0.0.0/16"
    pod_cidrs: list[str] | None = None
    service_cidr: str = "10.96.0.0/16"
    service_cidrs: list[str] | None = None
    members: list[TenantMember] | None = None
    quota: TenantQuota | None = None


class TenantUsage(Struct, frozen=True, kw_only=True):
    """What of a tenant's quota was used when it was last looked at. (What is refused goes by what is used now.)"""

    hard: dict[str, str | int | float] | None = None
    used: dict[str, str | int | float] | None = None


class TenantStatus(Struct, frozen=True, kw_only=True):
    """Active, or Terminating while its contents go."""

    phase: str = "Active"
    conditions: list[Condition] | None = None
    quota: TenantUsage | None = None


class Tenant(Object, frozen=True, kw_only=True):
    """Who: one logical cluster. Cluster-scoped in root."""

    spec: TenantSpec = TenantSpec()
    status: TenantStatus = TenantStatus()


class NetworkSpec(Struct, frozen=True, kw_only=True):
    """A layer-2 segment. ``router: ""`` means isolated: no gateway, no way out. The lists have one entry of each family at most;
    the single fields are the first of the lists.
    """

    cidr: str = ""
    cidrs: list[str] | None = None
    gateway: str = ""
    gateways: list[str] | None = None
    router: str = DEFAULT_ROUTER
    mtu: int = 0


class NetworkStatus(Struct, frozen=True, kw_only=True):
    """The VXLAN network identifier (24 bit, unique in the cluster) once a Segment is claimed; 0 before."""

    vni: int = 0
    gateway: str = ""
    gateways: list[str] | None = None
    conditions: list[Condition] | None = None


class Network(Object, frozen=True, kw_only=True):
    """A network of a tenant, in one of its namespaces."""

    spec: NetworkSpec
    status: NetworkStatus = NetworkStatus()


class SegmentSpec(Struct, frozen=True, kw_only=True):
    """Whose network holds the identifier."""

    vni: int
    tenant: str
    network: str
    network_uid: str


class Segment(Object, frozen=True, kw_only=True):
    """The atomic claim of one VNI: cluster-scoped in root, named ``vni-N``; creating it is the claim."""

    spec: SegmentSpec


class RouterSpec(Struct, frozen=True, kw_only=True):
    """A tenant's layer-3 domain. ``further_service_cidrs`` are those of the tenant's own ServiceCIDRs."""

    service_cidr: str = ""
    service_cidrs: list[str] | None = None
    further_service_cidrs: list[str] | None = None


class Router(Object, frozen=True, kw_only=True):
    """``kube-system/default`` of every tenant. Its addresses per node are Ports of root's network transit."""

    spec: RouterSpec = RouterSpec()


class NamedPort(Struct, frozen=True, kw_only=True):
    """A container's port that has a name."""

    name: str
    container_port: int
    protocol: str = "TCP"


class PortSpec(Struct, frozen=True, kw_only=True):
    """One attachment. ``network`` is namespace/name of the same tenant. Addresses without prefix length."""

    network: str
    node: str
    pod: str = ""
    pod_uid: str = ""
    interface: str = "eth0"
    addresses: list[str] = []
    mac: str = ""
    router_of: str = ""
    """For a router's transit port (in root): the tenant whose router has this address on ``node``."""
    labels: dict[str, str] | None = None
    """The pod's labels, by which policies select it."""
    container_ports: list[NamedPort] | None = None
    """The pod's ports that have names, by which policies name them."""


class PortStatus(Struct, frozen=True, kw_only=True):
    """What the node did: the sandbox that uses the port and its link. The node notes it on its disk before ADD and DEL
    answer, and here right afterwards.
    """

    sandbox: str = ""
    netns: str = ""
    link: str = ""
    phase: str = ""


class Port(Object, frozen=True, kw_only=True):
    """Named ``POD-UID.INTERFACE`` in the pod's namespace: gives idempotence."""

    spec: PortSpec
    status: PortStatus = PortStatus()


class AddressSpec(Struct, frozen=True, kw_only=True):
    """Who holds the address: a Port by namespace/name and UID."""

    network: str
    address: str
    port: str
    pod_uid: str = ""
    node: str = ""


class Address(Object, frozen=True, kw_only=True):
    """Named ``NETWORK.A.B.C.D`` in the network's namespace (IPv6 with hyphens for its colons): creating it is the claim, a
    conflict means taken.
    """

    spec: AddressSpec


def cidrs_of(spec: NetworkSpec) -> list[str]:
    """A network's prefixes; rows of earlier versions have the single field only."""
    return spec.cidrs or ([spec.cidr] if spec.cidr else [])


def gateways_of(spec: NetworkSpec) -> list[str]:
    """The gateways that a network names."""
    return spec.gateways or ([spec.gateway] if spec.gateway else [])


def service_cidrs_of(spec: TenantSpec | RouterSpec) -> list[str]:
    """The ranges of a tenant's services."""
    return spec.service_cidrs or ([spec.service_cidr] if spec.service_cidr else [])


def port_name(pod_uid: str, interface: str) -> str:
    """The Port of one interface of one pod."""
    return f"{pod_uid}.{interface}"


def address_name(network: str, address: str) -> str:
    """The Address of a network by its canonical text; network names are DNS labels, and no address has hyphens, so this is
    unambiguous (a MAC has six parts, an IPv6 address eight, or two hyphens in a row).
    """
    return f"{network}.{address.replace(':', '-')}"
