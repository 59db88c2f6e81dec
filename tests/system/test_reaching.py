"""Commands, attachments and forwarded ports in real containers."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from polder.api.core import Pod
from polder.client.channels import HALT, OPENED, REQUEST, RESIZE, START, STATUS, STDERR, STDIN, STDOUT
from polder.node.forward import Forwards
from polder.node.remote import RemoteCommands
from polder.system.net.netns import open_netns
from polder.system.net.sockets import unconnected_socket
from tests.streaming import PLACE, End, served
from tests.system.pods_kit import NodeKit, eventually, make_pod, node_kit

pytestmark = [pytest.mark.system, pytest.mark.asyncio(loop_scope="module")]

SERVER = "echo from the pod > /tmp/index.html && exec httpd -f -p 127.0.0.1:8080 -h /tmp"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node() -> AsyncIterator[NodeKit]:
    async with node_kit() as kit:
        yield kit


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pod(node: NodeKit) -> AsyncIterator[Pod]:
    applied = node.cluster.apply(make_pod("reached", "echo begun; cat; sleep 1000", container={"stdin": True}))
    yield await running(node, applied)
    node.cluster.delete(applied)
    await node.cluster.until(applied, lambda p: p is None)


async def running(node: NodeKit, applied: Pod) -> Pod:
    found = await node.cluster.until(applied, lambda p: p is not None and p.status.phase == "Running")
    assert found is not None
    return found


def commands(node: NodeKit) -> RemoteCommands:
    """The agent's own, but for the place it connects from: containerd is in a namespace of its own here."""

    async def connect(host: str, port: int) -> socket.socket:
        with open_netns(f"/run/netns/{node.netns}") as space:
            sock = unconnected_socket(space, host)
        await asyncio.get_running_loop().sock_connect(sock, (host, port))
        return sock

    return RemoteCommands(node.ctx.cri, connect)


async def ran(node: NodeKit, pod: Pod, *command: str, kind: str = "exec", **more: object) -> dict[int, bytes]:
    """What a command printed, by channel; ``said`` is its input."""
    said, tty = more.get("said"), bool(more.get("tty"))
    asked = {
        "container": "main",
        "command": command,
        "stdin": said is not None,
        "stdout": True,
        "stderr": not tty,
        "tty": tty,
    }
    found: dict[int, bytes] = {}
    async with served(commands(node), kind, pod.metadata.uid) as (channels, _):
        await channels.send(REQUEST, json.dumps(asked).encode())
        assert await channels.receive() == (OPENED, b"")
        await channels.send(START, b"")
        if tty:
            await channels.send(RESIZE, b'{"Width": 97, "Height": 31}')
        if isinstance(said, bytes):
            await channels.send(STDIN, said)
            await channels.send(HALT, bytes([STDIN]))
        while STATUS not in found:
            message = await channels.receive()
            assert message is not None
            found[message[0]] = found.get(message[0], b"") + message[1]
    return found


async def test_a_command_ends_with_its_code(node: NodeKit, pod: Pod) -> None:
    found = await ran(node, pod, "sh", "-c", "echo out; echo err >&2; exit 9")
    assert (found[STDOUT], found[STDERR]) == (b"out\n", b"err\n")
    status = json.loads(found[STATUS])
    assert (status["reason"], status["details"]["causes"]) == (
        "NonZeroExitCode", [{"reason": "ExitCode", "message": "9"}],
    )  # fmt: skip


async def test_input_is_half_closed_and_megabytes_pass(node: NodeKit, pod: Pod) -> None:
    sent = bytes(range(256)) * 20_000
    found = await ran(node, pod, "cat", said=sent)
    assert found[STDOUT] == sent
    assert json.loads(found[STATUS])["status"] == "Success"


async def test_a_terminal_has_the_size_that_was_sent(node: NodeKit, pod: Pod) -> None:
    found = await ran(node, pod, "sh", "-c", "sleep 1; tty; stty size", tty=True)
    assert b"/dev/pts/" in found[STDOUT]
    assert b"31 97" in found[STDOUT]


async def test_what_cannot_run_is_told(node: NodeKit, pod: Pod) -> None:
    found = await ran(node, pod, "no-such-command")
    assert "executable file not found" in json.loads(found[STATUS])["message"]


async def test_a_containers_own_process_is_attached_to(node: NodeKit, pod: Pod) -> None:
    async with served(commands(node), "attach", pod.metadata.uid) as (channels, _):
        asked = {"container": "main", "stdin": True, "stdout": True, "stderr": True, "tty": False}
        await channels.send(REQUEST, json.dumps(asked).encode())
        assert await channels.receive() == (OPENED, b"")
        await channels.send(START, b"")
        await channels.send(STDIN, b"hello\n")
        assert await channels.receive() == (STDOUT, b"hello\n")
        await channels.stream.end()


async def test_ports_are_reached_inside_the_pods_network(node: NodeKit) -> None:
    applied = node.cluster.apply(make_pod("listening", SERVER))
    pod = await running(node, applied)
    forwards = Forwards(node.ctx.cri)

    async def forward(port: int) -> tuple[bytes, str]:
        """What comes back from a port of the pod, and why not."""
        one: asyncio.Queue[bytes | None] = asyncio.Queue()
        two: asyncio.Queue[bytes | None] = asyncio.Queue()
        mine, theirs = End(one, two), End(two, one)
        await mine.write(b"GET / HTTP/1.0\r\n\r\n")
        await mine.end()
        async with asyncio.timeout(10):
            await forwards.serve({**PLACE, "uid": pod.metadata.uid, "port": port}, theirs)
        return b"".join(part for part in (one.get_nowait() for _ in range(one.qsize())) if part), theirs.reason

    async def listens() -> bool:
        return not (await forward(8080))[1]

    await eventually(listens)
    got, _ = await forward(8080)
    assert got.startswith(b"\0HTTP/1.")
    assert got.endswith(b"\r\n\r\nfrom the pod\n")
    got, reason = await forward(9)
    assert not got
    assert reason.startswith("failed to connect to localhost:9 inside namespace ")
    assert "IPv4: dial tcp4 127.0.0.1:9: connect: connection refused" in reason
    assert "IPv6 dial tcp6 [::1]:9: connect: " in reason
    node.cluster.delete(applied)
    await node.cluster.until(applied, lambda p: p is None)
