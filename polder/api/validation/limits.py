"""ResourceQuotas and LimitRanges."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from polder.api import names, quantity
from polder.api.errors import Field, FieldError
from polder.api.meta import Raw
from polder.api.validation.rules import Rules

_SPEC: Final = Field("spec")
_SCOPES: Final = (
    "BestEffort", "CrossNamespacePodAffinity", "NotBestEffort", "NotTerminating", "PriorityClass", "Terminating",
    "VolumeAttributesClass",
)  # fmt: skip
_VALUED: Final = ("PriorityClass", "VolumeAttributesClass")
_OPPOSED: Final = ({"BestEffort", "NotBestEffort"}, {"Terminating", "NotTerminating"})
_COMPUTE: Final = ("cpu", "memory", "ephemeral-storage")
_COUNTED: Final = (
    "pods", "services", "services.loadbalancers", "services.nodeports", "replicationcontrollers", "resourcequotas",
    "secrets", "configmaps", "persistentvolumeclaims",
)  # fmt: skip
_QUOTA: Final = frozenset(
    {
        *_COMPUTE,
        *_COUNTED,
        "requests.storage",
        *(f"{part}.{name}" for part in ("requests", "limits") for name in _COMPUTE),
    }
)
_RANGES: Final = {"Container": _COMPUTE, "Pod": _COMPUTE, "PersistentVolumeClaim": ("storage",)}


def _quota(quota: Raw) -> Iterator[FieldError]:
    spec = quota.get("spec") or {}
    for name, amount in (spec.get("hard") or {}).items():
        at = (_SPEC / "hard")[name]
        yield from (at.invalid(name, said) for said in names.qualified_name(name))
        if "/" not in name and name not in _QUOTA and not name.startswith(("hugepages-", "requests.hugepages-")):
            yield at.invalid(name, "must be a standard resource for quota")
        found = quantity.parse(amount)
        if found.value < 0:
            yield at.invalid(amount, "must be greater than or equal to 0")
        if (name in _COUNTED or name.startswith("count/")) and found.value != found.value.to_integral_value():
            yield at.invalid(amount, "must be an integer")
    yield from _scopes(spec)


def _scopes(spec: Raw) -> Iterator[FieldError]:
    scopes, at = set(spec.get("scopes") or ()), _SPEC / "scopes"
    for scope in sorted(scopes - set(_SCOPES)):
        yield at.invalid(scope, "unsupported scope")
    where = _SPEC / "scopeSelector" / "matchExpressions"
    for clause in (spec.get("scopeSelector") or {}).get("matchExpressions") or ():
        scope, operator, values = clause.get("scopeName", ""), clause.get("operator", ""), clause.get("values") or []
        scopes.add(scope)
        if scope not in _SCOPES:
            yield (where / "scopeName").invalid(scope, "unsupported scope")
        elif scope not in _VALUED and operator != "Exists":
            yield (where / "operator").invalid(operator, f"must be 'Exists' when scope is {scope}")
        if operator in ("In", "NotIn") and not values:
            why = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector"
            yield (where / "values").required(why)
        elif operator in ("Exists", "DoesNotExist") and values:
            why = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector"
            yield (where / "values").invalid(values, why)
        elif operator not in ("In", "NotIn", "Exists", "DoesNotExist"):
            yield (where / "operator").invalid(operator, "not a valid selector operator")
    if any(pair <= scopes for pair in _OPPOSED):
        yield at.invalid(sorted(scopes), "conflicting scopes")


def _kept_scopes(new: Raw, old: Raw) -> Iterator[FieldError]:
    after, before = (set((obj.get("spec") or {}).get("scopes") or ()) for obj in (new, old))
    if after != before:
        yield (_SPEC / "scopes").invalid(sorted(after), "field is immutable")


def _range(ranges: Raw) -> Iterator[FieldError]:
    seen: set[str] = set()
    for number, item in enumerate((ranges.get("spec") or {}).get("limits") or ()):
        at, kind = (_SPEC / "limits")[number], item.get("type", "")
        if not kind:
            yield (at / "type").required()
        elif kind not in _RANGES:
            yield from ((at / "type").invalid(kind, said) for said in names.qualified_name(kind))
        if kind in seen:
            yield (at / "type").duplicate(kind)
        seen.add(kind)
        yield from _item(item, kind, at)


def _item(item: Raw, kind: str, at: Field) -> Iterator[FieldError]:
    for group in ("max", "min", "default", "defaultRequest", "maxLimitRequestRatio"):
        amounts = item.get(group) or {}
        if kind == "Pod" and amounts and group.startswith("default"):
            yield (at / group).forbidden("may not be specified when `type` is 'Pod'")
        for name in amounts:
            where = (at / group)[name]
            yield from (where.invalid(name, said) for said in names.qualified_name(name))
            if "/" not in name and name not in _RANGES.get(kind, (name,)) and not name.startswith("hugepages-"):
                yield where.invalid(name, "must be a standard limit type or fully qualified")
    if kind == "PersistentVolumeClaim" and not {"storage"} & {*(item.get("min") or {}), *(item.get("max") or {})}:
        yield (at / "limits").required("either minimum or maximum storage value is required, but neither was provided")
    yield from _ordered(item, at)
    for name, ratio in (item.get("maxLimitRequestRatio") or {}).items():
        if quantity.parse(ratio).value < 1:
            yield (at / "maxLimitRequestRatio")[name].invalid(ratio, f"ratio {ratio} is less than 1")


_ORDER: Final = (
    ("min", "max", "min", "min value {} is greater than max value {}"),
    ("min", "defaultRequest", "defaultRequest", "min value {} is greater than default request value {}"),
    ("defaultRequest", "max", "defaultRequest", "default request value {} is greater than max value {}"),
    ("defaultRequest", "default", "defaultRequest", "default request value {} is greater than default limit value {}"),
    ("min", "default", "default", "min value {} is greater than default value {}"),
    ("default", "max", "default", "default value {} is greater than max value {}"),
)
"""The smaller, the larger, which of them is named, and what is said when they are the other way round."""


def _ordered(item: Raw, at: Field) -> Iterator[FieldError]:
    for small, large, named, sentence in _ORDER:
        low, high = item.get(small) or {}, item.get(large) or {}
        for name in sorted(low.keys() & high.keys()):
            if quantity.parse(low[name]).value > quantity.parse(high[name]).value:
                value = (item.get(named) or {}).get(name)
                yield (at / named)[name].invalid(value, sentence.format(low[name], high[name]))


LIMITS: Final[dict[str, Rules]] = {
    "resourcequotas": Rules((_quota,), (_kept_scopes,)),
    "limitranges": Rules((_range,)),
}
