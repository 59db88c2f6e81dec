"""The agent's side of calls out: what is refused before a socket is made, what is told, and names looked up by plain DNS."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import pytest

from polder.base.errors import PermanentError
from polder.node.dial import TENANT_LIMIT, Dials, check
from polder.node.names import Names, addresses, question

ROUTER = ("acme", "100.64.0.9")


class End:
    """One stream of the server's."""

    def __init__(self) -> None:
        self.said: list[bytes] = []
        self.heard: asyncio.Queue[bytes] = asyncio.Queue()
        self.reason = ""
        self.ended = asyncio.Event()

    async def read(self) -> bytes:
        await self.ended.wait()
        return b""

    async def write(self, data: bytes) -> None:
        self.said.append(data)
        self.heard.put_nowait(data)

    async def end(self) -> None:
        pass

    async def reset(self, reason: str) -> None:
        self.reason = self.reason or reason


class Net:
    """Sockets of the test's own, in place of a router's."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.asked: list[tuple[str, str, int, str]] = []
        self.failure = failure
        self.ends: list[socket.socket] = []

    async def connect(self, space: str, address: str, port: int, source: str) -> socket.socket:
        self.asked.append((space, address, port, source))
        if self.failure is not None:
            raise self.failure
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self.ends.append(theirs)
        return ours


async def no_names(space: str, source: str, name: str) -> list[str]:
    raise OSError("lookup: no such host")


async def refusal(net: Net, header: object, router: Callable[[str], tuple[str, str] | None] = lambda _: ROUTER) -> str:
    end = End()
    await Dials(router, net.connect, no_names).serve(header, end)  # type: ignore[arg-type]
    assert end.said == []
    return end.reason


async def test_a_connection_is_made_in_the_router_from_its_own_address() -> None:
    net, end = Net(), End()
    serving = asyncio.create_task(
        Dials(lambda _: ROUTER, net.connect, no_names).serve(
            {"tenant": "acme", "address": "10.0.0.5", "port": 443}, end
        )
    )
    async with asyncio.timeout(2):
        assert await end.heard.get() == b"\0", "the server is told that it stands, before anything else"
        net.ends[0].send(b"hello")
        assert await end.heard.get() == b"hello"
    assert net.asked == [("acme", "10.0.0.5", 443, "100.64.0.9")]
    net.ends[0].close()
    end.ended.set()
    await asyncio.gather(serving, return_exceptions=True)


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "169.254.1.1", "169.254.169.254", "224.0.0.1", "0.0.0.0", "::1", "fe80::1"]
)
async def test_what_is_no_address_out_there_is_not_dialled(address: str) -> None:
    net = Net()
    said = await refusal(net, {"tenant": "acme", "address": address, "port": 443})
    assert said.startswith(f"dial tcp {address}:443: ")
    assert net.asked == []
    with pytest.raises(OSError):
        check(address)


async def test_refusals_say_why_and_nothing_of_the_node() -> None:
    good = {"tenant": "acme", "address": "10.0.0.5", "port": 443}
    refused = ConnectionRefusedError(111, "Connect call failed")
    assert await refusal(Net(refused), good) == "dial tcp 10.0.0.5:443: connect: connection refused"
    assert "no router" in await refusal(Net(), good, lambda _: None)
    hidden = PermanentError("network namespace /var/lib/polder/nodes/n1/netns/acme: gone")
    assert await refusal(Net(hidden), good) == (
        "dial tcp 10.0.0.5:443: the tenant's router on this node cannot be used now"
    )
    assert "port" in await refusal(Net(), {**good, "port": 70000})
    assert "needs tenant, address and port" in await refusal(Net(), {"tenant": "acme"})
    assert "no such host" in await refusal(Net(), {**good, "address": "nobody.example"})


async def test_one_tenant_has_a_bounded_number_of_connections() -> None:
    held = asyncio.Event()

    async def never(*_: object) -> socket.socket:
        await held.wait()
        raise OSError("over")

    dials, header = Dials(lambda _: ROUTER, never, no_names), {"tenant": "acme", "address": "10.0.0.5", "port": 1}
    running = [asyncio.create_task(dials.serve(header, End())) for _ in range(TENANT_LIMIT)]
    await asyncio.sleep(0)
    end, other = End(), End()
    await dials.serve(header, end)
    assert "too many connections" in end.reason
    more = asyncio.create_task(dials.serve({**header, "tenant": "globex"}, other))
    held.set()
    await asyncio.gather(*running, more)
    assert "over" in other.reason


def test_a_question_and_its_answer() -> None:
    query = question("site.test.")
    assert query[12:] == b"\4site\4test\0\0\1\0\1"
    answer = (
        b"\0\0\x81\x80\0\1\0\2\0\0\0\0" + query[12:]
        + b"\xc0\x0c\0\5\0\1\0\0\0\x09\0\2\xc0\x0c" + b"\xc0\x0c\0\1\0\1\0\0\0\x09\0\4" + bytes([203, 0, 113, 10])
    )  # fmt: skip
    assert addresses(answer) == ["203.0.113.10"]
    for length in range(12, len(answer)):
        try:
            addresses(answer[:length])
        except OSError:
            continue
    for name in ("", "a..b", "-", "x" * 64, "a b", "é", ".".join(["x" * 60] * 5)):
        with pytest.raises(OSError):
            question(name)


async def test_an_answer_to_another_question_is_not_taken() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.setblocking(False)

    async def datagram(*_: object) -> socket.socket:
        return ours

    asking = asyncio.create_task(Names(lambda: ["127.0.0.53", "192.0.2.53"], datagram).lookup("acme", "", "site.test"))
    await asyncio.sleep(0.02)
    query = theirs.recv(512)
    record = b"\xc0\x0c\0\1\0\1\0\0\0\x09\0\4" + bytes([10, 0, 0, 1])
    head = b"\x81\x80\0\1\0\1\0\0\0\0"
    theirs.send(bytes([query[0] ^ 1, query[1]]) + head + query[12:] + record)
    theirs.send(query[:2] + head + question("evil.test")[12:] + record)
    theirs.send(query[:2] + head + query[12:] + record[:-4] + bytes([203, 0, 113, 10]))
    assert await asking == ["203.0.113.10"]
    theirs.close()
