"""Problems with a place in an expression, in the form in which CEL reports them."""

from __future__ import annotations

from collections.abc import Sequence

_SHOWN = 100
"""Problems that one report names, as upstream's."""


class Problem(Exception):  # noqa: N818 - collected into one CelError
    """Something wrong at an offset of an expression; ``placed`` tells whether the offset means anything."""

    def __init__(self, at: int, message: str, *, placed: bool = True) -> None:
        super().__init__(message)
        self.at, self.message, self.placed = at, message, placed


def report(text: str, problems: Sequence[Problem]) -> str:
    """All problems in the order of their places, each with its line and a mark below the place."""
    lines = text.split("\n")
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line) + 1)
    ordered = sorted(problems, key=lambda problem: problem.at)
    return "\n".join(_one(problem, lines, starts) for problem in ordered[:_SHOWN])


def _one(problem: Problem, lines: list[str], starts: list[int]) -> str:
    if not problem.placed:
        return f"ERROR: <input>:-1:0: {problem.message}"
    number = next(n for n in range(len(lines)) if problem.at < starts[n + 1] or n == len(lines) - 1)
    column = problem.at - starts[number]
    shown = lines[number].replace("\t", " ")
    return f"ERROR: <input>:{number + 1}:{column + 1}: {problem.message}\n | {shown}\n | {'.' * column}^"
