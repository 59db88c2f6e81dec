"""One TCP stream and one round trip, on one node and across two: Polder's datapath against a plain bridge and plain VXLAN.

The peers stand in the same room on the same wire: nodes n1 and n2 carry Polder's items by the real renderer, n3 and n4 a bridge
and a VXLAN device with no rule at all. Each pair of runs is taken in random order.
"""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.report import Result, median, ratio_interval
from polder.system.net import requests
from polder.system.net.codec import APPEND, CREATE, Message
from polder.system.net.requests import BridgePort, NewLink
from polder.system.net.sysctl import write_sysctl
from tests.system.lab import UNDERLAY, Host, Lab

TITLE = "Datapath"
PAIRS, SECONDS, TRIPS = 25, 1, 4000
GOAL = 0.9
VNI, MTU, PORT = 16_000_000, 1450, 5201


@dataclass(frozen=True)
class Way:
    """From one pod to another's address."""

    client: Host
    server: Host
    address: str


@dataclass(frozen=True)
class Comparison:
    """The same measurement on two ways."""

    what: str
    peer: str
    ours: Way
    theirs: Way


def _enter(host: Host, cpu: int, *command: str) -> list[str]:
    return ["taskset", "-c", str(cpu), "nsenter", f"--net={host.path}", *command]


def stream(way: Way, _: Path) -> float:
    """Gbit/s of one TCP stream."""
    server = subprocess.Popen(
        _enter(way.server, 1, "iperf3", "-s", "-1", "-p", str(PORT), "--forceflush"), stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        while "listening" not in server.stdout.readline():
            assert server.poll() is None, "iperf3 did not start"
        command = _enter(way.client, 0, "iperf3", "-c", way.address, "-p", str(PORT), "-t", str(SECONDS), "-J")
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
        return float(json.loads(done.stdout)["end"]["sum_received"]["bits_per_second"]) / 1e9
    finally:
        server.kill()
        server.communicate()


def trips(way: Way, program: Path) -> float:
    """Round trips per second of one byte over TCP, as two programs have them: each on its CPU, woken by the packet."""
    return _trips(way, program, 0)


def trips_on_one_cpu(way: Way, program: Path) -> float:
    """The same with both ends on one CPU: nobody is woken, so that what is left is the datapath alone."""
    return _trips(way, program, 1)


def _trips(way: Way, program: Path, cpu: int) -> float:
    server = subprocess.Popen(_enter(way.server, 1, str(program), "server", "5202"), stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        command = _enter(way.client, cpu, str(program), "client", way.address, "5202", str(TRIPS))
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
        return 1e9 / float(done.stdout)
    finally:
        server.kill()
        server.communicate()


@dataclass(frozen=True)
class Measure:
    """What is measured; ``judged`` against the goal."""

    what: str
    unit: str
    take: Callable[[Way, Path], float]
    judged: bool


MEASURES = (
    Measure("one TCP stream", "Gbit/s", stream, True),
    Measure("round trips of one byte over TCP", "/s", trips, True),
    Measure("the same, both ends on one CPU", "/s", trips_on_one_cpu, False),
)


def _plain(lab: Lab, node: str, pods: dict[str, str]) -> None:
    """A bridge with a VXLAN device and pods on a node: what one would type, nothing more."""
    host = lab.nodes[node].host
    host.run(lambda: write_sysctl("net/bridge/bridge-nf-call-iptables", "0"))
    other = f"{UNDERLAY}.{7 - int(node[1:])}"
    host.route.call(requests.add_bridge(NewLink("plain")))
    bridge = host.link("plain").index
    host.route.call(requests.add_vxlan(NewLink("vxplain", mtu=MTU, master=bridge), VNI, lab.nodes[node].facts.underlay))
    vxlan = host.link("vxplain").index
    flood = requests.forwarding(vxlan, "00:00:00:00:00:00", other, add=True)
    host.route.call(Message(flood.kind, CREATE | APPEND, flood.body, flood.about))
    host.route.call(requests.change_link(vxlan, port=BridgePort(False, True, True, False)))
    for name, address in pods.items():
        pod = Host(name, lab.directory / "pods" / name)
        lab.pods[name] = pod
        peer = NewLink("eth0", mtu=MTU, netns=pod.netns.fd, up=False)
        host.route.call(requests.add_veth(NewLink(name, mtu=MTU, master=bridge), peer))
        index = pod.link("eth0").index
        pod.route.call(requests.change_link(index, up=True))
        pod.route.call(requests.address(index, address, 24, add=True))


async def _build(lab: Lab) -> list[Comparison]:
    lab.start()
    lab.wire.run(lambda: write_sysctl("net/bridge/bridge-nf-call-iptables", "0"))
    _plain(lab, "n3", {"one": "10.1.0.1", "two": "10.1.0.2"})
    _plain(lab, "n4", {"far": "10.1.0.3"})
    plain = lab.pods["one"], lab.pods["two"], lab.pods["far"]
    nodes = dict(lab.nodes)
    for name in ("n3", "n4"):
        del lab.nodes[name]  # not Polder's: no items there
    lab.tenant("acme", 7, {"a": "10.0.1.0/24"})
    ours = (
        lab.pod("acme", "one", "n1", "10.0.1.11"),
        lab.pod("acme", "two", "n1", "10.0.1.12"),
        lab.pod("acme", "far", "n2", "10.0.1.13"),
    )
    await lab.deploy()
    await lab.verify()
    lab.nodes.update(nodes)
    return [
        Comparison("one node", "plain bridge", Way(ours[0], ours[1], "10.0.1.12"), Way(plain[0], plain[1], "10.1.0.2")),
        Comparison("two nodes", "plain VXLAN", Way(ours[0], ours[2], "10.0.1.13"), Way(plain[0], plain[2], "10.1.0.3")),
    ]


def _compare(one: Comparison, measure: Callable[[Way, Path], float], program: Path) -> tuple[list[float], list[float]]:
    """Both ways, pair by pair; the first pair warms and does not count."""
    chance = random.Random(3)
    ours, theirs = [], []
    for _ in range(PAIRS + 1):
        first = chance.random() < 0.5
        early = measure(one.ours if first else one.theirs, program)
        late = measure(one.theirs if first else one.ours, program)
        ours.append(early if first else late)
        theirs.append(late if first else early)
    return ours[1:], theirs[1:]


def _result(one: Comparison, kind: Measure, program: Path) -> Result:
    ours, theirs = _compare(one, kind.take, program)
    ratio, low, high = ratio_interval(ours, theirs)
    goal = (f"interval ≥ {GOAL}", low >= GOAL) if kind.judged else ("", None)
    return Result(
        f"{kind.what}, {one.what}, Polder / {one.peer}",
        f"{median(ours):,.1f} / {median(theirs):,.1f} {kind.unit}: ratio {ratio:.2f} ({low:.2f} to {high:.2f}, n={len(ours)})",
        *goal,
    )


async def _measure(directory: Path) -> list[Result]:
    program = directory / "rtt"
    source = Path(__file__).with_name("rtt.c")
    await asyncio.to_thread(subprocess.run, ["cc", "-O2", "-o", str(program), str(source)], check=True)
    lab = Lab(directory, 4, "bench")
    found: list[Result] = []
    try:
        for one in await _build(lab):
            found += [await asyncio.to_thread(_result, one, kind, program) for kind in MEASURES]
    finally:
        await lab.close()
    return found


def results() -> list[Result]:
    directory = Path(tempfile.mkdtemp(prefix="polder-bench-"))
    try:
        return asyncio.run(_measure(directory))
    finally:
        shutil.rmtree(directory, ignore_errors=True)
