"""Reading collections: also those of servers that a tenant wrote."""

from __future__ import annotations

import asyncio

import pytest

from polder.base.ids import TenantName
from polder.client.errors import UnreachableError
from polder.controllers import resources
from polder.controllers.resources import Resource, list_objects


class Endless:
    """Stands for the client of a server whose lists always go on."""

    def __init__(self) -> None:
        self.pages = 0

    async def raw(self, method: str, path: str) -> bytes:
        self.pages += 1
        await asyncio.sleep(0.001)
        return b'{"metadata": {"continue": "more"}, "items": []}'


async def test_a_list_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "LISTING", 0.1)
    client, resource = Endless(), Resource("evil.example.com", "v1", "things", "Thing", True)
    async with asyncio.timeout(5):
        with pytest.raises(UnreachableError, match="no end"):
            await list_objects(client, TenantName("evil"), resource, "default")  # type: ignore[arg-type]
    assert client.pages > 1
