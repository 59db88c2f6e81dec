"""SPDY/3.1: bytes and frames, streams over a connection, what a hostile peer may do."""

import asyncio
import random
import struct
import zlib
from contextlib import asynccontextmanager

import pytest

from polder.client import spdy
from polder.client.spdy import SpdySession, StreamLostError
from polder.client.spdy_frames import (
    CONTROL_LIMIT,
    DICTIONARY,
    HEADERS_LIMIT,
    Data,
    Decoder,
    Encoder,
    GoAway,
    Opened,
    Ping,
    Reset,
    SpdyError,
    data,
    goaway,
    ping,
    reset,
)


class Pipe:
    """A connection of bytes in memory; a write waits while the peer has not read the last."""

    def __init__(self, inbox, outbox):
        self.inbox, self.outbox = inbox, outbox

    async def read(self):
        return await self.inbox.get()

    async def write(self, received):
        await self.outbox.put(received)


def pipes(room=1):
    one, two = asyncio.Queue(room), asyncio.Queue(room)
    return Pipe(one, two), Pipe(two, one)


@asynccontextmanager
async def connected(take=None):
    a, b = pipes()
    accepted = asyncio.Queue()

    def accept(stream):
        accepted.put_nowait(stream)
        return True

    client = SpdySession(a, client=True)
    server = SpdySession(b, client=False, on_stream=take or accept)
    tasks = [asyncio.ensure_future(s.run()) for s in (client, server)]
    try:
        async with asyncio.timeout(10):
            yield client, accepted
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def test_the_dictionary_is_the_protocols():
    assert len(DICTIONARY) == 1423
    # A header block begins with zlib's head for a known dictionary and its checksum (draft 3.1, 2.6.10.1; RFC 1950).
    assert Encoder().opened(Opened(1, {"a": "b"}))[18:24] == b"\x78\xbb" + struct.pack("!I", zlib.adler32(DICTIONARY))
    assert zlib.adler32(DICTIONARY) == 0xE3C6A7C2


def test_frames_survive_however_their_bytes_come():
    encoder = Encoder()
    sent = [
        Opened(1, {"streamtype": "error"}),
        Opened(3, {"streamtype": "data", "port": "80", "é": ""}, fin=True),
        Opened(2, {}, reply=True),
        Reset(1, 5),
        Ping(7),
        GoAway(),
    ]
    wire = b"".join(encoder.opened(f) for f in sent[:3]) + reset(1, 5) + ping(7) + goaway(3)
    for size in (1, 2, 7, len(wire)):
        decoder = Decoder()
        assert [f for at in range(0, len(wire), size) for f in decoder.feed(wire[at : at + size])] == sent


def test_a_data_frame_is_handed_on_in_parts():
    wire = data(5, b"x" * 100, fin=True)
    decoder = Decoder()
    parts = [*decoder.feed(wire[:50]), *decoder.feed(wire[50:107]), *decoder.feed(wire[107:])]
    assert [len(p.payload) for p in parts] == [42, 57, 1]
    assert [p.fin for p in parts] == [False, False, True]
    assert list(Decoder().feed(data(5, b"", fin=True))) == [Data(5, b"", True)]


@pytest.mark.parametrize(
    "wire",
    [
        struct.pack("!II", 0x80020001, 10) + b"\0" * 10,
        struct.pack("!II", 0x80030001, CONTROL_LIMIT + 1),
        struct.pack("!II", 0x80030001, 20) + b"\0" * 10 + b"no deflate",
        struct.pack("!II", 0x80030003, 4) + b"\0" * 4,
        struct.pack("!II", 0x80030001, 4) + b"\0" * 4,
    ],
    ids=["version", "length", "headers", "reset", "short"],
)
def test_what_is_no_spdy_ends_the_connection(wire):
    with pytest.raises(SpdyError):
        list(Decoder().feed(wire))


def test_headers_that_grow_beyond_measure_end_the_connection():
    deflate = zlib.compressobj(zdict=DICTIONARY)
    plain = struct.pack("!II", 1, 1) + b"a" + struct.pack("!I", HEADERS_LIMIT) + b"x" * HEADERS_LIMIT
    block = deflate.compress(plain) + deflate.flush(zlib.Z_SYNC_FLUSH)
    with pytest.raises(SpdyError, match="longer than"):
        list(Decoder().feed(struct.pack("!II", 0x80030001, 10 + len(block)) + b"\0\0\0\1" + b"\0" * 6 + block))


