"""Selectors of requests as authorizers see them (KEP-4601): clauses that are understood; what is not is left out, which asks
for more, never for less.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from polder.api.errors import ApiError
from polder.api.meta import Raw
from polder.api.selectors import parse_labels
from polder.apiserver.types import RequestInfo, Requirement

OPERATORS: Final = frozenset({"In", "NotIn", "Exists", "DoesNotExist"})
_WORDS: Final = {"in": "In", "notin": "NotIn", "exists": "Exists", "!": "DoesNotExist"}
_SELECTING: Final = frozenset({"list", "watch", "deletecollection"})
Reads = Callable[[str], tuple[Requirement, ...]]


def label_requirements(text: str) -> tuple[Requirement, ...]:
    """The clauses of a label selector. Raises ApiError."""
    return tuple(
        Requirement(r.key, _WORDS.get(r.operator, r.operator), tuple(sorted(r.values)))
        for r in parse_labels(text).requirements
    )


def field_requirements(text: str) -> tuple[Requirement, ...]:
    """The clauses of a field selector, ``a=b,c!=d``. Raises ValueError."""
    found = []
    for clause in text.split(","):
        key, equals, value = clause.partition("=")
        if not equals or not key.rstrip("!="):
            raise ValueError(clause)
        operator = "NotIn" if key.endswith("!") else "In"
        found.append(Requirement(key.rstrip("!="), operator, (value.lstrip("="),)))
    return tuple(found)


def understood(selector: Raw, reads: Reads) -> tuple[tuple[Requirement, ...], bool]:
    """The clauses of a review's selector that are understood, and whether there are others."""
    if selector.get("rawSelector"):
        try:
            return reads(selector["rawSelector"]), False
        except (ApiError, ValueError):
            return (), True
    wanted = selector.get("requirements") or []
    good = [r for r in wanted if r.get("operator") in OPERATORS and r.get("key")]
    made = tuple(Requirement(r["key"], r["operator"], tuple(r.get("values") or ())) for r in good)
    return made, len(good) < len(wanted)


def with_selectors(what: RequestInfo, query: Mapping[str, str]) -> RequestInfo:
    """A request with the selectors of its query."""
    if what.verb not in _SELECTING or not (query.get("labelSelector") or query.get("fieldSelector")):
        return what
    fields, _ = understood({"rawSelector": query.get("fieldSelector")}, field_requirements)
    labels, _ = understood({"rawSelector": query.get("labelSelector")}, label_requirements)
    return replace(what, fields=fields, labels=labels)
