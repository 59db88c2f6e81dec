"""How fast sizes may follow their metrics: windows, rates and bounds. Pure; follows upstream's horizontal controller.

Times are seconds of a monotonic clock.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from polder.api.autoscaling import AutoscalerSpec, ScalingRules

WINDOW = 300
"""Seconds in which the highest recommendation holds when sizes shrink, unless something else is configured."""
_FACTOR, _LEAST = 2.0, 4.0
_MOST = 2**31 - 1
DISABLED = "Disabled"


@dataclass(slots=True)
class History:
    """Of one autoscaler: what was recommended when, and how sizes changed."""

    uid: str
    recommended: list[tuple[float, int]] = field(default_factory=list)
    added: list[tuple[float, int]] = field(default_factory=list)
    taken: list[tuple[float, int]] = field(default_factory=list)

    def changed(self, before: int, after: int, now: float) -> None:
        """Notes a change of size."""
        (self.added if after > before else self.taken).append((now, abs(after - before)))

    def prune(self, spec: AutoscalerSpec, now: float) -> None:
        """Forgets what no rule looks at any more."""
        rules = [spec.behavior.scale_up, spec.behavior.scale_down] if spec.behavior is not None else []
        windows = [rule.stabilization_window_seconds or 0 for rule in rules]
        periods = [policy.period_seconds for rule in rules for policy in rule.policies or ()]
        self.recommended = _since(self.recommended, now - max(WINDOW, *windows, 0))
        self.added = _since(self.added, now - max(periods, default=0))
        self.taken = _since(self.taken, now - max(periods, default=0))


def _since(entries: list[tuple[float, int]], at: float) -> list[tuple[float, int]]:
    return [entry for entry in entries if entry[0] > at]


@dataclass(frozen=True, slots=True)
class Limited:
    """The size that is allowed; what is to be said of being able to scale, and of being limited: status, reason, message."""

    replicas: int
    able: tuple[str, str, str]
    limited: tuple[str, str, str]


_READY = ("True", "ReadyForNewScale", "recommended size matches current size")
_WITHIN = ("DesiredWithinRange", "the desired count is within the acceptable range")
_FAST_UP = ("ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate")
_FAST_DOWN = ("ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate")
_MANY = ("TooManyReplicas", "the desired replica count is more than the maximum replica count")
_FEW = ("TooFewReplicas", "the desired replica count is less than the minimum replica count")
_LOWER = "recent recommendations were lower than current one, applying the lowest recent recommendation"
_HIGHER = "recent recommendations were higher than current one, applying the highest recent recommendation"


def limit(spec: AutoscalerSpec, history: History, current: int, wanted: int, now: float) -> Limited:
    """What becomes of a recommendation, which is noted."""
    stable, reason, message = _stabilized(spec, history, current, wanted, now)
    history.recommended.append((now, wanted))
    able = ("True", reason, message) if stable != wanted else _READY
    least = spec.min_replicas if spec.min_replicas is not None else 1
    if spec.behavior is None:
        size, why = _bounded(current, stable, least, spec.max_replicas)
    else:
        size, why = _rated(spec, history, current, stable, now)
    return Limited(size, able, ("False" if size == stable else "True", *why))


def _stabilized(spec: AutoscalerSpec, history: History, current: int, wanted: int, now: float) -> tuple[int, str, str]:
    behavior = spec.behavior
    if behavior is None:
        recent = [value for _, value in _since(history.recommended, now - WINDOW)]
        return max([wanted, *recent]), "ScaleDownStabilized", _HIGHER
    window = behavior.scale_down.stabilization_window_seconds
    up = _since(history.recommended, now - (behavior.scale_up.stabilization_window_seconds or 0))
    down = _since(history.recommended, now - (WINDOW if window is None else window))
    low = min([wanted, *(value for _, value in up)])
    high = max([wanted, *(value for _, value in down)])
    stable = min(max(current, low), high)
    if wanted >= current:
        return stable, "ScaleUpStabilized", _LOWER
    return stable, "ScaleDownStabilized", _HIGHER


def _bounded(current: int, wanted: int, least: int, most: int) -> tuple[int, tuple[str, str]]:
    fast = int(max(_FACTOR * current, _LEAST))
    if wanted < least:
        return least, _FEW
    if wanted > min(most, fast):
        return min(most, fast), _FAST_UP if most > fast else _MANY
    return wanted, _WITHIN


def _rated(
    spec: AutoscalerSpec, history: History, current: int, wanted: int, now: float
) -> tuple[int, tuple[str, str]]:
    assert spec.behavior is not None
    least = spec.min_replicas if spec.min_replicas is not None else 1
    if wanted > current:
        fast = max(current, _reach(spec.behavior.scale_up, history, current, now, 1))
        most = min(spec.max_replicas, fast)
        if wanted > most:
            return most, _FAST_UP if spec.max_replicas > fast else _MANY
    elif wanted < current:
        fast = min(current, _reach(spec.behavior.scale_down, history, current, now, -1))
        floor = max(least, fast)
        if wanted < floor:
            return floor, _FAST_DOWN if least < fast else _FEW
    return wanted, _WITHIN


def _reach(rules: ScalingRules, history: History, current: int, now: float, way: int) -> int:
    """How far policies let a size go; ``way`` is 1 up, -1 down."""
    if rules.select_policy == DISABLED:
        return current
    found = []
    for policy in rules.policies or ():
        since = now - policy.period_seconds
        begun = (
            current - sum(n for _, n in _since(history.added, since)) + sum(n for _, n in _since(history.taken, since))
        )
        if policy.type == "Pods":
            found.append(begun + way * policy.value)
        elif way > 0:
            found.append(min(_MOST, math.ceil(begun * (1 + policy.value / 100))))
        else:
            found.append(int(begun * (1 - policy.value / 100)))
    if not found:
        return _MOST if way > 0 else 0
    return min(found) if (rules.select_policy == "Min") is (way > 0) else max(found)
