"""Volumes: on which nodes a pod's claims can be used, and what has to be bound there. Pure: what is known of claims, volumes
and classes in, reasons out.

Source: upstream's plug-ins VolumeBinding, VolumeRestrictions and VolumeZone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import ClassVar, Final, Protocol

import msgspec

from polder.api.storagefacts import Claim, StorageClassFacts, Volume
from polder.base.errors import PermanentError
from polder.base.ids import TenantName
from polder.scheduler.affinity import RequiredForm, Term, terms_of
from polder.scheduler.amounts import amounts
from polder.scheduler.demand import Demand
from polder.scheduler.nodes import NodeFacts
from polder.scheduler.terms import HOSTNAME, label_matcher

CONFLICT: Final = "node(s) didn't match PersistentVolume's node affinity"
NO_VOLUME: Final = "node(s) didn't find available persistent volumes to bind"
UNBOUND: Final = "pod has unbound immediate PersistentVolumeClaims"
LOST: Final = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"
IN_USE: Final = "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode"
NO_ZONE: Final = "node(s) had no available volume zone"
LATE: Final = "WaitForFirstConsumer"
NO_PROVISIONER: Final = "kubernetes.io/no-provisioner"
BOUND: Final = "pv.kubernetes.io/bind-completed"
SELECTED_NODE: Final = "volume.kubernetes.io/selected-node"
ONE_POD: Final = "ReadWriteOncePod"
LOOKED_AT: Final = 1000
"""Unbound volumes of a class that are looked at for a pod's claims: bounds the time of a decision."""
ZONES: Final = tuple(
    f"{group}/{what}"
    for group, what in (
        ("topology.kubernetes.io", "zone"),
        ("topology.kubernetes.io", "region"),
        ("failure-domain.beta.kubernetes.io", "zone"),
        ("failure-domain.beta.kubernetes.io", "region"),
    )
)


class Book(Protocol):
    """What is known of a tenant's storage."""

    def claim(self, tenant: TenantName, namespace: str, name: str) -> Claim | None:
        """A claim."""
        ...

    def volume(self, tenant: TenantName, name: str) -> Volume | None:
        """A volume."""
        ...

    def volumes(self, tenant: TenantName, storage_class: str) -> Iterable[Volume]:
        """The volumes of a class."""
        ...

    def storage_class(self, tenant: TenantName, name: str) -> StorageClassFacts | None:
        """The tenant's class of that name, else the platform's."""
        ...


@dataclass(frozen=True, slots=True)
class Binding:
    """What has to be done before a pod is bound: the claim gets this volume, or (None) one that is made for the node."""

    claim: Claim
    volume: Volume | None


def is_bound(claim: Claim) -> bool:
    """Whether a claim has its volume for good."""
    return bool(claim.spec.volume_name) and BOUND in (claim.metadata.annotations or {})


def volume_terms(volume: Volume) -> tuple[Term, ...] | None:
    """On which nodes a volume is; None: on all."""
    required = (volume.spec.node_affinity or {}).get("required")
    return terms_of(msgspec.convert(required, RequiredForm)) if required else None


@dataclass(frozen=True, slots=True)
class Known:
    """A volume, with what was read of it once."""

    volume: Volume
    terms: tuple[Term, ...] | None
    size: int

    @property
    def hosts(self) -> frozenset[str] | None:
        """The names of the nodes that it is on, if it says so by name; None: elsewhere too, perhaps."""
        found: set[str] = set()
        for term in self.terms or (Term(),):
            named = [values for key, operator, values in term.labels if key == HOSTNAME and operator == "In"]
            if not named:
                return None
            found.update(named[0])
        return frozenset(found)


def known(volume: Volume) -> Known:
    """Raises PermanentError, msgspec.ValidationError for one that cannot be read."""
    return Known(volume, volume_terms(volume), amounts(volume.spec.capacity).get("storage", 0))


def unreachable(found: Known, node: NodeFacts) -> str:
    """Why a node cannot use a volume; empty if it can."""
    volume, terms = found.volume, found.terms
    if terms is not None and not any(term.holds(node.labels, node.name) for term in terms):
        return CONFLICT
    here = {key: node.labels[key] for key in ZONES if key in node.labels}
    for key, value in (volume.metadata.labels or {}).items():
        if here and key in ZONES and here.get(key) not in value.split("__"):
            return NO_ZONE
    return ""


def allows(found: StorageClassFacts, node: NodeFacts) -> bool:
    """Whether a class may make a volume for a node (allowedTopologies)."""
    terms = found.allowed_topologies
    return not terms or any(
        all(node.labels.get(clause.key) in clause.values for clause in term.match_label_expressions or ())
        for term in terms
    )


def suits(volume: Volume, claim: Claim) -> bool:
    """Whether an unbound volume is what a claim asks for, but for its size."""
    spec, wanted, kept = volume.spec, claim.spec, volume.spec.claim_ref
    mine = (claim.metadata.namespace, claim.metadata.name)
    if kept is not None and ((kept.namespace, kept.name) != mine or kept.uid not in ("", claim.metadata.uid)):
        return False
    if volume.metadata.deletion_timestamp or (kept is None and volume.status.phase != "Available"):
        return False
    if spec.volume_mode != wanted.volume_mode or not set(wanted.access_modes or ()) <= set(spec.access_modes or ()):
        return False
    return not wanted.selector or label_matcher(wanted.selector).matches_labels(volume.metadata.labels or {})


