"""The agent's side of commands and forwarded ports: the real code, against a runtime in memory (tests/streaming.py)."""

from __future__ import annotations

import asyncio
import json

import orjson
import pytest

from polder.client.channels import HALT, OPENED, REQUEST, RESIZE, START, STATUS, STDERR, STDIN, STDOUT, Channels
from polder.node import remote, starts
from polder.node.forward import Forwards, netns_of
from polder.node.remote import RemoteCommands
from polder.node.starts import Starts
from polder.system.cri_streaming import _waiting
from polder.system.cri_types import ContainerState, RuntimeFailureError
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


async def test_commands_are_started_a_few_at_a_time_and_each_tenant_has_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starts, "TOGETHER", 3)
    monkeypatch.setattr(starts, "EACH", 2)
    monkeypatch.setattr(starts, "STARTING", 0.2)
    turns, begun, done = Starts(), [], asyncio.Event()

    async def start(tenant: str) -> None:
        async with turns.turn(tenant) as give:
            begun.append(tenant)
            if tenant == "quick":
                give()
            await done.wait()

    tasks = [asyncio.ensure_future(start(tenant)) for tenant in ("a", "a", "a", "a", "b", "b")]
    await asyncio.sleep(0.05)
    assert sorted(begun) == ["a", "a", "b"]
    await asyncio.sleep(0.25)
    assert sorted(begun) == ["a", "a", "a", "a", "b", "b"], "who says nothing counts as started"
    await asyncio.sleep(0.25)
    tasks += [asyncio.ensure_future(start("quick")) for _ in range(5)]
    await asyncio.sleep(0.05)
    assert begun.count("quick") == 5, "who has begun gives its turn"
    done.set()
    await asyncio.gather(*tasks)
    assert not turns._tenants


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
