from __future__ import annotations

import asyncio

from polder.apiserver.openapi_documents import Documents


async def test_a_document_is_built_once_however_many_ask_at_once() -> None:
    documents, built = Documents(), []

    def build() -> bytes:
        built.append(1)
        return b"x"

    found = await asyncio.gather(*(documents.get(("v2", "a"), build) for _ in range(20)))
    assert len(built) == 1 and {id(document) for document in found} == {id(found[0])}
    assert found[0].tag != (await documents.get(("v2", "b"), lambda: b"y")).tag


async def test_what_was_not_used_for_longest_goes_first() -> None:
    documents = Documents(limit=25)
    for name in "ab":
        await documents.get(("v2", name), lambda: b"x" * 10)
    await documents.get(("v2", "a"), lambda: b"never")
    await documents.get(("v2", "c"), lambda: b"x" * 10)
    assert documents.count == 2
    assert (await documents.get(("v2", "a"), lambda: b"new")).body == b"x" * 10
    assert (await documents.get(("v2", "b"), lambda: b"new")).body == b"new"


async def test_an_idle_document_is_dropped_without_anybody_asking() -> None:
    documents = Documents(idle=0.05)
    await documents.get(("v2", "a"), lambda: b"x")
    for _ in range(4):
        await asyncio.sleep(0.02)
        await documents.get(("v2", "b"), lambda: b"y")
    assert documents.count == 1
    await asyncio.sleep(0.15)
    assert documents.count == 0
