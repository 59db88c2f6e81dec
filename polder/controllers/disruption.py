"""PodDisruptionBudgets: how many pods of a set may be evicted now. Follows upstream's disruption controller.

The API server takes from ``disruptionsAllowed`` with every eviction, and notes the pod; here it is counted anew.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import msgspec

from polder.api.errors import ApiError
from polder.api.labelselector import matcher_of
from polder.api.meta import Condition, LabelSelector, Object, OwnerReference, Struct
from polder.api.podfacts import ControlledPod
from polder.api.policy import PodDisruptionBudget, PodDisruptionBudgetSpec, PodDisruptionBudgetStatus
from polder.base.clock import Clock, stamp
from polder.base.errors import RetryableError
from polder.base.ref import Ref
from polder.client.client import Client
from polder.controllers.conditions import merged
from polder.controllers.endpoints_pure import is_ready
from polder.controllers.mapper import Mapper
from polder.controllers.reading import find
from polder.controllers.resources import get_object, object_path

DELETION_TIMEOUT = timedelta(minutes=2)
"""How long an evicted pod counts as away before it is taken to have stayed."""
ALLOWED = "DisruptionAllowed"
PodsIn = Callable[[Ref], Iterable[ControlledPod]]
"""The pods of a namespace (its reference has no name), as a cache knows them."""


class _ScaleSpec(Struct, frozen=True, kw_only=True):
    replicas: int = 0


class _Scale(Struct, frozen=True, kw_only=True):
    spec: _ScaleSpec = _ScaleSpec()


class ScaleUnknownError(RetryableError):
    """Who owns a pod cannot be scaled, so it is not known how many pods there ought to be."""


@dataclass(frozen=True, slots=True)
class Count:
    """Of the pods that there ought to be: how many, how many must stay, and how many are well."""

    expected: int
    desired: int
    healthy: int

    @property
    def allowed(self) -> int:
        """How many may go."""
        return max(0, self.healthy - self.desired) if self.expected > 0 else 0


def choose(selector: LabelSelector | None, pods: Iterable[ControlledPod]) -> list[ControlledPod]:
    """The pods that a selector means; none without one."""
    found = matcher_of(msgspec.to_builtins(selector) if selector is not None else None)
    return [pod for pod in pods if found.matches_labels(pod.metadata.labels or {})]


def portion(value: int | str, of: int) -> int:
    """A number, or per cent of one rounded up. Raises ValueError."""
    if isinstance(value, int):
        return value
    return math.ceil(int(value.removesuffix("%")) * of / 100)


def desired_of(spec: PodDisruptionBudgetSpec, expected: int) -> int:
    """How many pods must stay. Raises ValueError."""
    if spec.max_unavailable is not None:
        return max(0, expected - portion(spec.max_unavailable, expected))
    return portion(spec.min_available, expected) if spec.min_available is not None else 0


def still_disrupted(known: Mapping[str, str] | None, pods: Iterable[ControlledPod], now: datetime) -> dict[str, str]:
    """Of the evicted pods, those that may still be going."""
    there = {pod.metadata.name: pod for pod in pods}
    found = {}
    for name, since in (known or {}).items():
        pod = there.get(name)
        if pod is None or pod.metadata.deletion_timestamp is not None:
            continue
        if datetime.fromisoformat(since) + DELETION_TIMEOUT > now:
            found[name] = since
    return found


def healthy(pods: Iterable[ControlledPod], disrupted: Mapping[str, str]) -> int:
    """How many pods are well and stay."""
    return sum(
        pod.metadata.deletion_timestamp is None and pod.metadata.name not in disrupted and is_ready(pod) for pod in pods
    )


def controller_of(obj: Object) -> OwnerReference | None:
    """The owner that manages an object."""
    return next((o for o in obj.metadata.owner_references or () if o.controller), None)


class DisruptionController:
    """Reconciles a PodDisruptionBudget; key: its reference."""

    def __init__(self, client: Client, clock: Clock, pods: PodsIn) -> None:
        self._client = client
        self._clock = clock
        self._pods = pods
        self._mapper = Mapper(client, clock)

    async def reconcile(self, ref: Ref) -> float | None:
        """One count. The seconds until an evicted pod counts as staying, None without one. Raises ApiError."""
        budget = await find(self._client, PodDisruptionBudget, ref)
        if budget is None or budget.metadata.deletion_timestamp is not None:
            return None
        pods = choose(budget.spec.selector, self._pods(Ref(ref.tenant, ref.namespace, "")))
        now = self._clock.now()
        try:
            expected = await self._expected(ref, budget.spec, pods)
        except ScaleUnknownError as unknown:
            await self._write(ref, budget, self._failed(budget, str(unknown)))
            return None
        disrupted = still_disrupted(budget.status.disrupted_pods, pods, now)
        count = Count(expected, desired_of(budget.spec, expected), healthy(pods, disrupted))
        await self._write(ref, budget, self._status(budget, count, disrupted))
        if not disrupted:
            return None
        first = min(datetime.fromisoformat(since) for since in disrupted.values())
        return max(1.0, (first.astimezone(UTC) + DELETION_TIMEOUT - now).total_seconds())

    def _status(
        self, budget: PodDisruptionBudget, count: Count, disrupted: dict[str, str]
    ) -> PodDisruptionBudgetStatus:
        reason = ("True", "SufficientPods") if count.allowed else ("False", "InsufficientPods")
        generation = budget.metadata.generation
        said = Condition(type=ALLOWED, status=reason[0], reason=reason[1], observed_generation=generation)
        known = budget.status.conditions
        return PodDisruptionBudgetStatus(
            observed_generation=generation,
            disrupted_pods=disrupted or None,
            disruptions_allowed=count.allowed,
            current_healthy=count.healthy,
            desired_healthy=count.desired,
            expected_pods=count.expected,
            conditions=merged(known, [said], stamp(self._clock.now())) or known,
        )

    def _failed(self, budget: PodDisruptionBudget, why: str) -> PodDisruptionBudgetStatus:
        """Nothing may go while it is not known what there ought to be."""
        generation, known = budget.metadata.generation, budget.status.conditions
        said = Condition(type=ALLOWED, status="False", reason="SyncFailed", message=why, observed_generation=generation)
        conditions = merged(known, [said], stamp(self._clock.now())) or known
        return msgspec.structs.replace(
            budget.status, observed_generation=generation, disruptions_allowed=0, conditions=conditions
        )

    async def _write(self, ref: Ref, budget: PodDisruptionBudget, status: PodDisruptionBudgetStatus) -> None:
        if status == budget.status:
            return
        wanted = msgspec.to_builtins(status)
        numbers = ("disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods", "observedGeneration")
        gone = {name: None for name in budget.status.disrupted_pods or () if name not in (status.disrupted_pods or {})}
        patch = {
            "metadata": {"uid": budget.metadata.uid, "resourceVersion": budget.metadata.resource_version},
            "status": {
                **dict.fromkeys(numbers, 0),
                **wanted,
                "disruptedPods": {**gone, **(status.disrupted_pods or {})},
            },
        }
        await self._client.patch(PodDisruptionBudget, ref, patch, subresource="status")

    async def _expected(self, ref: Ref, spec: PodDisruptionBudgetSpec, pods: Sequence[ControlledPod]) -> int:
        """How many pods there ought to be: as many as there are, or what their owners are scaled to."""
        relative = spec.max_unavailable is not None or isinstance(spec.min_available, str)
        if not relative:
            return len(pods)
        scales: dict[str, int] = {}
        for pod in pods:
            owner = controller_of(pod)
            if owner is not None and owner.uid not in scales:
                uid, scale = await self._scale(ref, owner)
                scales[owner.uid] = 0 if uid in scales and uid != owner.uid else scale
                scales.setdefault(uid, 0)
        return sum(scales.values())

    async def _scale(self, ref: Ref, owner: OwnerReference) -> tuple[str, int]:
        """The UID of who scales the owner's pods (a ReplicaSet's Deployment), and to how many. Raises ScaleUnknownError."""
        if (owner.api_version, owner.kind) == ("apps/v1", "ReplicaSet"):
            resource = await self._mapper.find(ref.tenant, owner.api_version, owner.kind)
            found = (
                await get_object(self._client, resource, Ref(ref.tenant, ref.namespace, owner.name))
                if resource
                else None
            )
            above = controller_of(found) if found is not None and found.metadata.uid == owner.uid else None
            if above is not None and above.kind == "Deployment":
                owner = above
        resource = await self._mapper.find(ref.tenant, owner.api_version, owner.kind)
        if resource is None:
            raise ScaleUnknownError(f"found no controllers for pod of kind {owner.kind}")
        path = f"{object_path(resource, Ref(ref.tenant, ref.namespace, owner.name))}/{quote('scale')}"
        try:
            scale = msgspec.json.decode(await self._client.raw("GET", path), type=_Scale)
        except ApiError as error:
            if error.is_not_found:
                raise ScaleUnknownError(
                    f"{owner.kind} {owner.name} does not implement the scale subresource"
                ) from error
            raise
        return owner.uid, scale.spec.replicas
