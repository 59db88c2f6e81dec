"""What a pod asks of a node, taken from its spec once. Equal pods share one ``Shape``, so that thousands of them are small."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, TypeVar

from polder.api.meta import ref_of
from polder.api.podfacts import ContainerDemand, ScheduledPod
from polder.api.podspec import Toleration
from polder.base.errors import PermanentError
from polder.base.ids import ROOT, TenantName
from polder.base.ref import Ref
from polder.scheduler import limits
from polder.scheduler.affinity import ANYWHERE, NodeAffinity
from polder.scheduler.amounts import pod_requests, scored_requests
from polder.scheduler.terms import NO_WISHES, Spread, Wishes, spreads_of, wishes_of

DEFAULT_SCHEDULER: Final = "default-scheduler"
NEVER: Final = "Never"
ANY_ADDRESS: Final = "0.0.0.0"  # noqa: S104  compared, never bound

_K = TypeVar("_K")
_V = TypeVar("_V")


class Fixed(dict[_K, _V]):
    """A map that is never changed, so that it can be a key."""

    __slots__ = ("_hash",)

    def __hash__(self) -> int:  # type: ignore[override]
        """Of all entries; computed once."""
        try:
            return self._hash
        except AttributeError:
            self._hash: int = hash(frozenset(self.items()))
            return self._hash


NO_TEXTS: Final[Fixed[str, str]] = Fixed()
NOTHING: Final[Fixed[str, int]] = Fixed()

Port = tuple[str, int, str]
"""Protocol, port of the node, address of the node (or ``ANY_ADDRESS``)."""


@dataclass(frozen=True, slots=True)
class Place:
    """What a pod asks of a node's own properties; pods that ask for the same get the same answer."""

    selector: Fixed[str, str] = NO_TEXTS
    affinity: NodeAffinity = ANYWHERE
    tolerations: tuple[Toleration, ...] = ()
    is_root: bool = False
    platform: Fixed[str, str] = NO_TEXTS
    """A selector of labels as root sees them: the platform's for its runtime class."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What pods of one template have in common."""

    tenant: TenantName
    namespace: str
    labels: Fixed[str, str]
    priority: int = 0
    preempts: bool = True
    requests: Fixed[str, int] = NOTHING
    scored: tuple[int, int] = (0, 0)
    place: Place = Place()
    ports: frozenset[Port] = frozenset()
    wishes: Wishes = NO_WISHES
    spread: tuple[Spread, ...] = ()
    group: str = ""
    images: tuple[str, ...] = ()

    @property
    def looks_around(self) -> bool:
        """Whether a pod that comes somewhere may let this one fit."""
        return bool(self.wishes.near or self.spread)

    @property
    def selects_namespaces(self) -> bool:
        """Whether labels of namespaces count."""
        wishes = self.wishes
        terms = [*wishes.near, *wishes.apart, *(term for _, term in wishes.prefer)]
        return any(term.scope.every is not None for term in terms)


@dataclass(frozen=True, slots=True)
class Demand:
    """One pod, as the decision needs it. ``refusal`` says why it can never be placed; empty if it can. ``claims`` are the
    volume claims that it uses; ``nominated`` the node that its status names.
    """

    ref: Ref
    uid: str
    created: str
    shape: Shape
    claims: tuple[str, ...] = ()
    runtime_class: str = ""
    nominated: str = field(default="", compare=False)
    refusal: str = ""

    @property
    def tenant(self) -> TenantName:
        """Whose pod it is."""
        return self.shape.tenant

    @property
    def priority(self) -> int:
        """Inside its tenant."""
        return self.shape.priority


KEPT: Final = 2048
"""Shapes that are remembered; a full memory is begun anew."""
_shapes: dict[Shape, Shape] = {}


def _same(shape: Shape) -> Shape:
    """An equal shape that is there already."""
    known = _shapes.get(shape)
    if known is None:
        if len(_shapes) >= KEPT:
            _shapes.clear()
        known = _shapes[shape] = shape
    return known


