"""Commands, attachments and forwarded ports in real containers."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

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


def commands(node: NodeKit, before: Callable[[], Awaitable[None]] | None = None) -> RemoteCommands:
    """The agent's own, but for the place it connects from: containerd is in a namespace of its own here. ``before`` happens
    before each connection.
    """

    async def connect(host: str, port: int) -> socket.socket:
        if before is not None:
            await before()
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


@pytest.mark.parametrize("step", ["before the runtime is asked", "before its connection", "once it runs"])
async def test_a_container_that_ends_on_the_way_ends_its_command(node: NodeKit, step: str) -> None:
    applied = node.cluster.apply(make_pod(f"ending-{step.split()[1]}", "sleep 1000", restartPolicy="Never"))
    pod = await running(node, applied)
    container = (await node.ctx.cri.list_containers(pod.metadata.uid))[0].id

    async def end() -> None:
        await node.ctx.cri.stop_container(container, 0)

    asked = {"container": "main", "command": ["sh", "-c", "echo here; sleep 1000"], "stdin": True, "stdout": True}
    made = commands(node, end if step == "before its connection" else None)
    async with served(made, "exec", pod.metadata.uid) as (channels, _):
        await channels.send(REQUEST, json.dumps({**asked, "stderr": True, "tty": False}).encode())
        assert await channels.receive() == (OPENED, b"")
        if step == "before the runtime is asked":
            await end()
        await channels.send(START, b"")
        status = b""
        while not status:
            message = await channels.receive()
            assert message is not None
            if message[0] == STDOUT and step == "once it runs":
                await end()
            status = message[1] if message[0] == STATUS else b""
    assert json.loads(status)["status"] == "Failure"
    node.cluster.delete(applied, 0)


async def test_a_command_whose_user_leaves_has_read_all_its_input_and_is_not_killed(node: NodeKit, pod: Pod) -> None:
    """As upstream: it sees the end of its input, and runs on if it wants to."""
    script = "trap '' PIPE; cat > /tmp/input; echo end >> /tmp/input; sleep 98762; :"
    asked = {"container": "main", "command": ["sh", "-c", f"echo begun; {script}"], "stdin": True, "stdout": True}
    async with served(commands(node), "exec", pod.metadata.uid) as (channels, _):
        await channels.send(REQUEST, json.dumps({**asked, "stderr": False, "tty": False}).encode())
        assert await channels.receive() == (OPENED, b"")
        await channels.send(START, b"")
        assert await channels.receive() == (STDOUT, b"begun\n")
        await channels.stream.end()

    async def has_ended_its_input() -> bool:
        return (await ran(node, pod, "cat", "/tmp/input"))[STDOUT] == b"end\n"

    await eventually(has_ended_its_input, 30)
    assert "sleep 98762" in (await ran(node, pod, "ps"))[STDOUT].decode()


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
