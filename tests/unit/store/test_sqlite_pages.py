"""What a page costs SQLite, in steps of its virtual machine: it does not grow with the range, now and in the past."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from polder.store.protocol import PAGE_BYTES, Key, Page, Prefix, Put
from polder.store.schema import connect
from polder.store.sqlite import open_sqlite
from polder.store.sqlite_scan import COUNTED, Scan, list_page, near_page

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


def steps(
    connection: sqlite3.Connection, prefix: Prefix, after: Key | None, revision: int | None, *, near: bool
) -> tuple[int, Page]:
    taken = 0

    def step() -> int:
        nonlocal taken
        taken += 1
        return 0

    connection.set_progress_handler(step, 10)
    page = (near_page if near else list_page)(connection, Scan(prefix, after, revision), PAGE)
    connection.set_progress_handler(None, 0)
    assert page is not None
    return taken, page


@pytest.mark.parametrize("prefix", RANGES)
@pytest.mark.parametrize("how", ["near", "present", "past"])
async def test_a_page_costs_the_same_in_a_large_range(tmp_path: Path, prefix: Prefix, how: str) -> None:
    costs = []
    for number in (SMALL, LARGE):
        revision, connection = await filled(tmp_path / f"{number}.db", number)
        # The rest is counted by the index alone, about three steps a row: pages near the end show what is read beside that.
        after = Key("pods", "t", "n", f"p{number - PAGE - 5:05}")
        cost, page = steps(connection, prefix, after, revision if how == "past" else None, near=how == "near")
        assert [entry.key.name for entry in page.entries] == [f"p{number - PAGE - 4 + n:05}" for n in range(PAGE)]
        assert page.remaining == 4
        costs.append(cost)
        connection.close()
    assert costs[1] < 2 * costs[0] + 10, costs


async def test_a_page_read_at_once_is_the_one_that_is_read_row_by_row(tmp_path: Path) -> None:
    """Values of any bytes, none, and more than a page holds; names that JSON escapes."""
    store = open_sqlite(tmp_path / "s.db")
    values = [b"", b"\0\xff\x1f", b'{"a": "\xc3\xa9"}', b"x" * PAGE_BYTES, b"last", b"behind"]
    names = ["a", 'b\n"', "c\\u00e9", "d\u00e9", "e", "f"]
    await store.commit([Put(Key("pods", "t", "n", name), value, 0) for name, value in zip(names, values, strict=True)])
    await store.close()
    connection = connect(tmp_path / "s.db")
    for limit in (1, 3, 5, 6, 100):
        for after in (None, Key("pods", "t", "n", "c")):
            scan = Scan(Prefix("pods", "t", "n"), after, None)
            assert near_page(connection, scan, limit) == list_page(connection, scan, limit)
    connection.close()


async def test_what_is_behind_a_page_is_not_counted_at_once_where_it_is_much(tmp_path: Path) -> None:
    _, connection = await filled(tmp_path / "s.db", COUNTED)
    assert near_page(connection, Scan(Prefix("pods"), None, None), PAGE) is None
    connection.execute("DELETE FROM entry WHERE name = 'p00001'")
    page = near_page(connection, Scan(Prefix("pods"), None, None), PAGE)
    assert page is not None
    assert page.remaining == COUNTED - 1 - PAGE
    connection.close()
