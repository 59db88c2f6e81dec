"""Scheduling gates (KEP-3521): what they are, and what of a pod may change as long as it has some (KEP-3838)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from polder.api import names
from polder.api.errors import Field, FieldError
from polder.api.meta import Raw

_REQUIRED: Final = "requiredDuringSchedulingIgnoredDuringExecution"


def validate_gates(spec: Raw, at: Field) -> Iterator[FieldError]:
    """The gates of a pod, or of a template."""
    seen = set()
    for number, gate in enumerate(spec.get("schedulingGates") or ()):
        name, where = gate.get("name", ""), (at / "schedulingGates")[number]
        yield from (where.invalid(name, said) for said in names.qualified_name(name))
        if name in seen:
            yield where.duplicate(name)
        seen.add(name)


def validate_gated_node(spec: Raw, at: Field) -> Iterator[FieldError]:
    """A pod with gates has no node yet."""
    if spec.get("nodeName") and spec.get("schedulingGates"):
        yield (at / "nodeName").forbidden("cannot be set until all schedulingGates have been cleared")


def validate_gates_update(after: Raw, before: Raw, at: Field) -> Iterator[FieldError]:
    """Gates are only taken away."""
    known = {gate.get("name") for gate in before.get("schedulingGates") or ()}
    for number, gate in enumerate(after.get("schedulingGates") or ()):
        if gate.get("name") not in known:
            why = f"only deletion is allowed, but found new scheduling gate '{gate.get('name')}'"
            yield (at / "schedulingGates")[number].forbidden(why)


def may_narrow(after: Raw, before: Raw) -> bool:
    """Whether the pod has gates still, and asks for no node that it did not ask for before."""
    if not before.get("schedulingGates"):
        return False
    selector = after.get("nodeSelector") or {}
    if any(selector.get(key) != value for key, value in (before.get("nodeSelector") or {}).items()):
        return False
    new, old = after.get("affinity") or {}, before.get("affinity") or {}
    if any(new.get(kind) != old.get(kind) for kind in ("podAffinity", "podAntiAffinity")):
        return False
    return _narrower((new.get("nodeAffinity") or {}).get(_REQUIRED), (old.get("nodeAffinity") or {}).get(_REQUIRED))


def _narrower(new: Raw | None, old: Raw | None) -> bool:
    """Whether each term has the clauses that it had, and perhaps more; where nothing was required anything may be."""
    if old is None:
        return True
    after, before = ((found or {}).get("nodeSelectorTerms") or [] for found in (new, old))
    if len(after) != len(before):
        return False
    return all(
        all(clause in (one.get(group) or []) for clause in other.get(group) or [])
        for one, other in zip(after, before, strict=True)
        for group in ("matchExpressions", "matchFields")
    )


PLACING: Final = frozenset({"nodeSelector", "affinity"})
"""Fields that ``may_narrow`` is about."""
