"""Whether a node is alive, judged by the observer's own clock: pure. Two machines' clocks are never compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from polder.api.core import Node, NodeCondition, Taint

UNREACHABLE = "node.kubernetes.io/unreachable"
NOT_READY = "node.kubernetes.io/not-ready"
OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"
NO_SCHEDULE, NO_EXECUTE = "NoSchedule", "NoExecute"
PRESSURES = {
    "MemoryPressure": "node.kubernetes.io/memory-pressure",
    "DiskPressure": "node.kubernetes.io/disk-pressure",
    "PIDPressure": "node.kubernetes.io/pid-pressure",
    "NetworkUnavailable": "node.kubernetes.io/network-unavailable",
}
"""Conditions that keep new pods off while they hold, with their taints."""
UNSCHEDULABLE = "node.kubernetes.io/unschedulable"
UNKNOWN_REASON = "NodeStatusUnknown"
UNKNOWN_MESSAGE = "The node's agent stopped renewing its lease."
NEVER_REASON = "NodeStatusNeverUpdated"
NEVER_MESSAGE = "The node's agent never said how the node is."
AWAY = {"False": NOT_READY, "Unknown": UNREACHABLE}
"""The taints of a node that is not ready, by its Ready condition."""
JUDGED = ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")


Evict = Literal["go", "hold", "never"]
"""Whether the pods of a node that is not ready may be made to go: now, not yet, or not at all."""


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The last version of a Lease that was seen, and when (monotonic seconds) it was first seen."""

    version: str
    seen: float


class Heartbeats:
    """Per node: since when its Lease stands still. ``startup`` is the grace of a node that has never said how it is."""

    def __init__(self, grace: float, startup: float) -> None:
        self._grace = grace
        self._startup = startup
        self._known: dict[str, Heartbeat] = {}

    def observe(self, node: str, version: str, now: float) -> None:
        """The Lease as it is (empty version: there is none). Only a change of version is a sign of life."""
        known = self._known.get(node)
        if known is None or known.version != version:
            self._known[node] = Heartbeat(version, now)

    def is_watched(self, node: str) -> bool:
        """Whether the node's silence is being measured at all."""
        return node in self._known

    def forget(self, node: str) -> None:
        """The node is gone."""
        self._known.pop(node, None)

    def is_late(self, node: str, now: float, *, is_new: bool = False) -> bool:
        """Whether the node has been silent for longer than its grace period since it was first watched."""
        known = self._known.get(node)
        return known is not None and now - known.seen > (self._startup if is_new else self._grace)


def unknown_conditions(node: Node, at: str) -> list[NodeCondition]:
    """The judged conditions that must change so that a silent node says so. Empty: it already does."""
    have = {c.type: c for c in node.status.conditions or []}
    out = []
    for name in JUDGED:
        known = have.get(name)
        if (known is None and name != "Ready") or (known is not None and known.status == "Unknown"):
            continue
        out.append(
            NodeCondition(
                type=name,
                status="Unknown",
                reason=UNKNOWN_REASON if known else NEVER_REASON,
                message=UNKNOWN_MESSAGE if known else NEVER_MESSAGE,
                last_heartbeat_time=known.last_heartbeat_time if known else None,
                last_transition_time=at,
            )
        )
    return out


def overwritten(node: Node, written: list[NodeCondition]) -> list[NodeCondition]:
    """What the agent itself had said in place of the conditions that are written over it."""
    types = {c.type for c in written}
    return [c for c in node.status.conditions or [] if c.type in types and c.reason != UNKNOWN_REASON]


def still_unknown(node: Node, said: list[NodeCondition]) -> list[NodeCondition]:
    """Of what the agent had said, the conditions that it has not written anew since."""
    ours = {c.type for c in node.status.conditions or [] if c.reason == UNKNOWN_REASON}
    return [c for c in said if c.type in ours]


def whole(condition: NodeCondition) -> dict[str, str | None]:
    """Every field of a condition: in a strategic merge, one that is left out would keep its old value."""
    return {
        "type": condition.type,
        "status": condition.status,
        "reason": condition.reason,
        "message": condition.message,
        "lastHeartbeatTime": condition.last_heartbeat_time,
        "lastTransitionTime": condition.last_transition_time,
    }


def readiness(node: Node) -> str:
    """The node's Ready condition: True, False or Unknown; empty while nobody has said anything, as of a node that joins."""
    return next((c.status for c in node.status.conditions or [] if c.type == "Ready"), "")


def is_out_of_service(node: Node) -> bool:
    """Whether somebody vouches that nothing runs on the node any more, which is not ready."""
    return readiness(node) != "True" and any(t.key == OUT_OF_SERVICE for t in node.spec.taints or [])


def keeping_off(node: Node) -> set[str]:
    """Taints that keep new pods off a node, by what it says of itself."""
    held = {c.type for c in node.status.conditions or [] if c.status == "True"}
    keys = {taint for condition, taint in PRESSURES.items() if condition in held}
    if node.spec.unschedulable:
        keys.add(UNSCHEDULABLE)
    key = AWAY.get(readiness(node))
    return {*keys, key} if key else keys


def wanted_taints(node: Node, at: str, evict: Evict) -> list[Taint] | None:
    """The node's taints as its conditions ask for them; None: they are right as they are."""
    have, off, away = node.spec.taints or [], keeping_off(node), AWAY.get(readiness(node))
    executing = any(t.effect == NO_EXECUTE and t.key in (NOT_READY, UNREACHABLE) for t in have)
    out = {away} if away and (evict == "go" or (evict == "hold" and executing)) else set()
    wanted = {(key, NO_SCHEDULE) for key in off} | {(key, NO_EXECUTE) for key in out}
    kept = [t for t in have if (t.key, t.effect) in wanted or not _is_ours(t)]
    present = {(t.key, t.effect) for t in kept}
    missing = sorted(wanted - present, key=lambda found: (found[1] != NO_SCHEDULE, found[0]))
    made = kept + [Taint(key=key, effect=effect, time_added=at) for key, effect in missing]
    return None if made == have else made


def _is_ours(taint: Taint) -> bool:
    if taint.effect == NO_EXECUTE:
        return taint.key in (NOT_READY, UNREACHABLE)
    known = (NOT_READY, UNREACHABLE, UNSCHEDULABLE, *PRESSURES.values())
    return taint.effect == NO_SCHEDULE and taint.key in known
