"""Measuring containers, and how it is told: the report, the summary, Prometheus text."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from polder.api.core import Pod
from polder.api.resourcemetrics import NodeUsage, Usage
from polder.base.clock import SystemClock
from polder.node.machine import MachineUse, observe_booted, observe_processes, observe_use
from polder.node.pages import NodePages
from polder.node.stats import prometheus
from polder.node.stats.disk import Disk, DiskPlaces, DiskReport, Filesystem, PodDisk
from polder.node.stats.pages import StatsPages
from polder.node.stats.sampler import Sampler
from polder.node.stats.usage import UsageReports
from polder.system.accounting import MemoryUse
from polder.system.cri import UID_LABEL
from polder.system.cri_types import ContainerInfo, ContainerState, DiskUse, RuntimeFailureError
from tests.unit.node.podkit import pod

SECOND = 1_000_000_000


class Stepped(SystemClock):
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.at = 1000.0

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.at, UTC)

    def monotonic(self) -> float:
        return self.at


class Groups:
    """Control groups: CPU time and memory by path."""

    def __init__(self) -> None:
        self.tree: dict[str, dict[str, tuple[int, int]]] = {}
        self.asked = 0

    def children(self, group: str) -> list[str]:
        found = {path[len(group) :].strip("/").split("/")[0] for path in self.tree if path.startswith(f"{group}/")}
        return sorted({*found, *self.tree.get(group, {})} - {""})

    def cpu(self, group: str) -> int | None:
        self.asked += 1
        top, _, name = group.rpartition("/")
        found = self.tree.get(top, {}).get(name)
        return None if found is None else found[0]

    def memory(self, group: str) -> MemoryUse | None:
        top, _, name = group.rpartition("/")
        found = self.tree.get(top, {}).get(name)
        return None if found is None else MemoryUse(found[1] + 5, found[1], found[1] - 1, 3, 1)


class Site:
    """A node with one pod of two containers and its sandbox."""

    def __init__(self) -> None:
        self.clock, self.groups, self.listed = Stepped(), Groups(), 0
        self.machine_cpu = 0
        self.groups.tree["/n1/burstable/podu-1"] = {"one": (0, 100), "two": (0, 50), "box": (0, 1)}
        self.sampler = Sampler("n1", self.groups, self.containers, self.machine, self.clock)

    async def containers(self) -> list[ContainerInfo]:
        self.listed += 1
        labels = {UID_LABEL: "u-1"}
        return [
            ContainerInfo(id_, "box", name, 0, ContainerState.RUNNING, 990 * SECOND, labels=labels)
            for id_, name in (("one", "a"), ("two", "b"))
        ]

    def machine(self) -> MachineUse:
        return MachineUse(self.clock.at, self.machine_cpu, 900, 800, 200)

    async def pass_(self, seconds: float, **cpu: float) -> None:
        self.clock.at += seconds
        self.machine_cpu += int(sum(cpu.values()) * SECOND)
        place = self.groups.tree["/n1/burstable/podu-1"]
        for id_, spent in cpu.items():
            place[id_] = (place[id_][0] + int(spent * SECOND), place[id_][1])
        await self.sampler.measure()


async def test_rates_are_between_readings_and_at_first_since_the_start() -> None:
    site = Site()
    await site.pass_(0, one=1.0)
    report = UsageReports(site.sampler).report()
    assert report.node is None, "of the machine there is one reading only"
    assert report.pods["u-1"].containers == {"a": Usage(SECOND // 10, 100), "b": Usage(0, 50)}, "of its ten seconds"
    await site.pass_(15, one=3.0, two=1.5)
    report = UsageReports(site.sampler).report()
    assert report.pods["u-1"].containers == {"a": Usage(SECOND // 5, 100), "b": Usage(SECOND // 10, 50)}
    assert (report.pods["u-1"].time, report.pods["u-1"].window) == (1015.0, 15.0)
    assert report.node == Usage(int(4.5 * SECOND / 15), 800) and report.window == 15.0
    assert site.listed == 1, "the runtime is asked for new containers only; its sandbox is remembered"
    del site.groups.tree["/n1/burstable/podu-1"]["two"]
    await site.pass_(15)
    assert set(UsageReports(site.sampler).report().pods["u-1"].containers) == {"a"}


async def test_half_a_pod_is_not_told_and_a_clock_that_went_back_tells_nothing() -> None:
    site = Site()
    site.clock.at = 990.5
    await site.sampler.measure()
    assert UsageReports(site.sampler).report().pods == {}, "half a second says nothing"
    await site.pass_(15, one=1.0)
    site.clock.at -= 100
    await site.sampler.measure()
    assert UsageReports(site.sampler).report() == NodeUsage()


async def test_a_report_goes_over_the_stream_as_json() -> None:
    site, sent = Site(), bytearray()

    class Out:
        async def write(self, data: bytes) -> None:
            sent.extend(data)

    await site.pass_(0, one=1.0)
    await UsageReports(site.sampler).serve({"kind": "usage"}, Out())
    assert msgspec.json.decode(bytes(sent), type=NodeUsage) == UsageReports(site.sampler).report()


# --- disk ---------------------------------------------------------------------------------------------------------------


async def test_the_disk_is_measured_by_pod_and_at_most_every_ten_seconds(tmp_path: Path) -> None:
    clock, asked = Stepped(), []
    places = DiskPlaces(tmp_path, tmp_path / "pods", tmp_path / "logs", tmp_path)
    (tmp_path / "pods" / "u-1" / "volumes" / "empty-dir" / "v" / "deep").mkdir(parents=True)
    (tmp_path / "pods" / "u-1" / "volumes" / "empty-dir" / "v" / "deep" / "f").write_bytes(b"x" * 8192)
    (tmp_path / "logs" / "acme_default_p_u-1" / "a").mkdir(parents=True)
    (tmp_path / "logs" / "acme_default_p_u-1" / "a" / "0.log").write_bytes(b"x" * 4096)

    async def written() -> Any:
        asked.append(1)
        return {"u-1": {"a": DiskUse(1000, 2)}}

    async def images() -> int:
        return 77

    disk = Disk(places, written, images, clock)
    first = await disk.report()
    assert first.pods["u-1"].volumes == {"v": 8192} and first.pods["u-1"].logs == {"a": 4096}
    assert first.pods["u-1"].container("a") == 5096 and first.pods["u-1"].total == 1000 + 4096 + 8192
    assert first.images_used == 77 and first.node.capacity >= first.node.available > 0
    clock.at += 9
    assert await disk.report() is first and len(asked) == 1
    clock.at += 2
    await disk.report()
    assert len(asked) == 2


# --- pages --------------------------------------------------------------------------------------------------------------


class Answered:
    """A stream that keeps what a page is."""

    def __init__(self) -> None:
        self.sent = b""

    async def write(self, data: bytes) -> None:
        self.sent += data


async def get(pages: StatsPages, path: str) -> tuple[dict[str, Any], bytes]:
    stream = Answered()
    await NodePages(pages.pages()).serve({"path": path, "method": "GET", "query": {}}, stream)  # type: ignore[arg-type]
    head, _, body = stream.sent.partition(b"\n")
    return json.loads(head), body


def stats_pages(site: Site, disk: Any) -> StatsPages:
    held: Pod = msgspec.structs.replace(
        pod(tenant="acme"), status=msgspec.structs.replace(pod().status, phase="Running")
    )
    return StatsPages("n1", (2000, 4 << 30), site.sampler, disk, lambda: [held], {"maxPods": 110})


class Measured:
    async def report(self) -> DiskReport:
        return DiskReport(1000.0, Filesystem(100, 60, 10, 4), Filesystem(200, 50), 33,
                          {"u-1": PodDisk({"a": DiskUse(7, 2)}, {"a": 5}, {"v": 3})})  # fmt: skip


class Away:
    async def report(self) -> DiskReport:
        raise RuntimeFailureError("away", away=True)


async def test_the_summary_is_a_kubelet_s() -> None:
    site = Site()
    await site.pass_(0, one=1.0)
    await site.pass_(10, one=2.0)
    head, body = await get(stats_pages(site, Measured()), "/stats/summary")
    assert head == {"status": 200, "type": "application/json"}
    document = json.loads(body)
    node, (shown,) = document["node"], document["pods"]
    assert node["nodeName"] == "n1" and node["cpu"]["usageNanoCores"] == SECOND // 5
    assert node["memory"] == {
        "time": "1970-01-01T00:16:50Z", "availableBytes": 200, "usageBytes": 900, "workingSetBytes": 800
    }  # fmt: skip
    assert node["fs"]["usedBytes"] == 40 and node["runtime"]["imageFs"]["usedBytes"] == 33
    assert shown["podRef"]["polder.dev/tenant"] == "acme" and shown["podRef"]["uid"] == "u-1"
    by_name = {c["name"]: c for c in shown["containers"]}
    assert by_name["a"]["cpu"]["usageNanoCores"] == SECOND // 5 and by_name["a"]["rootfs"]["usedBytes"] == 7
    assert shown["cpu"]["usageNanoCores"] == SECOND // 5 and shown["memory"]["workingSetBytes"] == 150
    assert shown["ephemeral-storage"]["usedBytes"] == 15 and shown["volume"][0]["name"] == "v"
    _, without = await get(stats_pages(site, Away()), "/stats/summary")
    assert json.loads(without)["pods"][0]["cpu"], "what the runtime does not tell is left out, the rest told"


async def test_prometheus_pages() -> None:
    site = Site()
    await site.pass_(0, one=1.0)
    pages = stats_pages(site, Measured())
    head, body = await get(pages, "/metrics/resource")
    assert head["type"].startswith("text/plain; version=0.0.4")
    labels = 'container="a",namespace="ns",pod="p",tenant="acme"'
    text = body.decode()
    assert f"container_cpu_usage_seconds_total{{{labels}}} 1 1000000\n" in text
    assert 'pod_memory_working_set_bytes{namespace="ns",pod="p",tenant="acme"} 150 1000000' in text
    assert "node_memory_working_set_bytes 800 1000000" in text
    _, body = await get(pages, "/metrics/cadvisor")
    assert (
        "container_fs_usage_bytes{" in body.decode() and 'id="/n1/burstable/podu-1/one",name="one"} 7' in body.decode()
    )
    assert "machine_cpu_cores 2\n" in body.decode()
    _, body = await get(pages, "/metrics")
    assert "kubelet_running_pods 1\n" in body.decode() and "process_cpu_seconds_total" in body.decode()
    _, body = await get(pages, "/configz")
    assert json.loads(body) == {"kubeletconfig": {"maxPods": 110}}


def test_labels_are_escaped() -> None:
    family = prometheus.Family("m", "gauge", "h", [((("l", 'a"b\\c\nd'),), 1.5, 0.0)])
    assert prometheus.text_of([family]) == b'# HELP m h\n# TYPE m gauge\nm{l="a\\"b\\\\c\\nd"} 1.5\n'


def test_the_machine_itself_is_read() -> None:
    one, two = observe_use(1.0), observe_use(2.0)
    assert two.cpu >= one.cpu > 0 and 0 < one.working_set <= one.memory
    threads, most = observe_processes()
    assert 0 < threads < most and observe_booted() == pytest.approx(observe_booted())
