"""DaemonSets: on which nodes a pod ought to be, which pods come and go, and what the status says. Pure; follows upstream's
daemonset controller.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec

from polder.api.core import Taint
from polder.api.meta import OwnerReference
from polder.api.nodeaffinity import Tolerations, affinity_of
from polder.api.podfacts import ControlledPod
from polder.api.podspec import Toleration
from polder.api.sets import TEMPLATE_GENERATION, DaemonPlace, DaemonSet, DaemonSetStatus
from polder.api.workloads import Template
from polder.controllers.endpoints_pure import is_ready
from polder.controllers.history_pure import POD_HASH
from polder.controllers.replicas_pure import is_available

POD_GENERATION = "pod-template-generation"
_NODE = "node.kubernetes.io/"
BORNE = (
    *(Toleration(key=f"{_NODE}{name}", operator="Exists", effect="NoExecute") for name in ("not-ready", "unreachable")),
    *(
        Toleration(key=f"{_NODE}{name}", operator="Exists", effect="NoSchedule")
        for name in ("disk-pressure", "memory-pressure", "pid-pressure", "unschedulable")
    ),
)
"""What every daemon bears, besides what its template says."""
NO_NETWORK = Toleration(key=f"{_NODE}network-unavailable", operator="Exists", effect="NoSchedule")
_KEEPING_OFF = ("NoSchedule", "NoExecute")


@dataclass(frozen=True, slots=True)
class Place:
    """A node as the owner of the set sees it."""

    name: str
    labels: Mapping[str, str]
    taints: tuple[Taint, ...] = ()


def tolerations_of(place: DaemonPlace) -> list[Toleration]:
    """The daemon's tolerations: its template's, and those that every daemon has in the place of like ones."""
    added = [*BORNE, *([NO_NETWORK] if place.host_network else [])]
    alike = {(t.key, t.effect, t.operator, t.value) for t in added}
    own = [t for t in place.tolerations or () if (t.key, t.effect, t.operator, t.value) not in alike]
    return [*own, *added]


class Fitting:
    """Which nodes a template fits; made once for all of them."""

    def __init__(self, place: DaemonPlace) -> None:
        self._name = place.node_name
        self._labels = place.node_selector or {}
        self._affinity = affinity_of(place.affinity.node_affinity if place.affinity is not None else None)
        self._borne = Tolerations(tolerations_of(place))

    def __call__(self, node: Place) -> tuple[bool, bool]:
        """Whether a pod should be made for the node, and whether one that is there should stay."""
        if self._name and self._name != node.name:
            return False, False
        if any(node.labels.get(name) != value for name, value in self._labels.items()):
            return False, False
        if not self._affinity.allows(node.labels, node.name):
            return False, False
        against = [t for t in node.taints if t.effect in _KEEPING_OFF and not self._borne.bear(t)]
        return not against, not any(t.effect == "NoExecute" for t in against)


def target_of(pod: ControlledPod) -> str:
    """The node that a daemon's pod is on or is made for; empty if it says none."""
    if pod.spec.node_name:
        return pod.spec.node_name
    affinity = pod.spec.affinity.node_affinity if pod.spec.affinity is not None else None
    required = affinity.required if affinity is not None else None
    for term in required.node_selector_terms if required is not None else ():
        for clause in term.match_fields or ():
            if clause.key == "metadata.name" and clause.operator == "In" and len(clause.values or ()) == 1:
                return (clause.values or [""])[0]
    return ""


