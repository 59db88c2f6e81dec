"""Certificate signing requests after they were made: approval and status.

Source: upstream's strategies and validation of certificates.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from polder.api.errors import Field, FieldError
from polder.api.meta import Raw

_DECISIONS: Final = ("Approved", "Denied")
_LASTING: Final = (*_DECISIONS, "Failed")
_STATUSES: Final = ("False", "True", "Unknown")
_AT: Final = Field("status") / "conditions"


def _conditions(obj: Raw) -> list[Raw]:
    return (obj.get("status") or {}).get("conditions") or []


def _of_type(obj: Raw, kind: str) -> list[Raw]:
    return [condition for condition in _conditions(obj) if condition.get("type") == kind]


def with_approval(sent: Raw, old: Raw, now: str) -> Raw:
    """What stands, with the conditions that were sent."""
    return {**old, "status": {**(old.get("status") or {}), "conditions": _timed(_conditions(sent), old, now)}}


def with_csr_status(sent: Raw, old: Raw, now: str) -> Raw:
    """What stands, with the status that was sent; decisions that stand stay, for a status write does not decide."""
    status = dict(sent.get("status") or {})
    wanted = _conditions(sent)
    for kind in _DECISIONS:
        if not _of_type(sent, kind):
            wanted = [*wanted, *_of_type(old, kind)]
    if wanted:
        status["conditions"] = _timed(wanted, old, now)
    return {**old, "status": status}


def _timed(conditions: list[Raw], old: Raw, now: str) -> list[Raw]:
    """Conditions with the times that were not said."""
    found = []
    for condition in conditions:
        same = (c for c in _of_type(old, str(condition.get("type"))) if c.get("status") == condition.get("status"))
        before = next((c["lastTransitionTime"] for c in same if c.get("lastTransitionTime")), now)
        found.append({**condition, "lastUpdateTime": condition.get("lastUpdateTime") or now,
                      "lastTransitionTime": condition.get("lastTransitionTime") or before})  # fmt: skip
    return found


def check_conditions(obj: Raw) -> Iterator[FieldError]:
    """What is wrong with the conditions of a request."""
    seen: set[Any] = set()
    for number, condition in enumerate(_conditions(obj)):
        at, kind, status = _AT[number], condition.get("type"), condition.get("status")
        if not kind:
            yield (at / "type").required()
        allowed = ("True",) if kind in _LASTING else _STATUSES
        if not status:
            yield (at / "status").required()
        elif status not in allowed:
            yield (at / "status").not_supported(status, allowed)
        if kind in _DECISIONS and seen & set(_DECISIONS) - {kind}:
            yield _AT.invalid(kind, "Approved and Denied conditions are mutually exclusive")
        if kind in seen:
            yield (at / "type").duplicate(kind)
        seen.add(kind)


def _lasting(new: Raw, old: Raw) -> Iterator[FieldError]:
    for kind in _LASTING:
        if len(_of_type(new, kind)) < len(_of_type(old, kind)):
            yield _AT.forbidden(f'updates may not remove a condition of type "{kind}"')


def check_approval(new: Raw, old: Raw) -> Iterator[FieldError]:
    """What is wrong with a change of the approval."""
    yield from check_conditions(new)
    yield from _lasting(new, old)


def check_csr_status(new: Raw, old: Raw) -> Iterator[FieldError]:
    """What is wrong with a change of the status: it decides nothing, and a certificate stays."""
    yield from check_conditions(new)
    yield from _lasting(new, old)
    for kind in _DECISIONS:
        before, after = _of_type(old, kind), _of_type(new, kind)
        if len(after) > len(before):
            yield _AT.forbidden(f'updates may not add a condition of type "{kind}"')
        elif len(after) == len(before) and after != before:
            yield _AT.forbidden(f'updates may not modify a condition of type "{kind}"')
    certificates = [(obj.get("status") or {}).get("certificate") for obj in (old, new)]
    if certificates[0] and certificates[0] != certificates[1]:
        where = Field("status") / "certificate"
        yield where.forbidden("updates may not modify existing certificate content")
