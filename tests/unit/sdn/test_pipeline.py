from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from polder.api import polder as api
from polder.base.ref import Ref
from polder.sdn.compile.keys import Concern, Key
from polder.sdn.pipeline import NotAppliedError, NotYetError, Pipeline
from polder.sdn.render.linux.items import Bridge, Element, Item, PortLink, Space
from polder.sdn.saved import SavedTopology
from polder.testing.kernel import MemoryKernel
from tests.unit.sdn.objects import FACTS, Objects, ref, small_cluster

WEB = Key(Concern.PORT, Ref("acme", "default", "web.eth0"))  # type: ignore[arg-type]


class Rig:
    """A pipeline on a kernel in memory, which can be stopped and started again on the same files."""

    def __init__(self, folder: Path, kernel: MemoryKernel) -> None:
        self.folder = folder
        self.kernel = kernel
        self.make = Objects()
        self.make.counter.last = 1000
        self.start()

    def start(self) -> None:
        self.pipeline = Pipeline(self.kernel, FACTS, SavedTopology(self.folder / "topology"), verify_every=60.0)
        self.task = asyncio.create_task(self.pipeline.run())

    async def stop(self) -> None:
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task

    def put(self, *objects) -> None:
        for obj in objects:
            self.pipeline.put(type(obj), ref(obj), obj)

    def links(self) -> set[str]:
        return {item.name for item in self.kernel.items if isinstance(item, PortLink)}


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    found = Rig(tmp_path, MemoryKernel())
    found.put(*small_cluster())
    yield found
    await found.stop()


async def test_settle_returns_when_the_kernel_has_it(rig: Rig) -> None:
    rig.pipeline.set_synced()
    await rig.pipeline.settle([WEB])
    assert "psb1" in rig.links()
    assert rig.pipeline.entries() == {"acme": "10.96.0.1"}
    seen = await rig.pipeline.inspect("acme")
    assert (seen.missing, seen.surplus, seen.problems) == ("", "", ())
    assert 'Port tenant="acme" name="default/web.eth0"' in seen.topology
    assert 'PortLink space="acme" name="psb1"' in seen.desired


async def test_nothing_is_removed_before_all_was_seen(rig: Rig) -> None:
    rig.pipeline.set_synced()
    await rig.pipeline.settle([WEB])
    before = rig.kernel.items
    await rig.stop()
    rig.start()
    rig.put(small_cluster()[0])
    await asyncio.sleep(0.05)
    assert rig.kernel.items == before
    assert rig.pipeline.sandbox_of("sb1", "eth0") is not None, "known from disk"
    rig.pipeline.expect(WEB.ref, api.PortStatus())
    await rig.pipeline.settle([WEB], present=False)
    assert "psb1" not in rig.links()
    rig.put(*small_cluster()[:9])
    rig.pipeline.set_synced()
    await asyncio.sleep(0.05)
    assert rig.links() == set(), "now that all was seen, what no object wants is gone"


async def test_what_stands_without_anybody_wanting_it_goes_once_all_was_seen(rig: Rig) -> None:
    stray = Space("stray", "router gone")
    rig.kernel.slots[stray.slot] = stray
    await asyncio.sleep(0.02)
    assert stray in rig.kernel.items
    rig.pipeline.set_synced()
    await rig.pipeline.settle([WEB])
    assert stray not in rig.kernel.items


async def test_changes_at_one_time_share_a_run(rig: Rig) -> None:
    rig.pipeline.set_synced()
    await rig.pipeline.settle([WEB])
    rig.kernel.applied.clear()
    rig.kernel.delay = 0.02
    ports = [rig.make.port("acme", f"p{n}", "n1", f"10.0.9.{n + 2}", sandbox=f"x{n}") for n in range(50)]
    for port in ports:
        rig.put(port)
        await asyncio.sleep(0)
    await rig.pipeline.settle([Key(Concern.PORT, ref(port)) for port in ports])
    assert len(rig.kernel.applied) <= 3
    assert sum(rig.kernel.applied) == 50 * 7


async def test_one_change_touches_a_handful_of_items(rig: Rig) -> None:
    rig.pipeline.set_synced()
    await rig.pipeline.settle([WEB])
    rig.kernel.applied.clear()
    port = rig.make.port("acme", "web", "n1", "10.0.0.2", sandbox="sb9")
    rig.put(port)
    await rig.pipeline.settle([WEB])
    assert rig.kernel.applied == [6], (
        "link, static entry and anti-spoofing of both sandboxes; address and neighbour stay"
    )
    assert rig.links() >= {"psb9"}
    assert "psb1" not in rig.links()


