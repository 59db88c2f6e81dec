"""ComponentStatus: what of the control plane this server can vouch for, which is its store. Computed, never stored."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from polder.api.errors import method_not_allowed, not_found
from polder.api.meta import Raw
from polder.apiserver.answers import json_answer
from polder.apiserver.catalog import Resource
from polder.apiserver.hooks import Call
from polder.apiserver.objects import encode
from polder.apiserver.reads import renderer_of
from polder.apiserver.render import ListMeta
from polder.base.clock import Clock
from polder.store.protocol import Entry, Key, Store, StoreError

STORE: Final = "etcd-0"
"""What upstream calls the first store, and tools look for."""
PATIENCE: Final = 5.0
"""Seconds for the store's answer."""


@dataclass(frozen=True, slots=True)
class Components:
    """Serves ``componentstatuses``."""

    store: Store
    clock: Clock

    async def serve(self, call: Call, resource: Resource) -> web.StreamResponse:
        """get and list. Raises ApiError 404, 405."""
        if call.info.verb not in {"get", "list"}:
            raise method_not_allowed(resource.kind, call.info.verb)
        if call.info.name not in {"", STORE}:
            raise not_found(resource.kind, call.info.name)
        renderer, now = renderer_of(call, resource), self.clock.now()
        revision, condition = await self._look()
        value = encode(
            {"apiVersion": "v1", "kind": "ComponentStatus", "metadata": {"name": STORE}, "conditions": [condition]}
        )
        entry = Entry(Key(resource.kind.resource, call.info.tenant, "", STORE), value, revision)
        media = renderer.accepted.media
        if call.info.name:
            return json_answer(renderer.one(entry, now), media=media)
        return json_answer(renderer.many([entry], ListMeta(revision), now), media=media)

    async def _look(self) -> tuple[int, Raw]:
        """The store's revision, 0 where it does not answer, and the condition that says so."""
        try:
            async with asyncio.timeout(PATIENCE):
                revision = await self.store.revision()
        except (StoreError, TimeoutError) as error:
            why = str(error) or "no answer"
            return 0, {"type": "Healthy", "status": "False", "message": why, "error": why}
        return revision, {"type": "Healthy", "status": "True", "message": "ok"}
