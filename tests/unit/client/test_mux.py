import asyncio
import struct
from contextlib import asynccontextmanager

import pytest

from polder.client import frames
from polder.client.frames import CHUNK, STREAM_LIMIT, WINDOW, Frame, FrameType, ProtocolError, StreamError, decode
from polder.client.mux import Mux


class Pipe:
    """One end of a pair of message queues in memory; a send waits while the peer has ten unread."""

    def __init__(self, inbox, outbox):
        self.inbox, self.outbox, self.closed = inbox, outbox, None

    async def send(self, data):
        if self.closed is not None:
            raise ConnectionResetError("closed")
        await self.outbox.put(data)

    async def receive(self):
        return None if self.closed is not None else await self.inbox.get()

    async def close(self, reason):
        if self.closed is None:
            self.closed = reason
            for queue in (self.inbox, self.outbox):
                if queue.full():
                    queue.get_nowait()
                queue.put_nowait(None)


def pipes():
    one, two = asyncio.Queue(10), asyncio.Queue(10)
    return Pipe(one, two), Pipe(two, one)


@asynccontextmanager
async def connected(on_agent=None, on_server=None):
    a, s = pipes()
    agent, server = Mux(a, dialled=True, on_open=on_agent), Mux(s, dialled=False, on_open=on_server)
    tasks = [asyncio.ensure_future(m.run()) for m in (agent, server)]
    try:
        async with asyncio.timeout(20):
            yield agent, server
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def against_raw(on_open=None):
    """A server's mux, and the raw end of an agent that may say anything."""
    a, s = pipes()
    mux = Mux(s, dialled=False, on_open=on_open)
    task = asyncio.ensure_future(mux.run())
    try:
        async with asyncio.timeout(10):
            yield a, s, mux, task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def echo(stream):
    while data := await stream.read():
        await stream.write(data)
    await stream.end()


async def read_all(stream):
    parts = []
    while data := await stream.read():
        parts.append(data)
    return b"".join(parts)


async def ignore(stream):
    await asyncio.Event().wait()


async def talk(stream, data):
    _, answer = await asyncio.gather(send(stream, data), read_all(stream))
    return answer


async def send(stream, data):
    await stream.write(data)
    await stream.end()


async def test_bytes_beyond_the_window_come_back_in_order_and_both_ways_open():
    big = bytes(range(256)) * 8192
    seen = []

    async def serve(stream):
        seen.append(stream.header)
        await echo(stream)

    async with connected(on_agent=serve, on_server=serve) as (agent, server):
        up, down = await agent.open({"kind": "api", "tenant": "acme"}), await server.open({"kind": "logs"})
        assert (up.number, down.number) == (1, 2)
        assert await asyncio.gather(talk(up, big), talk(down, big[::-1])) == [big, big[::-1]]
        assert seen == [{"kind": "api", "tenant": "acme"}, {"kind": "logs"}]
        assert agent._streams == server._streams == {}


async def test_many_streams_share_the_connection():
    async with connected(on_server=echo) as (agent, _):
        streams = [await agent.open({"n": n}) for n in range(200)]
        data = [bytes([n]) * (10_000 + n * 1000) for n in range(200)]
        assert await asyncio.gather(*(talk(s, d) for s, d in zip(streams, data, strict=True))) == data


async def test_a_slow_reader_holds_up_its_writer_but_nobody_else():
    taken = asyncio.Event()
    slow_side = []

    async def serve(stream):
        if stream.header["slow"]:
            slow_side.append(stream)
            await taken.wait()
        await echo(stream)

    async with connected(on_server=serve) as (agent, _):
        slow, fast = await agent.open({"slow": True}), await agent.open({"slow": False})
        written = asyncio.ensure_future(slow.write(bytes(WINDOW * 3)))
        assert await talk(fast, b"x" * WINDOW * 4) == b"x" * WINDOW * 4
        assert not written.done()
        assert len(slow_side[0]._unread) == WINDOW
        taken.set()

        async def finish():
            await written
            await slow.end()

        _, answer = await asyncio.gather(finish(), read_all(slow))
        assert answer == bytes(WINDOW * 3)


