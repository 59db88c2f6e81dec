"""Conditions: pure. A condition keeps its transition time while its status stays the same."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from polder.api.meta import Condition


def merged(have: Sequence[Condition] | None, wanted: Iterable[Condition], at: str) -> list[Condition] | None:
    """``have`` with ``wanted`` put in, stamped ``at`` where the status changes; None: nothing to write."""
    known = {c.type: c for c in have or []}
    out = dict(known)
    for condition in wanted:
        before = known.get(condition.type)
        same = before is not None and before.status == condition.status
        since = before.last_transition_time if before is not None and same else at
        out[condition.type] = msgspec.structs.replace(condition, last_transition_time=since)
    return None if out == known else list(out.values())


def a_few(names: Iterable[str], limit: int = 3, between: str = ", ") -> str:
    """The first names in order, and how many more there are: ``a, b, c and 4 more``."""
    ordered = sorted(names)
    text = between.join(ordered[:limit])
    return f"{text} and {len(ordered) - limit} more" if len(ordered) > limit else text
