"""What a controller wrote itself is no news to it, and only so much of it is remembered."""

from __future__ import annotations

from polder.api.meta import Object, ObjectMeta
from polder.controllers.own_writes import KEPT, OwnWrites


def version(number: int, uid: str = "u") -> Object:
    return Object(metadata=ObjectMeta(uid=uid, resource_version=str(number)))


def test_only_the_version_that_was_written_is_known() -> None:
    own = OwnWrites()
    own.note(version(7))
    assert own.has(version(7))
    assert not own.has(version(8)) and not own.has(version(7, "other")) and not own.has(None)


def test_the_oldest_are_forgotten() -> None:
    own = OwnWrites()
    for number in range(KEPT + 1):
        own.note(version(number))
    assert not own.has(version(0)) and own.has(version(1)) and own.has(version(KEPT))
