"""What the messages of Kubernetes' protobuf form consist of: ``protobuf_fields.txt``, read a message at a time.

The file holds the wire format's facts, a section for each API version (``# apps/v1``; ``# meta`` for what all share) and
a line for each message: number, JSON name and type of each field. ``*`` repeated, ``%`` map of text to; a type of the same
section begins with a dot, a JSON name that is a dot means that the message's own fields stand in the outer object; ``?``
marks a field that is absent or meant, however empty, ``!`` one that is shown even when it is empty; ``Name[]`` is a list
that the wire wraps in a message. Source: the published protobuf definitions of Kubernetes 1.36.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

META: Final = "meta"
_SCALARS: Final = frozenset({
    "string", "bytes", "int", "bool", "double", "Quantity", "IntOrString", "Time", "MicroTime", "RawExtension",
})  # fmt: skip
_PLAIN: Final = frozenset({"string", "int", "bool", "double"})
_UNION_SCHEMA: Final = "apiextensions.k8s.io/v1.JSONSchemaPropsOr"


@dataclass(frozen=True, slots=True)
class WireField:
    """One field. ``type`` is a scalar's name or a message's, with its section; ``many`` is ``*``, ``%`` or empty."""

    number: int
    name: str
    type: str
    many: str = ""
    meant: bool = False
    shown: bool = False

    @property
    def inline(self) -> bool:
        """Whether its message's fields stand in the outer object."""
        return self.name == "."


@dataclass(frozen=True, slots=True)
class Message:
    """A message: its fields by number, or what a wrapped list holds."""

    fields: dict[int, WireField]
    wrapped: bool = False


@functools.cache
def _lines() -> dict[str, tuple[str, bool, str]]:
    """The line of each message with its section and whether it is a wrapped list."""
    text = files("polder.api").joinpath("protobuf_fields.txt").read_text()
    section, found = "", dict[str, tuple[str, bool, str]]()
    for line in text.splitlines():
        if line.startswith("# "):
            section = line[2:]
            continue
        name, _, rest = line.partition(":")
        found[f"{section}.{name.removesuffix('[]')}"] = (section, name.endswith("[]"), rest)
    return found


def names() -> frozenset[str]:
    """Every message that there is, such as ``apps/v1.Deployment``."""
    return frozenset(_lines())


@functools.cache
def _sections() -> dict[tuple[str, str], str]:
    """By the package and version in a definition's name."""
    found = {("core", "v1"): "v1", (META, "v1"): META}
    for name in _lines():
        group, slash, rest = name.partition("/")
        if slash:
            version = rest.partition(".")[0]
            found[group.partition(".")[0], version] = f"{group}/{version}"
    return found


def plain_fields(definition: str) -> frozenset[str]:
    """Of a published definition, such as ``io.k8s.api.core.v1.PodSpec``, the fields that Go keeps as plain values and leaves
    out when they are zero. Empty for what has no message.
    """
    *_, package, version, name = definition.split(".")
    known = f"{_sections().get((package, version), '')}.{name}"
    if known not in _lines():
        return frozenset()
    fields = _message(known).fields.values()  # each definition is asked for once
    return frozenset(f.name for f in fields if f.type in _PLAIN and not (f.many or f.meant or f.shown))


@functools.lru_cache(maxsize=1024)
def message(name: str) -> Message:
    """A message by its name with section. KeyError where there is none."""
    return _message(name)


def _message(name: str) -> Message:
    section, wrapped, rest = _lines()[name]
    parts = (part.split() for part in rest.split(",") if part.strip())
    fields = (_field(section, *part) for part in parts)
    return Message({field.number: field for field in fields}, wrapped)


def _field(section: str, number: str, name: str, kind: str) -> WireField:
    many = kind[0] if kind[0] in "*%" else ""
    flag = kind[-1] if kind[-1] in "?!" else ""
    kind = kind.removeprefix(many).removesuffix(flag)
    return WireField(int(number), name, f"{section}{kind}" if kind[0] == "." else kind, many, flag == "?", flag == "!")


def is_union(kind: str) -> bool:
    """Whether it is one of the schema language's alternatives, which JSON writes without a wrapper."""
    return kind.startswith(_UNION_SCHEMA)


def find(api_version: str, kind: str) -> str | None:
    """The message of an object; options and metadata are spelled in any group's version."""
    own, shared = f"{api_version}.{kind}", f"{META}.{kind}"
    if own in _lines():
        return own
    return shared if shared in _lines() else None
