from __future__ import annotations

from pathlib import Path

from polder.sdn.render.linux.desired import key_of
from polder.sdn.saved import ROOM, SavedTopology
from polder.sdn.topology.vips import Backend, Vip, VipPort


async def pause() -> None:
    """Nobody else is there."""


async def test_long_lines_are_compacted_by_their_length(tmp_path: Path) -> None:
    """A service of a thousand backends that changes all the time does not fill the disk."""
    saved = SavedTopology(tmp_path / "topology")
    backends = [Backend(f"10.0.{n // 250}.{n % 250}", 8080, "node-1") for n in range(1000)]
    largest = 0
    for count in range(200):
        vip = Vip("acme", "default/web", ("10.96.0.9",), (), (VipPort("tcp", count + 1, ready=tuple(backends)),))
        await saved.write([(key_of(vip), vip)] * 2, pause)
        largest = max(largest, (tmp_path / "topology").stat().st_size)
    saved.close()
    assert ROOM * 0.9 < largest < ROOM * 1.1
    again = SavedTopology(tmp_path / "topology")
    assert list(again.parts.values()) == [vip]
    again.close()
