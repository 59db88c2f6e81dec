"""Names of definitions: found without holding the definitions, and with pauses for everybody else."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from polder.api.crd_status import next_status
from polder.apiserver.crdnames import TakenNames, brief, taken_names
from polder.apiserver.custom import DEFINITIONS
from polder.store.memory import MemoryStore
from polder.store.protocol import Key, Put
from tests.unit.apiserver.test_crdcleanup import following

NAMES = st.sampled_from(["", "a", "b", "c", "d"])
HELD = st.fixed_dictionaries(
    {"plural": NAMES, "singular": NAMES, "kind": NAMES, "listKind": NAMES, "shortNames": st.lists(NAMES, max_size=2)}
)
DEFINITION = st.fixed_dictionaries(
    {
        "metadata": st.just({}),
        "spec": st.fixed_dictionaries({"group": st.sampled_from(["one", "two"]), "names": HELD}),
        "status": st.fixed_dictionaries({"acceptedNames": HELD}),
    }
)


@given(st.lists(DEFINITION, min_size=1, max_size=5))
def test_one_that_stands_for_all_others_decides_as_they_do(found: list[Any]) -> None:
    taken = TakenNames()
    for obj in found:
        taken.add(brief(orjson.dumps(obj)))
    for obj in found:
        others = [other for other in found if other is not obj]
        assert next_status(obj, [taken.beside(obj, own=True)], "t") == next_status(obj, others, "t")
        apart = TakenNames()
        for other in others:
            apart.add(brief(orjson.dumps(other)))
        assert next_status(obj, [apart.beside(obj, own=False)], "t") == next_status(obj, others, "t")


def test_who_waits_for_names() -> None:
    def waits(status: str, **meta: Any) -> bool:
        conditions = [{"type": "NamesAccepted", "status": status}]
        return brief(orjson.dumps({"metadata": meta, "spec": {"x": [1]}, "status": {"conditions": conditions}})).waits

    assert waits("False") and not waits("True")
    assert not waits("False", deletionTimestamp="2026-01-01T00:00:00Z")
    assert brief(b'{"metadata":{"name":"x"}}').waits


def large(number: int) -> Put:
    names = {"plural": f"p{number}", "kind": f"K{number}"}
    obj = {
        "metadata": {"name": f"p{number}.x.dev", "uid": str(number), "generation": 1},
        "spec": {"group": "x.dev", "names": names, "description": "y" * 60_000},
        "status": {"acceptedNames": names, "conditions": [{"type": "NamesAccepted", "status": "True"}]},
    }
    return Put(Key(DEFINITIONS.resource, "t", "", f"p{number}.x.dev"), orjson.dumps(obj))


class Turns:
    """Counts how often others get a turn."""

    def __init__(self) -> None:
        self.seen = 0

    async def run(self) -> None:
        while True:
            self.seen += 1
            await asyncio.sleep(0)


class PagedStore(MemoryStore):
    """Notes the longest answer to a list."""

    longest = 0

    async def list(self, *args: Any, **kwargs: Any) -> Any:
        page = await super().list(*args, **kwargs)
        self.longest = max(self.longest, sum(len(e.value) for e in page.entries))
        return page


async def test_others_get_their_turns_while_many_definitions_are_read() -> None:
    store = PagedStore()
    await store.commit([large(number) for number in range(200)])
    turns = Turns()
    running = asyncio.create_task(turns.run())
    try:
        taken = await taken_names(store, "t", but="p7.x.dev")
        assert taken.beside(orjson.loads(large(8).value), own=False)["status"]["acceptedNames"]["shortNames"] == ["p8"]
        assert taken.beside(orjson.loads(large(7).value), own=False)["status"]["acceptedNames"]["shortNames"] == []
        assert turns.seen >= 90 and store.longest < 3 << 20
        turns.seen = 0
        async with following(store):
            while not store._hub._watchers:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0)
            assert turns.seen >= 90 and store.longest < 3 << 20
    finally:
        running.cancel()
        await store.close()
