"""Questions that servers of a tenant's own answer, or do not: a few at a time, and all within one time.

A tenant may name any number of such servers, and each may take its time: what asks them must end all the same.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from polder.api.errors import ApiError
from polder.base.errors import PolderError

A = TypeVar("A")

AT_ONCE: Final = 8
"""Questions of one round under way."""
SILENT: Final = "no answer within the time of one round"


@dataclass(slots=True)
class Answers(Generic[A]):
    """What was answered, and in words why the rest was not; each by the name of the question."""

    given: dict[str, A] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


async def ask(questions: Mapping[str, Callable[[], Awaitable[A]]], seconds: float) -> Answers[A]:
    """Asks all of them. In any order, so that in another round other ones come before those that never answer."""
    answers: Answers[A] = Answers()
    order = list(questions)
    random.shuffle(order)
    left = iter(order)

    async def in_turn() -> None:
        for name in left:
            try:
                answers.given[name] = await questions[name]()
            except ApiError as error:
                answers.failed[name] = error.message
            except PolderError as error:
                answers.failed[name] = str(error)

    try:
        async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
            for _ in range(min(AT_ONCE, len(order))):
                group.create_task(in_turn())
    except TimeoutError:
        for name in order:
            if name not in answers.given:
                answers.failed.setdefault(name, SILENT)
    return answers
