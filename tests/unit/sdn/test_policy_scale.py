"""One change among a thousand policies and pods touches what it is about, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from polder.base.ids import TenantName
from polder.base.ref import Ref
from polder.sdn.compile.keys import Concern, Key
from polder.sdn.pipeline import Pipeline
from polder.sdn.render.linux.items import Chain
from polder.sdn.saved import SavedTopology
from polder.testing.kernel import MemoryKernel
from tests.unit.sdn.objects import FACTS
from tests.unit.sdn.policy_crowd import Crowd, Watched

SIZE = 200


@pytest.fixture
async def crowd(tmp_path: Path) -> AsyncIterator[Crowd]:
    watched = Watched(MemoryKernel())
    pipeline = Pipeline(watched, FACTS, SavedTopology(tmp_path / "topology"))
    task = asyncio.create_task(pipeline.run())
    found = Crowd(pipeline, watched, SIZE)
    await found.fill()
    yield found
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_policys_rules_are_one_chain(crowd: Crowd) -> None:
    change = await crowd.change(crowd.policy(7, port=81))
    assert change.kinds() == ["+Chain"]


async def test_a_new_policy_is_a_chain_of_its_own_and_the_way_of_whom_it_selects(crowd: Crowd) -> None:
    """Ten pods have the app, all of them on this node or all on the other; their groups are there already."""
    change = await crowd.change(crowd.policy(SIZE + 4))
    assert change.kinds() == ["+Chain", "+Chain", *["+Element"] * 10, "-Chain"]
    gone = await crowd.change(crowd.policy(SIZE + 4), gone=True)
    assert gone.kinds() == ["+Chain", *["+Element"] * 10, "-Chain", "-Chain"]


async def test_a_new_peer_is_a_set_and_its_members(crowd: Crowd) -> None:
    rule = {"from": [{"podSelector": {"matchLabels": {"tier": "db"}}}]}
    change = await crowd.change(crowd.policy(7, ingress=[rule]))
    assert change.kinds() == ["+Chain", *["+Element"] * (SIZE // 2), "+NamedSet", "+NamedSet"]


async def test_a_pod_that_another_policy_selects_is_an_element_for_each_group_and_its_way(crowd: Crowd) -> None:
    """Pod 4 is on this node and goes from app a4 to a6: out of one group, into one, and another way; no chain is touched."""
    change = await crowd.change(crowd.pod(4, {"app": "a6", "tier": "db"}))
    assert change.kinds() == ["+Element", "+Element", "-Element"]
    far = await crowd.change(crowd.pod(5, {"app": "a7", "tier": "web"}))
    assert far.kinds() == ["+Element", "-Element"], "on another node it has no way here"


async def test_labels_that_nobody_asks_for_touch_nothing(crowd: Crowd) -> None:
    change = await crowd.change(crowd.pod(4, {"app": "a4", "tier": "cache"}))
    assert change.items == 0


async def test_the_cost_of_a_change_is_the_same_beside_ten_times_as_many_policies(tmp_path: Path, crowd: Crowd) -> None:
    watched = Watched(MemoryKernel())
    pipeline = Pipeline(watched, FACTS, SavedTopology(tmp_path / "small"))
    task = asyncio.create_task(pipeline.run())
    small = Crowd(pipeline, watched, SIZE)
    await small.fill()
    for number in range(20, SIZE):
        small.put(small.policy(number), gone=True)
    await small.settle()
    found = []
    for one in (small, crowd):
        one.put(one.policy(4, port=90))
        one.put(one.pod(4, {"app": "a6", "tier": "db"}))
        found.append((await one.settle()).kinds())
    assert found[0] == found[1] != []
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_others_get_turns_while_a_change_of_many_is_brought_about(
    crowd: Crowd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A policy for all pods is the way of each: with slices of no length, one piece for each of this node's is a slice."""
    monkeypatch.setattr("polder.loop.pauses.SLICE", 0.0)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    task = asyncio.create_task(others())
    change = await crowd.change(crowd.policy(SIZE, podSelector={}))
    task.cancel()
    assert change.kinds().count("+Element") == SIZE // 2
    assert turns > SIZE // 2


async def test_who_asks_amid_a_slice_waits_until_the_kernel_has_it(
    crowd: Crowd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("polder.loop.pauses.SLICE", 0.0)
    crowd.kernel.applied.clear()
    crowd.put(crowd.policy(SIZE, podSelector={}))
    crowd.put(crowd.policy(7, port=81))
    key, waits = Key(Concern.POLICY, Ref(TenantName("acme"), "default", "n7")), crowd.pipeline._compiler.waits
    async with asyncio.timeout(30):
        while waits(key, seen=True):  # noqa: ASYNC110 - each turn counts
            await asyncio.sleep(0)
        assert not crowd.kernel.applied, "it is compiled, and no more"
        await crowd.pipeline.settle([key], timeout=30)
    chains = [one.text for _, some in crowd.kernel.applied for one in some if isinstance(one, Chain)]
    assert any("dport { 81 }" in text for text in chains)
