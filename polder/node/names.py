"""Names looked up from inside a tenant's router: plain DNS queries (RFC 1035) to the servers that its pods use.

Asking from there, and not with the node's resolver, tells a tenant nothing that its own pods could not find out.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import secrets
import socket
import struct
from collections.abc import Awaitable, Callable, Sequence

ATTEMPT = 2.0
"""Seconds for one answer of one server."""
LIMIT = 8
"""Addresses of one name that are tried."""
_A, _AAAA, _IN, _RECURSE = 1, 28, 1, 0x0100
_HEAD = struct.Struct("!HHHHHH")
_LABEL = re.compile(rb"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?$")

Datagram = Callable[[str, str, str, int], Awaitable[socket.socket]]
"""(space, source, address, port): a connected, non-blocking UDP socket of the namespace. Raises OSError, PolderError."""


class Names:
    """Finds the addresses of a name: IPv4, and where it has none, IPv6. ``servers`` gives the node's DNS servers."""

    def __init__(self, servers: Callable[[], Sequence[str]], datagram: Datagram) -> None:
        self._servers = servers
        self._datagram = datagram

    async def lookup(self, space: str, source: str, name: str) -> list[str]:
        """Raises OSError where the name has no address or no server answers."""
        queries = [question(name, kind) for kind in (_A, _AAAA)]
        reachable = [s for s in self._servers() if not ipaddress.ip_address(s).is_loopback and ":" not in s]
        for server in reachable:
            try:
                async with asyncio.timeout(ATTEMPT):
                    for query in queries:
                        if found := await self._ask(space, source, server, query):
                            return found[:LIMIT]
            except TimeoutError:
                continue
            raise OSError("lookup: no such host")
        raise OSError("lookup: no DNS server answers from the tenant's network")

    async def _ask(self, space: str, source: str, server: str, query: bytes) -> list[str]:
        loop = asyncio.get_running_loop()
        number = secrets.token_bytes(2)
        sock = await self._datagram(space, source, server, 53)
        try:
            await loop.sock_sendall(sock, number + query[2:])
            while True:
                answer = await loop.sock_recv(sock, 4096)
                if answer[:2] == number and answer[12 : 12 + len(query) - 12].lower() == query[12:].lower():
                    break
        finally:
            sock.close()
        return addresses(answer)


def question(name: str, kind: int = _A) -> bytes:
    """A query for records of a kind, its number 0. Raises OSError for what is no name."""
    labels = name.encode("ascii", "replace").rstrip(b".").split(b".")
    if len(name) > 253 or not all(_LABEL.match(label) for label in labels):
        raise OSError("lookup: no such host")
    body = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    return _HEAD.pack(0, _RECURSE, 1, 0, 0, 0) + body + struct.pack("!HH", kind, _IN)


def addresses(answer: bytes) -> list[str]:
    """The addresses in an answer. Raises OSError for a malformed one."""
    try:
        _, flags, questions, answers, _, _ = _HEAD.unpack_from(answer)
        if not flags & 0x8000 or questions != 1:
            return []
        at = _skip(answer, _HEAD.size) + 4
        found = []
        for _ in range(answers):
            at = _skip(answer, at)
            kind, family, _, size = struct.unpack_from("!HHIH", answer, at)
            at += 10
            if (kind, family, size) in ((_A, _IN, 4), (_AAAA, _IN, 16)):
                found.append(str(ipaddress.ip_address(answer[at : at + size])))
            at += size
    except (struct.error, IndexError, ValueError) as error:
        raise OSError("lookup: the answer is malformed") from error
    return found


def _skip(answer: bytes, at: int) -> int:
    """The position after a name, which may end in a pointer."""
    while (length := answer[at]) != 0:
        if length >= 0xC0:
            return at + 2
        at += length + 1
    return at + 1
