"""``POST /tenants/TENANT/polder/v1/discard?node=NODE&handle=HANDLE``: has a node give up what a volume of Polder's driver
held there. For Polder's controllers; to everybody else the path does not exist.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from polder.api.errors import bad_request, no_such_path, unavailable
from polder.api.meta import Raw
from polder.apiserver.answers import raw_answer
from polder.apiserver.hooks import Call
from polder.apiserver.node_reports import Answer
from polder.apiserver.types import Role
from polder.base.errors import RetryableError
from polder.base.ids import EVERY_TENANT

DISCARD_PATH: Final = "/polder/v1/discard"
PATIENCE: Final = 20.0
"""Seconds for a node's answer."""
_DONE: Final = b"discarded"


@dataclass(frozen=True, slots=True)
class Discards:
    """Asks the node over its stream."""

    open: Callable[[str, Raw], Awaitable[Answer]]

    async def serve(self, call: Call) -> web.StreamResponse:
        """One request. Raises ApiError 400, 404, and 503 where the node does not say that it did."""
        if call.who.role is not Role.COMPONENT or call.info.verb != "post":
            raise no_such_path()
        node, handle = call.query.get("node", ""), call.query.get("handle", "")
        if call.info.tenant == EVERY_TENANT or not node or not handle:
            raise bad_request("discard: name a tenant, a node and a handle")
        try:
            async with asyncio.timeout(PATIENCE):
                said = await self._ask(node, {"kind": "discard", "tenant": call.info.tenant, "handle": handle})
        except (RetryableError, ConnectionError, TimeoutError) as error:
            raise unavailable(f"node {node} did not give up volume {handle}: {error or 'no answer'}") from error
        if said != _DONE:
            raise unavailable(f"node {node} did not give up volume {handle}")
        return raw_answer({})

    async def _ask(self, node: str, header: Raw) -> bytes:
        stream = await self.open(node, header)
        try:
            await stream.end()
            return await stream.read()
        finally:
            await stream.reset("answered")
