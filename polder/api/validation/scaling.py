"""Autoscalers, disruption budgets, priority and runtime classes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from polder.api import names, quantity
from polder.api.errors import Field, FieldError
from polder.api.meta import Raw
from polder.api.validation.containers import validate_resources
from polder.api.validation.meta import path_segment
from polder.api.validation.pods import validate_toleration
from polder.api.validation.rules import (
    Rules,
    choice,
    every,
    fixed,
    labels,
    least,
    named,
    required,
    selector,
    unique,
)
from polder.api.validation.workloads import at_most_all, count_or_percent

_SPEC: Final = Field("spec")
_SOURCES: Final = {
    "ContainerResource": "containerResource",
    "External": "external",
    "Object": "object",
    "Pods": "pods",
    "Resource": "resource",
}
_TARGETS: Final = ("Utilization", "Value", "AverageValue")
_HOUR, _HALF_HOUR = 3600, 1800
_SYSTEM: Final = {"system-node-critical": 2000001000, "system-cluster-critical": 2000000000}
_HIGHEST: Final = 1_000_000_000


def _limits(autoscaler: Raw) -> Iterator[FieldError]:
    spec = autoscaler.get("spec") or {}
    low, high, at = spec.get("minReplicas", 1), spec.get("maxReplicas") or 0, _SPEC / "maxReplicas"
    if low < 1:
        yield (_SPEC / "minReplicas").invalid(low, "must be greater than or equal to 1")
    if not high:
        yield at.required("must be set and greater than 0")
    elif high < 0:
        yield at.invalid(high, "must be greater than or equal to 1")
    if high < low:
        yield at.invalid(high, "must be greater than or equal to `minReplicas`")
    reference = spec.get("scaleTargetRef") or {}
    yield from _reference(reference, _SPEC / "scaleTargetRef", bare=reference.get("kind") == "ReplicationController")


def _reference(reference: Raw, at: Field, *, bare: bool) -> Iterator[FieldError]:
    """A CrossVersionObjectReference; ``bare``: its API version may have no group."""
    for name in ("kind", "name"):
        value = reference.get(name, "")
        if not value:
            yield (at / name).required()
        yield from ((at / name).invalid(value, said) for said in path_segment(value))
    version = reference.get("apiVersion", "")
    if version.count("/") > 1:
        yield (at / "apiVersion").invalid(version, f"unexpected GroupVersion string: {version}")
    elif "/" not in version and not bare:
        yield (at / "apiVersion").invalid(version, "apiVersion must specify API group")


def _metric(metric: Raw, at: Field) -> Iterator[FieldError]:
    kind = metric.get("type", "")
    if not kind:
        yield (at / "type").required("must specify a metric source type")
    if kind not in _SOURCES:
        yield (at / "type").not_supported(kind, sorted(_SOURCES))
        return
    wanted = _SOURCES[kind]
    if metric.get(wanted) is None:
        yield (at / wanted).required("must populate information for the given metric source")
    for name in _SOURCES.values():
        if name != wanted and metric.get(name) is not None:
            yield (at / name).forbidden("must populate the given metric source only")
    if metric.get(wanted) is not None:
        yield from _source(wanted, metric[wanted], at / wanted)


def _source(kind: str, source: Raw, at: Field) -> Iterator[FieldError]:
    target, where = source.get("target") or {}, at / "target"
    if kind in ("resource", "containerResource"):
        if not source.get("name"):
            yield (at / "name").required("must specify a resource name")
        if kind == "containerResource" and not source.get("container"):
            yield (at / "container").required("must specify a container")
    else:
        name = (source.get("metric") or {}).get("name", "")
        if not name:
            yield (at / "metric" / "name").required("must specify a metric name")
        yield from ((at / "metric" / "name").invalid(name, said) for said in path_segment(name))
    if kind == "object":
        yield from _reference(source.get("describedObject") or {}, at / "describedObject", bare=True)
    yield from _target(target, where)
    yield from _aimed(kind, target, where)


def _aimed(kind: str, target: Raw, at: Field) -> Iterator[FieldError]:
    """Each source has the targets that it can have."""
    has = {name for name in ("value", "averageValue", "averageUtilization") if target.get(name) is not None}
    if kind in ("resource", "containerResource"):
        if not has & {"averageUtilization", "averageValue"}:
            why = "must set either a target raw value or a target utilization"
            yield (at / "averageUtilization").required(why)
        elif {"averageUtilization", "averageValue"} <= has:
            yield (at / "averageValue").forbidden("may not set both a target raw value and a target utilization")
    elif kind == "pods" and "averageValue" not in has:
        yield (at / "averageValue").required("must specify a positive target averageValue")
    elif kind in ("object", "external") and not has & {"value", "averageValue"}:
        which = "averageValue" if kind == "object" else "for metric or a per-pod target"
        why = f"must set either a target value {'or ' if kind == 'object' else ''}{which}"
        yield (at / "averageValue").required(why)
    elif kind == "external" and {"value", "averageValue"} <= has:
        yield (at / "value").forbidden("may not set both a target value for metric and a per-pod target")


def _target(target: Raw, at: Field) -> Iterator[FieldError]:
    kind = target.get("type", "")
    if not kind:
        yield (at / "type").required("must specify a metric target type")
    if kind not in _TARGETS:
        yield (at / "type").invalid(kind, "must be either Utilization, Value, or AverageValue")
    for name in ("value", "averageValue"):
        if target.get(name) is not None and quantity.parse(target[name]).value <= 0:
            yield (at / name).invalid(target[name], "must be positive")
    if target.get("averageUtilization", 1) < 1:
        yield (at / "averageUtilization").invalid(target["averageUtilization"], "must be greater than 0")


def _scaling(rules: Raw, at: Field) -> Iterator[FieldError]:
    window, policy = rules.get("stabilizationWindowSeconds"), rules.get("selectPolicy")
    if window is not None and window < 0:
        yield (at / "stabilizationWindowSeconds").invalid(window, "must be greater than or equal to zero")
    if window is not None and window > _HOUR:
        yield (at / "stabilizationWindowSeconds").invalid(window, f"must be less than or equal to {_HOUR}")
    if policy not in (None, "Disabled", "Max", "Min"):
        yield (at / "selectPolicy").not_supported(policy, ("Disabled", "Max", "Min"))
    if not rules.get("policies"):
        yield (at / "policies").required("must specify at least one Policy")
    for number, item in enumerate(rules.get("policies") or ()):
        where = (at / "policies")[number]
        if item.get("type") not in ("Percent", "Pods"):
            yield (where / "type").not_supported(item.get("type", ""), ("Percent", "Pods"))
        for name in ("value", "periodSeconds"):
            if item.get(name, 0) <= 0:
                yield (where / name).invalid(item.get(name, 0), "must be greater than zero")
        if item.get("periodSeconds", 0) > _HALF_HOUR:
            yield (where / "periodSeconds").invalid(
                item["periodSeconds"], f"must be less than or equal to {_HALF_HOUR}"
            )


def _budget(budget: Raw) -> Iterator[FieldError]:
    spec = budget.get("spec") or {}
    found = [name for name in ("minAvailable", "maxUnavailable") if spec.get(name) is not None]
    if len(found) == 2:
        yield _SPEC.invalid(spec, "minAvailable and maxUnavailable cannot be both set")
    for name in found:
        yield from count_or_percent(spec[name], _SPEC / name)
        yield from at_most_all(spec[name], _SPEC / name)


def _priority(priority: Raw) -> Iterator[FieldError]:
    name, value = (priority.get("metadata") or {}).get("name", ""), priority.get("value", 0)
    if name.startswith("system-"):
        if _SYSTEM.get(name) != value or priority.get("globalDefault"):
            why = "priority class names with 'system-' prefix are reserved for system use only"
            known = (
                f"{name} is not a known system priority class"
                if name not in _SYSTEM
                else f"value of {name} must be {_SYSTEM[name]}"
            )
            yield Field("metadata.name").forbidden(f"{why}. error: {known}")
    elif value > _HIGHEST:
        yield Field("value").forbidden(f"maximum allowed value of a user defined priority is {_HIGHEST}")


def _kept_value(new: Raw, old: Raw) -> Iterator[FieldError]:
    if new.get("value", 0) != old.get("value", 0):
        yield Field("value").forbidden("may not be changed in an update.")


_BUDGET_COUNTS: Final = ("disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods")

SCALING: Final[dict[str, Rules]] = {
    "horizontalpodautoscalers.autoscaling": Rules(
        (_limits, every("spec.metrics[]", _metric), every("spec.behavior?.scaleUp", _scaling),
         every("spec.behavior?.scaleDown", _scaling), least("status.currentReplicas"), least("status.desiredReplicas"))
    ),
    "poddisruptionbudgets.policy": Rules(
        (_budget, selector("spec.selector"),
         choice("spec.unhealthyPodEvictionPolicy", "AlwaysAllow", "IfHealthyBudget"),
         *(least(f"status.{name}") for name in _BUDGET_COUNTS))
    ),
    "priorityclasses.scheduling.k8s.io": Rules(
        (_priority, choice("preemptionPolicy", "Never", "PreemptLowerPriority", needed=True)),
        (_kept_value, fixed("preemptionPolicy")),
    ),
    "runtimeclasses.node.k8s.io": Rules(
        (required("handler"), named("handler", names.dns_label), labels("scheduling?.nodeSelector"),
         every("scheduling?.tolerations[]", validate_toleration),
         unique("scheduling?.tolerations", "key", "operator", "value", "effect"),
         every("overhead?.podFixed", lambda amounts, at: validate_resources({"limits": amounts}, at))),
        (fixed("handler"),),
    ),
}  # fmt: skip
