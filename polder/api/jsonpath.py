"""The part of JSONPath that printer columns use: fields, indexes, wildcards, slices by one filter of equality.

``.spec.replicas``, ``.status.conditions[?(@.type=="Ready")].status``, ``.metadata.labels['a/b']``, ``.items[0]``, ``.a[*]``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from polder.base.errors import PermanentError

_STEP: Final = re.compile(
    r"""\.(?P<field>(?:[^.\[\]\\'"()?@*]|\\.)+) | \[(?P<index>-?\d+)\] | (?P<all>\[\*\]|\.\*)
      | \[(?P<quote>['"])(?P<key>.*?)(?P=quote)\]
      | \[\?\(@(?P<path>(?:\.[\w\-\\./]+?)+)\s*(?P<op>==|!=)\s*(?P<value>'[^']*'|"[^"]*"|true|false|-?\d+(?:\.\d+)?)\)\]""",
    re.VERBOSE,
)


class JsonPathError(PermanentError):
    """Text that is no JSONPath, or one that goes beyond this part of it."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step: a field, an index, ``all``, or a filter (path, value, negated)."""

    field: str | None = None
    index: int | None = None
    filter: tuple[str, str, bool] | None = None

    def apply(self, value: Any) -> list[Any]:
        """The values that the step leads to."""
        if self.field is not None:
            return [value[self.field]] if isinstance(value, dict) and self.field in value else []
        items = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
        if self.index is not None:
            inside = isinstance(value, list) and -len(items) <= self.index < len(items)
            return [items[self.index]] if inside else []
        if self.filter is None:
            return items
        path, wanted, negated = self.filter
        return [item for item in items if (_text(_dig(item, path)) == wanted) != negated]


def _dig(value: Any, path: str) -> Any:
    for part in path.strip(".").split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else "" if value is None else str(value)


def parse(text: str) -> tuple[Step, ...]:
    """The steps of a path; braces around it and a leading ``$`` may be there. Raises JsonPathError."""
    path = text.strip()
    if path.startswith("{") and path.endswith("}"):
        path = path[1:-1].strip()
    path = path.removeprefix("$")
    if path and path[0] not in ".[":
        path = f".{path}"
    steps, at = [], 0
    while at < len(path):
        found = _STEP.match(path, at)
        if found is None:
            raise JsonPathError(f"{text!r} is no JSONPath that printer columns support, from character {at} on")
        steps.append(_step(found))
        at = found.end()
    return tuple(steps)


def _step(found: re.Match[str]) -> Step:
    if found["index"] is not None:
        return Step(index=int(found["index"]))
    if found["all"]:
        return Step()
    if found["path"]:
        return Step(filter=(found["path"], found["value"].strip("'\""), found["op"] == "!="))
    if found["key"] is not None:
        return Step(field=found["key"].replace("\\", ""))
    return Step(field=found["field"].replace("\\", ""))


def find(steps: tuple[Step, ...], value: Any) -> list[Any]:
    """All values at the path, in order."""
    values = [value]
    for step in steps:
        values = [found for one in values for found in step.apply(one)]
    return values
