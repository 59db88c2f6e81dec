"""What a pod asks of a node, taken from its spec once: amounts, selector, tolerations, host ports, spread group."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import TypeVar

from polder.api.meta import ref_of
from polder.api.nodeaffinity import NodeAffinity
from polder.api.podfacts import ContainerDemand, ScheduledPod, ScheduledSpec
from polder.api.podspec import Toleration
from polder.api.quantity import milli, whole
from polder.base.errors import PermanentError
from polder.base.ref import Ref
from polder.scheduler.affinity import node_affinity

Amounts = Mapping[str, int]
"""Per resource name: cpu in thousandths, everything else in whole units, rounded up."""

DEFAULT_SCHEDULER = "default-scheduler"
SCORED_CPU = 100
"""What a container without a request counts for when nodes are compared (thousandths), as upstream."""
SCORED_MEMORY = 200 * 1024 * 1024
"""Likewise in bytes."""


@dataclass(frozen=True, slots=True)
class Demand:
    """One pending pod, as the decision needs it. ``refusal`` says why it can never be placed; empty if it can."""

    ref: Ref
    uid: str
    created: str
    priority: int
    requests: Amounts
    scored: Amounts
    selector: Mapping[str, str]
    affinity: NodeAffinity
    tolerations: tuple[Toleration, ...]
    ports: frozenset[tuple[str, int]]
    group: str
    refusal: str = ""


@lru_cache(maxsize=4096)
def amount(resource: str, quantity: str | int | float) -> int:
    """A quantity in the scheduler's integer unit. Raises PermanentError."""
    return milli(quantity) if resource == "cpu" else whole(quantity)


def amounts(quantities: Mapping[str, str | int | float] | None) -> dict[str, int]:
    """All of a map of quantities. Raises PermanentError."""
    found = {}
    for name, quantity in (quantities or {}).items():
        try:
            found[name] = amount(name, quantity)
        except PermanentError as error:
            raise PermanentError(f"{name} {quantity!r}: {error}") from error
    return found


def container_requests(container: ContainerDemand) -> dict[str, int]:
    """A container's requests; a limit stands in for a request that is not given."""
    if container.resources is None:
        return {}
    return {**amounts(container.resources.limits), **amounts(container.resources.requests)}


def _plus(left: Amounts, right: Amounts) -> dict[str, int]:
    return {name: left.get(name, 0) + right.get(name, 0) for name in left.keys() | right.keys()}


def _most(left: Amounts, right: Amounts) -> dict[str, int]:
    return {name: max(left.get(name, 0), right.get(name, 0)) for name in left.keys() | right.keys()}


def pod_requests(spec: ScheduledSpec) -> dict[str, int]:
    """The pod's effective requests: containers together, or the highest moment of its initialization.

    An init container with restartPolicy Always keeps running beside what comes after it (KEP-753).
    """
    beside: dict[str, int] = {}
    peak: dict[str, int] = {}
    for container in spec.init_containers or []:
        needs = container_requests(container)
        if container.restart_policy == "Always":
            beside = _plus(beside, needs)
            peak = _most(peak, beside)
        else:
            peak = _most(peak, _plus(beside, needs))
    together = beside
    for container in spec.containers:
        together = _plus(together, container_requests(container))
    return _most(together, peak)


def _scored(spec: ScheduledSpec) -> dict[str, int]:
    """CPU and memory for comparing nodes: containers without requests count for something."""
    cpu = memory = 0
    for container in spec.containers:
        needs = container_requests(container)
        cpu += needs.get("cpu", SCORED_CPU)
        memory += needs.get("memory", SCORED_MEMORY)
    return {"cpu": cpu, "memory": memory}


NOTHING: Mapping[str, str] = MappingProxyType({})
SHORT = 16
"""Entries of what is remembered for others that are equal."""
_T = TypeVar("_T", str, tuple[Toleration, ...], frozenset[tuple[str, int]])


@lru_cache(maxsize=1024)
def _known(value: _T) -> _T:
    return value


@lru_cache(maxsize=1024)
def _known_amounts(items: tuple[tuple[str, int], ...]) -> Amounts:
    return dict(items)


def _same(value: _T) -> _T:
    """An equal value that is there already: thousands of waiting pods ask for much the same. Long ones are not remembered."""
    return _known(value) if len(value) <= SHORT else value


def _same_amounts(found: dict[str, int]) -> Amounts:
    return _known_amounts(tuple(found.items())) if len(found) <= SHORT else found


def _host_ports(containers: Iterable[ContainerDemand]) -> frozenset[tuple[str, int]]:
    return frozenset((p.protocol, p.host_port) for c in containers for p in c.ports or [] if p.host_port)


def _group(pod: ScheduledPod) -> str:
    """Pods of one controller spread; pods without one spread with their namespace's."""
    ref = ref_of(pod)
    for owner in pod.metadata.owner_references or []:
        if owner.controller:
            return f"{ref.tenant}/{owner.uid}"
    return f"{ref.tenant}/{ref.namespace}"


def demand_of(pod: ScheduledPod) -> Demand:
    """The pod's demand. What cannot be read or is not supported becomes its ``refusal``."""
    requests: dict[str, int] = {}
    scored: dict[str, int] = {}
    try:
        requests, scored = pod_requests(pod.spec), _scored(pod.spec)
        affinity, refusal = node_affinity(pod.spec.affinity)
    except PermanentError as error:
        affinity, refusal = NodeAffinity(), f"spec.containers resources: {error}"
    return Demand(
        ref=ref_of(pod),
        uid=pod.metadata.uid,
        created=pod.metadata.creation_timestamp or "",
        priority=pod.spec.priority or 0,
        requests=_same_amounts(requests),
        scored=_same_amounts(scored),
        selector=pod.spec.node_selector or NOTHING,
        affinity=affinity,
        tolerations=_same(tuple(pod.spec.tolerations or ())),
        ports=_same(_host_ports(pod.spec.containers)),
        group=_known(_group(pod)),
        refusal=refusal,
    )


def is_terminal(pod: ScheduledPod) -> bool:
    """Whether the pod has ended and holds nothing of its node any more."""
    return pod.status.phase in ("Succeeded", "Failed")


def is_pending(pod: ScheduledPod) -> bool:
    """Whether the pod waits for this scheduler."""
    return (
        not pod.spec.node_name
        and pod.metadata.deletion_timestamp is None
        and pod.spec.scheduler_name in ("", DEFAULT_SCHEDULER)
        and not is_terminal(pod)
    )
