"""What policies dropped is told once, by policy, however much it is."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection

import pytest

from polder.base.errors import RetryableError
from polder.sdn.droplog import LINES, Counts, DropLog


class Source:
    """Counts as the kernel would have them."""

    def __init__(self) -> None:
        self.counts: dict[str, Counts] = {}
        self.broken = False

    def policed(self) -> Collection[str]:
        return self.counts

    async def drops(self, tenant: str) -> Counts:
        if self.broken:
            raise RetryableError("no answer", 1.0)
        return self.counts[tenant]


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "polder.sdn.droplog")
    return caplog


async def test_each_policy_is_named_with_what_it_dropped_since(told: pytest.LogCaptureFixture) -> None:
    source, deny = Source(), "ingress default/deny"
    drops = DropLog(source)
    source.counts = {"acme": {deny: (3, 180), "egress default/web": (0, 0)}, "globex": {deny: (0, 0)}}
    await drops.look()
    assert told.messages == ["network: tenant acme: policy ingress default/deny dropped 3 packets (180 bytes)"]
    told.clear()
    await drops.look()
    assert told.messages == [], "nothing was dropped since"
    source.counts["acme"] = {deny: (5, 300)}
    await drops.look()
    source.counts["acme"] = {deny: (1, 60)}
    await drops.look()
    assert [message.rpartition("dropped ")[2] for message in told.messages] == [
        "2 packets (120 bytes)",
        "1 packets (60 bytes)",
    ], "a chain that was made anew counts from nothing"
    told.clear()
    del source.counts["acme"]
    await drops.look()
    source.counts["acme"] = {deny: (1, 60)}
    await drops.look()
    assert len(told.messages) == 1, "a tenant that is gone is forgotten"


async def test_one_tenant_gets_so_many_lines(told: pytest.LogCaptureFixture) -> None:
    source = Source()
    source.counts = {"acme": {f"ingress default/p{number}": (number, number) for number in range(1, LINES + 6)}}
    await DropLog(source).look()
    assert len(told.messages) == LINES + 1
    assert told.messages[0].endswith(f"p{LINES + 5} dropped {LINES + 5} packets ({LINES + 5} bytes)")
    assert told.messages[-1].endswith("(5 others) dropped 15 packets (15 bytes)")


async def test_it_goes_on_after_a_look_that_failed(told: pytest.LogCaptureFixture) -> None:
    source = Source()
    source.counts, source.broken = {"acme": {"ingress default/deny": (3, 180)}}, True
    task = asyncio.create_task(DropLog(source, 0.01).run())
    async with asyncio.timeout(10):
        while not told.messages:  # noqa: ASYNC110  a log has no event
            await asyncio.sleep(0.01)
        source.broken = False
        while not any("dropped 3 packets" in message for message in told.messages):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
