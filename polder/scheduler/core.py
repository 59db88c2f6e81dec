"""Which node a pod goes to, or why none will do. Pure: one demand and the cluster in, one decision out."""

from __future__ import annotations

import zlib
from collections import Counter
from dataclasses import dataclass

from polder.api.core import Taint
from polder.api.nodeaffinity import tolerates
from polder.base.ids import ROOT
from polder.scheduler.cluster import Cluster, NodeFacts, Usage
from polder.scheduler.demand import Amounts, Demand

NO_NODES = "no nodes available to schedule pods"
NOT_READY = "node(s) were not ready"
UNSCHEDULABLE = "node(s) were unschedulable"
TAINTED = "node(s) had untolerated taint(s)"
NO_AFFINITY = "node(s) didn't match Pod's node affinity/selector"
NO_PORTS = "node(s) didn't have free ports for the requested pod ports"
TOO_MANY_PODS = "Too many pods"
WELL_KNOWN_TAINTS = "node.kubernetes.io/"
UNSCHEDULABLE_TAINT = Taint(key="node.kubernetes.io/unschedulable", effect="NoSchedule")


@dataclass(frozen=True, slots=True)
class Decision:
    """The chosen node, or (``node`` empty) a message that names no node and no other tenant."""

    node: str = ""
    message: str = ""


def decide(demand: Demand, cluster: Cluster) -> Decision:
    """The best node for the demand, or why there is none."""
    if demand.refusal:
        return Decision(message=demand.refusal)
    if not len(cluster):
        return Decision(message=NO_NODES)
    fitting: list[tuple[NodeFacts, Usage]] = []
    reasons: Counter[str] = Counter()
    for facts, usage in cluster.seen_by(demand.ref.tenant):
        against = refusals(demand, facts, usage)
        if against:
            reasons.update(against)
        else:
            fitting.append((facts, usage))
    if fitting:
        return Decision(node=best(demand, fitting))
    return Decision(message=explain(len(cluster), reasons))


def explain(nodes: int, reasons: Counter[str]) -> str:
    """Upstream's sentence: ``0/2 nodes are available: 2 Insufficient cpu.``"""
    parts = sorted(f"{count} {reason}" for reason, count in reasons.items())
    return f"0/{nodes} nodes are available: {', '.join(parts)}."


def refusals(demand: Demand, node: NodeFacts, usage: Usage) -> list[str]:
    """Why the node will not do: the reasons of the first filter that refuses, as upstream counts them."""
    if node.unschedulable and not tolerates(demand.tolerations, UNSCHEDULABLE_TAINT):
        return [UNSCHEDULABLE]
    taint = first_untolerated(demand, node)
    if taint is not None:
        return [_tainted(demand, node, taint)]
    # Root's own pods may tolerate a node that is not ready (they make it ready); tenants' pods never get there.
    if not node.ready and not (demand.ref.tenant == ROOT and _tolerates_unready(demand)):
        return [NOT_READY]
    if any(node.labels.get(key) != value for key, value in demand.selector.items()):
        return [NO_AFFINITY]
    if not demand.affinity.allows(node.labels, node.name):
        return [NO_AFFINITY]
    if any(port in usage.ports for port in demand.ports):
        return [NO_PORTS]
    return insufficient(demand.requests, node.allocatable, usage)


def insufficient(requests: Amounts, allocatable: Amounts, usage: Usage) -> list[str]:
    """Every resource of which too little is left."""
    short = [TOO_MANY_PODS] if usage.pods + 1 > allocatable.get("pods", 0) else []
    short += [
        f"Insufficient {name}"
        for name, wanted in requests.items()
        if wanted > 0 and usage.requests[name] + wanted > allocatable.get(name, 0)
    ]
    return short


def first_untolerated(demand: Demand, node: NodeFacts) -> Taint | None:
    """The first taint that keeps the pod off."""
    for taint in node.taints:
        if taint.effect in ("NoSchedule", "NoExecute") and not tolerates(demand.tolerations, taint):
            return taint
    return None


def _tolerates_unready(demand: Demand) -> bool:
    return tolerates(demand.tolerations, Taint(key="node.kubernetes.io/not-ready", effect="NoSchedule"))


def _tainted(demand: Demand, node: NodeFacts, taint: Taint) -> str:
    """Upstream's words where the taint is nobody's secret; a platform's own taint may name another tenant."""
    if demand.ref.tenant == ROOT or taint in node.own_taints or taint.key.startswith(WELL_KNOWN_TAINTS):
        return f"node(s) had untolerated taint {{{taint.key}: {taint.value}}}"
    return TAINTED


def best(demand: Demand, fitting: list[tuple[NodeFacts, Usage]]) -> str:
    """The node with the highest score; equal scores are broken by a hash, so that nothing piles up on one."""
    most = max(usage.groups[demand.group] for _, usage in fitting)

    def key(item: tuple[NodeFacts, Usage]) -> tuple[float, int, int, str]:
        node, usage = item
        tie = zlib.crc32(f"{demand.uid}/{node.name}".encode())
        return (score(demand, node, usage, most), -usage.pods, tie, node.name)

    return max(fitting, key=key)[0].name


def score(demand: Demand, node: NodeFacts, usage: Usage, most: int) -> float:
    """0 to 100 for room left, 0 to 100 for few pods of the same group (the fullest has ``most``), plus preferences."""
    room = sum(_free_share(name, demand, node, usage) for name in ("cpu", "memory")) / 2
    spread = 1 - usage.groups[demand.group] / most if most else 1.0
    shunned = sum(t.effect == "PreferNoSchedule" and not tolerates(demand.tolerations, t) for t in node.taints)
    return 100 * (room + spread - shunned) + demand.affinity.preference(node.labels, node.name)


def _free_share(name: str, demand: Demand, node: NodeFacts, usage: Usage) -> float:
    have = node.allocatable.get(name, 0)
    if not have:
        return 0.0
    return max(0.0, 1 - (usage.scored[name] + demand.scored.get(name, 0)) / have)