def _host_ports(containers: Iterable[ContainerDemand]) -> frozenset[Port]:
    return frozenset(
        (p.protocol, p.host_port, p.host_ip or ANY_ADDRESS) for c in containers for p in c.ports or () if p.host_port
    )


def _all_containers(pod: ScheduledPod) -> list[ContainerDemand]:
    """Those whose ports stay taken: the ones that run together."""
    return [*pod.spec.containers, *(c for c in pod.spec.init_containers or () if c.restart_policy == "Always")]


def _group(pod: ScheduledPod) -> str:
    """Pods of one controller spread; pods without one spread with those that have the same labels, if they have any."""
    for owner in pod.metadata.owner_references or ():
        if owner.controller:
            return owner.uid
    labels = pod.metadata.labels
    return f"{pod.metadata.namespace}/{sorted(labels.items())}" if labels else ""


def _claims(pod: ScheduledPod) -> tuple[str, ...]:
    """A claim that is made for the pod has the pod's name and the volume's."""
    return tuple(
        v.persistent_volume_claim.claim_name if v.persistent_volume_claim else f"{pod.metadata.name}-{v.name}"
        for v in pod.spec.volumes or ()
    )


def demand_of(pod: ScheduledPod) -> Demand:
    """The pod's demand. What cannot be read becomes its ``refusal``."""
    ref, spec = ref_of(pod), pod.spec
    labels: Fixed[str, str] = Fixed(pod.metadata.labels or {})
    requests: dict[str, int] = {}
    scored, wishes, refusal = (0, 0), NO_WISHES, ""
    spread: tuple[Spread, ...] = ()
    try:
        requests = pod_requests(spec, pod.status.container_statuses if spec.node_name else None)
        scored = scored_requests(spec)
    except PermanentError as error:
        refusal = f"spec.containers resources: {error}"
    try:
        wishes = wishes_of(bytes(spec.affinity), ref.namespace, labels)
        spread = spreads_of(bytes(spec.topology_spread_constraints), labels)
    except PermanentError as error:
        refusal = str(error)
    place = Place(
        Fixed(spec.node_selector or {}), wishes.nodes, tuple(spec.tolerations or ()), is_root=ref.tenant == ROOT
    )
    shape = Shape(
        tenant=ref.tenant, namespace=ref.namespace, labels=labels, priority=spec.priority or 0,
        preempts=spec.preemption_policy != NEVER, requests=Fixed(requests), scored=scored, place=place,
        ports=_host_ports(_all_containers(pod)), wishes=wishes, spread=spread, group=_group(pod),
        images=tuple(sorted({c.image for c in spec.containers if c.image})),
    )  # fmt: skip
    meta, claims = pod.metadata, _claims(pod)
    counts = {
        "spec.tolerations": (len(place.tolerations), limits.TOLERATIONS),
        "spec.nodeSelector": (len(place.selector), limits.CLAUSES),
        "names of resources": (len(requests), limits.RESOURCES),
        "ports of the node": (len(shape.ports), limits.PORTS),
        "spec.volumes that are claims": (len(claims), limits.CLAIMS),
    }
    refusal = refusal or limits.too_much(wishes, spread, counts)
    return Demand(ref, meta.uid, meta.creation_timestamp or "", _same(shape), claims, spec.runtime_class_name,
                  pod.status.nominated_node_name, refusal)  # fmt: skip


def is_terminal(pod: ScheduledPod) -> bool:
    """Whether the pod has ended and holds nothing of its node any more."""
    return pod.status.phase in ("Succeeded", "Failed")


def is_pending(pod: ScheduledPod) -> bool:
    """Whether the pod waits for this scheduler; one with gates does not yet."""
    return (
        not pod.spec.node_name
        and pod.metadata.deletion_timestamp is None
        and pod.spec.scheduler_name in ("", DEFAULT_SCHEDULER)
        and not pod.spec.scheduling_gates
        and not is_terminal(pod)
    )
