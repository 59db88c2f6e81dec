import asyncio
from contextlib import aclosing

from polder.store.hub import Hub, HubSettings
from polder.store.protocol import Batch, Change, ChangeType, Key, Prefix, step_end

BYTES = 100_000


def change(revision, size=BYTES):
    return Change(ChangeType.PUT, Key("pods", "acme", "default", f"p{revision}"), b"x" * size, None, revision)


async def test_a_watcher_that_takes_nothing_holds_few_bytes_and_loses_nothing():
    log = {}

    async def history(prefix, after, to):
        return Batch([log[r] for r in range(after + 1, to + 1)][:3], min(to, after + 3))

    hub = Hub(1, 0, history, HubSettings(recent=5 * BYTES, pending_bytes=4 * BYTES, progress=60))
    async with aclosing(hub.watch(Prefix("pods"), 1)) as watch:
        await anext(watch)
        (watcher,) = hub._watchers["pods", None, None]
        for revision in range(2, 40):
            log[revision] = change(revision)
            hub.publish(revision, [log[revision]])
            assert sum(c.size for c in watcher.pending) == watcher.weight <= 5 * BYTES
        seen = []
        async with asyncio.timeout(5):
            while len(seen) < 38:
                seen += [c.revision for c in (await anext(watch)).changes]
        assert seen == list(range(2, 40))
    hub.close()


async def test_a_step_through_recent_memory_is_bounded_too():
    hub = Hub(1, 0, None, HubSettings(recent=100 << 20, progress=60))
    for revision in range(2, 60):
        hub.publish(revision, [change(revision)])
    seen = []
    async with aclosing(hub.watch(Prefix("pods"), 1)) as watch:
        while len(seen) < 58:
            batch = await anext(watch)
            assert sum(c.size for c in batch.changes) <= (1 << 20) + BYTES
            seen += [c.revision for c in batch.changes]
    assert seen == list(range(2, 60))
    hub.close()


def test_a_step_ends_with_a_whole_commit():
    assert step_end([(2, 5), (3, 5)], 9) == 9
    assert step_end([(2, 1 << 20), (2, 5), (3, 5)], 9) == 2
    assert step_end([(2, 1 << 20), (2, 5)], 9) == 9
    assert step_end([(r, 1) for r in range(2, 2000)], 5000) == 1025
