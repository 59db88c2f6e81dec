"""A netlink socket: batches of requests in one send, the answer of each with the kernel's own words, dumps.

The socket belongs to the namespace of the thread that made it (see netns.inside) and may then be used from any thread.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from polder.base.errors import PolderError
from polder.system.net.codec import (
    ACK_CAPPED,
    ACK_EXTENDED,
    DUMP,
    DUMP_INTERRUPTED,
    HEADER,
    TYPE_DONE,
    TYPE_ERROR,
    Message,
    as_text,
    as_u32,
    attrs,
)

_SOL_NETLINK = 270
_CAP_ACK, _EXT_ACK, _STRICT = 10, 11, 12
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
_BUFFER = 1 << 20
_CHUNK = 1024
"""Requests for each send: if all fail, their answers (about 1 KiB each in the kernel's account) fit the buffer."""
_READ = 1 << 18
_DUMP_TRIES = 8
_TIMEOUT = 30.0
ROUTE, NETFILTER = 0, 12
"""NETLINK_ROUTE and NETLINK_NETFILTER."""


class NetlinkError(PolderError):
    """The kernel refused a request; ``number`` is the errno."""

    def __init__(self, about: str, number: int, reason: str) -> None:
        words = reason or os.strerror(number)
        super().__init__(f"{about}: {words} ({errno.errorcode.get(number, number)})" if about else words)
        self.number = number


@dataclass(frozen=True, slots=True)
class Reply:
    """One message of the kernel: its type and what follows the header."""

    kind: int
    body: bytes


class NetlinkSocket:
    """One socket; requests from several threads take turns."""

    def __init__(self, protocol: int = ROUTE) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._socket.bind((0, 0))
        self._socket.settimeout(_TIMEOUT)
        for option in (_CAP_ACK, _EXT_ACK, *((_STRICT,) if protocol == ROUTE else ())):
            self._socket.setsockopt(_SOL_NETLINK, option, 1)
        for option in (_SO_SNDBUFFORCE, _SO_RCVBUFFORCE):
            self._socket.setsockopt(socket.SOL_SOCKET, option, _BUFFER)
        self._sequence = 1
        self._lock = threading.Lock()

    def close(self) -> None:
        """Give the socket back; it no longer holds its namespace."""
        self._socket.close()

    def batch(self, messages: Sequence[Message]) -> list[NetlinkError | None]:
        """Send all, in order, each whether or not others fail; the answer of each in its place."""
        results: list[NetlinkError | None] = []
        with self._lock:
            for start in range(0, len(messages), _CHUNK):
                results += self._chunk(messages[start : start + _CHUNK])
        return results

    def call(self, message: Message) -> None:
        """Send one; raises NetlinkError."""
        (failed,) = self.batch((message,))
        if failed:
            raise failed

    def get(self, message: Message) -> Reply:
        """Send one that is answered by one message; raises NetlinkError."""
        with self._lock:
            sequence = self._next(1)
            self._socket.send(message.pack(sequence, ack=False))
            for reply, failed in self._answers(sequence, [message]):
                if failed:
                    raise failed
                if reply:
                    return reply
        raise NetlinkError(message.about, errno.ENODATA, "")

    def dump(self, message: Message) -> list[Reply]:
        """All answers to one dump, taken again while the kernel says that it changed under the reading."""
        with self._lock:
            for _ in range(_DUMP_TRIES):
                replies, whole = self._dump_once(message)
                if whole:
                    return replies
        return replies

    def transaction(self, begin: Message, messages: Sequence[Message], end: Message) -> list[NetlinkError | None]:
        """All or nothing, as nfnetlink batches: an error anywhere undoes all. The answers in the messages' places; an
        error of the commit itself stands at the first message.
        """
        if not messages:
            return []
        with self._lock:
            first = self._next(len(messages) + 2)
            parts = [begin.pack(first, ack=False), *_packed(messages, first + 1)]
            parts.append(end.pack(first + 1 + len(messages), ack=False))
            self._socket.send(b"".join(parts))
            return self._results(first + 1, messages)

    def _next(self, count: int) -> int:
        if self._sequence + count > 0x7FFFFFFF:
            self._sequence = 1
        first = self._sequence
        self._sequence += count
        return first

    def _chunk(self, messages: Sequence[Message]) -> list[NetlinkError | None]:
        first = self._next(len(messages))
        self._socket.send(b"".join(_packed(messages, first)))
        return self._results(first, messages)

    def _results(self, first: int, messages: Sequence[Message]) -> list[NetlinkError | None]:
        """Only the last request is acknowledged, others answer where they fail; so the last's answer ends the reading.
        An answer just before the first is that of the batch itself.
        """
        results: list[NetlinkError | None] = [None] * len(messages)
        last = len(messages) - 1
        while True:
            for number, reply in self._read():
                at = number - first
                if reply.kind != TYPE_ERROR or not -1 <= at <= last:
                    continue
                failed = _error(reply, messages[max(at, 0)].about)
                if at == -1 and failed:
                    return [failed, *results[1:]]
                results[at] = failed or results[at]
                if at == last:
                    return results

    def _dump_once(self, message: Message) -> tuple[list[Reply], bool]:
        sequence = self._next(1)
        asked = Message(message.kind, message.flags | DUMP, message.body, message.about)
        self._socket.send(asked.pack(sequence, ack=False))
        replies: list[Reply] = []
        whole = True
        while True:
            data = self._socket.recv(_READ)
            for flags, number, reply in _split(data):
                if number != sequence:
                    continue
                whole = whole and not flags & DUMP_INTERRUPTED
                if reply.kind == TYPE_DONE:
                    return replies, whole
                if reply.kind == TYPE_ERROR:
                    failed = _error(reply, message.about)
                    if failed and failed.number == errno.EINTR:
                        return replies, False
                    raise failed or NetlinkError(message.about, errno.EPROTO, "")
                replies.append(reply)

    def _answers(
        self, sequence: int, messages: Sequence[Message]
    ) -> Iterable[tuple[Reply | None, NetlinkError | None]]:
        while True:
            for number, reply in self._read():
                if number != sequence:
                    continue
                if reply.kind == TYPE_ERROR:
                    yield None, _error(reply, messages[0].about)
                else:
                    yield reply, None

    def _read(self) -> list[tuple[int, Reply]]:
        return [(number, reply) for _, number, reply in _split(self._socket.recv(_READ))]


def _packed(messages: Sequence[Message], first: int) -> list[bytes]:
    last = len(messages) - 1
    return [message.pack(first + at, ack=at == last) for at, message in enumerate(messages)]


def _split(data: bytes) -> list[tuple[int, int, Reply]]:
    """(flags, sequence, reply) of each message in one datagram."""
    found: list[tuple[int, int, Reply]] = []
    offset = 0
    while offset + HEADER.size <= len(data):
        length, kind, flags, sequence, _ = HEADER.unpack_from(data, offset)
        body = data[offset + HEADER.size : offset + length]
        if kind == TYPE_ERROR:
            body = struct.pack("=H", flags) + body  # _error needs to know what follows the errno
        found.append((flags, sequence, Reply(kind, body)))
        offset += max((length + 3) & ~3, HEADER.size)
    return found


def _error(reply: Reply, about: str) -> NetlinkError | None:
    """None for an ack; the extended ack's text (NLMSGERR_ATTR_MSG) is the reason where the kernel gives one."""
    flags, number = struct.unpack_from("=Hi", reply.body)
    if number == 0:
        return None
    reason = ""
    if flags & ACK_EXTENDED:
        inner = 6 + HEADER.size
        if not flags & ACK_CAPPED:
            inner = 6 + ((as_u32(reply.body[6:10]) + 3) & ~3)
        reason = as_text(attrs(reply.body, inner).get(1, b""))
    return NetlinkError(about, -number, reason)
