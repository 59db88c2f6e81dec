"""The agent's side of commands and forwarded ports: the real code, against a runtime in memory (tests/streaming.py)."""

from __future__ import annotations

import asyncio
import json

import orjson
import pytest

from polder.client.channels import HALT, OPENED, REQUEST, RESIZE, START, STATUS, STDERR, STDIN, STDOUT, Channels
from polder.client.spdy import SpdyStream
from polder.node import ended, remote, starts
from polder.node.forward import Forwards, netns_of
from polder.node.remote import RemoteCommands
from polder.node.spdydial import connect_here, spdy_connection
from polder.node.starts import Starts
from polder.system.cri_streaming import Waiting, _waiting
from polder.system.cri_types import ContainerInfo, ContainerState, RuntimeFailureError
from tests.streaming import PLACE, End, Runtime, container, runtime, served


def asked(*command: str, stdin: bool = False, tty: bool = False) -> bytes:
    return json.dumps(
        {"container": "c", "command": command, "stdin": stdin, "stdout": True, "stderr": not tty, "tty": tty}
    ).encode()


async def collected(channels: Channels) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    while STATUS not in found:
        message = await channels.receive()
        assert message is not None
        found[message[0]] = found.get(message[0], b"") + message[1]
    return found


async def test_a_command_runs_and_says_how_it_ended() -> None:
    async with runtime(container("u1")) as cri, served(RemoteCommands(cri)) as (channels, _):  # type: ignore[arg-type]
        await channels.send(REQUEST, asked("sh", "-c", "echo out; echo err >&2; exit 3"))
        assert await channels.receive() == (OPENED, b"")
        await channels.send(START, b"")
        found = await collected(channels)
    assert (found[STDOUT], found[STDERR]) == (b"out\n", b"err\n")
    assert orjson.loads(found[STATUS])["details"]["causes"] == [{"reason": "ExitCode", "message": "3"}]


async def test_nothing_runs_before_the_users_side_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "START_LIMIT", 0.1)
    async with runtime(container("u1")) as cri, served(RemoteCommands(cri)) as (channels, _):  # type: ignore[arg-type]
        await channels.send(REQUEST, asked("true"))
        assert await channels.receive() == (OPENED, b"")
        await asyncio.sleep(0.2)
        assert cri.running == 0


async def test_input_ends_when_the_user_ends_it_and_sizes_arrive() -> None:
    async with runtime(container("u1")) as cri, served(RemoteCommands(cri)) as (channels, _):  # type: ignore[arg-type]
        await channels.send(REQUEST, asked("cat", stdin=True, tty=True))
        await channels.receive()
        await channels.send(START, b"")
        await channels.send(RESIZE, b'{"Width": 80, "Height": 24}')
        await channels.send(STDIN, b"x" * 500_000)
        await channels.send(HALT, bytes([STDIN]))
        found = await collected(channels)
        assert cri.sizes == [{"Width": 80, "Height": 24}]
    assert found[STDOUT] == b"x" * 500_000
    assert orjson.loads(found[STATUS])["status"] == "Success"


async def test_the_newest_running_container_is_meant() -> None:
    old = container("u1", attempt=1, state=ContainerState.EXITED)
    async with runtime(old, container("u1"), container("u2", attempt=5)) as cri:
        async with served(RemoteCommands(cri)) as (channels, _):  # type: ignore[arg-type]
            await channels.send(REQUEST, asked("true"))
            await channels.receive()
            await channels.send(START, b"")
            await collected(channels)
        assert [r.container_id for r in cri.waiting.values()] == ["c-0"]


@pytest.mark.parametrize("uid", ["u1", "u2"], ids=["not running", "another pod's"])
async def test_a_container_that_does_not_run_is_refused(uid: str) -> None:
    state = ContainerState.EXITED if uid == "u1" else ContainerState.RUNNING
    one = container(uid, state=state)
    async with runtime(one) as cri, served(RemoteCommands(cri)) as (channels, _):  # type: ignore[arg-type]
        await channels.send(REQUEST, asked("true"))
        assert await channels.receive() == (OPENED, b'container not found ("c")')


async def test_a_runtime_that_refuses_is_a_status() -> None:
    async with runtime(container("u1")) as cri, served(RemoteCommands(cri)) as (channels, _):  # type: ignore[arg-type]
        cri.refusal = "no such token"
        await channels.send(REQUEST, asked("true"))
        await channels.receive()
        await channels.send(START, b"")
        found = await collected(channels)
    assert orjson.loads(found[STATUS])["message"].endswith("error executing command in container: no such token")


async def test_when_the_server_goes_the_connection_to_the_runtime_ends() -> None:
    async with runtime(container("u1")) as cri:
        async with served(RemoteCommands(cri)) as (channels, _):  # type: ignore[arg-type]
            await channels.send(REQUEST, asked("sleep", "60", stdin=True))
            await channels.receive()
            await channels.send(START, b"")
            await cri.busy.wait()
            await channels.stream.end()
        async with asyncio.timeout(5):
            await cri.idle.wait()


async def test_a_command_is_over_with_its_container_though_the_runtime_says_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ended, "LOOK", 0.05)
    async with runtime(container("u1")) as cri:
        async with served(RemoteCommands(cri)) as (channels, _):  # type: ignore[arg-type]
            await channels.send(REQUEST, asked("sh", "-c", "echo last words; exec sleep 600"))
            await channels.receive()
            await channels.send(START, b"")
            assert await channels.receive() == (STDOUT, b"last words\n")
            cri.containers = [container("u1", state=ContainerState.EXITED), container("u1", attempt=1)]
            async with asyncio.timeout(30):
                found = await collected(channels)
        assert remote.OVER in orjson.loads(found[STATUS])["message"]
        async with asyncio.timeout(30):
            await cri.idle.wait()


