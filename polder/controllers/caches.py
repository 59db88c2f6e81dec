"""The caches that the controllers share: one for each kind, over all tenants, whatever the number of tenants."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from polder.api.addresses import AddressPool, ExternalAddress, ServiceCIDR
from polder.api.autoscaling import KnownAutoscaler
from polder.api.batch import KnownCronJob, KnownJob
from polder.api.certificates import CertificateSigningRequest
from polder.api.clusterroles import ClusterRole
from polder.api.core import ConfigMap, Namespace, Node, Secret, Service, ServiceAccount
from polder.api.discovery import EndpointSlice, Lease
from polder.api.endpoints import Endpoints
from polder.api.extensions import CustomResourceDefinition
from polder.api.meta import Object, ref_of
from polder.api.podfacts import ControlledPod
from polder.api.polder import Address, Network, Port, Router, Segment, Tenant
from polder.api.policy import PodDisruptionBudget, ResourceQuota
from polder.api.sets import KnownDaemonSet, KnownStatefulSet
from polder.api.storagefacts import Claim, Volume
from polder.api.workloads import Deployment, ReplicaSet, ReplicationController
from polder.base.ids import ROOT, TenantName
from polder.base.ref import Ref
from polder.client.client import Client
from polder.client.informer import Handler, Informer
from polder.controllers import account_tokens, balancers, bootstrap_tokens, daemons_pure
from polder.controllers.endpoints_pure import SERVICE_NAME
from polder.controllers.members import elsewhere
from polder.controllers.namespace_content import CERTIFICATE
from polder.controllers.service_ranges import OWN
from polder.controllers.volumes_pure import class_of, class_of_volume

ZONE = "topology.kubernetes.io/zone"


def port_of(address: Address) -> Ref:
    """The Port that holds an Address."""
    namespace, _, name = address.spec.port.partition("/")
    return Ref(ref_of(address).tenant, namespace, name)


def network_of(obj: Port | Address) -> Ref:
    """The Network of a Port or an Address."""
    namespace, _, name = obj.spec.network.partition("/")
    return Ref(ref_of(obj).tenant, namespace, name)


def namespace_of(obj: Object) -> Ref:
    """The namespace of an object, as a key: its reference without a name."""
    ref = ref_of(obj)
    return Ref(ref.tenant, ref.namespace, "")


def account_ref(secret: Secret) -> Ref:
    """The account that a token's Secret is for."""
    return Ref(ref_of(secret).tenant, secret.metadata.namespace, account_tokens.account_of(secret))


def service_of(found: EndpointSlice) -> list[Ref]:
    """The Service that a slice is about."""
    name = (found.metadata.labels or {}).get(SERVICE_NAME)
    return [Ref(ref_of(found).tenant, found.metadata.namespace, name)] if name else []


def waiting_for(claim: Claim) -> list[tuple[TenantName, str]]:
    """The class of volumes that a claim waits for, if it does."""
    return [] if claim.spec.volume_name else [(ref_of(claim).tenant, class_of(claim))]


def claim_ref(volume: Volume) -> list[Ref]:
    """The claim that a volume is kept for."""
    kept = volume.spec.claim_ref
    return [Ref(ref_of(volume).tenant, kept.namespace, kept.name)] if kept is not None else []


def root_ref(name: str) -> Ref:
    """A cluster-scoped object of root."""
    return Ref(ROOT, "", name)


