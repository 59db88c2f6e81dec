"""What the scheduler is told: events of nodes and pods bring cluster and backlog up to date."""

from __future__ import annotations

import logging

from polder.api.nodefacts import ScheduledNode
from polder.api.podfacts import ScheduledPod
from polder.base.errors import PermanentError
from polder.base.ids import ROOT
from polder.base.ref import Ref
from polder.scheduler.backlog import Backlog
from polder.scheduler.cluster import Cluster, Nomination, Placement
from polder.scheduler.demand import Demand, demand_of, is_pending, is_terminal
from polder.scheduler.nodes import facts_of, overlay_of
from polder.scheduler.write import TARGET

log = logging.getLogger(__name__)


def placement_of(pod: ScheduledPod) -> Placement:
    """Where a pod is that has a node."""
    leaving = pod.metadata.deletion_timestamp is not None
    conditions = pod.status.conditions or () if leaving else ()
    preempted = any(c.type == TARGET and c.status == "True" for c in conditions)
    since = pod.status.start_time or pod.metadata.creation_timestamp or ""
    return Placement(pod.spec.node_name, demand_of(pod), False, leaving, since, preempted)


def is_alike(old: ScheduledPod, new: ScheduledPod) -> bool:
    """Whether two states of a pod take the same of a node."""
    return (
        old.spec == new.spec
        and old.metadata.labels == new.metadata.labels
        and old.metadata.deletion_timestamp == new.metadata.deletion_timestamp
        and is_terminal(old) == is_terminal(new)
        and old.status.container_statuses == new.status.container_statuses
        and old.status.nominated_node_name == new.status.nominated_node_name
    )


class Intake:
    """Handlers of the caches."""

    def __init__(self, cluster: Cluster, backlog: Backlog) -> None:
        self._cluster = cluster
        self._backlog = backlog

    def on_node(self, ref: Ref, _old: ScheduledNode | None, new: ScheduledNode | None) -> None:
        """Root's nodes are the nodes; a tenant's is what the tenant put on one of them."""
        if ref.tenant != ROOT:
            self._cluster.set_overlay(ref.tenant, ref.name, overlay_of(new) if new is not None else None)
        elif new is None:
            self._cluster.remove_node(ref.name)
        else:
            try:
                self._cluster.set_node(facts_of(new))
            except PermanentError as error:
                log.warning("node %s takes no pods, its status is malformed: %s", ref.name, error)
                self._cluster.remove_node(ref.name)

    def on_pod(self, old: ScheduledPod | None, new: ScheduledPod | None) -> Demand | None:
        """A pod came, changed or went. The demand of one that waits."""
        if old is not None and (new is None or new.metadata.uid != old.metadata.uid):
            self._cluster.free_pod(old.metadata.uid)
            self._backlog.drop(old.metadata.uid)
            old = None
        return None if new is None else self._see(old, new)

    def _see(self, old: ScheduledPod | None, pod: ScheduledPod) -> Demand | None:
        uid = pod.metadata.uid
        known = self._cluster.placement(uid)
        if pod.spec.node_name and not is_terminal(pod):
            self._backlog.drop(uid)
            if known is not None and not known.assumed and old is not None and is_alike(old, pod):
                return None
            placement = placement_of(pod)
            if known != placement:
                self._cluster.place(placement)
            return placement.demand
        if not is_pending(pod):
            self._backlog.drop(uid)
            self._cluster.free_pod(uid)
            return None
        if known is not None or (old is not None and uid in self._backlog and is_alike(old, pod)):
            return None
        demand = demand_of(pod)
        self._backlog.put(demand)
        if demand.nominated and self._cluster.nomination(uid) is None:
            self._cluster.nominate(Nomination(demand, demand.nominated, earned=False))
        return demand
