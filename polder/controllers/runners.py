"""The reconcilers with their queues."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from polder.api.workloads import ReplicaSet, ReplicationController
from polder.base.ref import Ref
from polder.client.client import Client
from polder.client.events import Recorder
from polder.controllers.account_tokens import AccountTokenController
from polder.controllers.aggregation import AggregationController
from polder.controllers.announcers import AnnouncerController
from polder.controllers.autoscale import AutoscalerController
from polder.controllers.balancers import BalancerController, Ledger
from polder.controllers.bootstrap_tokens import BootstrapTokenController
from polder.controllers.caches import Caches
from polder.controllers.certificates import CertificateController, Signer
from polder.controllers.cronjobs import CronJobController
from polder.controllers.daemons import DaemonController
from polder.controllers.deployments import DeploymentController
from polder.controllers.disruption import DisruptionController
from polder.controllers.endpoints import EndpointsController
from polder.controllers.ephemeral_claims import EphemeralClaimController
from polder.controllers.external_ips import ExternalIPController
from polder.controllers.gc import GarbageCollector
from polder.controllers.internal import Item
from polder.controllers.jobs import JobController
from polder.controllers.jobs_after import JobExpiry, JobLeftovers
from polder.controllers.local_volumes import LocalVolumes
from polder.controllers.mapper import Mapper
from polder.controllers.members import MemberController
from polder.controllers.missing import MissingNodes
from polder.controllers.namespace import NamespaceController
from polder.controllers.namespace_content import NamespaceContentController
from polder.controllers.network import NetworkController, SegmentController
from polder.controllers.node import NodeController
from polder.controllers.nodeviews import NodeViews
from polder.controllers.pods import EndedPodController, PodController
from polder.controllers.pool_status import ClaimController, PoolController
from polder.controllers.ports import AddressSweeper, PortSweeper
from polder.controllers.pulse import Pulse
from polder.controllers.quotas import QuotaController, UsageController
from polder.controllers.replicas import ReplicaController
from polder.controllers.router import RouterController
from polder.controllers.service_ranges import ServiceRangeController
from polder.controllers.settings import ControllerSettings
from polder.controllers.stateful import StatefulController
from polder.controllers.taint_evictions import TaintEvictionController
from polder.controllers.tenant import TenantController
from polder.controllers.volume_claims import VolumeClaimController
from polder.controllers.volumes import VolumeController
from polder.loop.runner import Runner


def subject(ref: Ref) -> str:
    """Whom a key is about where keys may be the platform's objects: a Tenant, Node or Segment is one by itself."""
    return ref.tenant if ref.namespace else ref.name