class Caches:
    """What is known of the cluster. Caches say what is worth a look; reconcilers read the server."""

    def __init__(self, client: Client) -> None:
        self.tenants = Informer(client, Tenant, ROOT)
        self.nodes = Informer(client, Node)
        self.leases = Informer(client, Lease, ROOT)
        self.segments = Informer(client, Segment, ROOT)
        self.namespaces = Informer(client, Namespace)
        self.accounts = Informer(client, ServiceAccount)
        self.certificates = Informer(client, ConfigMap, fields=f"metadata.name={CERTIFICATE}")
        self.pods = Informer(client, ControlledPod)
        self.networks = Informer(client, Network)
        self.routers = Informer(client, Router)
        self.ports = Informer(client, Port)
        self.addresses = Informer(client, Address)
        self.definitions = Informer(client, CustomResourceDefinition)
        self.services = Informer(client, Service)
        self.slices = Informer(client, EndpointSlice)
        self.endpoints = Informer(client, Endpoints)
        self.service_ranges = Informer(client, ServiceCIDR)
        self.pools = Informer(client, AddressPool, ROOT)
        self.external = Informer(client, ExternalAddress, ROOT)
        self.quotas = Informer(client, ResourceQuota)
        self.sets = Informer(client, ReplicaSet)
        self.controllers = Informer(client, ReplicationController)
        self.deployments = Informer(client, Deployment)
        self.stateful = Informer(client, KnownStatefulSet)
        self.daemons = Informer(client, KnownDaemonSet)
        self.jobs = Informer(client, KnownJob)
        self.cron_jobs = Informer(client, KnownCronJob)
        self.autoscalers = Informer(client, KnownAutoscaler)
        self.claims = Informer(client, Claim)
        self.volumes = Informer(client, Volume)
        self.budgets = Informer(client, PodDisruptionBudget)
        self.roles = Informer(client, ClusterRole)
        self.requests = Informer(client, CertificateSigningRequest)
        self.account_tokens = Informer(client, Secret, fields=f"type={account_tokens.TYPE}")
        self.bootstrap_tokens = Informer(client, Secret, fields=f"type={bootstrap_tokens.TYPE}")
        self.cluster_infos = Informer(client, ConfigMap, fields=f"metadata.name={bootstrap_tokens.CLUSTER_INFO}")
        self._add_indexes()
        self._add_workload_indexes()

    def _add_workload_indexes(self) -> None:
        for sets in (self.sets, self.controllers, self.deployments, self.stateful, self.daemons):
            sets.add_index("namespace", lambda found: [namespace_of(found)])
        self.jobs.add_index("namespace", lambda job: [namespace_of(job)])
        self.jobs.add_index("owner", lambda job: [o.uid for o in job.metadata.owner_references or () if o.controller])
        self.nodes.add_index("tenant", lambda node: [ref_of(node).tenant])
        self.daemons.add_index("tenant", lambda found: [ref_of(found).tenant])
        self.pods.add_index("target", lambda pod: [daemons_pure.target_of(pod)] if pod.spec.affinity else [])

    def _add_indexes(self) -> None:
        self.tenants.add_index("member", lambda tenant: {member.tenant for _, member in elsewhere(tenant)})
        self.pods.add_index("node", lambda pod: [pod.spec.node_name] if pod.spec.node_name else [])
        self.claims.add_index("waiting", waiting_for)
        self.claims.add_index(
            "going", lambda claim: [namespace_of(claim)] if claim.metadata.deletion_timestamp is not None else []
        )
        self.volumes.add_index("class", lambda volume: [(ref_of(volume).tenant, class_of_volume(volume))])
        self.volumes.add_index("claim", claim_ref)
        self.budgets.add_index("namespace", lambda budget: [namespace_of(budget)])
        self.roles.add_index("tenant", lambda role: [ref_of(role).tenant])
        self.account_tokens.add_index("account", lambda secret: [account_ref(secret)])
        self.bootstrap_tokens.add_index("tenant", lambda secret: [ref_of(secret).tenant])
        self.pods.add_index("namespace", lambda pod: [namespace_of(pod)])
        self.services.add_index("namespace", lambda service: [namespace_of(service)])
        self.slices.add_index("service", service_of)
        self.services.add_index("tenant", lambda service: [ref_of(service).tenant])
        self.services.add_index("wanting", lambda service: [True] if balancers.is_wanting(service) else [])
        self.service_ranges.add_index("tenant", lambda found: [ref_of(found).tenant])
        self.service_ranges.add_index(
            "going", lambda found: [ref_of(found).tenant] if found.metadata.deletion_timestamp is not None else []
        )
        self.external.add_index("service", lambda claim: [balancers.service_of(claim)])
        self.external.add_index("pool", lambda claim: [claim.spec.pool])
        self.external.add_index("tenant", lambda claim: [claim.spec.tenant])
        self.external.add_index("node", lambda claim: [claim.status.node])
        self.external.add_index("share", lambda claim: [(claim.spec.pool, claim.spec.tenant)])
        self.pods.add_index("uid", lambda pod: [pod.metadata.uid])
        self.ports.add_index("node", lambda port: [port.spec.node])
        self.ports.add_index("router", lambda port: [port.spec.router_of] if port.spec.router_of else [])
        self.segments.add_index("network", lambda segment: [segment.spec.network_uid])
        self.ports.add_index("pod", lambda port: [port.spec.pod_uid] if port.spec.pod_uid else [])
        self.addresses.add_index("port", lambda address: [port_of(address)])

    def all(self) -> Iterator[Informer[Any]]:
        """All of them."""
        yield from self.__dict__.values()

    def on_node(self, fn: Handler[Node]) -> None:
        """Calls ``fn`` for every change of a node of the platform, which is root's; others are what tenants put on them."""
        self.nodes.on_change(lambda ref, old, new: fn(ref, old, new) if ref.tenant == ROOT else None)

    async def wait_synced(self) -> None:
        """Returns when every cache has had its first list."""
        await asyncio.gather(*(informer.wait_synced() for informer in self.all()))

    def pods_in(self, namespace: Ref) -> list[ControlledPod]:
        """The pods of a namespace."""
        return self.pods.by_index("namespace", namespace)

    def pods_on(self, node: str) -> list[ControlledPod]:
        """The pods of a node, of all tenants."""
        return self.pods.by_index("node", node)

    def bootstrap_tokens_of(self, tenant: str) -> list[Secret]:
        """The bootstrap tokens of a tenant."""
        found = self.bootstrap_tokens.by_index("tenant", tenant)
        return [secret for secret in found if secret.metadata.namespace == bootstrap_tokens.NAMESPACE]

    def router_ports(self, tenant: TenantName) -> list[Ref]:
        """The Ports that a tenant's router has in root."""
        return [ref_of(port) for port in self.ports.by_index("router", tenant)]

    def addressing_of(self, ref: Ref) -> tuple[list[Network], list[str], list[Service]]:
        """The networks, the ranges of service addresses and the Services of the tenant that an object is in."""
        networks = [found for found in self.networks.values() if ref_of(found).tenant == ref.tenant]
        ranges = [text for found in self.service_ranges.by_index("tenant", ref.tenant) for text in found.spec.cidrs]
        return networks, ranges, self.services_of(ref.tenant)

    def announcing_nodes(self) -> set[str]:
        """The nodes that answer for addresses on the outside."""
        return {claim.status.node for claim in self.external.values() if claim.status.node}

    def underlay_of(self, name: str) -> str:
        """The address of a node on the nodes' network; empty where it says none."""
        node = self.node(name)
        said = node.status.addresses or () if node is not None else ()
        return next((one.address for one in said if one.type == "InternalIP"), "")

    def node(self, name: str) -> Node | None:
        """A node of the platform."""
        return self.nodes.get(Ref(ROOT, "", name))

    def has_node(self, name: str) -> bool:
        """Whether the Node exists."""
        return self.nodes.get(Ref(ROOT, "", name)) is not None

    def services_of(self, tenant: TenantName) -> list[Service]:
        """A tenant's Services."""
        return self.services.by_index("tenant", tenant)

    def further_ranges(self, tenant: TenantName) -> list[str]:
        """The prefixes of the ServiceCIDRs that a tenant made, as long as they are there."""
        found = [one for one in self.service_ranges.by_index("tenant", tenant) if one.metadata.name != OWN]
        return sorted({text for one in found for text in one.spec.cidrs})

    def zone_of(self, node: str) -> str:
        """The zone of a node, empty if it has none."""
        found = self.nodes.get(Ref(ROOT, "", node))
        return (found.metadata.labels or {}).get(ZONE, "") if found is not None else ""

    def tenant_uid(self, name: str) -> str:
        """The UID of a tenant, empty if there is none."""
        tenant = self.tenants.get(root_ref(name))
        return tenant.metadata.uid if tenant is not None else ""

    def is_tenant_going(self, name: TenantName) -> bool:
        """Whether the Tenant is in deletion."""
        tenant = self.tenants.get(root_ref(name))
        return tenant is not None and tenant.metadata.deletion_timestamp is not None

    def is_namespace_going(self, ref: Ref) -> bool:
        """Whether the namespace that an object is in is in deletion."""
        namespace = self.namespaces.get(Ref(ref.tenant, "", ref.namespace))
        return namespace is not None and namespace.metadata.deletion_timestamp is not None

    def is_network_going(self, ref: Ref) -> bool:
        """Whether the Network is in deletion."""
        network = self.networks.get(ref)
        return network is not None and network.metadata.deletion_timestamp is not None
