"""The server's side of a WebSocket, on bytes in memory."""

import asyncio
import random
import struct

import pytest

from polder.api.errors import ApiError
from polder.apiserver.websocket import PART, Part, WebSocket, choose, is_websocket


class Connection:
    """A connection whose peer has said all that it says; ``sent`` is what it got."""

    def __init__(self, *received: bytes) -> None:
        self.received, self.sent = list(received), b""

    async def read(self) -> bytes:
        return self.received.pop(0) if self.received else b""

    async def write(self, data: bytes) -> None:
        self.sent += data

    def post(self, data: bytes) -> bool:
        self.sent += data
        return True


def frame(opcode: int, payload: bytes, *, fin: bool = True, mask: bytes = b"\1\2\3\4", bits: int = 0) -> bytes:
    """As a client sends it (RFC 6455, 5.2)."""
    size = len(payload)
    head = bytes([(128 if fin else 0) | bits | opcode])
    if size < 126:
        head += bytes([128 | size])
    elif size < 65536:
        head += struct.pack("!BH", 128 | 126, size)
    else:
        head += struct.pack("!BQ", 128 | 127, size)
    return head + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(payload))


async def parts(*received: bytes) -> tuple[list[Part], Connection]:
    connection = Connection(*received)
    socket = WebSocket(connection)  # type: ignore[arg-type]
    found = []
    async with asyncio.timeout(10):
        while (part := await socket.receive()) is not None:
            found.append(part)
    return found, connection


def pieces(wire: bytes, size: int) -> list[bytes]:
    return [wire[at : at + size] for at in range(0, len(wire), size)]


@pytest.mark.parametrize("size", [1, 2, 5, 1000, 1 << 20])
async def test_messages_come_in_parts_with_their_borders(size: int) -> None:
    long = bytes(range(256)) * 300
    wire = (
        frame(2, b"one") + frame(1, b"tw", fin=False) + frame(9, b"?") + frame(0, b"o") + frame(2, long) + frame(2, b"")
    )
    found, connection = await parts(*pieces(wire, size))
    messages: list[tuple[bool, bytes]] = []
    for part in found:
        assert len(part.data) <= PART
        if part.first:
            messages.append((part.text, b""))
        messages[-1] = (part.text, messages[-1][1] + part.data)
    assert messages == [(False, b"one"), (True, b"two"), (False, long), (False, b"")]
    assert [p.last for p in found if p.last] == [True] * 4
    assert connection.sent == b"\x8a\x01?", "the ping is answered"


async def test_a_message_fills_no_memory_however_long_its_client_says_it_is() -> None:
    head = struct.pack("!BBQ", 130, 255, 1 << 62) + b"\0\0\0\0"
    found, _ = await parts(head, *[b"x" * PART] * 100)
    assert sum(len(p.data) for p in found) == 100 * PART
    assert not any(p.last for p in found)


async def test_a_close_is_answered_and_ends() -> None:
    found, connection = await parts(frame(2, b"a") + frame(8, struct.pack("!H", 1000)) + frame(2, b"after"))
    assert [p.data for p in found] == [b"a"]
    assert connection.sent == b"\x88\x02\x03\xe8"


@pytest.mark.parametrize(
    "wire",
    [
        b"\x82\x03abc",
        frame(2, b"a", bits=0x40),
        frame(0, b"a"),
        frame(3, b"a"),
        frame(2, b"a", fin=False) + frame(2, b"b"),
        frame(9, b"a", fin=False),
        frame(9, b"a" * 126),
    ],
    ids=["unmasked", "reserved", "continued", "unknown", "within", "parted ping", "long ping"],
)
async def test_who_breaks_the_protocol_is_told_so_and_is_out(wire: bytes) -> None:
    found, connection = await parts(wire + frame(2, b"after"))
    assert b"after" not in [p.data for p in found]
    assert connection.sent[:1] == b"\x88"
    assert connection.sent[2:4] == struct.pack("!H", 1002)


async def test_thousands_of_pings_are_no_matter() -> None:
    found, connection = await parts(frame(9, b"") * 20000 + frame(2, b"x"))
    assert [p.data for p in found] == [b"x"]
    assert connection.sent == b"\x8a\x00" * 20000


async def test_garbage_ends_and_nothing_else() -> None:
    rng = random.Random(7)
    for _ in range(500):
        await parts(rng.choice([b"", b"\x82", b"\x82\x85abcd"]) + rng.randbytes(rng.randrange(100)))


async def test_what_is_sent_is_framed() -> None:
    connection = Connection()
    socket = WebSocket(connection)  # type: ignore[arg-type]
    for size in (0, 125, 126, 65536):
        connection.sent = b""
        await socket.send(b"z" * size)
        assert connection.sent == {
            0: b"\x82\x00", 125: b"\x82\x7d", 126: b"\x82\x7e\x00\x7e", 65536: b"\x82\x7f" + struct.pack("!Q", 65536)
        }[size] + b"z" * size  # fmt: skip
    socket.close()
    with pytest.raises(ConnectionError):
        await socket.send(b"")


def test_which_protocol_is_spoken() -> None:
    known = ("v5.channel.k8s.io", "v4.channel.k8s.io")
    assert (
        choose({"Sec-WebSocket-Protocol": "v9.channel.k8s.io, v4.channel.k8s.io,v5.channel.k8s.io"}, known) == known[1]
    )
    assert choose({}, known) == ""
    with pytest.raises(ApiError) as caught:
        choose({"Sec-WebSocket-Protocol": "chat"}, known)
    assert caught.value.code == 400
    assert is_websocket({"Upgrade": "WebSocket", "Connection": "keep-alive, Upgrade"})
    assert not is_websocket({"Upgrade": "websocket", "Connection": "close"})
