"""A node short of disk, and what claims' volumes hold: whoever filled them pays, and nobody for what is left behind."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from polder.base.ids import TenantName
from polder.node.eviction.kept import beyond
from polder.node.eviction.manager import Eviction, EvictionSettings
from polder.node.eviction.thresholds import NODE_FS, NODE_INODES, PIDS, SIGNALS, parse_thresholds
from polder.node.stats.disk import Disk, DiskPlaces, Filesystem, Kept
from polder.node.volumes.storage import Storage
from polder.system.cri_types import DiskUse
from tests.unit.node.eviction.test_eviction import GIB, MIB, Site, made

EVIL, GOOD = TenantName("evil"), TenantName("good")
FULL = Filesystem(100 * MIB, 4 * MIB, 1000, 10)


class Short(Site):
    """A node of 100 MiB of disk and 1,000 inodes; each pod has a directory, and wrote what the test says."""

    def __init__(self, tmp_path: Path, pods: dict[str, int], signal: str = NODE_FS) -> None:
        super().__init__(tmp_path)
        self.storage = Storage(tmp_path / "storage", lambda name: f"u-{name}")
        self.written = pods
        for uid in pods:
            (tmp_path / "pods" / uid).mkdir(parents=True)
        self.pods = [made(uid, tenant=uid.partition("-")[0]) for uid in pods]
        places = DiskPlaces(tmp_path, tmp_path / "pods", tmp_path / "logs", tmp_path)
        disk = Disk(places, self._written, self._none, self.clock, self.storage.held)
        self.sources = replace(self.sources, disk=disk)
        self.eviction = self.looking_at(signal)

    async def _written(self) -> dict[str, dict[str, DiskUse]]:
        return {uid: {"c": DiskUse(used, 1)} for uid, used in self.written.items()}

    async def _none(self) -> int:
        return 0

    def claim(self, tenant: TenantName, uid: str, size: int, asked: int, files: int = 1) -> Path:
        place = self.storage.directory(tenant, "pvc-1")
        for number in range(files):
            (place / str(number)).write_bytes(b"x" * (size // files))
        self.storage.hold((tenant, uid), place, asked)
        return place

    def end(self, uid: str) -> None:
        """As the pod's end does."""
        self.pods = [pod for pod in self.pods if pod.metadata.uid != uid]
        self.storage.release(uid)

    async def later(self) -> list[str]:
        self.clock.at += 40
        await self.eviction.look()
        return [uid for uid, _ in self.ended]


@pytest.fixture(autouse=True)
def full(monkeypatch: pytest.MonkeyPatch) -> None:
    for where in ("eviction.manager", "stats.disk"):
        monkeypatch.setattr(f"polder.node.{where}.filesystem", lambda path: FULL)


@pytest.mark.parametrize("signal", [NODE_FS, NODE_INODES])
async def test_who_fills_the_disk_by_a_claim_pays_and_then_nobody_else_does(tmp_path: Path, signal: str) -> None:
    site = Short(tmp_path, {"good-1": MIB // 2, "good-2": MIB // 4, "evil-1": 0, "evil-2": 100}, signal)
    site.claim(EVIL, "evil-1", 8 * MIB, MIB, files=128)
    assert await site.later() == ["evil-1"]
    if signal == NODE_FS:
        assert re.search(r"Volumes of its claims hold \S+ more than was asked for\.", site.ended[0][1])
    site.end("evil-1")
    assert await site.later() == ["evil-1", "evil-2"], "what it left there is its own tenant's"
    site.end("evil-2")
    assert await site.later() == ["evil-1", "evil-2"], "the end of others' small pods mends nothing"


async def test_who_can_free_enough_is_ended_though_a_volume_is_too_large(tmp_path: Path) -> None:
    site = Short(tmp_path, {"good-1": MIB // 2, "third-1": 3 * MIB})
    site.claim(EVIL, "evil-9", 8 * MIB, MIB)
    assert await site.later() == ["third-1"], "what nobody holds is no shield for another tenant that fills the disk"


async def test_what_was_asked_for_counts_for_nobody(tmp_path: Path) -> None:
    site = Short(tmp_path, {"good-1": MIB // 2, "third-1": MIB})
    site.claim(GOOD, "good-1", 8 * MIB, 10 * MIB)
    assert await site.later() == ["third-1"]


def test_a_claim_may_ask_for_any_size_and_is_granted_its_tenants_part() -> None:
    node = Filesystem(10 * GIB, 0, 10_000, 0)
    kept = [Kept(EVIL, 1 << 60, 7 * GIB, 9, frozenset({"e"})), Kept(GOOD, 3 * GIB, 3 * GIB, 3000, frozenset({"g"}))]
    found = beyond(kept, node, False, 2, {"e", "g"})
    assert dict(found.of_pods) == {"e": 2 * GIB, "g": 0} and not found.of_tenants
    assert dict(beyond(kept, node, True, 2, {"g"}).of_pods) == {"g": 0}
    assert dict(beyond(kept, node, False, 2, set()).of_tenants) == {EVIL: 2 * GIB}


async def test_a_volume_that_is_given_up_is_forgotten(tmp_path: Path) -> None:
    site = Short(tmp_path, {})
    site.claim(EVIL, "evil-1", MIB, MIB)
    assert len(site.storage.held()) == 1
    site.storage.discard("evil", "pvc-1")
    assert site.storage.held() == []


async def test_a_shortage_that_nothing_mends_hides_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody's pod has anything of the full disk, and one has the processes of all."""
    monkeypatch.setattr("polder.node.eviction.manager.observe_processes", lambda: (1000, 32768))
    site = Short(tmp_path, {})
    site.pods, site.samples.used = [made("many", tenant="evil")], {"many": 1}
    site.running = {"/n1": 8190, "/many": 8000}
    thresholds = parse_thresholds(dict.fromkeys(set(SIGNALS) - {NODE_FS, PIDS}, "0"))
    eviction = Eviction(EvictionSettings(thresholds, 4 * GIB, "/n1"), site.sources, site.clock)
    await eviction.look()
    assert eviction.pressures == {"DiskPressure", "PIDPressure"}
    assert [uid for uid, why in site.ended if "low on resource: pids" in why] == ["many"]
