"""The demo on a real API server: what it makes, and whose pods it takes for its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from polder.api.core import Pod
from polder.api.meta import ObjectMeta
from polder.api.podspec import Container, PodSpec
from polder.base.errors import PermanentError
from polder.cli.demo import Scene, ensure_pods
from polder.cli.demo_objects import TENANTS
from polder.client.client import Client
from tests.contract.controlled import add_tenant, client_of

NODES = ["node-1", "node-2"]


@pytest.fixture
async def client(running: Any) -> AsyncIterator[Client]:
    found = client_of(running)
    yield found
    await found.close()


async def nothing(*_: Any) -> str:
    return ""


async def play(client: Client, nodes: list[str]) -> None:
    """Nothing runs the pods: only what is refused at once ends before the timeout."""
    scene = Scene(platform=client, admins={}, nodes=nodes, hosts={}, outside="", execute=nothing)
    async with asyncio.timeout(1):
        await ensure_pods(scene)


async def test_pods_of_somebody_else_are_not_the_demos(client: Client) -> None:
    for name in TENANTS:
        await add_tenant(client, name)
    other = Pod(
        metadata=ObjectMeta(name="web", namespace="default"),
        spec=PodSpec(containers=[Container(name="c", image="toolbox", command=["sleep", "1d"])]),
    )
    await client.create(TENANTS[0], other)
    with pytest.raises(PermanentError, match="tenant acme has a pod default/web that is not the demo's"):
        await play(client, NODES)


async def test_its_own_pods_are_taken_again_unless_the_nodes_are_others(client: Client) -> None:
    for name in TENANTS:
        await add_tenant(client, name)
    for _ in range(2):
        with pytest.raises(TimeoutError):
            await play(client, NODES)
    with pytest.raises(PermanentError, match="default/client that is not the demo's"):
        await play(client, ["node-1"])
