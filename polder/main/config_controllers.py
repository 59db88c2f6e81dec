"""The part of the server's configuration that says how patient the controllers are."""

from __future__ import annotations

import msgspec

from polder.base.errors import PermanentError
from polder.controllers.node_zones import Rates
from polder.controllers.settings import ControllerSettings


class ControllersConfig(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """Times in seconds."""

    node_grace: float = 40.0
    """A node that is silent for so long is unreachable. Agents renew their leases every ten seconds."""
    node_startup_grace: float = 60.0
    """Likewise a node that has never said how it is."""
    node_monitor: float = 5.0
    """How often that is looked at."""
    missing_node_grace: float = 40.0
    """A Node that is missing for so long is gone, and with it its pods."""
    evicted_nodes_per_second: float = 0.1
    """Of nodes that are not ready, so many begin to lose their pods in a second, in each zone."""
    evicted_nodes_per_second_in_trouble: float = 0.01
    """Likewise in a large zone where ``zone_in_trouble`` of the nodes are not ready; a smaller one loses none."""
    zone_in_trouble: float = 0.55
    large_zone: int = 50
    """Nodes of a zone that is large."""
    ended_pods: int = 1000
    """So many records of pods that have ended a tenant may keep; the oldest go."""


def controller_settings(config: ControllersConfig, root_ca: str) -> ControllerSettings:
    """The controllers' settings. Raises PermanentError naming the field."""
    for name in ("node_grace", "node_startup_grace", "node_monitor", "missing_node_grace"):
        if not 0.1 <= getattr(config, name) <= 86400:
            raise PermanentError(
                f"configuration: controllers: {name} {getattr(config, name)} is not between 0.1 and 86400"
            )
    for name in ("evicted_nodes_per_second", "evicted_nodes_per_second_in_trouble", "zone_in_trouble", "ended_pods"):
        if getattr(config, name) < 0:
            raise PermanentError(f"configuration: controllers: {name} {getattr(config, name)} is less than 0")
    rates = Rates(
        config.evicted_nodes_per_second,
        config.evicted_nodes_per_second_in_trouble,
        config.large_zone,
        config.zone_in_trouble,
    )
    return ControllerSettings(
        root_ca,
        node_grace=config.node_grace,
        node_startup_grace=config.node_startup_grace,
        node_tick=config.node_monitor,
        missing_node_grace=config.missing_node_grace,
        node_eviction=rates,
        ended_pods=config.ended_pods,
    )
