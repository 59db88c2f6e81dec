"""Statuses are written newest first, once, and to the right pod."""

from __future__ import annotations

import asyncio
from typing import cast

import msgspec
import pytest

from polder.api.core import Pod, PodCondition, PodStatus
from polder.api.errors import conflict
from polder.api.kinds import kind_of
from polder.node.pods.ports import Cluster
from polder.node.pods.reporter import Reporter
from tests.unit.node.podkit import pod


class SlowCluster:
    """Takes statuses when let; may fail."""

    def __init__(self) -> None:
        self.written: list[str] = []
        self.let = asyncio.Event()
        self.asked = asyncio.Event()
        self.failures: list[Exception] = []

    async def write_status(self, held: Pod, status: PodStatus) -> None:
        self.asked.set()
        await self.let.wait()
        if self.failures:
            raise self.failures.pop(0)
        self.written.append(status.phase)


async def test_only_the_newest_is_written() -> None:
    cluster = SlowCluster()
    reporter = Reporter(cast(Cluster, cluster))
    reporter.report(pod(), PodStatus(phase="Pending", reason="x"))
    await cluster.asked.wait()
    for phase in ("Running", "Succeeded"):
        reporter.report(pod(), PodStatus(phase=phase, reason="x"))
        await asyncio.sleep(0)
    cluster.let.set()
    await reporter.flush()
    assert cluster.written == ["Pending", "Succeeded"]
    reporter.report(pod(), PodStatus(phase="Succeeded", reason="x"))
    await reporter.flush()
    assert cluster.written == ["Pending", "Succeeded"], "an equal one is not written again"


async def test_that_a_pod_waits_is_not_said_of_one_that_runs_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("polder.node.pods.reporter.SOON", 3600.0)
    cluster = SlowCluster()
    cluster.let.set()
    reporter = Reporter(cast(Cluster, cluster))
    reporter.report(pod(), PodStatus(phase="Pending", reason="x"))
    await asyncio.sleep(0.01)
    reporter.report(pod(), PodStatus(phase="Running"))
    async with asyncio.timeout(10):
        await reporter.flush()
    assert cluster.written == ["Running"]


async def test_what_the_server_shows_already_is_not_written() -> None:
    cluster = SlowCluster()
    cluster.let.set()
    reporter = Reporter(cast(Cluster, cluster))
    reporter.report(pod(), pod().status)
    await reporter.flush()
    assert cluster.written == []


async def test_who_is_called_not_ready_by_another_says_again_that_it_is() -> None:
    cluster = SlowCluster()
    cluster.let.set()
    reporter = Reporter(cast(Cluster, cluster))
    well, not_well = (
        PodStatus(phase="Running", conditions=[PodCondition(type="Ready", status=status)])
        for status in ("True", "False")
    )
    for shown, times in ((None, 1), (well, 1), (not_well, 2), (well, 2)):
        if shown is not None:
            reporter.shown(shown)
        reporter.report(pod(), well)
        await reporter.flush()
        assert len(cluster.written) == times


async def test_a_server_that_is_away_is_waited_for_and_another_pod_is_not_written() -> None:
    cluster = SlowCluster()
    cluster.let.set()
    cluster.failures = [ConnectionError("away")]
    reporter = Reporter(cast(Cluster, cluster))
    reporter.report(pod(), PodStatus(phase="Running"))
    await reporter.flush()
    assert cluster.written == ["Running"]
    cluster.failures = [conflict(kind_of(Pod), "p")]
    reporter.report(pod(), PodStatus(phase="Failed"))
    await reporter.flush()
    assert cluster.written == ["Running"]
    await reporter.close()


async def test_what_an_earlier_agent_wrote_is_said_again_too() -> None:
    cluster = SlowCluster()
    cluster.let.set()
    reporter = Reporter(cast(Cluster, cluster))
    well, not_well = (
        PodStatus(phase="Running", conditions=[PodCondition(type="Ready", status=status)])
        for status in ("True", "False")
    )
    stands = msgspec.structs.replace(pod(), status=well)
    reporter.report(stands, well)
    await reporter.flush()
    assert cluster.written == []
    reporter.shown(not_well)
    reporter.report(stands, well)
    await reporter.flush()
    assert len(cluster.written) == 1
