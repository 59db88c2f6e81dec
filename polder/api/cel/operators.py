"""Operators and calls as closures: short circuits, indexes, the choice of an overload by the values that come."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from polder.api.cel import values
from polder.api.cel.access import index, optional_index
from polder.api.cel.costs import cost_of, traversal
from polder.api.cel.errors import Fault, no_such_overload
from polder.api.cel.functions import Overload
from polder.api.cel.types import CelType, Family
from polder.api.cel.values import Meter, Optional, type_name


class Frame:
    """One evaluation: the variables and the meter."""

    __slots__ = ("meter", "vars")

    def __init__(self, variables: dict[str, Any], meter: Meter) -> None:
        self.vars = variables
        self.meter = meter


Run = Callable[[Frame], Any]


class Pending:
    """An error in the accumulator of ``all`` or ``exists``: the result, unless a later item decides."""

    __slots__ = ("fault",)

    def __init__(self, fault: Fault) -> None:
        self.fault = fault


def raised(value: Any) -> Any:
    """The value; raises the error that it stands for."""
    if isinstance(value, Pending):
        raise value.fault
    return value


def truth(value: Any) -> bool:
    """A bool as Python's. Raises Fault for anything else."""
    if value is True or value is False:
        return bool(value)
    if isinstance(value, Pending):
        raise value.fault
    raise no_such_overload()


def _and(left: Run, right: Run) -> Run:
    return _short(left, right, decided=False)


def _or(left: Run, right: Run) -> Run:
    return _short(left, right, decided=True)


def _short(left: Run, right: Run, *, decided: bool) -> Run:
    """One side that decides is enough, whatever error the other one is."""

    def run(frame: Frame) -> Any:
        try:
            if truth(left(frame)) is decided:
                return decided
        except Fault as fault:
            if truth(right(frame)) is decided:
                return decided
            raise fault from None
        return truth(right(frame))

    return run


def _choice(condition: Run, yes: Run, no: Run) -> Run:
    return lambda frame: yes(frame) if truth(condition(frame)) else no(frame)


def _goes_on(operand: Run) -> Run:
    def run(frame: Frame) -> Any:
        frame.meter.cost += 1
        try:
            value = operand(frame)
        except Fault:
            return True
        return value is not False

    return run


def _not(operand: Run) -> Run:
    def run(frame: Frame) -> Any:
        found = not truth(operand(frame))
        frame.meter.cost += 1
        return found

    return run


def _looked_up(find: Callable[[Any, Any], Any]) -> Callable[[Run, Run], Run]:
    def of(operand: Run, key: Run) -> Run:
        def run(frame: Frame) -> Any:
            found = find(operand(frame), key(frame))
            frame.meter.cost += 1
            return found

        return run

    return of


def alternative(first: Run, second: Run, *, unwraps: bool) -> Run:
    """``or`` and ``orValue``: the second is computed only if the first is empty."""

    def run(frame: Frame) -> Any:
        value = first(frame)
        frame.meter.cost += 1
        if not isinstance(value, Optional):
            raise no_such_overload("orValue" if unwraps else "or", type_name(value))
        if value.there:
            return value.value if unwraps else value
        return second(frame)

    return run


SPECIAL: Final[dict[str, Callable[..., Run]]] = {
    "_&&_": _and, "_||_": _or, "_?_:_": _choice, "@not_strictly_false": _goes_on, "!_": _not, "_[_]": _looked_up(index),
    "_[?_]": _looked_up(optional_index),
}  # fmt: skip


_CLASSES: dict[str, tuple[type, ...]] = {
    "bool": (bool,), "int": (int,), "uint": (values.UInt,), "double": (float,), "string": (str,), "bytes": (bytes,),
    "null_type": (type(None),),
}  # fmt: skip


def _guard(kind: CelType) -> Callable[[Any], bool] | None:
    """Whether a value may be the argument of this type; None where any may."""
    if kind.family in (Family.DYN, Family.PARAM):
        return None
    classes = _CLASSES.get(kind.name)
    if classes is not None:
        wanted = classes[0]
        return lambda value: type(value) is wanted
    name = kind.name
    return lambda value: type_name(value) == name


def dispatch(name: str, overloads: tuple[Overload, ...], args: list[Run]) -> Run:
    """Chooses the overload by the values that come."""
    forms = []
    for overload in overloads:
        guards = [(place, guard) for place, kind in enumerate(overload.args) if (guard := _guard(kind)) is not None]
        forms.append((guards, overload.run, overload.metered, cost_of(name, overload.id)))

    def run(frame: Frame) -> Any:
        given = [arg(frame) for arg in args]
        meter = frame.meter
        for guards, call, metered, cost in forms:
            for place, guard in guards:
                if not guard(given[place]):
                    break
            else:
                meter.cost += 1 if cost is None else cost(given)
                if meter.cost > meter.low:
                    meter.check()
                return call(meter, *given) if metered else call(*given)
        raise no_such_overload(name, *map(type_name, given))

    return run


_SCALARS = frozenset({int, bool, float})


def equality(args: list[Run], *, wanted: bool) -> Run:
    """``==`` or, unless ``wanted``, ``!=``."""
    left, right = args

    def run(frame: Frame) -> Any:
        a, b = left(frame), right(frame)
        meter = frame.meter
        kind = type(a)
        if kind in _SCALARS and type(b) is kind:
            meter.cost += 1
            return (a == b) is wanted
        meter.cost += traversal(min(values.cost_size(a), values.cost_size(b)))
        return values.equal(a, b, meter) is wanted

    return run