def test_garbage_is_refused_or_waited_for_but_never_anything_else():
    rng = random.Random(5)
    for _ in range(2000):
        decoder = Decoder()
        head = rng.choice([b"", b"\x80\x03\x00", struct.pack("!II", 0x80030000 | rng.randrange(12), rng.randrange(64))])
        try:
            for frame in decoder.feed(head + rng.randbytes(rng.randrange(200))):
                assert frame is not None
        except SpdyError:
            continue


async def test_both_ways_each_with_its_own_end():
    async with connected() as (client, accepted):
        stream = await client.open({"StreamType": "data"})
        other = await accepted.get()
        assert other.headers == {"streamtype": "data"}
        await stream.write(b"question")
        await stream.end()
        assert await other.read() == b"question"
        assert await other.read() == b""
        await other.write(b"answer")
        await other.end()
        assert [await stream.read(), await stream.read()] == [b"answer", b""]


async def test_a_reset_is_told_to_both():
    async with connected() as (client, accepted):
        stream = await client.open({})
        other = await accepted.get()
        await other.reset()
        with pytest.raises(StreamLostError, match="reset by the peer"):
            await stream.read()
        with pytest.raises(StreamLostError):
            await other.write(b"x")


async def test_a_stream_that_is_not_taken_is_reset():
    async with connected(take=lambda stream: False) as (client, _):
        stream = await client.open({})
        with pytest.raises(StreamLostError, match="status 3"):
            await stream.read()


async def test_who_opens_too_many_streams_gets_no_more(monkeypatch):
    monkeypatch.setattr(spdy, "STREAM_LIMIT", 2)
    async with connected() as (client, accepted):
        streams = [await client.open({}) for _ in range(3)]
        with pytest.raises(StreamLostError):
            await streams[2].read()
        assert accepted.qsize() == 2


async def test_memory_is_bounded_where_nobody_reads():
    async with connected() as (client, accepted):
        stream = await client.open({})
        writing = asyncio.ensure_future(stream.write(b"x" * (1 << 20)))
        other = await accepted.get()
        await asyncio.sleep(0.1)
        assert not writing.done()
        assert len(other._unread) <= spdy.BACKLOG + spdy.DATA_CHUNK
        got = 0
        while got < 1 << 20:
            got += len(await other.read())
        await writing


async def test_many_streams_hold_no_more_than_one():
    async with connected() as (client, accepted):
        streams = [await client.open({}) for _ in range(20)]
        writing = [asyncio.ensure_future(stream.write(b"x" * spdy.DATA_CHUNK)) for stream in streams]
        others = [await accepted.get() for _ in streams]
        await asyncio.sleep(0.1)
        assert sum(len(other._unread) for other in others) <= spdy.BACKLOG + spdy.DATA_CHUNK
        await others[0].reset()
        await others[1].reset()
        assert {len(await other.read()) for other in others[2:]} == {spdy.DATA_CHUNK}
        await asyncio.gather(*writing, return_exceptions=True)


async def test_a_runtimes_last_words_survive_its_reset_and_a_users_are_nobodys():
    async with connected() as (client, accepted):
        stream = await client.open({})
        other = await accepted.get()
        await other.write(b"status")
        await other.reset()
        await asyncio.sleep(0.05)
        assert await stream.read() == b"status"
        stream = await client.open({})
        other = await accepted.get()
        await stream.write(b"input")
        await stream.reset()
        await asyncio.sleep(0.05)
        with pytest.raises(StreamLostError):
            await other.read()


async def test_the_end_of_the_connection_is_the_end_of_its_streams():
    a, b = pipes(8)
    session = SpdySession(a, client=True)
    running = asyncio.ensure_future(session.run())
    stream = await session.open({})
    await b.write(data(1, b"last words"))
    await b.write(b"")
    await running
    assert await stream.read() == b"last words"
    with pytest.raises(StreamLostError, match="the connection ended"):
        await stream.read()
    with pytest.raises(StreamLostError):
        await session.open({})


async def test_pings_are_answered_even_while_nothing_is_read():
    a, b = pipes(8)
    session = SpdySession(a, client=False, on_stream=lambda stream: True)
    running = asyncio.ensure_future(session.run())
    await b.write(ping(1) + ping(2) + ping(3))
    assert [await b.read(), await b.read()] == [ping(1), ping(3)], "2 is an answer to one of ours"
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_stream_number_of_the_wrong_side_ends_the_connection():
    a, b = pipes(8)
    session = SpdySession(a, client=False, on_stream=lambda stream: True)
    await b.write(Encoder().opened(Opened(2, {})))
    with pytest.raises(SpdyError, match="may not open stream 2"):
        await session.run()