async def test_a_runtime_that_does_not_answer_ends_no_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ended, "LOOK", 0.01)
    looks = 0

    async def containers(uid: str) -> list[ContainerInfo]:
        nonlocal looks
        looks += 1
        if looks < 10:
            raise RuntimeFailureError("the runtime is away", away=True)
        return []

    async with asyncio.timeout(30):
        await ended.Ended(containers).quiet("c-0", ended.Flow())
    assert looks >= 9 + ended.LOOKS


async def test_what_the_user_has_not_taken_yet_is_not_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ended, "LOOK", 0.01)
    flow, over = ended.Flow(), ended.Ended(Runtime([]).list_containers)
    flow.waiting = 1
    waiting = asyncio.ensure_future(over.quiet("c-0", flow))
    done, _ = await asyncio.wait({waiting}, timeout=0.5)
    assert not done
    flow.waiting = 0
    async with asyncio.timeout(30):
        await waiting


async def test_a_runtime_that_takes_no_input_does_not_hold_up_the_end() -> None:
    over, sent = asyncio.Event(), 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
        await over.wait()
        writer.close()

    async def feed(stream: SpdyStream) -> None:
        nonlocal sent
        while True:
            await stream.write(bytes(65536))
            sent += 1

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    where = Waiting("127.0.0.1", server.sockets[0].getsockname()[1], "/exec/1")
    try:
        async with asyncio.timeout(30):
            async with spdy_connection(where, connect_here) as session:
                feeding = asyncio.ensure_future(feed(await session.open({"streamtype": "stdin"})))
                before, still = -1, 0
                while still < 20:
                    still, before = (still + 1 if sent == before else 0), sent
                    await asyncio.sleep(0.02)
    finally:
        over.set()
    feeding.cancel()
    await asyncio.gather(feeding, return_exceptions=True)
    server.close()


async def test_commands_are_started_a_few_at_a_time_and_each_tenant_has_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starts, "TOGETHER", 3)
    begun: list[str] = []
    done = asyncio.Event()

    async def start(turns: Starts, tenant: str) -> None:
        async with turns.turn(tenant) as give:
            begun.append(tenant)
            if tenant == "quick":
                give()
            await done.wait()

    async def begin(*tenants: str) -> list[str]:
        """Who begins while nobody ends; all of them, where turns end soon."""
        begun.clear()
        done.clear()
        turns = Starts(each=2)
        tasks = [asyncio.ensure_future(start(turns, tenant)) for tenant in tenants]
        for _ in range(50):
            await asyncio.sleep(0)
        async with asyncio.timeout(30):
            while starts.STARTING < 1 and len(begun) < len(tenants):  # noqa: ASYNC110  a list has no event
                await asyncio.sleep(0.01)
        found = sorted(begun)
        done.set()
        await asyncio.gather(*tasks)
        assert not turns._tenants
        return found

    monkeypatch.setattr(starts, "STARTING", 600)
    assert await begin("a", "a", "a", "a", "b", "b") == ["a", "a", "b"]
    assert await begin(*["quick"] * 5) == ["quick"] * 5, "who has begun gives its turn"
    monkeypatch.setattr(starts, "STARTING", 0.02)
    assert await begin("a", "a", "a", "a", "b", "b") == ["a", "a", "a", "a", "b", "b"], "silence counts as started"


async def test_one_tenants_commands_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "TENANT_LIMIT", 0)
    async with runtime() as cri, served(RemoteCommands(cri)) as (_, theirs):  # type: ignore[arg-type]
        await asyncio.sleep(0.05)
        assert "too many" in theirs.reason


@pytest.mark.parametrize("url", ["http://10.0.0.1:80/x", "https://127.0.0.1:80/x", "http://127.0.0.1/x", "", "/x"])
def test_the_runtime_is_believed_only_on_the_loopback(url: str) -> None:
    with pytest.raises(RuntimeFailureError, match="not on this machine's loopback"):
        _waiting(url)


def test_a_sandboxs_network_namespace_stands_in_its_details() -> None:
    spaces = [{"type": "pid"}, {"type": "network", "path": "/run/x"}]
    assert netns_of(json.dumps({"runtimeSpec": {"linux": {"namespaces": spaces}}})) == "/run/x"
    assert netns_of(json.dumps({"runtimeSpec": {"linux": {"namespaces": spaces[:1]}}})) == ""
    assert netns_of("{}") == ""


class Sandboxless(Runtime):
    async def list_sandboxes(self, uid: str) -> list[object]:
        return []


async def test_a_forward_to_a_pod_that_does_not_run_is_refused() -> None:
    theirs = End(asyncio.Queue(), asyncio.Queue())
    forwards = Forwards(Sandboxless())  # type: ignore[arg-type]
    await forwards.serve({"kind": "forward", **PLACE, "port": 80}, theirs)
    assert theirs.reason == "the pod's sandbox is not running"
    await forwards.serve({"kind": "forward", "tenant": "acme", "uid": "", "port": 80}, theirs)
    assert theirs.reason == "forwarding needs tenant, uid and port"
