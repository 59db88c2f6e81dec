"""What `polder down` says of pods that do not end by themselves."""

from __future__ import annotations

from pathlib import Path

from polder.main.down import _stop_pods


async def test_pods_that_no_runtime_stops_are_said(tmp_path: Path) -> None:
    assert "the runtime could not stop them" in await _stop_pods(tmp_path / "no.sock")
