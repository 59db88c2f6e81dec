"""A type with every kind of list and map, objects of it, and a cluster of one object that many apply to."""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

from polder.api import apply, ownership
from polder.api.apply import Applied, Scope, UnknownVersionError
from polder.api.apply_types import Type, type_of_custom
from polder.api.ownership import Managed, Manager


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """The result of something that waits for nothing."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waits")


ITEM = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "port": {"type": "integer", "default": 80},
        "on": {"type": "boolean"},
        "tags": {"type": "object", "additionalProperties": {"type": "string"}},
    },
}
SCHEMA: Any = {
    "type": "object",
    "properties": {
        "one": {"type": "string"},
        "two": {"type": "integer"},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "inner": {"type": "object", "properties": {"x": {"type": "string"}, "y": {"type": "string"}}},
        "whole": {"type": "array", "items": {"type": "string"}},
        "atom": {
            "type": "object", "x-kubernetes-map-type": "atomic", "properties": {"p": {"type": "string"}, "q": {"type": "string"}}
        },
        "names": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "parts": {
            "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name", "port"], "items": ITEM
        },
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    },
}  # fmt: skip
TYPE: Type = type_of_custom(SCHEMA)
VERSION = "test.io/v1"


@dataclass(frozen=True)
class OneVersion:
    """``SCHEMA`` as the only version."""

    fixed: bool = False

    def type_in(self, version: str) -> Type:
        if version != VERSION:
            raise UnknownVersionError(version)
        return TYPE

    async def convert(self, obj: Any, version: str) -> Any:
        if version != VERSION:
            raise UnknownVersionError(version)
        return obj


SCOPE = Scope(OneVersion(), VERSION)


def thing(**fields: Any) -> Any:
    return {"apiVersion": VERSION, "kind": "Thing", "metadata": {"name": "t"}, **fields}


@dataclass
class One:
    """One object and its owners."""

    obj: Any = field(default_factory=lambda: {"apiVersion": VERSION, "kind": "Thing"})
    managed: Managed = field(default_factory=Managed)
    clock: int = 0

    def time(self) -> str:
        self.clock += 1
        return f"2026-01-01T00:{self.clock // 60:02}:{self.clock % 60:02}Z"

    def apply(self, who: str, config: Any, *, force: bool = False) -> Applied:
        """Raises Conflicts."""
        by = (Manager.applier(who), self.time())
        found = run(apply.apply(SCOPE, self.obj, config, self.managed.copy(), by, force=force))
        self.obj, self.managed = found.obj, found.managed
        self.obj = {**self.obj, "metadata": {**self.obj["metadata"], "uid": "u"}}
        return found

    def update(self, who: str, new: Any) -> None:
        new = {**new, "metadata": {**new["metadata"], "uid": "u"}}
        self.managed = run(apply.update(SCOPE, self.obj, new, self.managed, (who, self.time())))
        self.obj = new

    def owned(self, who: str, operation: str = "Apply") -> Any:
        manager = Manager(who, operation, "", VERSION if operation == "Update" else "")
        found = self.managed.owners.get(manager)
        return found.fields if found else {}

    @property
    def body(self) -> Any:
        return {key: value for key, value in self.obj.items() if key not in ("apiVersion", "kind", "metadata")}

    def stored(self) -> Any:
        return ownership.write(self.managed, {})
