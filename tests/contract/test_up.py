"""What `polder up` asks of the API server."""

from __future__ import annotations

from typing import Any

from polder.api.core import Node
from polder.api.meta import ObjectMeta
from polder.base.ids import ROOT
from polder.main.cluster import Cluster
from polder.main.up import forget_surplus
from tests.contract.controlled import client_of


async def test_a_smaller_cluster_forgets_the_nodes_that_it_has_no_more(running: Any) -> None:
    client = client_of(running)
    for name in ("node-1", "node-2", "node-10", "other-3"):
        await client.create(ROOT, Node(metadata=ObjectMeta(name=name)))
    await forget_surplus(Cluster(nodes=1), client)
    assert {node.metadata.name for node in (await client.list(Node, ROOT)).items} == {"node-1", "other-3"}
    await client.close()
