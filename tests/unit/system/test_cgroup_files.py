"""Control groups of both versions, on directories that look like the kernel's: what is written where, and read again."""

from __future__ import annotations

from pathlib import Path

import pytest

from polder.system.accounting import Accounting, MemoryUse, observe_hierarchies
from polder.system.cgroups import Cgroups, Limits, Standing, shares_of, weight
from polder.system.mounts import Mount

STAT = "anon 11\nfile 22\ninactive_file 30\npgfault 5\npgmajfault 2\n"
STAT_1 = "cache 1\nrss 2\ninactive_file 9\ntotal_rss 7\ntotal_pgfault 5\ntotal_pgmajfault 2\ntotal_inactive_file 30\n"


def unified(root: Path) -> list[Mount]:
    """A version 2 tree: a group's files come with it, which mkdir does not do here."""
    for group in ("", "n1", "n1/burstable", "n1/burstable/pod1"):
        here = root / group
        here.mkdir(exist_ok=True)
        (here / "cgroup.controllers").write_text("cpu io memory pids hugetlb\n")
        for name in ("cgroup.subtree_control", "cpu.weight", "cpu.max", "memory.max", "pids.max", "hugetlb.2MB.max"):
            (here / name).write_text("")
        (here / "cpu.stat").write_text("usage_usec 3000\nuser_usec 1\nnr_periods 9\nnr_throttled 3\nthrottled_usec 7\n")
        (here / "memory.current").write_text("100\n")
        (here / "memory.stat").write_text(STAT)
        (here / "pids.current").write_text("4\n")
    return [Mount(root, "cgroup2", "cgroup2")]


def separate(root: Path) -> list[Mount]:
    files = {
        "cpu": ("cpu.shares", "cpu.cfs_quota_us", "cpu.cfs_period_us"), "memory": ("memory.limit_in_bytes",),
        "pids": ("pids.max",), "cpuacct": (), "hugetlb": ("hugetlb.2MB.limit_in_bytes",),
    }  # fmt: skip
    for controller, names in files.items():
        for group in ("", "n1", "n1/burstable", "n1/burstable/pod1"):
            here = root / controller / group
            here.mkdir(parents=True, exist_ok=True)
            for name in names:
                (here / name).write_text("")
    pod = "n1/burstable/pod1"
    (root / "cpuacct" / pod / "cpuacct.usage").write_text("3000000\n")
    (root / "memory" / pod / "memory.usage_in_bytes").write_text("100\n")
    (root / "memory" / pod / "memory.stat").write_text(STAT_1)
    (root / "pids" / pod / "pids.current").write_text("4\n")
    (root / "unified").mkdir()
    mounts = [Mount(root / controller, "cgroup", "cgroup") for controller in files]
    return [*mounts, Mount(root / "unified", "cgroup2", "cgroup2")]


POD = "/n1/burstable/pod1"
LIMITS = Limits(512, 50_000, 64 << 20, 100, (("2MB", 4 << 20),))


def test_version_2(tmp_path: Path) -> None:
    groups = Cgroups(unified(tmp_path))
    assert groups.unified and not groups.swap_accounted
    groups.ensure(POD, LIMITS)
    here = tmp_path / POD[1:]
    found = {name: (here / name).read_text() for name in ("cpu.weight", "cpu.max", "memory.max", "pids.max")}
    assert found == {"cpu.weight": "20", "cpu.max": "50000 100000", "memory.max": str(64 << 20), "pids.max": "100"}
    assert (here / "hugetlb.2MB.max").read_text() == str(4 << 20)
    assert (tmp_path / "n1" / "cgroup.subtree_control").read_text() == "+cpu +memory +pids +hugetlb"
    assert groups.standing(POD) == Standing(shares_of(20), 50_000, 64 << 20)
    groups.ensure(POD, Limits())
    assert groups.standing(POD) == Standing(2, 0, 0) and groups.standing("/n1/none") is None
    groups.share("/n1/burstable", 1024)
    assert (tmp_path / "n1/burstable/cpu.weight").read_text() == str(weight(1024))


def test_version_1_beside_an_empty_version_2(tmp_path: Path) -> None:
    groups = Cgroups(separate(tmp_path))
    assert not groups.unified
    groups.ensure(POD, LIMITS)
    assert groups.standing(POD) == Standing(512, 50_000, 64 << 20)
    assert (tmp_path / "pids" / POD[1:] / "pids.max").read_text() == "100"
    assert (tmp_path / "hugetlb" / POD[1:] / "hugetlb.2MB.limit_in_bytes").read_text() == str(4 << 20)
    groups.share("/n1/burstable", 1024)
    assert (tmp_path / "cpu" / "n1/burstable" / "cpu.shares").read_text() == "1024"
    assert (tmp_path / "memory" / "n1/burstable" / "memory.limit_in_bytes").read_text() == ""
    (tmp_path / "memory" / "memory.memsw.limit_in_bytes").write_text("1")
    assert Cgroups([Mount(tmp_path / "memory", "cgroup", "cgroup")]).swap_accounted


@pytest.mark.parametrize("layout", [unified, separate])
def test_what_a_group_used_reads_alike(tmp_path: Path, layout: object) -> None:
    where = observe_hierarchies(layout(tmp_path))  # type: ignore[operator]
    reader = Accounting(where)
    assert reader.cpu(POD) == 3_000_000
    assert reader.memory(POD) == MemoryUse(100, 70, 11 if layout is unified else 7, 5, 2)
    assert reader.processes(POD) == 4
    group = Path(where.place("pids", POD))
    for text, limit in (("1024\n", 1024), ("max\n", None)):
        (group / "pids.max").write_text(text)
        assert reader.process_limit(POD) == limit
    assert reader.process_limit("/none") is None
    assert reader.throttled(POD) == ((9, 3, 7000) if layout is unified else None)
    assert reader.children("/n1/burstable") == ["pod1"] and reader.children("/none") == []
    assert reader.cpu("/none") is None and reader.memory("/none") is None and reader.processes("/none") is None


def test_weights_and_shares_go_back_and_forth() -> None:
    for shares in (2, 102, 512, 1024, 262144):
        assert weight(shares_of(weight(shares))) == weight(shares)
