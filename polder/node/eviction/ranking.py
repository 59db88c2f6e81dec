"""Whom a node ends when something runs short, and what it says of it. Pure.

As upstream: first who uses more than was requested, of these the lowest priority, of these who exceeds most. A tenant's
priorities count within the tenant alone: nobody makes others pay by calling its own pods important.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from polder.api.core import Pod
from polder.api.meta import tenant_of
from polder.api.quantity import Quantity
from polder.api.staticpods import MIRROR
from polder.base.ids import ROOT
from polder.node.eviction.thresholds import RESOURCES, shown
from polder.node.pods.resources import REQUESTS, amounts, pod_amounts

CRITICAL = 2_000_000_000
"""The priority from which the platform's own pods are never ended."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A pod, what it uses of the resource that is short, and its containers' parts by name. ``kept``: of it, what its claims'
    volumes hold beyond what was asked for, which its end does not free.
    """

    pod: Pod
    used: int
    containers: Mapping[str, int] = field(default_factory=dict)
    kept: int = 0

    def requested(self, resource: str) -> int:
        """What it asked for of it."""
        return pod_amounts(self.pod, REQUESTS).get(resource, 0)


def is_exempt(pod: Pod) -> bool:
    """Whether it is never ended: static pods, and the platform's critical ones."""
    if tenant_of(pod.metadata) != ROOT:
        return False
    return MIRROR in (pod.metadata.annotations or {}) or (pod.spec.priority or 0) >= CRITICAL


def choose(candidates: Sequence[Candidate], resource: str) -> Candidate | None:
    """The one to end; None where there is nobody."""
    open_ = [one for one in candidates if not is_exempt(one.pod)]
    if not open_:
        return None

    def excess(one: Candidate) -> int:
        return one.used - one.requested(resource)

    worst = max(open_, key=lambda one: (excess(one) > 0, tenant_of(one.pod.metadata) != ROOT, excess(one)))
    tenant, above = tenant_of(worst.pod.metadata), excess(worst) > 0
    fellows = [one for one in open_ if tenant_of(one.pod.metadata) == tenant and (excess(one) > 0) is above]
    return min(fellows, key=lambda one: (one.pod.spec.priority or 0, -excess(one)))


def message(found: Candidate, signal: str, threshold: int, available: int) -> str:
    """Upstream's words for the end of a pod."""
    resource = RESOURCES[signal]
    words = f"The node was low on resource: {resource}. "
    words += f"Threshold quantity: {shown(signal, threshold)}, available: {shown(signal, available)}. "
    for container in found.pod.spec.containers:
        used = found.containers.get(container.name, 0)
        asked = amounts(container.resources, REQUESTS).get(resource, 0)
        if used > asked:
            told = f"{shown(signal, used)}, request is {shown(signal, asked)}"
            words += f"Container {container.name} was using {told}, has larger consumption of {resource}. "
    if found.kept:
        words += f"Volumes of its claims hold {shown(signal, found.kept)} more than was asked for. "
    return words


# --- limits of local storage ------------------------------------------------------------------------------------------

STORAGE = "ephemeral-storage"


def limits_storage(pod: Pod) -> bool:
    """Whether the disk that it uses is to be measured."""
    every = [*(pod.spec.init_containers or []), *pod.spec.containers]
    return any((c.resources.limits or {}).get(STORAGE) for c in every if c.resources is not None)


def beyond_storage(pod: Pod, containers: Mapping[str, int], total: int) -> str:
    """Upstream's words where a container, or the pod, uses more of the disk than its limit; empty where none does."""
    every = [*(pod.spec.init_containers or []), *pod.spec.containers]
    for container in every:
        limit = amounts(container.resources, "limits").get(STORAGE, 0)
        if limit and containers.get(container.name, 0) > limit:
            told = (container.resources.limits or {})[STORAGE] if container.resources is not None else limit
            return f'Container {container.name} exceeded its local ephemeral storage limit "{told}". '
    if all(amounts(c.resources, "limits").get(STORAGE) for c in pod.spec.containers):
        whole = pod_amounts(pod, "limits").get(STORAGE, 0)
        if total > whole:
            quantity = Quantity(Decimal(whole), "binary")
            return f"Pod ephemeral local storage usage exceeds the total limit of containers {quantity}. "
    return ""
