"""How much a pod asks for: upstream's rule for containers, initialization, overhead and the pod as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from polder.api.podfacts import ContainerDemand, ContainerHolds, ScheduledSpec
from polder.api.podspec import Resources
from polder.api.quantity import milli, whole
from polder.base.errors import PermanentError

Amounts = Mapping[str, int]
"""Per resource name: cpu in thousandths, everything else in whole units, rounded up."""
Quantities = Mapping[str, str | int | float]

SCORED_CPU: Final = 100
"""What a container without a request counts for when nodes are compared (thousandths), as upstream."""
SCORED_MEMORY: Final = 200 * 1024 * 1024
"""Likewise in bytes."""
_OF_PODS: Final = ("cpu", "memory", "hugepages-")
"""What may be asked for the pod as a whole (KEP-2837)."""


@lru_cache(maxsize=4096)
def amount(resource: str, quantity: str | int | float) -> int:
    """A quantity in the scheduler's integer unit. Raises PermanentError."""
    return milli(quantity) if resource == "cpu" else whole(quantity)


def amounts(quantities: Quantities | None) -> dict[str, int]:
    """All of a map of quantities. Raises PermanentError."""
    found = {}
    for name, quantity in (quantities or {}).items():
        try:
            found[name] = amount(name, quantity)
        except PermanentError as error:
            raise PermanentError(f"{name} {quantity!r}: {error}") from error
    return found


def asked(resources: Resources | None) -> dict[str, int]:
    """The requests; a limit stands in for a request that is not given."""
    if resources is None:
        return {}
    return {**amounts(resources.limits), **amounts(resources.requests)}


def _plus(left: Amounts, right: Amounts) -> dict[str, int]:
    if not left or not right:
        return dict(left or right)
    return {name: left.get(name, 0) + right.get(name, 0) for name in left.keys() | right.keys()}


def _most(left: Amounts, right: Amounts) -> dict[str, int]:
    if not left or not right:
        return dict(left or right)
    return {name: max(left.get(name, 0), right.get(name, 0)) for name in left.keys() | right.keys()}


def _needs(container: ContainerDemand, held: Mapping[str, ContainerHolds], least: Amounts | None) -> dict[str, int]:
    """What a container asks for, and while it is resized what it holds, if that is more (KEP-1287)."""
    needs = asked(container.resources)
    status = held.get(container.name)
    if status is not None:
        needs = _most(needs, amounts(status.allocated_resources))
        if status.resources is not None:
            needs = _most(needs, amounts(status.resources.requests))
    return {**least, **needs} if least else needs


def pod_requests(
    spec: ScheduledSpec, statuses: list[ContainerHolds] | None = None, least: Amounts | None = None
) -> dict[str, int]:
    """The pod's effective requests: containers together, or the highest moment of its initialization, or what is asked for
    the pod as a whole; and its overhead. ``least`` stands in where a container asks for nothing. Raises PermanentError.

    An init container with restartPolicy Always keeps running beside what comes after it (KEP-753).
    """
    held = {s.name: s for s in statuses or () if s.resources is not None or s.allocated_resources}
    beside: dict[str, int] = {}
    peak: dict[str, int] = {}
    for container in spec.init_containers or ():
        needs = _needs(container, held, least)
        if container.restart_policy == "Always":
            beside = _plus(beside, needs)
            peak = _most(peak, beside)
        else:
            peak = _most(peak, _plus(beside, needs))
    together = beside
    for container in spec.containers:
        together = _plus(together, _needs(container, held, least))
    total = _most(together, peak)
    if spec.resources is not None:
        total.update({name: n for name, n in asked(spec.resources).items() if name.startswith(_OF_PODS)})
    return _plus(total, amounts(spec.overhead)) if spec.overhead else total


def scored_requests(spec: ScheduledSpec) -> tuple[int, int]:
    """CPU and memory for comparing nodes: containers without requests count for something. Raises PermanentError."""
    total = pod_requests(spec, None, {"cpu": SCORED_CPU, "memory": SCORED_MEMORY})
    return total.get("cpu", 0), total.get("memory", 0)
