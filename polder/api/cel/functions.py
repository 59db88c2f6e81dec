"""How functions are declared: overloads with their types, what runs, and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from polder.api.cel.types import CelType, Family

Cost = Callable[[list[Any], Any], int]
"""From arguments and result (None before the call is made) to upstream's cost units."""


@dataclass(frozen=True, slots=True)
class Overload:
    """One form of a function. ``metered`` implementations get the meter first, and count what they do."""

    id: str
    args: tuple[CelType, ...]
    result: CelType
    run: Callable[..., Any]
    member: bool = False
    metered: bool = False

    @property
    def generic(self) -> frozenset[str]:
        """The names of its type parameters."""
        return frozenset(name for kind in (*self.args, self.result) for name in _params(kind))


def _params(kind: CelType) -> list[str]:
    if kind.family is Family.PARAM:
        return [kind.name]
    return [name for inner in kind.params for name in _params(inner)]


Library = Mapping[str, tuple[Overload, ...]]


def member(name: str, args: tuple[CelType, ...], result: CelType, run: Callable[..., Any]) -> Overload:
    """An overload called as ``args[0].f(args[1:])``."""
    return Overload(name, args, result, run, member=True)


def function(name: str, args: tuple[CelType, ...], result: CelType, run: Callable[..., Any]) -> Overload:
    """An overload called as ``f(args)``."""
    return Overload(name, args, result, run)


def metered(overload: Overload) -> Overload:
    """The overload with an implementation that takes the meter first."""
    return Overload(overload.id, overload.args, overload.result, overload.run, overload.member, metered=True)


def merged(*libraries: Library) -> dict[str, tuple[Overload, ...]]:
    """All functions of several libraries; overloads of one name come together."""
    found: dict[str, tuple[Overload, ...]] = {}
    for library in libraries:
        for name, overloads in library.items():
            found[name] = found.get(name, ()) + overloads
    return found
