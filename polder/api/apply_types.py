"""What server-side apply knows of a type: which lists are sets, maps or wholes, which objects are merged field by field.

Made from a built-in kind's schema or from a custom one's; recursion is by reference.
Source: kube-openapi's schemaconv and structured-merge-diff's schema.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from polder.api.apply_facts import BY_VALUE, KEY_DEFAULTS
from polder.api.meta import Raw
from polder.api.schemas import META, Property, Schema, Shape, list_relation, named, type_of
from polder.api.structural import EMBEDDED, INT_OR_STRING, PRESERVE


@dataclass(slots=True, eq=False)
class Type:
    """What a value may be. ``scalar`` is string, numeric, boolean, untyped, or empty where none is allowed.

    ``element`` types the keys of an object that are no ``fields``; None forbids them. ``by_value`` are fields that Go
    holds by value: absent, they count as an empty object. ``blank`` are those that count as null.
    """

    scalar: str = ""
    is_map: bool = False
    fields: dict[str, Type] = field(default_factory=dict)
    element: Type | None = None
    atomic: bool = False
    is_list: bool = False
    items: Type | None = None
    relation: str = "atomic"
    keys: tuple[str, ...] = ()
    defaults: dict[str, Any] = field(default_factory=dict)
    by_value: frozenset[str] = frozenset()
    blank: frozenset[str] = frozenset()
    _open: bool | None = None

    @property
    def is_open(self) -> bool:
        """Whether anything at all may stand somewhere below: there, true and 1 are equal to Python and yet differ."""
        if self._open is None:
            self._open = _reaches_untyped(self)
        return self._open

    def at(self, key: str) -> Type | None:
        """The type of an object's field."""
        return self.fields.get(key) or self.element


UNTYPED: Final = Type("untyped", is_map=True, atomic=True, is_list=True)
"""Anything, as a whole."""
UNTYPED.element = UNTYPED.items = UNTYPED
DEDUCED: Final = Type("untyped", is_map=True, is_list=True, items=UNTYPED)
"""Anything: objects by their fields, lists as wholes."""
DEDUCED.element = DEDUCED


def _reaches_untyped(kind: Type) -> bool:
    seen: set[int] = set()
    todo: list[Type | None] = [kind]
    while todo:
        found = todo.pop()
        if found is None or id(found) in seen:
            continue
        if found is UNTYPED or found is DEDUCED:
            return True
        seen.add(id(found))
        todo += [found.element, found.items, *(part for name, part in found.fields.items() if name != "managedFields")]
    return False


_SCALARS: Final = {
    Shape.STRING: "string",
    Shape.BYTES: "string",
    Shape.INT32: "numeric",
    Shape.INT64: "numeric",
    Shape.NUMBER: "numeric",
    Shape.BOOLEAN: "boolean",
}
_RAW_SCALARS: Final = {"integer": "numeric", "number": "numeric", "boolean": "boolean"}


# --- built-in kinds ---------------------------------------------------------------------------------------------------

_BUILT: Final[dict[int, tuple[Schema, Type]]] = {}
"""By identity: there are as many as published definitions, each made once."""


def type_of_schema(schema: Schema) -> Type:
    """The type of a built-in kind's schema."""
    known = _BUILT.get(id(schema))
    if known is not None:
        return known[1]
    if schema.shape is Shape.OBJECT:
        found = Type(is_map=True)
        _BUILT[id(schema)] = (schema, found)  # before its fields: types refer to themselves
        _fill(found, schema)
        return found
    found = _plain(schema)
    _BUILT[id(schema)] = (schema, found)
    return found


