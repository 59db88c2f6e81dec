"""metav1.LabelSelector as a matcher of labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from polder.api.selectors import LabelMatcher, Requirement

_OPERATORS: Final = {"In": "in", "NotIn": "notin", "Exists": "exists", "DoesNotExist": "!"}
NOTHING: Final = LabelMatcher((Requirement("", "in"),))
"""Matches no labels."""


def matcher_of(selector: Mapping[str, Any] | None) -> LabelMatcher:
    """The empty selector matches everything, an absent one nothing. Raises ValueError for an unknown operator."""
    if selector is None:
        return NOTHING
    found = [Requirement(key, "in", frozenset({value})) for key, value in (selector.get("matchLabels") or {}).items()]
    for clause in selector.get("matchExpressions") or []:
        operator = _OPERATORS.get(clause.get("operator", ""))
        if operator is None:
            raise ValueError(f'"{clause.get("operator", "")}" is not a valid label selector operator')
        found.append(Requirement(clause.get("key", ""), operator, frozenset(clause.get("values") or [])))
    return LabelMatcher(tuple(found))