@dataclass(frozen=True, slots=True)
class View:
    """A set, the hash of its template's revision, what ``Fitting`` says of each node, and pods by the node that each is for."""

    daemons: DaemonSet
    mark: str
    nodes: Mapping[str, tuple[bool, bool]]
    pods: Mapping[str, Sequence[ControlledPod]]
    now: datetime
    wanted: frozenset[str]
    """The nodes that ought to have a pod."""

    def is_new(self, pod: ControlledPod) -> bool:
        """Whether the pod is of the set's template."""
        labels, generation = pod.metadata.labels or {}, generation_of(self.daemons)
        return labels.get(POD_HASH) == self.mark or (bool(generation) and labels.get(POD_GENERATION) == generation)

    def is_available(self, pod: ControlledPod) -> bool:
        """Whether the pod has been ready for long enough."""
        return is_available(pod, self.daemons.spec.min_ready_seconds, self.now)

    @property
    def surge(self) -> int:
        """How many nodes may have a pod too many while a template is rolled out; more than none if any ever may."""
        strategy = self.daemons.spec.update_strategy
        if strategy.type != "RollingUpdate" or strategy.rolling_update is None:
            return 0
        return _portion(strategy.rolling_update.max_surge, max(1, len(self.wanted)))

    @property
    def unavailable(self) -> int:
        """How many nodes may be without a pod meanwhile."""
        rolling = self.daemons.spec.update_strategy.rolling_update
        away = _portion(rolling.max_unavailable, len(self.wanted)) if rolling is not None else 0
        return 1 if self.wanted and not away and not self.surge else away


@dataclass(slots=True)
class Work:
    """Nodes that need a pod, pods that go, and of these the ones that failed or ended on their own."""

    create: list[str] = field(default_factory=list)
    delete: list[ControlledPod] = field(default_factory=list)
    ended: list[ControlledPod] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.create or self.delete)


MayRetry = Callable[[str], bool]
"""Whether a failed pod of a node may be replaced already."""


def generation_of(daemons: DaemonSet) -> str:
    """The number of the template, as its pods carry it."""
    return (daemons.metadata.annotations or {}).get(TEMPLATE_GENERATION, "")


def by_node(pods: Iterable[ControlledPod]) -> dict[str, list[ControlledPod]]:
    """Pods by the node that each is for, oldest first; those that ended and are going are left out."""
    found: dict[str, list[ControlledPod]] = {}
    for pod in sorted(pods, key=_age):
        over = pod.status.phase in ("Succeeded", "Failed") and pod.metadata.deletion_timestamp is not None
        if not over and (node := target_of(pod)):
            found.setdefault(node, []).append(pod)
    return found


def _age(pod: ControlledPod) -> tuple[bool, str, str]:
    return not pod.spec.node_name, pod.metadata.creation_timestamp or "", pod.metadata.name


def _portion(value: int | str | None, of: int) -> int:
    if value is None or isinstance(value, int):
        return value or 0
    return math.ceil(int(value.removesuffix("%")) * of / 100)


def manage(view: View, may_retry: MayRetry) -> Work:
    """Pods that are missing, too many, ended, or on the wrong node."""
    work = Work()
    for node, (should, stays) in view.nodes.items():
        pods = [pod for pod in view.pods.get(node, ()) if pod.metadata.deletion_timestamp is None]
        if should and node not in view.pods:
            work.create.append(node)
        elif stays:
            _keep(view, node, should, pods, work, may_retry)
        else:
            work.delete += pods
    for name, found in view.pods.items():
        if name not in view.nodes:
            work.delete += [pod for pod in found if not pod.spec.node_name and not pod.metadata.deletion_timestamp]
    return work


def _keep(view: View, node: str, should: bool, pods: Sequence[ControlledPod], work: Work, may_retry: MayRetry) -> None:
    over = [pod for pod in pods if pod.status.phase in ("Failed", "Succeeded")]
    for pod in over:
        if pod.status.phase == "Succeeded" or may_retry(node):
            work.ended.append(pod)
            work.delete.append(pod)
    running = [pod for pod in pods if pod not in over]
    if not view.surge:
        work.delete += running[1:]
    elif running:
        _thin(view, running, work)
    elif should and not over:
        work.create.append(node)


def _thin(view: View, running: Sequence[ControlledPod], work: Work) -> None:
    """Of a node's pods one new and one old may stay, the old one as long as the new one is not available."""
    new = [pod for pod in running if view.is_new(pod)]
    old = [pod for pod in running if not view.is_new(pod)]
    work.delete += [*new[1:], *old[1:]]
    if new and old and (not is_ready(old[0]) or view.is_available(new[0])):
        work.delete.append(old[0])


def roll(view: View) -> Work:
    """What an update of the template does next; nothing while pods are replaced on deletion only."""
    if view.daemons.spec.update_strategy.type != "RollingUpdate":
        return Work()
    nodes = dict.fromkeys([*view.pods, *view.wanted])
    pairs = {name: _pair(view, view.pods.get(name, ())) for name in nodes}
    return _surging(view, pairs) if view.surge else _replacing(view, pairs)


