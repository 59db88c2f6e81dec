"""Pods on a real containerd: images that change, limits on disk and logs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest
import pytest_asyncio

from polder.base.clock import SystemClock
from polder.node.logrotate import LogRotation
from polder.node.logs import LogReader, LogRequest
from tests.system.pods_kit import NodeKit, eventually, make_pod, node_kit

pytestmark = [pytest.mark.system, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node() -> AsyncIterator[NodeKit]:
    async with node_kit() as kit:
        yield kit


async def test_a_changed_image_restarts_its_container_alone(node: NodeKit) -> None:
    pod = node.cluster.apply(make_pod("swap", "sleep 1000"))
    before = await node.cluster.until(pod, lambda p: p is not None and p.status.phase == "Running")
    assert before is not None
    container = msgspec.structs.replace(before.spec.containers[0], image="docker.io/library/toolbox:latest")
    spec = msgspec.structs.replace(before.spec, containers=[container])
    node.cluster.apply(msgspec.structs.replace(before, spec=spec))

    def restarted(p: object) -> bool:
        found = node.cluster.get(ref)
        first = (found.status.container_statuses or [None])[0] if found else None
        return first is not None and first.restart_count == 1 and first.ready

    ref = next(iter(node.cluster.pods))
    after = await node.cluster.until(pod, restarted)
    assert after is not None
    assert after.status.pod_ip == before.status.pod_ip
    node.cluster.delete(pod)
    await node.cluster.until(pod, lambda p: p is None)


async def test_a_pod_that_fills_a_limited_volume_is_ended(node: NodeKit) -> None:
    pod = make_pod(
        "greedy",
        "head -c 3000000 /dev/zero > /data/x; sleep 1000",
        volumes=[{"name": "d", "emptyDir": {"sizeLimit": "1Mi"}}],
        container={"volumeMounts": [{"name": "d", "mountPath": "/data"}]},
    )
    node.cluster.apply(pod)
    failed = await node.cluster.until(pod, lambda p: p is not None and p.status.phase == "Failed", 30)
    assert failed is not None
    assert failed.status.reason == "Evicted"
    assert failed.status.message == 'Usage of EmptyDir volume "d" exceeds the limit "1Mi".'
    node.cluster.delete(pod)
    await node.cluster.until(pod, lambda p: p is None)


async def test_logs_are_rotated_and_a_follower_misses_nothing(node: NodeKit) -> None:
    script = "for i in 1 2 3 4 5 6; do head -c 20000 /dev/zero | tr '\\0' x; echo; echo mark $i; sleep 0.4; done"
    pod = make_pod("wordy", script, restartPolicy="Never")
    node.cluster.apply(pod)
    directory = node.ctx.places.log_directory(pod) / "main"
    await eventually(lambda: asyncio.sleep(0, (directory / "0.log").exists()))
    reader = LogReader(node.ctx.places.logs, node.ctx.cri.list_containers, SystemClock())
    meta = pod.metadata
    request = LogRequest("acme", meta.namespace, meta.name, meta.uid, "main", follow=True)
    rotation, rotated = LogRotation(node.ctx.places.logs, node.ctx.cri, size=30_000), 0
    got: list[bytes] = []

    async def follow() -> None:
        async for chunk in reader.read_logs(request):
            got.append(chunk)  # noqa: PERF401  read while it grows

    task = asyncio.create_task(follow())
    while not task.done():
        rotated += await rotation.rotate()
        await asyncio.sleep(0.2)
    task.result()
    marks = [line for line in b"".join(got).splitlines() if line.startswith(b"mark")]
    assert marks == [b"mark %d" % n for n in range(1, 7)]
    assert rotated >= 1
    assert (directory / "0.log.1").exists()
    node.cluster.delete(pod)
    await node.cluster.until(pod, lambda p: p is None)
