"""One clause of a selector of labels, as LabelSelectors and NodeSelectors write it."""

from __future__ import annotations

from collections.abc import Collection


def meets(operator: str, value: str | None, values: Collection[str]) -> bool:
    """Whether a label's value (None: there is no such label) meets a clause; an unknown operator is met by nothing."""
    match operator:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
    return operator == "DoesNotExist" and value is None