_Pair = tuple[ControlledPod | None, ControlledPod | None]


def _pair(view: View, pods: Iterable[ControlledPod]) -> _Pair | None:
    """The new and the old pod of a node; None if there are several of one sort."""
    staying = [pod for pod in pods if pod.metadata.deletion_timestamp is None]
    new = [pod for pod in staying if view.is_new(pod)]
    old = [pod for pod in staying if not view.is_new(pod)]
    if len(new) > 1 or len(old) > 1:
        return None
    return (new[0] if new else None), (old[0] if old else None)


def _replacing(view: View, pairs: Mapping[str, _Pair | None]) -> Work:
    away, gone, ready = 0, [], []
    for pair in pairs.values():
        new, old = pair if pair is not None else (None, None)
        if old is not None and new is None:
            if view.is_available(old):
                ready.append(old)
            else:
                gone.append(old)
                away += 1
        elif new is None or old is not None or not view.is_available(new):
            away += 1
    return Work(delete=[*gone, *ready[: max(0, view.unavailable - away)]])


def _surging(view: View, pairs: Mapping[str, _Pair | None]) -> Work:
    work, surging, available = Work(), 0, 0
    candidates: list[str] = []
    misplaced: list[ControlledPod] = []
    for name, pair in pairs.items():
        if pair is None:
            surging += 1
            continue
        new, old = pair
        first = old if old is not None else new
        available += first is not None and view.is_available(first)
        if old is None:
            continue
        if new is not None:
            if view.is_available(new):
                work.delete.append(old)
            else:
                surging += 1
        elif name not in view.wanted:
            (misplaced if view.is_available(old) else work.delete).append(old)
        else:
            (candidates if view.is_available(old) else work.create).append(name)
    work.delete += misplaced[: max(0, available - len(view.wanted))]
    work.create += candidates[: max(0, view.surge - surging)]
    return work


def status_of(view: View, collisions: int | None) -> DaemonSetStatus:
    """The status by nodes and pods."""
    firsts = [found[0] for node in view.wanted if (found := view.pods.get(node))]
    misplaced = [node for node in view.nodes if node not in view.wanted and view.pods.get(node)]
    ready = [pod for pod in firsts if is_ready(pod)]
    available = sum(view.is_available(pod) for pod in ready)
    return DaemonSetStatus(
        current_number_scheduled=len(firsts),
        number_misscheduled=len(misplaced),
        desired_number_scheduled=len(view.wanted),
        number_ready=len(ready),
        observed_generation=view.daemons.metadata.generation,
        updated_number_scheduled=sum(view.is_new(pod) for pod in firsts),
        number_available=available,
        number_unavailable=len(view.wanted) - available,
        collision_count=collisions,
    )


def pod_of(view: View, place: DaemonPlace, owner: OwnerReference, node: str) -> Template:
    """A new pod for a node, as it is sent: the scheduler puts it there and nowhere else."""
    template = view.daemons.spec.template
    meta, spec = template.get("metadata") or {}, dict(template.get("spec") or {})
    generation = generation_of(view.daemons)
    labels = {**(meta.get("labels") or {}), POD_HASH: view.mark, **({POD_GENERATION: generation} if generation else {})}
    kept = {key: meta[key] for key in ("annotations", "finalizers") if meta.get(key)}
    field = {"key": "metadata.name", "operator": "In", "values": [node]}
    affinity: dict[str, Any] = dict(spec.get("affinity") or {})
    required = {"nodeSelectorTerms": [{"matchFields": [field]}]}
    affinity["nodeAffinity"] = {
        **(affinity.get("nodeAffinity") or {}),
        "requiredDuringSchedulingIgnoredDuringExecution": required,
    }
    spec |= {"affinity": affinity, "tolerations": [_sent(t) for t in tolerations_of(place)]}
    owners = [msgspec.to_builtins(owner)]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**kept, "generateName": f"{owner.name}-", "labels": labels, "ownerReferences": owners},
        "spec": spec,
    }


def _sent(toleration: Toleration) -> dict[str, Any]:
    return {"operator": toleration.operator, **msgspec.to_builtins(toleration)}
