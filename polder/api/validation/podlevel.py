"""Rules of ``spec.resources`` and of containers' ``resizePolicy`` (KEP-2837, KEP-1287), and of resizes of a whole pod."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from polder.api.errors import Field, FieldError
from polder.api.meta import Raw
from polder.api.podlevel import aggregate, is_whole_pod, of
from polder.api.validation.containers import validate_resources

_SPEC: Final = Field("spec")
_POLICIES: Final = ["NotRequired", "RestartContainer"]
_RESIZED: Final = ["cpu", "memory"]
_NAMED: Final = "cpu, memory or hugepages-<size>"


def validate_whole(spec: Raw, at: Field) -> Iterator[FieldError]:
    """The pod's own requests and limits, alone and beside its containers'. ``at`` is the spec's place."""
    whole = spec.get("resources")
    if not whole:
        return
    at = at / "resources"
    if whole.get("claims") is not None:
        yield (at / "claims").forbidden("claims may not be set for Resources at pod-level")
    for side in ("limits", "requests"):
        for name in whole.get(side) or ():
            if not is_whole_pod(name):
                yield (at / side)[name].not_supported(name, [_NAMED])
    yield from validate_resources({side: whole.get(side) or {} for side in ("limits", "requests")}, at)
    requests, limits = of(whole, "requests"), of(whole, "limits")
    for name, amount in aggregate(spec, "requests").items():
        if name in requests and amount.value > requests[name].value:
            why = f"must be greater than or equal to aggregate container requests of {amount}"
            yield (at / "requests")[name].invalid(str(requests[name]), why)
    for number, container in enumerate(spec.get("containers") or ()):
        for name, amount in of(container.get("resources"), "limits").items():
            if name in limits and amount.value > limits[name].value:
                where = (_SPEC / "containers")[number] / "resources" / "limits"
                yield where[name].invalid(str(amount), f"must be less than or equal to pod limits of {limits[name]}")


def validate_policies(container: Raw, at: Field, restart: str) -> Iterator[FieldError]:
    """``resizePolicy``; ``restart`` is the pod's restart policy."""
    seen: set[Any] = set()
    at = at / "resizePolicy"
    for number, policy in enumerate(container.get("resizePolicy") or ()):
        name, rule = policy.get("resourceName"), policy.get("restartPolicy")
        if name in seen:
            yield at[number].duplicate(name)
        seen.add(name)
        for value, known in ((name, _RESIZED), (rule, _POLICIES)):
            if not value:
                yield at.required()
            elif value not in known:
                yield at.not_supported(value, known)
        if restart == "Never" and rule == "RestartContainer":
            yield at.invalid(rule, "must be 'NotRequired' when pod `restartPolicy` is 'Never'")


def validate_whole_resize(old: Raw, new: Raw) -> Iterator[FieldError]:
    """What a resize may do to the pod's own requests and limits; both are specs."""
    before, after = old.get("resources"), new.get("resources")
    if before and not after:
        yield (_SPEC / "resources").forbidden("pod-level resources cannot be removed")
        return
    for side in ("requests", "limits"):
        was, now = (before or {}).get(side) or {}, (after or {}).get(side) or {}
        if set(was) - set(now):
            yield (_SPEC / "resources" / side).forbidden(f"pod-level resource {side} cannot be removed")
        if {k: v for k, v in was.items() if k not in _RESIZED} != {k: v for k, v in now.items() if k not in _RESIZED}:
            yield _SPEC.forbidden("only cpu and memory resources are mutable at pod-level")
