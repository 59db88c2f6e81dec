"""A tenant that changes faster than it is compiled holds up itself alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from polder.api import polder as api
from polder.base.ids import ROOT, TenantName
from polder.base.ref import Ref
from polder.loop import pauses
from polder.sdn.compile.keys import Concern, Key
from polder.sdn.pipeline import NotYetError
from polder.sdn.shares import SHARE, Shares
from polder.testing.kernel import MemoryKernel
from tests.unit.sdn.objects import ref, small_cluster
from tests.unit.sdn.test_pipeline import Rig

ACME, EVIL = TenantName("acme"), TenantName("evil")


class HandClock:
    """Time that passes by hand."""

    time = 0.0

    def monotonic(self) -> float:
        return self.time


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    found = Rig(tmp_path, MemoryKernel())
    found.put(*small_cluster())
    found.put(found.make.router("evil"), found.make.network("evil", "a", "10.0.0.0/16", 77))
    found.pipeline.set_synced()
    await found.pipeline.settle([Key(Concern.PORT, Ref(ACME, "default", "web.eth0"))])
    yield found
    await found.stop()


async def test_others_go_on_beside_a_tenant_that_never_stops_changing(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pauses, "SLICE", 0.0)  # its change is there between any two pieces of work

    async def change() -> None:
        number = 0
        while True:
            number += 1
            rig.put(rig.make.port("evil", "busy", "n1", f"10.0.7.{number % 200 + 2}", sandbox="evil1"))
            await asyncio.sleep(0)

    flood = asyncio.create_task(change())
    await asyncio.sleep(0.05)
    mine = rig.make.port("acme", "late", "n1", "10.0.9.9", sandbox="late1")
    rig.put(mine)
    await rig.pipeline.settle([Key(Concern.PORT, ref(mine))], timeout=30)
    assert "plate1" in rig.links()
    busy = Key(Concern.PORT, Ref(EVIL, "default", "busy.eth0"))
    with pytest.raises(NotYetError):
        await rig.pipeline.settle([busy], timeout=0.3)
    flood.cancel()
    with suppress(asyncio.CancelledError):
        await flood
    await rig.pipeline.settle([busy], present=False, timeout=30)
    seen = await rig.pipeline.inspect()
    assert (seen.missing, seen.surplus) == ("", "")


async def test_what_is_held_is_not_saved_before_it_is_in_the_kernel(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("polder.sdn.shares.SHARE", 0.0)
    port = rig.make.port("acme", "held", "n1", "10.0.9.9", sandbox="held1")
    rig.put(port)
    await asyncio.sleep(0.1)
    assert "held1" not in (rig.folder / "topology").read_text()
    assert "pheld1" not in rig.links()
    monkeypatch.setattr("polder.sdn.shares.SHARE", SHARE)
    await rig.pipeline.settle([Key(Concern.PORT, ref(port))])
    assert "held1" in (rig.folder / "topology").read_text()
    assert isinstance(rig.pipeline.sandbox_of("held1", "eth0"), object)
    assert rig.pipeline.knows(api.Port, ref(port))


def test_the_platform_is_first_then_who_used_least_until_all_shares_are_over() -> None:
    clock = HandClock()
    shares = Shares(clock, unbounded=False)  # type: ignore[arg-type]
    turns = []
    while (tenant := shares.next({EVIL, ACME, ROOT})) is not None:
        turns.append(tenant)
        with shares.used_by(tenant):
            clock.time += SHARE / 2 + 0.001
    assert turns[:2] == [ROOT, ROOT]
    assert sorted(turns[2:4]) == sorted(turns[4:]) == [ACME, EVIL]
    assert shares.next(()) is None
    whole = Shares(clock, unbounded=True)  # type: ignore[arg-type]
    with whole.used_by(ACME):
        clock.time += 100
    assert whole.next({ACME}) == ACME