async def test_half_close():
    async def serve(stream):
        assert await read_all(stream) == b"question"
        await stream.write(b"answer")
        await stream.end()

    async with connected(on_server=serve) as (agent, _):
        stream = await agent.open({})
        await stream.write(b"question")
        await stream.end()
        assert await read_all(stream) == b"answer"
        with pytest.raises(StreamError, match="after its end"):
            await stream.write(b"more")


async def test_a_reset_carries_its_reason_and_ends_both_ways():
    async def serve(stream):
        await stream.write(b"before")
        await stream.reset("no such tenant on this node")

    async with connected(on_server=serve) as (agent, server):
        stream = await agent.open({})
        assert await stream.read() == b"before"
        with pytest.raises(ConnectionError, match="no such tenant on this node"):
            await stream.read()
        with pytest.raises(StreamError):
            await stream.write(b"x")
        assert agent._streams == server._streams == {}
        other = await agent.open({})
        assert await other.read() == b"before"


async def test_data_that_crosses_a_reset_is_no_offence():
    async def serve(stream):
        await stream.reset("go away")

    async with connected(on_server=serve) as (agent, _):
        for _ in range(20):
            stream = await agent.open({})
            try:
                await stream.write(bytes(WINDOW))
                await stream.end()
            except StreamError:
                pass
        assert agent._over is None


async def test_a_failing_handler_resets_its_stream_alone(caplog):
    async def serve(stream):
        raise ValueError("broken")

    async with connected(on_server=serve) as (agent, _):
        stream = await agent.open({})
        with pytest.raises(StreamError, match="failed"):
            await stream.read()
    assert "could not be served" in caplog.text


async def test_when_the_transport_dies_everybody_is_told():
    async with connected(on_server=ignore) as (agent, server):
        reader, writer = await agent.open({}), await agent.open({})
        reading, writing = asyncio.ensure_future(reader.read()), asyncio.ensure_future(writer.write(bytes(WINDOW * 2)))
        await asyncio.sleep(0.02)
        await server._transport.close("cable cut")
        for waiting in (reading, writing):
            with pytest.raises(StreamError):
                await waiting
        await asyncio.sleep(0.02)
        with pytest.raises(StreamError):
            await agent.open({})


async def test_a_cancelled_writer_tears_nothing():
    async with connected(on_server=echo) as (agent, _):
        stream = await agent.open({})
        for _ in range(5):
            writing = asyncio.ensure_future(stream.write(b"y" * CHUNK))
            await asyncio.sleep(0)
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
        other = await agent.open({})
        assert await talk(other, b"z" * 100_000) == b"z" * 100_000


async def test_what_came_before_a_reset_is_read_to_its_end():
    async def handler(stream):
        await stream.write(b"all of it")
        await stream.end()  # and the stream is reset when this returns

    async with connected(on_server=handler) as (agent, _):
        stream = await agent.open({})
        await asyncio.sleep(0.05)
        assert [await stream.read(), await stream.read()] == [b"all of it", b""]


async def test_a_cancelled_opener_leaves_no_stream_behind():
    served, ended = asyncio.Event(), asyncio.Event()

    async def handler(stream):
        served.set()
        try:
            while await stream.read():
                pass
        finally:
            ended.set()

    async with connected(on_server=handler) as (agent, _):
        opening = asyncio.ensure_future(agent.open({"n": 1}))
        await asyncio.sleep(0)
        opening.cancel()
        await asyncio.gather(opening, return_exceptions=True)
        assert opening.cancelled()
        await served.wait()
        await ended.wait()
        assert agent._streams == {}


async def test_with_no_handler_streams_are_refused():
    async with connected() as (agent, _):
        stream = await agent.open({})
        with pytest.raises(StreamError, match="no streams are taken here"):
            await stream.read()