async def test_a_refused_item_is_tried_again_and_named(rig: Rig) -> None:
    angry = True

    def refuse(item: Item) -> str:
        return "no memory" if angry and isinstance(item, PortLink) and item.name == "psb1" else ""

    rig.kernel.refuse = refuse
    rig.pipeline.set_synced()
    with pytest.raises(NotYetError, match="no memory"):
        await rig.pipeline.settle([WEB], timeout=0.15)
    assert {"psb3", "psb4"} <= rig.links(), "others are not held up"
    assert any("no memory" in why for why in rig.pipeline.problems().values())
    angry = False
    await rig.pipeline.settle([WEB])
    assert rig.pipeline.problems() == {}


async def test_settle_says_what_it_waits_for(rig: Rig) -> None:
    rig.pipeline.set_synced()
    nobody = rig.make.port("acme", "new", "n1", "10.0.0.8")
    orphan = rig.make.port("acme", "lost", "n1", "10.0.0.8", network="none", sandbox="y")
    wrong = rig.make.port("acme", "wrong", "n1", "10.7.0.8", sandbox="z")
    rig.put(nobody, orphan, wrong)
    for port, words, kind in (
        (nobody, "no sandbox uses it", NotYetError),
        (orphan, "spec.network 'default/none' is not ready", NotYetError),
        (wrong, "10.7.0.8", NotAppliedError),
    ):
        with pytest.raises(kind, match=words):
            await rig.pipeline.settle([Key(Concern.PORT, ref(port))], timeout=0.1)
    with pytest.raises(NotYetError, match="has not been seen"):
        await rig.pipeline.settle([Key(Concern.PORT, Ref("acme", "default", "nothing"))], timeout=0.1)


async def test_drift_is_put_right(tmp_path: Path) -> None:
    kernel = MemoryKernel()
    rig = Rig(tmp_path, kernel)
    rig.pipeline._verify_every = 0.05
    rig.put(*small_cluster())
    rig.pipeline.set_synced()
    await rig.pipeline.settle([WEB])
    before = kernel.items
    for item in list(kernel.items):
        if isinstance(item, Bridge | Element):
            del kernel.slots[item.slot]
    stray = Space("stray", "x")
    kernel.slots[stray.slot] = stray
    for _ in range(40):
        await asyncio.sleep(0.02)
        if kernel.items == before:
            break
    assert kernel.items == before
    await rig.stop()


async def test_a_run_that_breaks_is_repeated(rig: Rig) -> None:
    """A defect in the kernel's part costs a run, never the loop."""
    real, left = rig.kernel.apply, [2]

    async def apply(remove, add):
        if left[0]:
            left[0] -= 1
            raise RuntimeError("a defect")
        return await real(remove, add)

    rig.kernel.apply = apply  # type: ignore[method-assign]
    rig.pipeline.set_synced()
    await rig.pipeline.settle([WEB])
    assert left == [0]
    assert "psb1" in rig.links()


async def test_the_saved_topology_survives_and_stays_small(tmp_path: Path) -> None:
    rig = Rig(tmp_path, MemoryKernel())
    rig.put(*small_cluster())
    rig.pipeline.set_synced()
    await rig.pipeline.settle([WEB])
    for n in range(30):
        rig.put(rig.make.port("acme", "web", "n1", "10.0.0.2", sandbox=f"t{n}"))
        await rig.pipeline.settle([WEB])
    last = rig.pipeline.sandbox_of("t29", "eth0")
    await rig.stop()
    with (tmp_path / "topology").open("a") as file:
        file.write("+ Port broken\n")
    saved = SavedTopology(tmp_path / "topology")
    assert last in saved.parts.values()
    assert len((tmp_path / "topology").read_text().splitlines()) == len(saved.parts)
    saved.close()


async def test_an_object_that_goes_takes_its_items_along(rig: Rig) -> None:
    rig.pipeline.set_synced()
    await rig.pipeline.settle([WEB])
    for obj in small_cluster():
        if isinstance(obj, api.Port | api.Network | api.Router) and ref(obj).tenant == "acme":
            rig.pipeline.put(type(obj), ref(obj), None)
    await rig.pipeline.settle([WEB], present=False)
    assert not [item for item in rig.kernel.items if item.slot[1] == "acme"]
    assert rig.pipeline.entries() == {}
