"""The requests and limits of a pod apart from the rest of it: what was granted of them, and how they are shown (KEP-1287).
Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal

import msgspec

from polder.api.core import ContainerStatus, Pod, PodCondition, PodStatus
from polder.api.podspec import Container, Resources
from polder.api.quantity import Quantity
from polder.base.clock import stamp
from polder.node.pods.resources import LIMITS, REQUESTS, RESIZABLE, Amounts, amounts, noted, pod_amounts

PENDING, IN_PROGRESS = "PodResizePending", "PodResizeInProgress"
INFEASIBLE, DEFERRED, ERROR = "Infeasible", "Deferred", "Error"
RESTART = "RestartContainer"
NOTHING = Resources()


class Sizes(msgspec.Struct, frozen=True):
    """Requests and limits by container, and those of the pod as a whole."""

    containers: dict[str, Resources]
    pod: Resources | None = None

    def same(self, other: Sizes) -> bool:
        """Whether the amounts are equal, however they are written."""
        names = self.containers.keys() | other.containers.keys()
        pairs = [(self.containers.get(name), other.containers.get(name)) for name in names]
        return all(equal(mine, theirs) for mine, theirs in [*pairs, (self.pod, other.pod)])


def equal(one: Resources | None, other: Resources | None) -> bool:
    """Whether two are the same amounts."""
    return all(amounts(one, side) == amounts(other, side) for side in (REQUESTS, LIMITS))


def _every(pod: Pod) -> list[Container]:
    return [*(pod.spec.init_containers or []), *pod.spec.containers]


def sizes_of(pod: Pod) -> Sizes:
    """What the spec asks for."""
    return Sizes({c.name: c.resources or NOTHING for c in _every(pod)}, pod.spec.resources)


def with_sizes(pod: Pod, sizes: Sizes) -> Pod:
    """The pod with these instead of its own."""

    def sized(containers: list[Container]) -> list[Container]:
        held = sizes.containers
        return [msgspec.structs.replace(c, resources=held.get(c.name, c.resources)) for c in containers]

    init = pod.spec.init_containers
    spec = msgspec.structs.replace(
        pod.spec,
        containers=sized(pod.spec.containers),
        init_containers=sized(init) if init else init,
        resources=sizes.pod,
    )
    return msgspec.structs.replace(pod, spec=spec)


def needs_restart(container: Container, made_with: Mapping[str, Amounts]) -> bool:
    """Whether a container that was made with other amounts must start again to have its own."""
    strict = {p.resource_name for p in container.resize_policy or [] if p.restart_policy == RESTART}
    now = noted(container)
    return any(
        now[side].get(name, 0) != made_with.get(side, {}).get(name, 0)
        for side in (REQUESTS, LIMITS)
        for name in strict & set(RESIZABLE)
    )


def written(found: Amounts) -> dict[str, str | int | float]:
    """Amounts as quantities."""
    shown: dict[str, str | int | float] = {}
    for name, value in found.items():
        number = Decimal(value) / 1000 if name == "cpu" else Decimal(value)
        shown[name] = str(Quantity(number, "decimal" if name == "cpu" else "binary"))
    return shown


def summary(pod: Pod, error: str = "") -> str:
    """The amounts that are asked for, as JSON for events."""
    body: dict[str, object] = {}
    for key, containers in (("initContainers", pod.spec.init_containers), ("containers", pod.spec.containers)):
        if containers:
            body[key] = [{"name": c.name, "resources": msgspec.to_builtins(c.resources or NOTHING)} for c in containers]
    body["generation"] = pod.metadata.generation
    if error:
        body["error"] = error
    return msgspec.json.encode(body).decode()


def shown(status: PodStatus, granted: Pod, actual: Sizes, conditions: list[PodCondition]) -> PodStatus:
    """The status with what was granted, what is in effect, and how a resize stands."""
    allocated = sizes_of(granted).containers

    def one(container: ContainerStatus) -> ContainerStatus:
        given = allocated.get(container.name)
        if given is None:
            return container
        effect = actual.containers.get(container.name, given)
        return msgspec.structs.replace(container, allocated_resources=given.requests or None, resources=effect)

    others = [c for c in status.conditions or [] if c.type not in (PENDING, IN_PROGRESS)]
    total = pod_amounts(granted, REQUESTS)
    in_effect = with_sizes(granted, actual)
    whole = Resources(
        requests=written(pod_amounts(in_effect, REQUESTS)) or None,
        limits=written(pod_amounts(in_effect, LIMITS)) or None,
    )
    inits, plain = status.init_container_statuses, status.container_statuses
    return msgspec.structs.replace(
        status,
        conditions=[*others, *conditions],
        init_container_statuses=[one(c) for c in inits] if inits else inits,
        container_statuses=[one(c) for c in plain] if plain else plain,
        allocated_resources=written(total) or None,
        resources=whole if total else None,
    )


def disrupted(status: PodStatus, message: str, now: datetime) -> PodStatus:
    """The status of a pod that the node ended: others tell by the condition that it was no failure of its own."""
    kind, others = "DisruptionTarget", [c for c in status.conditions or [] if c.type != "DisruptionTarget"]
    old = next((c for c in status.conditions or [] if c.type == kind), None)
    since = old.last_transition_time if old is not None else stamp(now)
    made = PodCondition(
        type=kind, status="True", reason="TerminationByKubelet", message=message, last_transition_time=since
    )
    return msgspec.structs.replace(status, conditions=[*others, made])
