"""What the controllers are given by ``main/``."""

from __future__ import annotations

from dataclasses import dataclass, field

from polder.base.clock import Clock, SystemClock
from polder.controllers.node_zones import Rates


@dataclass(frozen=True, slots=True)
class ControllerSettings:
    """Durations in seconds, on the monotonic clock. ``root_ca`` is the PEM text that pods trust the API server by."""

    root_ca: str
    clock: Clock = field(default_factory=SystemClock)
    node_grace: float = 40.0
    """How long a node's Lease may stand still before the node counts as unreachable."""
    node_startup_grace: float = 60.0
    """Likewise for a node that has never said how it is: one that joins."""
    node_tick: float = 5.0
    """How often that is looked at."""
    node_eviction: Rates = field(default_factory=Rates)
    """How fast the pods of nodes that are not ready are made to go."""
    missing_node_grace: float = 40.0
    """How long a Node object may be missing before its pods, ports and addresses are cleaned up."""
    orphan_grace: float = 60.0
    """How long an Address may stand without its Port, or a Port without its pod, before the sweeper acts."""
    sweep_period: float = 30.0
    """How often orphans are looked for."""
    clock_period: float = 10.0
    """How often it is looked whether the wall clock was put right."""
    ended_pods: int = 1000
    """Records of ended pods that a tenant may keep."""
    ended_pods_period: float = 20.0
    """How often those beyond that are looked for."""
    event_lifetime: float = 3600.0
    """How long an Event is kept."""
    event_period: float = 300.0
    """How often old events are looked for."""
    quota_period: float = 300.0
    """How often every quota is counted anew."""
    garbage_recheck: float = 30.0
    """How often an owner that waits for its dependents is looked at again, beside the changes that wake it."""
    recheck: float = 2.0
    """How often a deletion that waits for something is looked at again, beside the changes that wake it."""
    drain_round: float = 10.0
    """How long servers of a tenant's own are asked about a namespace that goes, before what they said is written down."""