class Runners:
    """One queue for each reconciler, over all tenants; queues take turns between tenants, and one of them has at most half
    of the workers.
    """

    def __init__(
        self, client: Client, settings: ControllerSettings, caches: Caches, signer: Signer | None = None
    ) -> None:
        self.recorders: list[Recorder] = []
        self._add_networking(client, settings, caches)
        self._add_policies(client, settings, caches)
        self._add_addresses(client, settings, caches)
        self._add_workloads(client, settings, caches)
        self._add_sets(client, settings, caches)
        self._add_batch(client, settings, caches)
        self._add_storage(client, settings, caches)
        signing = CertificateController(client, settings.clock, signer)
        self.requests: Runner[Ref] = Runner("certificate requests", signing.reconcile, 2)
        self.collector = GarbageCollector(client, settings.clock, self._collect, settings.garbage_recheck)
        self.garbage: Runner[Item] = Runner("garbage", self.collector.reconcile, 8)

    def _add_networking(self, client: Client, settings: ControllerSettings, caches: Caches) -> None:
        """Tenants, namespaces, nodes, and what holds addresses."""
        clock = settings.clock
        missing = MissingNodes(client, clock, settings.missing_node_grace)
        ports = PortSweeper(client, missing, clock, settings.orphan_grace)
        addresses = AddressSweeper(client, clock, settings.orphan_grace)
        said = Recorder(client, "node-controller", clock)
        self.recorders.append(said)
        self.health = NodeController(client, settings, caches.pods_on, said)
        views = NodeViews(caches.nodes)
        evicting = TaintEvictionController(client, views, caches.pods, clock, said)
        self.evictions: Runner[Ref] = Runner("taint evictions", evicting.reconcile, 4)
        tenants = TenantController(client, settings, caches.router_ports)
        self.tenants: Runner[Ref] = Runner("tenants", tenants.reconcile, 4, turn=subject)
        self.namespaces: Runner[Ref] = Runner("namespaces", NamespaceController(client, settings).reconcile, 8)
        self.contents: Runner[Ref] = Runner(
            "namespace contents", NamespaceContentController(client, settings).reconcile, 4
        )
        self.networks: Runner[Ref] = Runner("networks", NetworkController(client, settings).reconcile, 8)
        self.segments: Runner[Ref] = Runner("segments", SegmentController(client).reconcile, 2, turn=subject)
        self.routers: Runner[Ref] = Runner("routers", RouterController(client, caches.further_ranges).reconcile, 4)
        self.nodes: Runner[Ref] = Runner("nodes", self.health.reconcile, 2, turn=subject)
        self.pods: Runner[Ref] = Runner("pods", PodController(client, missing, clock).reconcile, 4)
        self.ended: Runner[Ref] = Runner("ended pods", EndedPodController(client).reconcile, 2)
        self.ports: Runner[Ref] = Runner("ports", ports.reconcile, 4)
        self.addresses: Runner[Ref] = Runner("addresses", addresses.reconcile, 4)

    def _add_addresses(self, client: Client, settings: ControllerSettings, caches: Caches) -> None:
        """Ranges of service addresses, and addresses on the outside."""
        clock = settings.clock
        ranges = ServiceRangeController(client, clock, caches.services_of)
        self.service_ranges: Runner[Ref] = Runner("service ranges", ranges.reconcile, 2)
        told = Recorder(client, "service-controller", clock)
        outside = BalancerController(client, clock, Ledger(caches.external), caches.pools, told)
        self.balancers: Runner[Ref] = Runner("load balancers", outside.reconcile, 4)
        self.pools: Runner[Ref] = Runner("address pools", PoolController(client, caches.external).reconcile, 1)
        self.claims: Runner[Ref] = Runner("external addresses", ClaimController(client).reconcile, 2)
        self.pulse = Pulse(caches.announcing_nodes, caches.underlay_of, clock)
        placing = AnnouncerController(client, clock, caches, self.pulse.is_lost)
        self.announcers: Runner[Ref] = Runner("announcers", placing.reconcile, 4)
        named = ExternalIPController(client, clock, told, caches.addressing_of)
        self.external_ips: Runner[Ref] = Runner("external addresses of services", named.reconcile, 2)
        self.recorders.append(told)

    def _add_workloads(self, client: Client, settings: ControllerSettings, caches: Caches) -> None:
        """Sets of pods, and what is in front of them."""
        clock = settings.clock
        said = [
            Recorder(client, f"{name}-controller", clock)
            for name in ("replicaset", "replication", "deployment", "endpoint-slice-mirroring")
        ]
        self.recorders += said
        behind = EndpointsController(client, caches.pods_in, caches.zone_of, said[3])
        self.own_endpoints = behind.own
        self.endpoints: Runner[Ref] = Runner("endpoints", behind.reconcile, 8)
        sets = ReplicaController(client, ReplicaSet, caches.pods, clock, said[0])
        self.sets: Runner[Ref] = Runner("replica sets", sets.reconcile, 8)
        controllers = ReplicaController(client, ReplicationController, caches.pods, clock, said[1])
        self.controllers: Runner[Ref] = Runner("replication controllers", controllers.reconcile, 4)
        rolling = DeploymentController(client, caches.pods, clock, said[2])
        self.deployments: Runner[Ref] = Runner("deployments", rolling.reconcile, 8)

    def _add_batch(self, client: Client, settings: ControllerSettings, caches: Caches) -> None:
        """What runs to an end."""
        clock = settings.clock
        said = [Recorder(client, f"{name}-controller", clock) for name in ("cronjob", "job")]
        said.append(Recorder(client, "horizontal-pod-autoscaler", clock))
        self.recorders += said
        planning = CronJobController(client, caches.jobs, clock, said[0])
        self.cron_jobs: Runner[Ref] = Runner("cron jobs", planning.reconcile, 4)
        running = JobController(client, caches.pods, clock, said[1])
        self.jobs: Runner[Ref] = Runner("jobs", running.reconcile, 8)
        sizing = AutoscalerController(client, Mapper(client, clock), clock, said[2])
        self.autoscalers: Runner[Ref] = Runner("autoscalers", sizing.reconcile, 4)
        self.job_expiry: Runner[Ref] = Runner("job expiry", JobExpiry(client, clock).reconcile, 2)
        self.job_pods: Runner[Ref] = Runner("job pods", JobLeftovers(client, caches.pods).reconcile, 4)

    def _add_sets(self, client: Client, settings: ControllerSettings, caches: Caches) -> None:
        """Sets with a history of their own."""
        clock, views = settings.clock, NodeViews(caches.nodes)
        said = [Recorder(client, f"{name}-controller", clock) for name in ("statefulset", "daemonset")]
        self.recorders += said
        stateful = StatefulController(client, caches.pods, clock, said[0])
        self.stateful: Runner[Ref] = Runner("stateful sets", stateful.reconcile, 8)
        daemons = DaemonController(client, caches.pods, views.places, clock, said[1])
        self.daemons: Runner[Ref] = Runner("daemon sets", daemons.reconcile, 8)

    def _add_storage(self, client: Client, settings: ControllerSettings, caches: Caches) -> None:
        """Claims and volumes."""
        names = ("persistentvolume-controller", "ephemeral_volume")
        said = [Recorder(client, name, settings.clock) for name in names]
        self.recorders += said
        own = LocalVolumes(client, caches.has_node)
        binding = VolumeClaimController(client, caches.volumes, own, said[0])
        self.volume_claims: Runner[Ref] = Runner("volume claims", binding.reconcile, 4)
        keeping = VolumeController(client, own, self.volume_claims.add, said[0])
        self.volumes: Runner[Ref] = Runner("volumes", keeping.reconcile, 4)
        made = EphemeralClaimController(client, said[1])
        self.ephemeral_claims: Runner[Ref] = Runner("ephemeral claims", made.reconcile, 2)

    def _add_policies(self, client: Client, settings: ControllerSettings, caches: Caches) -> None:
        """Quotas, budgets, roles and tokens."""
        clock = settings.clock
        self.quotas: Runner[Ref] = Runner("quotas", QuotaController(client).reconcile, 4, turn=subject)
        members = MemberController(client, clock, caches.tenant_uid)
        self.members: Runner[Ref] = Runner("members", members.reconcile, 1)
        self.usages: Runner[Ref] = Runner("usages", UsageController(client).reconcile, 2, turn=subject)
        budgets = DisruptionController(client, clock, caches.pods_in)
        self.budgets: Runner[Ref] = Runner("disruption budgets", budgets.reconcile, 4)
        self.roles: Runner[Ref] = Runner("cluster roles", AggregationController(client).reconcile, 2)
        filling = AccountTokenController(client, settings.root_ca)
        self.account_tokens: Runner[Ref] = Runner("account tokens", filling.reconcile, 2)
        bootstrap = BootstrapTokenController(client, clock, caches.bootstrap_tokens_of)
        self.bootstrap_tokens: Runner[Ref] = Runner("bootstrap tokens", bootstrap.reconcile, 2)

    def _collect(self, item: Item) -> None:
        self.garbage.add(item)

    def all(self) -> Iterator[Runner[Any]]:
        """Every queue."""
        yield from (part for part in self.__dict__.values() if isinstance(part, Runner))
