"""HorizontalPodAutoscaler between autoscaling/v1 and v2: what v1 has no field for, it keeps in annotations.

Source: Kubernetes API reference, HorizontalPodAutoscaler v1 and v2; the annotations are those upstream writes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import orjson

from polder.api.meta import Raw

_PREFIX: Final = "autoscaling.alpha.kubernetes.io/"
METRICS: Final = f"{_PREFIX}metrics"
CURRENT: Final = f"{_PREFIX}current-metrics"
CONDITIONS: Final = f"{_PREFIX}conditions"
BEHAVIOR: Final = f"{_PREFIX}behavior"
ROUND_TRIP: Final = frozenset({METRICS, CURRENT, CONDITIONS, BEHAVIOR})
DEFAULT_CPU: Final = 80
"""Percent of the request: the target where none is named."""
_BEHAVIOR_FIELDS: Final = (
    ("scaleUp", "ScaleUp"), ("scaleDown", "ScaleDown"), ("stabilizationWindowSeconds", "StabilizationWindowSeconds"),
    ("selectPolicy", "SelectPolicy"), ("policies", "Policies"), ("tolerance", "Tolerance"), ("type", "Type"),
    ("value", "Value"), ("periodSeconds", "PeriodSeconds"),
)  # fmt: skip
_TO_GO: Final = dict(_BEHAVIOR_FIELDS)
_FROM_GO: Final = {go.lower(): name for name, go in _BEHAVIOR_FIELDS}


def hpa_v1_to_v2(obj: Raw) -> Raw:
    """v2 of an object in v1."""
    annotations = dict(obj["metadata"].get("annotations") or {})
    spec, status = dict(obj.get("spec") or {}), dict(obj.get("status") or {})
    metrics = [_spec_to_v2(metric) for metric in _listed(annotations.get(METRICS))]
    cpu = spec.pop("targetCPUUtilizationPercentage", None)
    if cpu is not None or not metrics:
        metrics.append(_cpu(DEFAULT_CPU if cpu is None else cpu))
    spec["metrics"] = metrics
    behavior = _loaded(annotations.get(BEHAVIOR))
    if isinstance(behavior, dict) and (found := _named(behavior, lambda key: _FROM_GO.get(key.lower(), key))):
        spec["behavior"] = found
    current = status.pop("currentCPUUtilizationPercentage", None)
    if statuses := _listed(annotations.get(CURRENT)):
        status["currentMetrics"] = [_status_to_v2(metric) for metric in statuses]
    elif current is not None:
        resource = {"name": "cpu", "current": {"averageUtilization": current}}
        status["currentMetrics"] = [{"type": "Resource", "resource": resource}]
    if conditions := _listed(annotations.get(CONDITIONS)):
        status["conditions"] = conditions
    found = {**obj, "metadata": _annotated(obj["metadata"], annotations, {}), "spec": spec}
    return {**found, "status": status} if status or "status" in obj else found


def hpa_v2_to_v1(obj: Raw) -> Raw:
    """v1 of an object in v2."""
    spec, status = dict(obj.get("spec") or {}), dict(obj.get("status") or {})
    added: dict[str, str] = {}
    metrics = spec.pop("metrics", None) or []
    targets = [cpu for metric in metrics if (cpu := _cpu_target(metric)) is not None]
    if targets:
        spec["targetCPUUtilizationPercentage"] = targets[0]
    if others := [metric for metric in metrics if _cpu_target(metric) is None]:
        added[METRICS] = _dumped([_spec_to_v1(metric) for metric in others])
    if (behavior := spec.pop("behavior", None)) is not None:
        added[BEHAVIOR] = _dumped(_named(behavior, lambda key: _TO_GO.get(key, key)))
    if current := status.pop("currentMetrics", None):
        added[CURRENT] = _dumped([_status_to_v1(metric) for metric in current])
        used = [cpu for metric in current if (cpu := _cpu_use(metric)) is not None]
        if used:
            status["currentCPUUtilizationPercentage"] = used[0]
    if conditions := status.pop("conditions", None):
        added[CONDITIONS] = _dumped(conditions)
    status.setdefault("currentReplicas", 0)
    annotations = dict(obj["metadata"].get("annotations") or {})
    found = {**obj, "metadata": _annotated(obj["metadata"], annotations, added), "spec": spec}
    return {**found, "status": status} if "status" in obj else found


def without_round_trip(meta: Raw) -> Raw:
    """metadata without the annotations that carry v2 through v1; they mean nothing in v2."""
    return _annotated(meta, dict(meta.get("annotations") or {}), {})


def _annotated(meta: Raw, annotations: dict[str, str], added: dict[str, str]) -> Raw:
    kept = {key: value for key, value in annotations.items() if key not in ROUND_TRIP} | added
    rest = {key: value for key, value in meta.items() if key != "annotations"}
    return {**rest, "annotations": kept} if kept else rest


def _loaded(text: str | None) -> Any:
    try:
        return orjson.loads(text) if text else None
    except orjson.JSONDecodeError:
        return None


def _listed(text: str | None) -> list[Raw]:
    """What an annotation lists; empty where it is no list of objects, as if it were not there."""
    found = _loaded(text)
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def _dumped(value: Any) -> str:
    return orjson.dumps(value).decode()


def _named(value: Any, name: Callable[[str], str]) -> Any:
    """The value with every field's name replaced; nulls go."""
    if isinstance(value, dict):
        return {name(key): _named(item, name) for key, item in value.items() if item is not None}
    return [_named(item, name) for item in value] if isinstance(value, list) else value


