"""A pod that asks for every address there is stops nobody: the kernel's neighbour table is one for all namespaces."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from polder.sdn.topology.types import Network
from polder.system.net import requests
from tests.system.lab import Host, Lab

pytestmark = pytest.mark.system

SWEEP = """
import socket, sys, time
sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) for _ in range(200)]
end = time.time() + float(sys.argv[1])
number = 300
print("sweeping", flush=True)
while time.time() < end:
    number = (number + 1) % 65000
    try:
        sockets[number % 200].sendto(b"sweep", (f"10.0.{number // 256}.{number % 256}", 9))
    except OSError:
        pass
"""


def sweep_and_ask(attacker: Host, victim: Host, address: str, seconds: float = 3.0) -> tuple[int, int]:
    """How many of the victim's questions, each with an empty neighbour table of its own, are answered in a sweep."""
    enter = ["nsenter", f"--net={attacker.path}", sys.executable, "-c", SWEEP, str(seconds)]
    with subprocess.Popen(enter, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"sweeping\n"
        time.sleep(0.5)
        asked = answered = 0
        while process.poll() is None:
            flush = ["nsenter", f"--net={victim.path}", "ip", "neigh", "flush", "all"]
            subprocess.run(flush, stderr=subprocess.DEVNULL, check=False)
            asked += 1
            answered += victim.ping(address, 0.3)
    return asked, answered


@pytest.mark.parametrize("isolated", [False, True])
async def test_a_sweep_of_the_own_network_stops_nobody(lab: Lab, isolated: bool) -> None:
    lab.tenant("acme", 7, {"a": "10.0.0.0/16"})
    lab.tenant("globex", 8, {"a": "10.0.0.0/16"})
    if isolated:
        lab.put(Network("acme", "default/a", 7 * 256 + 1, "10.0.0.0/16"))
    evil = lab.pod("acme", "evil", "n1", "10.0.0.10")
    lab.pod("acme", "friend", "n2", "10.0.0.11")
    victim = lab.pod("globex", "victim", "n1", "10.0.0.10")
    lab.pod("globex", "near", "n1", "10.0.0.11")
    await lab.deploy()
    assert evil.ping("10.0.0.11"), "its own network works"
    asked, answered = sweep_and_ask(evil, victim, "10.0.0.11")
    assert asked > 10
    assert answered == asked


async def test_control_a_pod_that_resolves_addresses_itself_would_stop_others(lab: Lab) -> None:
    """With an address of the network's length, as other plugins give it, the sweep works: so the test above can fail."""
    lab.tenant("acme", 7, {"a": "10.0.0.0/16"})
    evil, victim = lab.pod("acme", "evil", "n1", "10.0.0.10"), lab.pod("acme", "victim", "n1", "10.0.0.12")
    lab.pod("acme", "near", "n1", "10.0.0.11")
    await lab.deploy()
    assert victim.ping("10.0.0.11")
    evil.route.call(requests.address(evil.link("eth0").index, "10.0.0.10", 16, add=True))
    asked, answered = sweep_and_ask(evil, victim, "10.0.0.11", 1.2)
    assert answered < asked
