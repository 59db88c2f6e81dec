"""A node says from which addresses tenants' traffic leaves it (``EGRESS_ANNOTATION``).

Others need to know: what comes from there is tenants' traffic, and enters no tenant; and these are a machine's addresses,
which no
tenant reaches. One of IPv6 says that the node has a way in and out for it.
"""

from __future__ import annotations

import asyncio
import logging

from polder.api.core import Node
from polder.api.errors import ApiError
from polder.api.polder import EGRESS_ANNOTATION
from polder.base.errors import PolderError
from polder.base.ids import ROOT
from polder.base.ref import Ref
from polder.client.client import Client
from polder.client.informer import Informer
from polder.sdn.render.linux.facts import NodeFacts

log = logging.getLogger(__name__)
AGAIN = 5.0
"""Seconds after which a write that failed is tried again."""


class WaysOut:
    """Keeps the annotation on the node's own Node."""

    def __init__(self, client: Client, facts: NodeFacts, nodes: Informer[Node]) -> None:
        self._client = client
        self._ref = Ref(ROOT, "", facts.name)
        self._said = ",".join(filter(None, (facts.egress, facts.egress6)))
        self._nodes = nodes
        self._wake = asyncio.Event()
        nodes.on_change(self._changed)

    def _changed(self, ref: Ref, _old: Node | None, new: Node | None) -> None:
        if ref == self._ref and new is not None and not self._is_said(new):
            self._wake.set()

    def _is_said(self, node: Node) -> bool:
        return (node.metadata.annotations or {}).get(EGRESS_ANNOTATION) == self._said

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            node = self._nodes.get(self._ref)
            if node is None or self._is_said(node):
                continue
            try:
                await self._client.patch(
                    Node, self._ref, {"metadata": {"annotations": {EGRESS_ANNOTATION: self._said}}}
                )
            except (ApiError, PolderError, OSError) as error:
                log.info("where tenants' traffic leaves this node was not written: %s", error)
                await asyncio.sleep(AGAIN)
                self._wake.set()