async def test_too_many_streams_are_refused_one_by_one():
    async with against_raw(on_open=ignore) as (raw, _, mux, _):
        for n in range(STREAM_LIMIT + 1):
            await raw.send(frames.opening(2 * n + 1, {}).encode())
        frame = decode(await raw.receive())
        assert (frame.stream, frame.type, frame.payload) == (2 * STREAM_LIMIT + 1, FrameType.RESET, b"too many streams")
        assert len(mux._streams) == STREAM_LIMIT
    async with connected(on_server=ignore) as (agent, _):
        for _ in range(STREAM_LIMIT):
            await agent.open({})
        with pytest.raises(StreamError, match="open already"):
            await agent.open({})


OPEN1 = frames.opening(1, {}).encode()


def raw_frame(stream, kind, payload=b""):
    return struct.pack("!IB", stream, kind) + payload


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([b"abc"], "too short"),
        ([raw_frame(1, 9)], "type 9 is unknown"),
        ([raw_frame(3, 2, b"x")], "never opened"),
        ([raw_frame(2, 2, b"x")], "never opened"),
        ([raw_frame(0, 4)], "never opened"),
        ([raw_frame(2, 1, b"{}")], "may not open stream 2"),
        ([raw_frame(0, 1, b"{}")], "may not open stream 0"),
        ([OPEN1, OPEN1], "may not open stream 1"),
        ([raw_frame(1, 1, b"not json")], "no JSON object"),
        ([raw_frame(1, 1, b"[]")], "no JSON object"),
        ([raw_frame(1, 1, b'"' + b"a" * 20_000 + b'"')], "longer than"),
        ([OPEN1, raw_frame(1, 2, bytes(CHUNK + 1))], "longer than"),
        ([OPEN1, *[raw_frame(1, 2, bytes(CHUNK))] * 5], "beyond its window"),
        ([OPEN1, raw_frame(1, 3, struct.pack("!I", 1))], "granted more than the window"),
        ([OPEN1, raw_frame(1, 3, b"\0")], "WINDOW carries 1 bytes"),
        ([OPEN1, raw_frame(1, 4), raw_frame(1, 2, b"x")], "DATA after END"),
        ([OPEN1, raw_frame(1, 4), raw_frame(1, 4)], "END after END"),
    ],
)
async def test_a_hostile_frame_ends_the_connection_with_its_reason(messages, reason):
    async with against_raw(on_open=ignore) as (raw, transport, _, task):
        for message in messages:
            await raw.send(message)
        with pytest.raises(ProtocolError, match=reason):
            await task
        assert reason in transport.closed


async def test_a_peer_that_takes_no_answers_is_cut_off():
    async with against_raw() as (raw, _, _, task):
        n = 1
        while not task.done():
            if not raw.outbox.full():
                await raw.send(frames.opening(n, {}).encode())
                n += 2
            await asyncio.sleep(0)
        with pytest.raises(ProtocolError, match="does not take"):
            await task
        assert n // 2 < 9000


async def test_unread_memory_of_a_stream_is_bounded_whatever_the_frames_are():
    streams = []

    async def keep(stream):
        streams.append(stream)
        await ignore(stream)

    async with against_raw(on_open=keep) as (raw, _, _, _):
        await raw.send(OPEN1)
        for _ in range(2000):
            await raw.send(raw_frame(1, 2, b"x"))
            await raw.send(raw_frame(1, 2))
        while raw.outbox.qsize():  # noqa: ASYNC110 - the pipe has no event for it
            await asyncio.sleep(0)
        assert bytes(streams[0]._unread) == b"x" * 2000


def test_frames_are_laid_out_as_documented():
    assert Frame(7, FrameType.DATA, b"hi").encode() == b"\0\0\0\7\2hi"
    assert frames.grant(258, 65536).encode() == b"\0\0\1\2\3\0\1\0\0"
    assert frames.opening(1, {"kind": "api"}).encode() == b'\0\0\0\1\1{"kind":"api"}'
