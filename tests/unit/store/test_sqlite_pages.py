"""What a page costs SQLite, in steps of its virtual machine: it does not grow with the range, now and in the past."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from polder.store import sqlite
from polder.store.protocol import Key, Page, Prefix, Put
from polder.store.schema import connect
from polder.store.sqlite import open_sqlite

SMALL, LARGE, PAGE = 60, 6000, 20
RANGES = [Prefix("pods", "t", "n"), Prefix("pods", "t"), Prefix("pods"), Prefix("")]


async def filled(path: Path, number: int) -> tuple[int, sqlite3.Connection]:
    """The revision before the last change of each third row, and a connection of our own."""
    store = open_sqlite(path)
    keys = [Key("pods", "t", "n", f"p{n:05}") for n in range(number)]
    revision = await store.commit([Put(key, b"value", 0) for key in keys])
    await store.commit([Put(keys[0], b"changed"), Put(keys[-1], b"changed")])
    await store.close()
    return revision, connect(path)


def steps(connection: sqlite3.Connection, prefix: Prefix, after: Key | None, revision: int | None) -> tuple[int, Page]:
    taken = 0

    def step() -> int:
        nonlocal taken
        taken += 1
        return 0

    connection.set_progress_handler(step, 10)
    page = sqlite._list(connection, sqlite._Scan(prefix, after, revision), PAGE)
    connection.set_progress_handler(None, 0)
    return taken, page


@pytest.mark.parametrize("prefix", RANGES)
@pytest.mark.parametrize("past", [False, True])
async def test_a_page_costs_the_same_in_a_large_range(tmp_path: Path, prefix: Prefix, past: bool) -> None:
    costs = []
    for number in (SMALL, LARGE):
        revision, connection = await filled(tmp_path / f"{number}.db", number)
        # The rest is counted by the index alone, about three steps a row: pages near the end show what is read beside that.
        after = Key("pods", "t", "n", f"p{number - PAGE - 5:05}")
        cost, page = steps(connection, prefix, after, revision if past else None)
        assert [entry.key.name for entry in page.entries] == [f"p{number - PAGE - 4 + n:05}" for n in range(PAGE)]
        assert page.remaining == 4
        costs.append(cost)
        connection.close()
    assert costs[1] < 2 * costs[0] + 10, costs