def _cpu(percent: int) -> Raw:
    target = {"type": "Utilization", "averageUtilization": percent}
    return {"type": "Resource", "resource": {"name": "cpu", "target": target}}


def _cpu_target(metric: Raw) -> int | None:
    resource = metric.get("resource") or {}
    if metric.get("type") != "Resource" or resource.get("name") != "cpu":
        return None
    found = (resource.get("target") or {}).get("averageUtilization")
    return None if found is None else int(found)


def _cpu_use(metric: Raw) -> int | None:
    resource = metric.get("resource") or {}
    if metric.get("type") != "Resource" or resource.get("name") != "cpu":
        return None
    found = (resource.get("current") or {}).get("averageUtilization")
    return None if found is None else int(found)


# --- one metric ---------------------------------------------------------------------------------------------------
# In v1 a source is flat: (v1's field, where v2 has it). The field of a source is its type with a small first letter.

_Fields = tuple[tuple[str, tuple[str, ...]], ...]
_RESOURCE: Final[_Fields] = (
    ("targetAverageUtilization", ("target", "averageUtilization")),
    ("targetAverageValue", ("target", "averageValue")),
)
_SPEC: Final[dict[str, _Fields]] = {
    "resource": _RESOURCE,
    "containerResource": _RESOURCE,
    "pods": (
        ("metricName", ("metric", "name")),
        ("selector", ("metric", "selector")),
        ("targetAverageValue", ("target", "averageValue")),
    ),
    "object": (
        ("metricName", ("metric", "name")),
        ("selector", ("metric", "selector")),
        ("target", ("describedObject",)),
        ("targetValue", ("target", "value")),
        ("averageValue", ("target", "averageValue")),
    ),
    "external": (
        ("metricName", ("metric", "name")),
        ("metricSelector", ("metric", "selector")),
        ("targetValue", ("target", "value")),
        ("targetAverageValue", ("target", "averageValue")),
    ),
}
_USED: Final[_Fields] = (
    ("currentAverageUtilization", ("current", "averageUtilization")),
    ("currentAverageValue", ("current", "averageValue")),
)
_STATUS: Final[dict[str, _Fields]] = {
    "resource": _USED,
    "containerResource": _USED,
    "pods": (
        ("metricName", ("metric", "name")),
        ("selector", ("metric", "selector")),
        ("currentAverageValue", ("current", "averageValue")),
    ),
    "object": (
        ("metricName", ("metric", "name")),
        ("selector", ("metric", "selector")),
        ("target", ("describedObject",)),
        ("currentValue", ("current", "value")),
        ("averageValue", ("current", "averageValue")),
    ),
    "external": (
        ("metricName", ("metric", "name")),
        ("metricSelector", ("metric", "selector")),
        ("currentValue", ("current", "value")),
        ("currentAverageValue", ("current", "averageValue")),
    ),
}
_SAME: Final = ("name", "container")


def _flat(source: Raw, fields: _Fields) -> Raw:
    found: Raw = {name: source[name] for name in _SAME if name in source}
    for name, path in fields:
        value: Any = source
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        if value is not None:
            found[name] = value
    return found


def _deep(source: Raw, fields: _Fields) -> Raw:
    found: Raw = {name: source[name] for name in _SAME if name in source}
    for name, path in fields:
        if source.get(name) is None:
            continue
        at = found
        for key in path[:-1]:
            at = at.setdefault(key, {})
        at[path[-1]] = source[name]
    return found


def _metric(metric: Raw, tables: dict[str, _Fields], make: Callable[[Raw, _Fields], Raw]) -> Raw:
    found: Raw = {"type": metric.get("type", "")}
    for name, fields in tables.items():
        if isinstance(metric.get(name), dict):
            found[name] = make(metric[name], fields)
    return found


def _spec_to_v1(metric: Raw) -> Raw:
    return _metric(metric, _SPEC, _flat)


def _status_to_v1(metric: Raw) -> Raw:
    return _metric(metric, _STATUS, _flat)


def _status_to_v2(metric: Raw) -> Raw:
    return _metric(metric, _STATUS, _deep)


def _spec_to_v2(metric: Raw) -> Raw:
    found = _metric(metric, _SPEC, _deep)
    for name in _SPEC:
        if name in found:
            target = found[name].setdefault("target", {})
            target["type"] = _target_type(target)
    return found


def _target_type(target: Raw) -> str:
    if "averageUtilization" in target:
        return "Utilization"
    return "Value" if "value" in target and "averageValue" not in target else "AverageValue"