def _fill(found: Type, schema: Schema) -> None:
    found.atomic = schema.relation == "atomic"
    found.fields = {name: _field(prop) for name, prop in schema.fields.items()}
    is_top = "apiVersion" in schema.fields and "kind" in schema.fields
    by_value = {name for name in BY_VALUE.get(schema.name, ()) if name in schema.fields}
    blank = set()
    for name, prop in schema.fields.items():
        if prop.schema.name == "v1.ObjectMeta" or (is_top and name in ("spec", "status")):
            by_value.add(name)
        elif prop.required and prop.schema.shape in (Shape.LIST, Shape.MAP):
            blank.add(name)
    found.by_value = frozenset(name for name in by_value if schema.fields[name].schema.shape is Shape.OBJECT)
    found.blank = frozenset(blank)
    found.defaults = dict(KEY_DEFAULTS.get(schema.name, {}))
    found.defaults.update({n: "" for n, p in schema.fields.items() if p.required and p.schema.shape is Shape.STRING})


def _field(prop: Property) -> Type:
    found = type_of_schema(prop.schema)
    if not prop.relation or (prop.relation == "atomic") == found.atomic:
        return found
    return Type(
        found.scalar, found.is_map, found.fields, found.element, prop.relation == "atomic", by_value=found.by_value,
        blank=found.blank,
    )  # fmt: skip


def _plain(schema: Schema) -> Type:
    match schema.shape:
        case Shape.LIST:
            items = type_of_schema(schema.items) if schema.items is not None else UNTYPED
            return Type(is_list=True, items=items, relation=schema.relation or "atomic", keys=schema.keys)
        case Shape.MAP:
            element = type_of_schema(schema.items) if schema.items is not None else DEDUCED
            return Type(is_map=True, element=element, atomic=schema.relation == "atomic")
        case Shape.ANY | Shape.OR_BOOLEAN:
            return UNTYPED if schema.relation == "atomic" else DEDUCED
    return Type(_SCALARS.get(schema.shape, "untyped"))


# --- custom kinds -----------------------------------------------------------------------------------------------------


def type_of_custom(schema: Raw) -> Type:
    """The type of a custom kind with this structural schema, root included."""
    found = _custom(schema, preserve=False)
    if found.scalar or not found.is_map:
        return DEDUCED
    found.fields = {**found.fields, **_head()}
    found.atomic = False
    return found


def _head() -> dict[str, Type]:
    text = Type("string")
    return {"apiVersion": text, "kind": text, "metadata": type_of_schema(named(f"{META}.ObjectMeta"))}


def _custom(schema: Raw, *, preserve: bool) -> Type:
    preserve = preserve or bool(schema.get(PRESERVE))
    kind = "" if schema.get(INT_OR_STRING) else type_of(schema)
    if kind == "object":
        return _custom_map(schema, Type(), preserve=preserve)
    if kind == "array":
        return _custom_list(schema, Type(), preserve=preserve)
    if not kind:
        return _custom_list(schema, _custom_map(schema, Type("untyped"), preserve=preserve), preserve=preserve)
    if kind == "string":
        return Type("string" if schema.get("format", "") in ("", "byte") else "untyped")
    return Type(_RAW_SCALARS.get(kind, "untyped"))


def _custom_map(schema: Raw, found: Type, *, preserve: bool) -> Type:
    properties, more = schema.get("properties") or {}, schema.get("additionalProperties")
    found.is_map = True
    found.fields = {name: _custom(part, preserve=preserve) for name, part in properties.items()}
    found.defaults = {name: part["default"] for name, part in properties.items() if "default" in part}
    found.atomic = schema.get("x-kubernetes-map-type") == "atomic"
    if isinstance(more, dict):
        found.element = _custom(more, preserve=preserve)
    elif more is True or (more is None and (preserve or not properties)):
        found.element = DEDUCED
    if schema.get(EMBEDDED):
        found.fields = {**found.fields, **_head()}
    return found


def _custom_list(schema: Raw, found: Type, *, preserve: bool) -> Type:
    found.is_list = True
    found.relation, found.keys = list_relation(schema)
    items = schema.get("items")
    found.items = _custom(items, preserve=preserve) if isinstance(items, dict) else UNTYPED
    return found
