from __future__ import annotations

from datetime import UTC, datetime

import pytest

from polder.apiserver.compaction import Compaction
from polder.store.memory import MemoryStore
from polder.store.protocol import CompactedError, Key, Prefix, Put


class HandClock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return datetime.now(UTC)


async def test_history_is_kept_for_its_time() -> None:
    store, clock = MemoryStore(), HandClock()
    compaction = Compaction(store, clock, keep=300, interval=60)
    revisions = []
    for minute in range(8):
        clock.seconds = minute * 60
        revisions.append(await store.commit([Put(Key("things", "t", "", "x"), b"%d" % minute)]))
        await compaction.step()
    assert (await store.list(Prefix("things"), revision=revisions[2])).entries[0].value == b"2"
    with pytest.raises(CompactedError):
        await store.list(Prefix("things"), revision=revisions[1])
    await store.close()
