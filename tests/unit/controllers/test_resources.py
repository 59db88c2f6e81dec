"""Reading collections: also those of servers that a tenant wrote."""

from __future__ import annotations

import asyncio

import pytest

from polder.api.errors import ApiError, no_such_path, not_found
from polder.api.kinds import Kind
from polder.base.ids import TenantName
from polder.base.ref import Ref
from polder.client.errors import UnreachableError
from polder.controllers import resources
from polder.controllers.resources import Resource, get_object, list_objects

THINGS = Resource("evil.example.com", "v1", "things", "Thing", True)
ACME = TenantName("acme")


class Refusing:
    """Stands for the client of a server that answers everything with one error."""

    def __init__(self, error: ApiError) -> None:
        self.error = error

    async def raw(self, method: str, path: str) -> bytes:
        raise self.error


async def test_an_owner_is_gone_only_where_the_server_says_so_of_it() -> None:
    """The version that a reference names may be served no more, while the owner lives in another one."""
    kind, ref = Kind("evil.example.com", "v1", "Thing", "things", "thing"), Ref(ACME, "default", "mine")
    gone, unserved = Refusing(not_found(kind, "mine")), Refusing(no_such_path())
    assert await get_object(gone, THINGS, ref, served=True) is None  # type: ignore[arg-type]
    assert await get_object(unserved, THINGS, ref) is None  # type: ignore[arg-type]
    with pytest.raises(ApiError):
        await get_object(unserved, THINGS, ref, served=True)  # type: ignore[arg-type]


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
    client = Endless()
    async with asyncio.timeout(5):
        with pytest.raises(UnreachableError, match="no end"):
            await list_objects(client, ACME, THINGS, "default")  # type: ignore[arg-type]
    assert client.pages > 1
