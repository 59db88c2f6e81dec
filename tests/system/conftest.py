"""Fixtures of the system tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.system.lab import Lab


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    """Two nodes, a wire, a server outside; taken down afterwards."""
    room = Lab(tmp_path)
    try:
        room.start()
        yield room
    finally:
        await room.close()
