"""The process's own life: one unix socket, on which the newest connection is the agent's."""

from __future__ import annotations

import asyncio
import logging
import socket
from pathlib import Path

from polder.dns.channel import Channel, ChannelError, channel_socket
from polder.dns.forward import Forwarder
from polder.dns.server import Server
from polder.system.privileges import drop_privileges, limit_memory

log = logging.getLogger(__name__)

MEMORY = 2**30
FILES = 16384
BACKLOG = 4


def bind(path: Path) -> socket.socket:
    """Listens where the agent looks for the process."""
    sock = channel_socket()
    path.unlink(missing_ok=True)
    sock.bind(str(path))
    path.chmod(0o600)
    sock.listen(BACKLOG)
    return sock


async def serve(listener: socket.socket) -> None:
    """Until cancelled. When the agent goes, everything is answered on as it was; when it comes back it tells all anew."""
    limit_memory(MEMORY, FILES)
    drop_privileges()
    server = Server(Forwarder())
    loop = asyncio.get_running_loop()
    agent: asyncio.Task[None] | None = None
    try:
        while True:
            connection, _ = await loop.sock_accept(listener)
            if agent is not None:
                agent.cancel()
                await asyncio.gather(agent, return_exceptions=True)
            agent = asyncio.create_task(_listen_to(Channel(connection), server))
    finally:
        if agent is not None:
            agent.cancel()
            await asyncio.gather(agent, return_exceptions=True)
        await server.close()


async def _listen_to(channel: Channel, server: Server) -> None:
    try:
        while (received := await channel.receive()) is not None:
            message, sockets = received
            try:
                await server.take(message, sockets)
            except Exception:
                # What is told of one tenant must not end the answers of all.
                log.exception("a message of kind %s was not taken", type(message).__name__)
    except ChannelError as error:
        log.warning("%s", error)
    finally:
        channel.close()
