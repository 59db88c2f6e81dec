"""TCP sockets made inside a network namespace; asyncio uses them like any other."""

from __future__ import annotations

import socket
from pathlib import Path

from polder.system.net.codec import family_of
from polder.system.net.netns import Netns, inside, open_netns, own_netns, run_inside

_BIND_ADDRESS_NO_PORT = 24
_FREEBIND = 15
"""ip(7); Python has no names for them."""


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


def resolver_sockets(space: Netns, address: str, port: int) -> tuple[socket.socket, socket.socket]:
    """A UDP socket and a listening TCP socket of ``space``, both non-blocking, at an address that may come only later. Others of
    ours may have the same (SO_REUSEPORT): they are replaced without a moment in between. OSError where they are not to be had.
    """

    def make(kind: socket.SocketKind) -> socket.socket:
        sock = socket.socket(family_of(address), kind)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.setsockopt(socket.IPPROTO_IP, _FREEBIND, 1)
            sock.bind((address, port))
            if kind is socket.SOCK_STREAM:
                sock.listen(128)
            sock.setblocking(False)
        except OSError:
            sock.close()
            raise
        return sock

    def pair() -> tuple[socket.socket, socket.socket]:
        first = make(socket.SOCK_DGRAM)
        try:
            return first, make(socket.SOCK_STREAM)
        except OSError:
            first.close()
            raise

    return run_inside(space, pair)


def unconnected_socket(space: Netns, address: str, source: str = "", *, datagram: bool = False) -> socket.socket:
    """A non-blocking TCP (or UDP) socket of ``space`` for the family of ``address``, bound to the address ``source`` if one is
    given, to be connected by the event loop. The kernel chooses the port when it connects (IP_BIND_ADDRESS_NO_PORT), so that one
    address has all ports for each destination. OSError where the source is not to be had.
    """

    def make() -> socket.socket:
        sock = socket.socket(family_of(address), socket.SOCK_DGRAM if datagram else socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            if source:
                sock.setsockopt(socket.IPPROTO_IP, _BIND_ADDRESS_NO_PORT, 1)
                sock.bind((source, 0))
        except OSError:
            sock.close()
            raise
        return sock

    return run_inside(space, make)


def socket_at(path: Path | None, address: str, datagram: bool) -> socket.socket:
    """A non-blocking TCP (or UDP) socket for the family of ``address``, made in the namespace at ``path``; None: in the caller's.
    The calling thread enters the namespace and leaves it again: not for a thread that does anything else. OSError, NetnsError.
    """
    kind = socket.SOCK_DGRAM if datagram else socket.SOCK_STREAM
    if path is None:
        sock = socket.socket(family_of(address), kind)
    else:
        with open_netns(path) as space, own_netns() as home, inside(space, home):
            sock = socket.socket(family_of(address), kind)
    sock.setblocking(False)
    return sock
