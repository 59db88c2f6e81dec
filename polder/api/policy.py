"""PodDisruptionBudget (policy/v1) and ResourceQuota (v1): what limits what may happen in a namespace."""

from __future__ import annotations

from polder.api.meta import Condition, LabelSelector, Object, Struct


class PodDisruptionBudgetSpec(Struct, frozen=True, kw_only=True):
    """At least so many pods, or at most so many not; numbers or per cent."""

    min_available: int | str | None = None
    max_unavailable: int | str | None = None
    selector: LabelSelector | None = None
    unhealthy_pod_eviction_policy: str | None = None


class PodDisruptionBudgetStatus(Struct, frozen=True, kw_only=True):
    """How many pods may be evicted now; ``disrupted_pods`` were, and may not have gone yet."""

    observed_generation: int = 0
    disrupted_pods: dict[str, str] | None = None
    disruptions_allowed: int = 0
    current_healthy: int = 0
    desired_healthy: int = 0
    expected_pods: int = 0
    conditions: list[Condition] | None = None


class PodDisruptionBudget(Object, frozen=True, kw_only=True):
    """How many pods of a set may be away by choice."""

    spec: PodDisruptionBudgetSpec = PodDisruptionBudgetSpec()
    status: PodDisruptionBudgetStatus = PodDisruptionBudgetStatus()


Amounts = dict[str, str | int | float]
"""Quantities by name."""


class ResourceQuotaSpec(Struct, frozen=True, kw_only=True):
    """The limits; scopes are the API server's to read."""

    hard: Amounts | None = None


class ResourceQuotaStatus(Struct, frozen=True, kw_only=True):
    """The limits that hold, and what is used of them."""

    hard: Amounts | None = None
    used: Amounts | None = None


class ResourceQuota(Object, frozen=True, kw_only=True):
    """Limits what a namespace uses."""

    spec: ResourceQuotaSpec = ResourceQuotaSpec()
    status: ResourceQuotaStatus = ResourceQuotaStatus()
