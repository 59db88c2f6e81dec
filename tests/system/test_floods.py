"""One tenant opens as many connections to the outside as it can: the node's own table of connections is everybody's."""

from __future__ import annotations

import asyncio
import socket
import statistics
import time
from collections.abc import Iterable

import pytest

from polder.sdn.render.linux.rules import EGRESS_BURST, EGRESS_CONNECTIONS, EGRESS_RATE
from polder.system.net.netns import run_inside
from polder.system.net.sysctl import read_sysctl, write_sysctl
from tests.system.lab import OUTSIDE, Host, Lab, waited
from tests.system.test_services import two_tenants

pytestmark = pytest.mark.system
UDP_TIMEOUT = "net/netfilter/nf_conntrack_udp_timeout"
FEW = 500
"""Connections that are not the flood's."""


def flood(pod: Host, numbers: Iterable[int], pause: float = 0.0) -> list[float]:
    """A datagram to each of many ports and addresses outside, each a connection; what each took of this process's time."""
    took: list[float] = []
    with pod.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for number in numbers:
            begun = time.process_time()
            sock.sendto(b"x", (f"198.51.100.{1 + number // 30000}", 1 + number % 30000))
            took.append(time.process_time() - begun)
            time.sleep(pause) if pause else None
    return took


def remember(lab: Lab, seconds: int) -> None:
    """For how long acme's router and the node n1 have an entry of a datagram."""
    with lab.space("n1", "acme") as router:
        for netns in (router, lab.nodes["n1"].host.netns):
            run_inside(netns, lambda: write_sysctl(UDP_TIMEOUT, str(seconds)))


def known(lab: Lab) -> int:
    """Connections in the table of the node n1."""
    return lab.nodes["n1"].host.run(lambda: int(read_sysctl("net/netfilter/nf_conntrack_count") or 0))


def sent(lab: Lab) -> int:
    """Packets that left the node n1."""

    def read() -> int:
        with open("/proc/thread-self/net/dev") as lines:
            return next(int(line.split(":")[1].split()[9]) for line in lines if line.strip().startswith("eth0:"))

    return lab.nodes["n1"].host.run(read)


async def test_a_tenant_fills_neither_the_nodes_table_nor_its_processors(lab: Lab) -> None:
    pods = two_tenants(lab)
    await lab.deploy()
    remember(lab, 600)
    at_first = flood(pods["acme.client"], range(200), 0.004)
    flood(pods["acme.client"], range(200, 3 * EGRESS_CONNECTIONS // 2))
    assert known(lab) <= EGRESS_CONNECTIONS + FEW
    at_last = flood(pods["acme.web"], range(50000, 50200), 0.004)
    assert statistics.median(at_last) < 10 * statistics.median(at_first), "the kernel goes through a part of them alone"
    with lab.outside.tcp_server():
        assert pods["globex.client"].tcp(OUTSIDE, seconds=10) == "outside", "others go on"
    assert known(lab) <= EGRESS_CONNECTIONS + FEW


async def test_connections_that_end_at_once_are_bounded_by_their_rate(lab: Lab) -> None:
    """They are counted no more, but stay in the node's table for a while (TIME_WAIT). Short datagrams stand for them."""
    pods = two_tenants(lab)
    await lab.deploy()
    remember(lab, 1)
    before, begun = sent(lab), time.monotonic()
    for part in range(2):
        flood(pods["acme.client"], range(part * EGRESS_CONNECTIONS, (part + 1) * EGRESS_CONNECTIONS))
        await asyncio.sleep(1.1)
    assert sent(lab) - before <= EGRESS_BURST + EGRESS_RATE * (time.monotonic() - begun) + FEW
    assert waited(lambda: pods["globex.client"].ping(OUTSIDE), 10)
