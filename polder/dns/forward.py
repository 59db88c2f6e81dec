"""Questions to upstream servers (RFC 5452: what an answer must match, and what a forger must guess)."""

from __future__ import annotations

import asyncio
import ipaddress
import secrets
import socket
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from polder.base.errors import RetryableError
from polder.dns.message import Held, is_answer, is_cut, question_for, rcode_of, read_answer
from polder.dns.wire import LARGEST, NOERROR, NXDOMAIN, UDP_SIZE, Labels, MalformedError

PORT = 53
TENANT_LIMIT = 64
"""Questions of one tenant under way at a time."""
LIMIT = 1024
STRAYS = 32
"""Datagrams that answer nothing asked, after which a socket is given up."""
LOWEST_PORT, PORTS, PORT_TRIES = 1024, 64512, 16


class UnansweredError(RetryableError):
    """No upstream server gave an answer, or too many questions are under way."""


class Question(NamedTuple):
    """What is asked: the name in lower case, type, class, and whether the client checks signatures (CD) and wants them (DO)."""

    labels: Labels
    kind: int
    klass: int
    disabled: bool
    secure: bool


@dataclass(frozen=True, slots=True)
class Upstream:
    """A server's address."""

    address: str
    port: int = PORT

    @property
    def family(self) -> socket.AddressFamily:
        """Of its address."""
        return socket.AF_INET6 if ":" in self.address else socket.AF_INET


def upstream_of(text: str) -> Upstream:
    """``ADDRESS`` or ``ADDRESS#PORT``. Raises ValueError."""
    address, _, port = text.partition("#")
    ipaddress.ip_address(address)
    return Upstream(address, int(port) if port else PORT)


@dataclass(slots=True)
class Forwarder:
    """Asks one server after the other. ``patience`` is seconds for one try; ``tries`` are over all servers."""

    upstreams: Sequence[Upstream] = ()
    patience: float = 1.5
    tries: int = 3
    asked: int = 0
    """How many messages went out."""
    _under_way: dict[tuple[str, Question], asyncio.Task[Held]] = field(default_factory=dict)
    _counts: Counter[str] = field(default_factory=Counter)

    async def ask(self, tenant: str, question: Question) -> Held:
        """The answer: that there is something, or that there is not. What two clients of a tenant ask at a time is asked once.
        Raises UnansweredError.
        """
        place = tenant, question
        task = self._under_way.get(place)
        if task is None:
            if self._counts[tenant] >= TENANT_LIMIT or len(self._under_way) >= LIMIT:
                raise UnansweredError("too many questions are under way")
            task = self._under_way[place] = asyncio.create_task(self._ask(question))
            self._counts[tenant] += 1
            task.add_done_callback(lambda _: self._done(place))
        return await asyncio.shield(task)

    def _done(self, place: tuple[str, Question]) -> None:
        task = self._under_way.pop(place)
        if not task.cancelled():
            task.exception()  # seen, also where nobody waits any more
        self._counts[place[0]] -= 1
        if not self._counts[place[0]]:
            del self._counts[place[0]]

    async def _ask(self, question: Question) -> Held:
        servers = list(self.upstreams)
        for number in range(self.tries if servers else 0):
            server = servers[number % len(servers)]
            try:
                async with asyncio.timeout(self.patience):
                    data = await self._exchange(server, question)
                if rcode_of(data) in (NOERROR, NXDOMAIN):
                    return read_answer(data)
            except (OSError, MalformedError, TimeoutError, EOFError):
                continue
        raise UnansweredError("no upstream server gave an answer")

    async def _exchange(self, server: Upstream, question: Question) -> bytes:
        flags = question.disabled, question.secure
        asked = question_for(secrets.randbelow(65536), question.labels, question.kind, question.klass, flags)
        self.asked += 1
        answer = await _over_udp(server, asked)
        return await _over_tcp(server, asked) if is_cut(answer) else answer

    async def close(self) -> None:
        """Ends what is under way."""
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _own_socket(server: Upstream) -> socket.socket:
    """A socket for one question, from a port that nobody can guess; the kernel drops what others than the server send."""
    sock = socket.socket(server.family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        for _ in range(PORT_TRIES):
            try:
                sock.bind(("", LOWEST_PORT + secrets.randbelow(PORTS)))
                break
            except OSError:
                continue  # taken
        sock.connect((server.address, server.port))
    except BaseException:
        sock.close()
        raise
    return sock


async def _over_udp(server: Upstream, asked: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    with _own_socket(server) as sock:
        sock.send(asked)
        for _ in range(STRAYS):
            data = await loop.sock_recv(sock, 2 * UDP_SIZE)
            if is_answer(data, asked):
                return data
    raise EOFError("nothing but strays")


async def _over_tcp(server: Upstream, asked: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(server.address, server.port, limit=LARGEST + 2)
    try:
        writer.write(len(asked).to_bytes(2, "big") + asked)
        await writer.drain()
        size = int.from_bytes(await reader.readexactly(2), "big")
        data = await reader.readexactly(size)
    finally:
        writer.transport.abort()
    if not is_answer(data, asked):
        raise EOFError("another question was answered")
    return data
