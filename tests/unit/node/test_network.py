"""Where the agent listens for the tenants' ``kubernetes`` services."""

from __future__ import annotations

import asyncio

from polder.node.keep import keep_sockets
from polder.node.network import ENTRY_PORT

ACME, GLOBEX = ("acme", "10.96.0.1", ENTRY_PORT), ("globex", "10.96.0.1", ENTRY_PORT)


async def test_a_namespace_that_was_made_anew_is_listened_in_anew(tmp_path):
    for name in ("acme", "globex"):
        (tmp_path / name).touch()
    rows, sets = {"acme": ACME, "globex": GLOBEX}, []

    async def set_entries(wanted):
        sets.append(wanted)

    changed = asyncio.Event()
    task = asyncio.create_task(keep_sockets(changed, lambda: dict(rows), tmp_path, set_entries))

    async def look():
        sets.clear()
        changed.set()
        await asyncio.sleep(0.02)

    try:
        await look()
        assert sets[-1] == {"acme": ACME, "globex": GLOBEX}
        await look()
        assert sets == [], "nothing is new"
        (tmp_path / "other").touch()
        (tmp_path / "other").replace(tmp_path / "acme")
        await look()
        assert sets == [{"globex": GLOBEX}, {"acme": ACME, "globex": GLOBEX}]
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