class Choice:
    """The volumes that a claim may get, smallest first, found by the nodes that they are on."""

    def __init__(self, claim: Claim, volumes: Iterable[Volume], most: int) -> None:
        asked = amounts(claim.spec.resources.requests if claim.spec.resources else None).get("storage", 0)
        self._at: dict[str, list[Known]] = {}
        self._anywhere: list[Known] = []
        fitting = islice((v for v in volumes if suits(v, claim)), most)
        for found in sorted(map(known, fitting), key=lambda k: (k.size, k.volume.metadata.name)):
            if found.size >= asked:
                hosts = found.hosts
                for host in hosts or ():
                    self._at.setdefault(host, []).append(found)
                if hosts is None:
                    self._anywhere.append(found)

    def on(self, node: NodeFacts, used: set[str]) -> Volume | None:
        """The smallest that a node can use and that is not ``used``, by name."""
        here = self._at.get(node.labels.get(HOSTNAME, ""), ())
        fits = (
            next((k for k in group if k.volume.metadata.name not in used and not unreachable(k, node)), None)
            for group in (here, self._anywhere)
        )
        found = [k for k in fits if k is not None]
        return min(found, key=lambda k: (k.size, k.volume.metadata.name)).volume if found else None


@dataclass(slots=True)
class ClaimRules:
    """The claims of one pod. ``refused`` says why no node will do."""

    tenant: TenantName
    book: Book
    refused: str = ""
    bound: list[Known] = field(default_factory=list)
    late: list[tuple[Claim, StorageClassFacts, Choice | None]] = field(default_factory=list)
    lost: bool = False
    taken: bool = False
    RESOLVABLE: ClassVar[frozenset[str]] = frozenset({IN_USE})

    def refusal(self, node: NodeFacts) -> str:
        """Why a node will not do; empty if it will."""
        if self.taken:
            return IN_USE
        if self.lost:
            return LOST
        for volume in self.bound:
            if why := unreachable(volume, node):
                return why
        return NO_VOLUME if self.late and self.plan(node) is None else ""

    def plan(self, node: NodeFacts) -> list[Binding] | None:
        """What to bind for a node: the smallest volumes that there are, else new ones; None if that cannot be."""
        plan: list[Binding] = []
        used: set[str] = set()
        for claim, of_class, choice in self.late:
            volume = choice.on(node, used) if choice is not None else None
            if volume is not None:
                used.add(volume.metadata.name)
            elif not self._may_be_made(claim, of_class, node):
                return None
            plan.append(Binding(claim, volume))
        return plan

    def _may_be_made(self, claim: Claim, of_class: StorageClassFacts, node: NodeFacts) -> bool:
        chosen = (claim.metadata.annotations or {}).get(SELECTED_NODE, node.name)
        makes = of_class.provisioner not in ("", NO_PROVISIONER)
        return makes and chosen == node.name and allows(of_class, node)


def claim_rules(demand: Demand, book: Book, users: Mapping[str, int]) -> ClaimRules | None:
    """The rules for a pod, None if it has no claims. ``users``: how many placed pods use each of its claims, by name."""
    if not demand.claims:
        return None
    rules = ClaimRules(demand.tenant, book)
    try:
        for name in demand.claims:
            _add(rules, demand, name)
    except (PermanentError, msgspec.ValidationError) as error:
        rules.refused = f"a volume of the pod cannot be read: {error}"
    if not rules.refused:
        rules.taken = any(users.get(name) and _for_one(book, demand, name) for name in demand.claims)
    return rules


def _for_one(book: Book, demand: Demand, name: str) -> bool:
    claim = book.claim(demand.tenant, demand.ref.namespace, name)
    return claim is not None and ONE_POD in (claim.spec.access_modes or ())


def _add(rules: ClaimRules, demand: Demand, name: str) -> None:
    claim = rules.book.claim(demand.tenant, demand.ref.namespace, name)
    if claim is None:
        rules.refused = f'persistentvolumeclaim "{name}" not found'
    elif claim.metadata.deletion_timestamp is not None:
        rules.refused = f'persistentvolumeclaim "{name}" is being deleted'
    elif claim.status.phase == "Lost":
        rules.refused = (
            f'persistentvolumeclaim "{name}" bound to non-existent persistentvolume "{claim.spec.volume_name}"'
        )
    elif is_bound(claim):
        volume = rules.book.volume(demand.tenant, claim.spec.volume_name)
        if volume is None:
            rules.lost = True
        else:
            rules.bound.append(known(volume))
    else:
        of_class = rules.book.storage_class(demand.tenant, claim.spec.storage_class_name or "")
        if of_class is None or of_class.volume_binding_mode != LATE or claim.spec.volume_name:
            rules.refused = UNBOUND
        else:
            is_chosen = SELECTED_NODE in (claim.metadata.annotations or {})
            most = max(LOOKED_AT // 10, LOOKED_AT // len(demand.claims))
            name_of_class = claim.spec.storage_class_name or ""
            choice = None if is_chosen else Choice(claim, rules.book.volumes(demand.tenant, name_of_class), most)
            rules.late.append((claim, of_class, choice))
