"""What watchers share: changes in the forms in which they were last shown, bounded in number and bytes."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

from polder.api.meta import Raw
from polder.apiserver.catalog import CustomSchema
from polder.apiserver.negotiate import JSON, PROTOBUF
from polder.apiserver.protobuf_encode import encode_event
from polder.apiserver.render import Renderer
from polder.apiserver.selection import Selection
from polder.base.clock import Clock
from polder.store.protocol import Change, ChangeType

SHARED: Final = 128
"""Changes that are held in the forms last shown; watchers that keep up ask for each within moments."""
SHARED_BYTES: Final = 16 << 20
"""Bytes of all of them."""
DECODED: Final = 4
"""About how many bytes a decoded object takes for one of its text."""


@dataclass(slots=True)
class _Shown:
    """A change as watchers share it; ``size`` is about how many bytes its forms hold."""

    change: Change
    size: int = 0
    frames: dict[tuple[str, str], bytes] = field(default_factory=dict)
    objects: dict[tuple[bool, str], Raw] = field(default_factory=dict)


def frame(kind: str, body: bytes, media: str = JSON) -> bytes:
    """One event as an HTTP/1.1 chunk."""
    if media == PROTOBUF:
        event = encode_event(kind, body)
        return b"%x\r\n%s\r\n" % (len(event), event)
    size = len(kind) + len(body) + 22
    return b'%x\r\n{"type":"%s","object":%s}\n\r\n' % (size, kind.encode(), body)


class Frames:
    """The recent changes in the forms in which they were last shown."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._shown: OrderedDict[int, _Shown] = OrderedDict()
        self.size = 0

    def _of(self, change: Change) -> _Shown:
        shown = self._shown.get(id(change))
        if shown is None or shown.change is not change:
            if shown is not None:
                self._drop(id(change))
            shown = self._shown[id(change)] = _Shown(change)
            self._grow(shown, change.size)
        return shown

    def _grow(self, shown: _Shown, size: int) -> None:
        """One more form of a change; the oldest changes are forgotten for it."""
        shown.size += size
        self.size += size
        while len(self._shown) > 1 and (len(self._shown) > SHARED or self.size > SHARED_BYTES):
            self._drop(next(iter(self._shown)))

    def _drop(self, key: int) -> None:
        self.size -= self._shown.pop(key).size

    def event(self, change: Change, selection: Selection, renderer: Renderer) -> bytes | None:
        """The frame that a change means to one selection; None where it means nothing."""
        kind = self._kind(change, selection, renderer)
        if not kind:
            return None
        shown = self._of(change)
        made = shown.frames.get((kind, renderer.token))
        if made is None:
            value = change.value
            if kind == "DELETED" and change.previous is not None:
                value = change.previous
            body = renderer.value(change.key, value, change.revision, self._clock.now())
            made = shown.frames[kind, renderer.token] = frame(kind, body, renderer.accepted.media)
            if self._shown.get(id(change)) is shown:
                self._grow(shown, len(made))
        return made

    def _kind(self, change: Change, selection: Selection, renderer: Renderer) -> str:
        """ADDED, MODIFIED or DELETED by what the selection saw before and sees now."""
        deleted = change.type is ChangeType.DELETE
        if selection.is_everything:
            return "DELETED" if deleted else "ADDED" if change.previous is None else "MODIFIED"
        was = change.previous is not None and selection.matches(self._object(change, True, renderer))
        now = not deleted and selection.matches(self._object(change, False, renderer))
        if now:
            return "MODIFIED" if was else "ADDED"
        return "DELETED" if was else ""

    def _object(self, change: Change, before: bool, renderer: Renderer) -> Raw:
        shown = self._of(change)
        found = shown.objects.get((before, renderer.token))
        if found is None:
            value = change.previous if before else change.value
            assert value is not None
            found = shown.objects[before, renderer.token] = renderer.decode(change.key, value, change.revision)
            if self._shown.get(id(change)) is shown:
                self._grow(shown, DECODED * len(value))
        return found


class Forms:
    """Changes of custom objects in the forms in which they were last shown; watchers share what a conversion made."""

    def __init__(self) -> None:
        self._made: OrderedDict[tuple[int, str], tuple[Change, asyncio.Future[Change]]] = OrderedDict()
        self._size = 0

    async def of(self, change: Change, custom: CustomSchema, renderer: Renderer) -> Change:
        """The change in the form of one version. Raises ApiError 500."""
        if custom.is_ready(change.value or change.previous or b"", change.revision):
            return change
        key = (id(change), renderer.token)
        held = self._made.get(key)
        if held is None or held[0] is not change:
            if held is not None:
                self._drop(key)
            held = self._made[key] = (change, asyncio.ensure_future(custom.served_change(change)))
            self._size += change.size
            while len(self._made) > 1 and (len(self._made) > SHARED or self._size > SHARED_BYTES):
                self._drop(next(iter(self._made)))
        return await asyncio.shield(held[1])

    def _drop(self, key: tuple[int, str]) -> None:
        self._size -= self._made.pop(key)[0].size
