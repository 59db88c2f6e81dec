"""What goes wrong in CEL: when compiling (``CelError``) and when a program runs (``Fault``)."""

from __future__ import annotations

from polder.base.errors import PermanentError


class CelError(PermanentError):
    """An expression that does not compile, or whose evaluation failed, in upstream's words."""


class OutOfBudgetError(CelError):
    """A program costs more than it may. ``per_call`` tells its own limit from the budget that programs share."""

    def __init__(self, per_call: bool) -> None:
        super().__init__("operation cancelled: actual cost limit exceeded")
        self.per_call = per_call


class TooLongError(PermanentError):
    """A program takes more time than is given to it where it runs: run it elsewhere, from its beginning.

    This is no property of the expression: it says only that the work is too much for an event loop's turn.
    """

    def __init__(self) -> None:
        super().__init__("the evaluation takes longer than one turn of the event loop may")


class Fault(Exception):  # noqa: N818 - a value of CEL's, not an error of Python's
    """An error value inside an evaluation: ``||`` and ``&&`` may absorb it."""


def no_such_overload(name: str = "", *kinds: str) -> Fault:
    """The operands are of types that the function does not know."""
    return Fault(f"no such overload: {name}({', '.join(kinds)})" if name else "no such overload")


def no_such_key(key: object) -> Fault:
    """A map or object without that field."""
    return Fault(f"no such key: {key}")
