from __future__ import annotations

import socket
from pathlib import Path

import pytest

from polder.node.admin import AdminServer, Inspection, ask


async def inspect(tenant: str) -> Inspection:
    if tenant == "broken":
        raise ValueError("no")
    return Inspection(tenant, True, topology="T\n", desired="D\n")


async def test_what_is_asked_is_answered_and_a_dead_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    server = AdminServer(path, inspect)
    await server.start()
    try:
        assert await ask(path, "acme") == Inspection("acme", True, "T\n", "D\n", "")
        assert path.stat().st_mode & 0o777 == 0o600
        with pytest.raises(ConnectionAbortedError, match="without an answer"):
            await ask(path, "broken")
    finally:
        await server.stop()
    with pytest.raises(FileNotFoundError):
        await ask(path, "acme")
