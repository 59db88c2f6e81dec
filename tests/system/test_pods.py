"""Pods on a real containerd: started, restarted, ended, adopted."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.system.pods_kit import NodeKit, make_pod, node_kit

pytestmark = pytest.mark.system


@pytest.fixture
async def node() -> AsyncIterator[NodeKit]:
    async with node_kit() as kit:
        yield kit


async def test_a_pod_runs_and_leaves_nothing_behind(node: NodeKit) -> None:
    pod = node.cluster.apply(make_pod("web", "sleep 1000"))
    running = await node.cluster.until(pod, lambda p: p is not None and p.status.phase == "Running")
    assert running is not None
    print(running.status)
    print(node.cluster.events)
    node.cluster.delete(pod)
    await node.cluster.until(pod, lambda p: p is None)
    assert await node.ctx.cri.list_sandboxes() == []
