"""Whether a node is gone for good: its Node object missing on the server, looked at twice with a period between."""

from __future__ import annotations

from polder.api.core import Node
from polder.api.errors import ApiError
from polder.base.clock import Clock
from polder.base.ids import ROOT
from polder.base.ref import Ref
from polder.client.client import Client
from polder.controllers.suspects import Suspects


class MissingNodes:
    """Asks the server, never a cache."""

    def __init__(self, client: Client, clock: Clock, grace: float) -> None:
        self._client = client
        self._clock = clock
        self._suspects = Suspects(grace)

    async def wait(self, node: str) -> float | None:
        """None: the node exists. Else the seconds until it counts as gone, 0 when it does."""
        try:
            await self._client.get(Node, Ref(ROOT, "", node))
        except ApiError as error:
            if error.is_not_found:
                return self._suspects.wait(node, "", self._clock.monotonic())
            raise
        self._suspects.clear(node)
        return None
