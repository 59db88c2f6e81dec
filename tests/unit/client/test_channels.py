"""Messages of a command between server and agent."""

import asyncio
import struct

import pytest

from polder.client.channels import MESSAGE_LIMIT, PART, STDIN, STDOUT, ChannelError, Channels


class Stream:
    """One direction of a stream, in memory, whose bytes come in pieces of ``size``."""

    def __init__(self, size=1 << 20):
        self.size, self.wire, self.ended = size, bytearray(), False

    async def write(self, data):
        self.wire += data

    async def read(self):
        piece = bytes(self.wire[: self.size])
        del self.wire[: self.size]
        return piece

    async def end(self):
        self.ended = True

    async def reset(self, reason):
        self.ended = True


@pytest.mark.parametrize("size", [1, 3, 1 << 20])
async def test_messages_survive_however_their_bytes_come(size):
    channels = Channels(Stream(size))
    await channels.send(STDIN, b"abc")
    await channels.send(STDOUT, b"")
    await channels.send(255, b"\0")
    assert [await channels.receive() for _ in range(4)] == [(0, b"abc"), (1, b""), (255, b"\0"), None]


async def test_long_output_goes_in_parts_that_others_can_come_between():
    stream = Stream()
    channels = Channels(stream)
    await asyncio.gather(channels.send(STDOUT, b"o" * (3 * PART)), channels.send(2, b"e" * (2 * PART)))
    got = {1: b"", 2: b""}
    while (message := await channels.receive()) is not None:
        assert len(message[1]) <= PART
        got[message[0]] += message[1]
    assert got == {1: b"o" * (3 * PART), 2: b"e" * (2 * PART)}


async def test_a_message_that_is_too_long_or_cut_off_breaks_the_stream():
    for wire in (struct.pack("!I", MESSAGE_LIMIT + 1), struct.pack("!I", 5) + b"abc"):
        stream = Stream()
        stream.wire += wire
        with pytest.raises(ChannelError):
            await Channels(stream).receive()
