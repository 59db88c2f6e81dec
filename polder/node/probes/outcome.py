"""What one attempt of a probe or hook came to."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from polder.base.errors import PolderError

OUTPUT_LIMIT = 10 << 10
"""Bytes of output, or of an answer's body, that are looked at (upstream's figure)."""


class Result(Enum):
    """SUCCESS, also with a WARNING worth telling, or FAILURE."""

    SUCCESS = "success"
    WARNING = "warning"
    FAILURE = "failure"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One attempt: its result and what there is to say."""

    result: Result
    output: str = ""

    @property
    def good(self) -> bool:
        """Whether it counts as a success."""
        return self.result is not Result.FAILURE


class AttemptError(PolderError):
    """The attempt could not be made (no such port name, the runtime is away): it counts as nothing."""


def failure(output: str) -> Outcome:
    """A failed attempt."""
    return Outcome(Result.FAILURE, output)


SUCCESS = Outcome(Result.SUCCESS)
