"""The Node object: conditions in upstream's words, images, what may be allocated, and the events of changes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from polder.api.core import Node, NodeCondition, NodeStatus
from polder.api.discovery import Lease
from polder.api.errors import ApiError
from polder.api.meta import ObjectMeta
from polder.api.patch import apply_merge
from polder.base.clock import SystemClock
from polder.base.ids import NodeName
from polder.node.machine import Capacity, allocatable
from polder.node.status import MOST_IMAGES, NodeReporter, NodeSettings, Told
from polder.system.cri_types import ImageInfo, RuntimeStatus

GIB = 1 << 30


class Api:
    """Takes what is written."""

    def __init__(self) -> None:
        self.written: list[NodeStatus] = []
        self.changed = asyncio.Event()
        self.before = NodeStatus()
        """What the API shows of the node."""
        self.uid = ""
        self.leases: list[Any] = []
        """What was said of the lease: what it was made as, then what was changed of it."""

    async def get(self, kind: type, ref: Any) -> Node:
        return Node(metadata=ObjectMeta(uid=self.uid), status=self.before)

    async def create(self, tenant: Any, made: Lease) -> Lease:
        self.leases.append(made)
        return made

    async def patch(self, kind: type, ref: Any, body: Any, subresource: str = "") -> Any:
        if kind is Node:
            self.before = msgspec.convert(apply_merge(msgspec.to_builtins(self.before), body["status"]), NodeStatus)
            self.written.append(self.before)
            self.changed.set()
        elif kind is Lease and not self.leases:
            raise ApiError(404, "NotFound", "there is none")
        elif kind is Lease:
            self.leases.append(body)
        return Node()


class Runtime:
    async def status(self) -> RuntimeStatus:
        return RuntimeStatus(True, True)

    async def version(self) -> tuple[str, str]:
        return "containerd", "1.6"

    async def list_images(self) -> list[ImageInfo]:
        return [ImageInfo(f"id{n}", (f"image:{n}",), (f"image@sha256:{n}",), n, None, "") for n in range(60)]


class Site:
    def __init__(self, tmp_path: Path) -> None:
        self.api, self.pressures, self.events = Api(), set[str](), list[tuple[str, str, str, str]]()
        up = asyncio.Event()
        up.set()
        size = Capacity(2000, 4 * GIB, 100 * GIB)
        left = allocatable(size, 110, {"cpu": 100, "memory": GIB, "ephemeral-storage": 10 * GIB})
        settings = NodeSettings(NodeName("n1"), "192.0.2.1", "v0", 110, tmp_path, size, left, ("crun", "runc"))
        told = Told(SystemClock(), lambda: frozenset(self.pressures), self.event)
        client: Any = self.api
        runtime: Any = Runtime()
        supervisor: Any = SimpleNamespace(up=up, reason="")
        self.reporter = NodeReporter(settings, client, supervisor, runtime, told)
        self.reporter.hindrance = ""

    def event(self, about: Node, kind: str, reason: str, message: str) -> None:
        self.events.append((about.metadata.name, kind, reason, message))

    async def next(self) -> NodeStatus:
        async with asyncio.timeout(10):
            await self.api.changed.wait()
        self.api.changed.clear()
        return self.api.written[-1]


def conditions(status: NodeStatus) -> dict[str, tuple[str, str, str]]:
    return {c.type: (c.status, c.reason, c.message) for c in status.conditions or []}


async def test_a_node_says_what_it_is_and_what_changes(tmp_path: Path) -> None:
    site = Site(tmp_path)
    task = asyncio.create_task(site.reporter._keep_status())
    try:
        first = await site.next()
        found = conditions(first)
        assert found["Ready"] == ("True", "KubeletReady", "kubelet is posting ready status")
        assert found["MemoryPressure"][1:] == ("KubeletHasSufficientMemory", "kubelet has sufficient memory available")
        assert (first.capacity or {})["memory"] == f"{4 * GIB // 1024}Ki"
        left = first.allocatable or {}
        assert (left["cpu"], left["memory"]) == ("1900m", f"{3 * GIB // 1024}Ki")
        assert left["ephemeral-storage"] == str(90 * GIB)
        images = first.images or []
        assert len(images) == MOST_IMAGES and images[0].names == ["image@sha256:59", "image:59"]
        assert [h.name for h in first.runtime_handlers or []] == ["", "crun", "runc"]
        site.pressures.add("MemoryPressure")
        second = conditions(await site.next())
        assert second["MemoryPressure"] == (
            "True", "KubeletHasInsufficientMemory", "kubelet has insufficient memory available"
        )  # fmt: skip
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    reasons = [reason for _, _, reason, _ in site.events]
    assert reasons[0] == "Starting" and set(reasons[1:5]) == {
        "NodeHasSufficientMemory", "NodeHasNoDiskPressure", "NodeHasSufficientPID", "NodeReady"
    }  # fmt: skip
    assert site.events[-1] == (
        "n1", "Normal", "NodeHasInsufficientMemory", "Node n1 status is now: NodeHasInsufficientMemory"
    )  # fmt: skip
    site.reporter.say_warning("EvictionThresholdMet", "Attempting to reclaim memory")
    assert site.events[-1][1:3] == ("Warning", "EvictionThresholdMet")


@pytest.mark.parametrize("before", ["True", "False", ""])
async def test_a_restarted_agent_does_not_take_back_that_its_node_is_ready(tmp_path: Path, before: str) -> None:
    site = Site(tmp_path)
    site.reporter.hindrance = "the node is starting"
    if before:
        site.api.before = NodeStatus(conditions=[NodeCondition(type="Ready", status=before)])
    task = asyncio.create_task(site.reporter._keep_status())
    try:
        if before != "True":
            assert conditions(await site.next())["Ready"][0] == "False"
        await asyncio.sleep(0.5)
        assert len(site.api.written) == (before != "True")
        site.reporter.hindrance = ""
        assert conditions(await site.next())["Ready"][0] == "True"
        site.reporter.hindrance = "the disk is gone"
        assert conditions(await site.next())["Ready"][0] == "False", "later it says so at once"
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_the_lease_is_the_nodes_as_soon_as_the_node_is_known(tmp_path: Path) -> None:
    site = Site(tmp_path)
    for uid in ("", "", "u1", "u1", "u2"):
        site.reporter._node_uid = uid
        await site.reporter._renew()
    made, *said = site.api.leases
    assert (made.metadata.name, made.metadata.owner_references) == ("n1", None)
    owners = [body.get("metadata", {}).get("ownerReferences") for body in said]
    first, second = ([{"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": uid}] for uid in ("u1", "u2"))
    assert owners == [None, first, None, second], "it is said once, and again of a node that was made anew"
    assert all(body["spec"]["renewTime"] for body in said)


async def test_what_others_advertise_of_extended_resources_may_be_allocated_until_they_take_it_back(
    tmp_path: Path,
) -> None:
    site = Site(tmp_path)
    site.api.before = status = await site.reporter._status()
    said = {**(status.capacity or {}), "example.com/dongle": "4", "example.com/fork": "1"}
    site.api.before = msgspec.structs.replace(status, capacity=said)
    assert not await site.reporter._is_overwritten(status)
    found = {**(status.allocatable or {}), "example.com/dongle": "4", "example.com/fork": "1"}
    assert site.api.before.allocatable == found, "the node's own are left as they are"
    del said["example.com/dongle"]
    site.api.before = msgspec.structs.replace(site.api.before, capacity=said)
    site.reporter._compared = 0.0
    assert not await site.reporter._is_overwritten(status)
    assert site.api.before.allocatable == {**(status.allocatable or {}), "example.com/fork": "1"}
    written = len(site.api.written)
    site.reporter._compared = 0.0
    assert not await site.reporter._is_overwritten(status)
    assert len(site.api.written) == written, "what agrees is not written"
