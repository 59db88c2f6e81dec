"""What a concern declares: which fragments there are, which indexes it looks into, and how a fragment is compiled.

A concern is one Declaration in a file of its own, listed in concerns.py. Nobody declares which fragments an object feeds: a
compile function sees the objects through a View, which notes what was asked for, also what was not there. When that
changes, the fragment is compiled again. So an input cannot be forgotten, and the cost of a change is that of its readers.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from polder.api.meta import Object
from polder.base.ref import Ref
from polder.sdn.compile.keys import Concern, Key
from polder.sdn.topology.types import Part

O = TypeVar("O", bound=Object)  # noqa: E741 - an object
P = TypeVar("P")
V = TypeVar("V")


@dataclass(frozen=True, slots=True, eq=False)
class Index(Generic[O, V]):
    """The objects of one kind by terms. ``value`` is what readers see of an object: while it and the terms stay equal, a new
    revision of the object concerns no reader of the index.
    """

    name: str
    kind: type[O]
    terms: Callable[[Ref, O], Iterable[Hashable]]
    value: Callable[[O], V]


class View(Protocol):
    """What a compile function may look at; every look is noted."""

    def get(self, kind: type[O], ref: Ref) -> O | None:
        """An object as last seen; a Port with what this node did to it."""
        ...

    def by(self, index: Index[O, V], term: Hashable) -> Mapping[Ref, V]:
        """What an index has under a term, in no order."""
        ...

    def part(self, key: Key, kind: type[P]) -> P | None:
        """The fragment of an earlier concern; None while it does not compile."""
        ...

    @property
    def previous(self) -> Part | None:
        """What this fragment was, for what has no order of its own and should not move without need."""
        ...


@dataclass(frozen=True, slots=True)
class Home(Generic[O]):
    """Objects of a kind make the fragments ``refs`` exist; several may make the same one."""

    kind: type[O]
    refs: Callable[[Ref, O], Iterable[Ref]]


@dataclass(frozen=True, slots=True)
class Declaration:
    """One concern. ``part`` is the type of its fragments. ``compile`` is pure; it raises CompileError, and NotReadyError while
    something is on its way. It is asked only for fragments that have a home.
    """

    concern: Concern
    part: type
    homes: tuple[Home[Any], ...]
    compile: Callable[[Ref, View], Part | None]
    indexes: tuple[Index[Any, Any], ...] = ()


def itself(ref: Ref, obj: Object) -> Iterable[Ref]:  # noqa: ARG001 - as Home asks
    """The home of a concern that has one fragment for each object of a kind."""
    return (ref,)
