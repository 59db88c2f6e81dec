"""Fixtures of the system tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.system.lab import Lab
from tests.system.site import Site


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    """Two nodes, a wire, a server outside; taken down afterwards."""
    room = Lab(tmp_path)
    try:
        room.start()
        yield room
    finally:
        await room.close()


@pytest.fixture
async def site(tmp_path: Path, lab: Lab) -> AsyncIterator[Site]:
    """A server, the lab's machines as nodes with their agents' network, the tenant acme."""
    place = Site(tmp_path, lab)
    try:
        await place.start()
        await place.tenant("acme")
        yield place
    finally:
        await place.close()
