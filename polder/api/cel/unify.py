"""Which type may stand where another is wanted, with type parameters found out on the way.

Source: CEL's language definition, "Gradual type checking"; the order of the steps is that of upstream's checker, since
messages depend on it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from polder.api.cel.types import DURATION, DYN, TIMESTAMP, CelType, Family

_NULLABLE = (Family.OPAQUE, Family.STRUCT)


@dataclass(slots=True)
class Mapping:
    """What is known of type parameters."""

    known: dict[str, CelType] = field(default_factory=dict)
    fresh: int = 0

    def new(self) -> CelType:
        """A type that is yet to be found out."""
        self.fresh += 1
        return CelType(Family.PARAM, f"_var{self.fresh - 1}")

    def assignable(self, given: list[CelType], wanted: list[CelType]) -> bool:
        """Whether all fit; what was learned is kept only then."""
        before = dict(self.known)
        if len(given) == len(wanted) and all(self._fits(a, b) for a, b in zip(given, wanted, strict=True)):
            return True
        self.known = before
        return False

    def _fits(self, a: CelType, b: CelType) -> bool:
        if b.family is Family.PARAM:
            valid, known = self._substitutes(a, b)
            if valid or known:
                return valid
        if a.family is Family.PARAM:
            return self._substitutes(b, a)[0]
        if {a.family, b.family} & {Family.DYN, Family.ERROR}:
            return True
        for one, other in ((a, b), (b, a)):
            if one.name == "null_type":
                return other.family in _NULLABLE or other in (TIMESTAMP, DURATION) or other.name == "null_type"
        if a.family is not b.family:
            return False
        if a.family is Family.TYPE:
            return True
        if a.name != b.name:
            return False
        if a.family in (Family.PRIMITIVE, Family.STRUCT):
            return True
        return len(a.params) == len(b.params) and all(map(self._fits, a.params, b.params))

    def _substitutes(self, kind: CelType, param: CelType) -> tuple[bool, bool]:
        """Whether ``kind`` may stand for the parameter, and whether something already does."""
        if kind == param:
            return True, True
        known = self.known.get(param.name)
        if known is not None:
            if kind == known:
                return True, True
            if not self._fits(kind, known):
                return False, True
            wider = most_general(kind, known)
            if self._absent(param, wider):
                self.known[param.name] = wider
            return True, True
        if self._absent(param, kind):
            self.known[param.name] = kind
            return True, False
        return False, False

    def _absent(self, param: CelType, within: CelType) -> bool:
        if within == param:
            return False
        if within.family is Family.PARAM:
            known = self.known.get(within.name)
            return known is None or self._absent(param, known)
        return all(self._absent(param, inner) for inner in within.params)

    def resolve(self, kind: CelType, *, final: bool = False) -> CelType:
        """The type with its parameters replaced; those still unknown become dyn if ``final``."""
        if kind.family is Family.PARAM:
            known = self.known.get(kind.name)
            if known is not None:
                return self.resolve(known, final=final)
            return DYN if final else kind
        if not kind.params:
            return kind
        return replace(kind, params=tuple(self.resolve(inner, final=final) for inner in kind.params))


def most_general(a: CelType, b: CelType) -> CelType:
    """The wider of two types that fit each other."""
    return a if _less_specific(a, b) else b


def _less_specific(a: CelType, b: CelType) -> bool:
    if a.family in (Family.DYN, Family.PARAM):
        return True
    if b.family in (Family.DYN, Family.PARAM) or a.family is not b.family:
        return False
    if a.family is Family.TYPE:
        return True
    if a.name != b.name or len(a.params) != len(b.params):
        return False
    return all(map(_less_specific, a.params, b.params))


def instantiated(kinds: tuple[CelType, ...], names: frozenset[str], mapping: Mapping) -> list[CelType]:
    """Types of an overload with fresh parameters in place of its own."""
    if not names:
        return list(kinds)
    fresh = Mapping({name: mapping.new() for name in sorted(names)})
    return [fresh.resolve(kind) for kind in kinds]
