"""What nodes' own properties say about a pod: asked once for all pods that ask for the same, as long as no node changes."""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from typing import Final
from weakref import WeakKeyDictionary

from polder.api.core import Taint
from polder.api.nodeaffinity import Tolerations
from polder.scheduler.demand import Place
from polder.scheduler.nodes import NodeFacts, View

NOT_READY: Final = "node(s) were not ready"
UNSCHEDULABLE: Final = "node(s) were unschedulable"
TAINTED: Final = "node(s) had untolerated taint(s)"
NO_AFFINITY: Final = "node(s) didn't match Pod's node affinity/selector"
UNSCHEDULABLE_TAINT: Final = Taint(key="node.kubernetes.io/unschedulable", effect="NoSchedule")
NOT_READY_TAINT: Final = Taint(key="node.kubernetes.io/not-ready", effect="NoSchedule")
KEPT: Final = 64
"""Answers that are kept for one view of the nodes."""


def bears(borne: Tolerations, node: NodeFacts) -> bool:
    """Whether no taint keeps the pod off."""
    return all(taint.effect not in ("NoSchedule", "NoExecute") or borne.bear(taint) for taint in node.taints)


def selects(place: Place, node: NodeFacts) -> bool:
    """Whether the node is one that selector and affinity ask for."""
    labels = node.labels
    if place.platform and any(node.platform.get(key) != value for key, value in place.platform.items()):
        return False
    return all(labels.get(key) == value for key, value in place.selector.items()) and place.affinity.allows(
        labels, node.name
    )


def refusal(place: Place, borne: Tolerations, node: NodeFacts) -> str:
    """Why the node will never do as it is; empty if it may. ``borne``: the taints that the pod bears."""
    if node.unschedulable and not borne.bear(UNSCHEDULABLE_TAINT):
        return UNSCHEDULABLE
    if not bears(borne, node):
        return TAINTED
    # Root's own pods may tolerate a node that is not ready (they make it ready); tenants' pods never get there.
    if not node.ready and not (place.is_root and borne.bear(NOT_READY_TAINT)):
        return NOT_READY
    return "" if selects(place, node) else NO_AFFINITY


@dataclass(slots=True)
class Answer:
    """The nodes that may do, why the others will not (each reason with its number of nodes), and what is preferred."""

    nodes: list[NodeFacts] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    selected: frozenset[str] = frozenset()
    borne: frozenset[str] = frozenset()
    shunned: dict[str, int] = field(default_factory=dict)
    """By node, how many PreferNoSchedule taints the pod does not tolerate."""
    preferred: dict[str, int] = field(default_factory=dict)


_answers: WeakKeyDictionary[View, OrderedDict[Place, Answer]] = WeakKeyDictionary()


def answer(place: Place, view: View) -> Answer:
    """What the nodes of a view say."""
    known = _answers.setdefault(view, OrderedDict())
    found = known.get(place)
    if found is None:
        found = known[place] = _ask(place, view)
        if len(known) > KEPT:
            known.popitem(last=False)
    return found


def _ask(place: Place, view: View) -> Answer:
    made, borne = Answer(), Tolerations(place.tolerations)
    selected, bearing = [], []
    for node in view.nodes:
        why = refusal(place, borne, node)
        if why:
            made.reasons[why] += 1
        else:
            made.nodes.append(node)
        if selects(place, node):
            selected.append(node.name)
        if bears(borne, node) and (not node.unschedulable or borne.bear(UNSCHEDULABLE_TAINT)):
            bearing.append(node.name)
        shunned = sum(t.effect == "PreferNoSchedule" and not borne.bear(t) for t in node.taints)
        if shunned:
            made.shunned[node.name] = shunned
        if place.affinity.preferred and (weight := place.affinity.preference(node.labels, node.name)):
            made.preferred[node.name] = weight
    made.selected, made.borne = frozenset(selected), frozenset(bearing)
    return made
