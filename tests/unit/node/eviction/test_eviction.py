"""Thresholds, whom a node ends, and how it goes about it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from polder.api.core import Pod
from polder.base.clock import SystemClock
from polder.base.errors import PermanentError
from polder.node.eviction.images import YOUNG, ImageUse, surplus
from polder.node.eviction.manager import AFTER, Eviction, EvictionSettings, Sources
from polder.node.eviction.ranking import Candidate, beyond_storage, choose, is_exempt, limits_storage, message
from polder.node.eviction.thresholds import MEMORY, NODE_FS, NODE_INODES, PIDS, SIGNALS, Amount, parse_thresholds
from polder.node.machine import MachineUse
from polder.node.pods.room import Room
from polder.node.stats.disk import Disk, DiskPlaces, Filesystem
from polder.node.stats.sampler import Measured, Point
from polder.system.accounting import MemoryUse
from polder.system.cri_types import ContainerInfo, ContainerState, DiskUse, ImageInfo
from tests.unit.node.podkit import pod

MIB, GIB = 1 << 20, 1 << 30


def made(name: str, memory: str = "", tenant: str = "acme", priority: int = 0, **limits: str) -> Pod:
    resources = {"requests": {"memory": memory} if memory else {}, "limits": limits}
    found = pod(
        {"containers": [{"name": "c", "image": "i", "resources": resources}], "priority": priority}, tenant=tenant
    )
    return msgspec.structs.replace(found, metadata=msgspec.structs.replace(found.metadata, name=name, uid=name))


def test_thresholds_are_amounts_or_shares() -> None:
    found = {one.signal: one for one in parse_thresholds({MEMORY: "1Gi", NODE_FS: "0%"})}
    assert found.keys() == set(SIGNALS) - {NODE_FS}
    assert found[MEMORY].is_met(Amount(4 * GIB, GIB - 1)) and not found[MEMORY].is_met(Amount(4 * GIB, GIB))
    share = found["imagefs.available"]
    assert share.quantity(1000) == 50 and share.is_met(Amount(1000, 49)) and not share.is_met(Amount(1000, 50))
    assert not share.is_met(Amount(0, 0)), "a file system that counts no inodes is not short of them"
    for wrong in ({"swap.available": "1"}, {MEMORY: "much"}, {MEMORY: "100%"}, {MEMORY: "x%"}):
        with pytest.raises(PermanentError, match="evictionHard"):
            parse_thresholds(wrong)


def test_who_uses_more_than_was_asked_goes_first_and_priorities_count_at_home() -> None:
    modest = Candidate(made("modest", "1Gi", priority=-5), 900 * MIB)
    greedy = Candidate(made("greedy", "100Mi", priority=5), 200 * MIB)
    greedier = Candidate(made("greedier", "100Mi", priority=9), 300 * MIB)
    assert choose([modest, greedy, greedier], "memory") is greedy, "less important, though it exceeds less"
    important = Candidate(made("important", tenant="other", priority=2_000_001_000), 500 * MIB)
    assert choose([greedy, greedier, important], "memory") is important, "a priority is its own tenant's matter"
    ours = Candidate(made("ours", tenant="root"), 900 * MIB)
    assert choose([ours, greedy], "memory") is greedy and choose([ours, modest], "memory") is ours
    critical = Candidate(made("critical", tenant="root", priority=2_000_000_000), 900 * MIB)
    assert is_exempt(critical.pod) and choose([critical], "memory") is None


def test_the_words_name_who_used_what() -> None:
    found = Candidate(made("p", "10Mi"), 20 * MIB, {"c": 20 * MIB})
    assert message(found, MEMORY, 100 * MIB, 50 * MIB) == (
        "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. Container c was using 20Mi, "
        "request is 10Mi, has larger consumption of memory. "
    )


def test_limits_of_local_storage() -> None:
    plain, limited = made("plain"), made("limited", **{"ephemeral-storage": "1Mi"})
    assert not limits_storage(plain) and limits_storage(limited)
    assert beyond_storage(limited, {"c": MIB}, MIB) == ""
    assert (
        beyond_storage(limited, {"c": MIB + 1}, 0) == 'Container c exceeded its local ephemeral storage limit "1Mi". '
    )
    assert beyond_storage(limited, {"c": 10}, MIB + 1) == (
        "Pod ephemeral local storage usage exceeds the total limit of containers 1Mi. "
    )


def test_a_node_that_is_short_takes_no_pods_that_would_make_it_worse() -> None:
    now: set[str] = set()
    room = Room({}, lambda: frozenset(now))
    assert room.closed("BestEffort") == ""
    now.add("MemoryPressure")
    assert room.closed("BestEffort") == "The node had condition: [MemoryPressure]. "
    assert room.closed("Burstable") == "" and room.closed("BestEffort", tolerant=True) == ""
    now.add("DiskPressure")
    assert room.closed("Guaranteed") == "The node had condition: [DiskPressure, MemoryPressure]. "


# --- the loop -----------------------------------------------------------------------------------------------------------


class Stepped(SystemClock):
    def __init__(self) -> None:
        self.at = 1000.0

    def monotonic(self) -> float:
        return self.at

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.at, UTC)


class Runtime:
    """Images and containers."""

    def __init__(self) -> None:
        self.images: dict[str, ImageInfo] = {}
        self.used: list[str] = []

    def add(self, name: str, size: int) -> None:
        self.images[f"sha-{name}"] = ImageInfo(f"sha-{name}", (name,), (), size, None, "")

    async def list_images(self) -> list[ImageInfo]:
        return list(self.images.values())

    async def list_containers(self) -> list[ContainerInfo]:
        return [ContainerInfo(n, "s", n, 0, ContainerState.RUNNING, 0, image_ref=f"sha-{n}") for n in self.used]

    async def remove_image(self, image: str) -> None:
        del self.images[image]


class Samples:
    """What containers use, by pod."""

    def __init__(self) -> None:
        self.used: dict[str, int] = {}

    async def measure(self) -> None:
        return

    def containers(self) -> list[Measured]:
        def one(uid: str, used: int) -> Measured:
            return Measured(uid, f"/{uid}", "c", uid, 0.0, last=Point(0.0, 0, MemoryUse(used, used, used, 0, 0)))

        return [one(uid, used) for uid, used in self.used.items()]


class Site:
    """A node of 4 GiB."""

    def __init__(self, tmp_path: Path) -> None:
        self.clock, self.runtime, self.samples = Stepped(), Runtime(), Samples()
        self.free, self.pods = 4 * GIB, list[Pod]()
        self.ended: list[tuple[str, str]] = []
        self.said: list[str] = []
        self.running: dict[str, int] = {}
        cri: Any = self.runtime
        accounting: Any = self
        sampler: Any = self.samples
        disk: Any = self
        self.places = DiskPlaces(tmp_path, tmp_path, tmp_path, tmp_path)
        self.images = ImageUse(cri, self.clock)
        self.sources = Sources(
            self.machine, accounting, sampler, disk, self.images, lambda: self.pods, self.evict,
            lambda reason, message: self.said.append(f"{reason}: {message}"),
        )  # fmt: skip
        self.eviction = self.looking_at(MEMORY)

    def looking_at(self, signal: str, disk: Disk | None = None) -> Eviction:
        sources = self.sources if disk is None else replace(self.sources, disk=disk)
        settings = EvictionSettings(parse_thresholds(dict.fromkeys(set(SIGNALS) - {signal}, "0")), 4 * GIB, "/n1", 60.0)
        return Eviction(settings, sources, self.clock)

    def memory(self, group: str) -> MemoryUse | None:
        assert group == "/n1"
        return None

    def processes(self, group: str) -> int | None:
        return self.running.get(group)

    def process_limit(self, group: str) -> int | None:
        return 8192 if self.running else None

    def machine(self) -> MachineUse:
        return MachineUse(self.clock.at, 0, 0, 4 * GIB - self.free, self.free)

    def evict(self, uid: str, why: str) -> bool:
        self.ended.append((uid, why))
        return True


async def test_pods_end_one_at_a_time_and_the_condition_outlives_its_reason(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.pods = [made("small", "10Mi"), made("large", "10Mi")]
    site.samples.used = {"small": 20 * MIB, "large": 300 * MIB}
    await site.eviction.look()
    assert site.eviction.pressures == frozenset() and site.ended == []
    site.free = 50 * MIB
    await site.eviction.look()
    assert site.eviction.pressures == {"MemoryPressure"} and [uid for uid, _ in site.ended] == ["large"]
    assert site.said == ["EvictionThresholdMet: Attempting to reclaim memory"]
    site.clock.at += 10
    await site.eviction.look()
    assert len(site.ended) == 1, "the first one's end has not shown yet"
    site.clock.at += AFTER
    await site.eviction.look()
    assert len(site.ended) == 2 and len(site.said) == 1
    site.free = 4 * GIB
    site.clock.at += 59
    await site.eviction.look()
    assert site.eviction.pressures == {"MemoryPressure"}
    site.clock.at += 2
    assert site.eviction.pressures == frozenset()


async def test_images_go_that_nobody_uses_the_longest_unused_first(tmp_path: Path) -> None:
    site = Site(tmp_path)
    for name, size in (("old", 50), ("busy", 500), ("polder.dev/pause:1", 5), ("newer", 70)):
        site.runtime.add(name, size)
    site.runtime.used = ["busy", "newer"]
    assert await site.images.unused() == [], "nobody knows yet since when"
    site.clock.at += 10
    site.runtime.used = ["busy"]
    await site.images.unused()
    site.clock.at += YOUNG
    assert [image.tags[0] for image in await site.images.unused()] == ["old", "newer"]
    assert await site.images.free(40) == 50 and "sha-old" not in site.runtime.images
    assert await site.images.free(1000) == 70
    assert {image.tags[0] for image in site.runtime.images.values()} == {"busy", "polder.dev/pause:1"}
    assert surplus(Amount(100, 10), 0.85, 0.8) == 10 and surplus(Amount(100, 20), 0.85, 0.8) == 0


async def test_of_many_files_ends_who_has_them_and_not_who_has_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who fills a file system with empty files would have had all others ended, one after the other."""
    full = Filesystem(100 * GIB, 90 * GIB, 1000, 10)
    monkeypatch.setattr("polder.node.eviction.manager.filesystem", lambda path: full)
    for uid, name, content in [("large", "one", "x" * MIB), *(("many", str(n), "") for n in range(50))]:
        place = tmp_path / "pods" / uid / "volumes" / "empty-dir" / "e"
        place.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(content)

    async def written() -> dict[str, dict[str, DiskUse]]:
        return {"large": {"a": DiskUse(5 * GIB, 3)}, "many": {"a": DiskUse(0, 1)}}

    async def none() -> int:
        return 0

    site = Site(tmp_path)
    disk = Disk(DiskPlaces(tmp_path, tmp_path / "pods", tmp_path / "logs", tmp_path), written, none, site.clock)
    site.pods = [made("large", tenant="good"), made("many", tenant="evil")]
    eviction = site.looking_at(NODE_INODES, disk)
    await eviction.look()
    assert eviction.pressures == {"DiskPressure"}
    assert [uid for uid, _ in site.ended] == ["many"]
    assert "low on resource: inodes" in site.ended[0][1]


async def test_a_few_pods_that_have_all_processes_of_the_nodes_pods_are_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine has enough of them still, and nobody else's pod can start a program."""
    monkeypatch.setattr("polder.node.eviction.manager.observe_processes", lambda: (9000, 32768))
    site = Site(tmp_path)
    site.pods = [made("good", tenant="good"), *(made(f"evil{n}", tenant="evil") for n in range(8))]
    site.samples.used = {pod.metadata.uid: 1 for pod in site.pods}
    site.running = {"/n1": 8190, "/good": 3, **{f"/evil{n}": 1000 + n for n in range(8)}}
    eviction = site.looking_at(PIDS)
    await eviction.look()
    assert eviction.pressures == {"PIDPressure"}
    assert [uid for uid, _ in site.ended] == ["evil7"]
    site.running["/n1"] = 7000
    calm = site.looking_at(PIDS)
    await calm.look()
    assert calm.pressures == frozenset()
