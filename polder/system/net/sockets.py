"""TCP sockets made inside a network namespace; asyncio uses them like any other."""

from __future__ import annotations

import socket

from polder.system.net.codec import family_of
from polder.system.net.netns import Netns, run_inside


def listening_socket(space: Netns, address: str, port: int) -> socket.socket:
    """A non-blocking TCP socket that listens in ``space``. OSError where the address or port is not to be had."""

    def make() -> socket.socket:
        sock = socket.socket(family_of(address), socket.SOCK_STREAM)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((address, port))
            sock.listen(512)
            sock.setblocking(False)
        except OSError:
            sock.close()
            raise
        return sock

    return run_inside(space, make)


def unconnected_socket(space: Netns, address: str) -> socket.socket:
    """A non-blocking TCP socket of ``space`` for the family of ``address``, to be connected by the event loop."""

    def make() -> socket.socket:
        sock = socket.socket(family_of(address), socket.SOCK_STREAM)
        sock.setblocking(False)
        return sock

    return run_inside(space, make)
