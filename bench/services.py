"""Connections through a service among 10, 1,000 and 10,000 of them; beside the rules that kube-proxy publishes for nftables.

Six tenants stand on one node, alike but for their services: three with Polder's, three with a table in the style of kube-proxy
(a map of services to chains, a chain for each service, a chain for each endpoint) in the router's namespace. The service that is
measured is the last of each. Which tenant is asked next is drawn anew for each round.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bench.datapath import Way, stream
from bench.report import Result, median, ratio_interval
from polder.sdn.render.linux.desired import Desired, key_of
from polder.sdn.render.linux.wanted import Wanted
from polder.sdn.topology.vips import Backend, Vip, VipPort
from polder.system.net.netns import run_inside
from polder.system.net.nft import run_nft
from polder.system.net.sysctl import write_sysctl
from tests.system.lab import Host, Lab

TITLE = "Services"
NOTES = (
    "The service that is asked has three backends, which are one pod. A connection is opened, gives a byte and is reset; both "
    "ends on one CPU."
)
SIZES = (10, 1_000, 10_000)
ROUNDS, CONNECTIONS, CHANGES = 25, 400, 30
FLAT = 1.1
PORT, STREAM_PORT = 8080, 5201
POD, SERVER = "10.0.1.10", "10.0.1.11"


@dataclass
class Case:
    """One tenant: how many services it has, and whose rules."""

    style: str
    size: int
    client: Host
    server: Host
    took: list[float] = field(default_factory=list)
    streams: list[float] = field(default_factory=list)

    @property
    def address(self) -> str:
        """That of the last service."""
        return address_of(self.size - 1)


def address_of(number: int) -> str:
    return f"10.96.{1 + number // 200}.{1 + number % 200}"


def vip(tenant: str, number: int, *, backends: int = 3) -> Vip:
    """Backends are the one pod, under several ports of one meaning: the last of its addresses answers."""
    address = address_of(number)
    ready = tuple(Backend(SERVER, PORT, "n1") for _ in range(backends))
    streams = (Backend(SERVER, STREAM_PORT, "n1"),)
    ports = (VipPort("tcp", 80, ready=ready), VipPort("tcp", STREAM_PORT, ready=streams))
    return Vip(tenant, f"default/s{number}", (address,), (address,), ports)


def proxy_style(size: int) -> str:
    """A table as kube-proxy writes it: constant lookups, but chains for everything. All but the last service have one endpoint
    alone, since the kernel takes a time that grows with the square of the chains to load them.
    """
    chains, elements = [], []
    for number in range(size):
        count = 3 if number == size - 1 else 1
        ends = [f"endpoint-{number}-{end}" for end in range(count)]
        chains += [f" chain {end} {{ meta l4proto tcp dnat ip to {SERVER}:{PORT}; }}" for end in ends]
        verdicts = ", ".join(f"{at} : goto {end}" for at, end in enumerate(ends))
        chains.append(f" chain service-{number} {{ numgen random mod {count} vmap {{ {verdicts} }}; }}")
        elements.append(f"{address_of(number)} . tcp . 80 : goto service-{number}")
    body = "\n".join(chains)
    return f"""table ip proxy {{
{body}
 map service-ips {{ type ipv4_addr . inet_proto . inet_service : verdict; elements = {{ {", ".join(elements)} }}; }}
 chain services {{ ip daddr . meta l4proto . th dport vmap @service-ips; }}
 chain nat-prerouting {{ type nat hook prerouting priority dstnat; jump services; }}
}}
"""


async def _build(lab: Lab) -> list[Case]:
    lab.start()
    cases = []
    for number, (style, size) in enumerate(((style, size) for style in ("polder", "proxy") for size in SIZES), 7):
        tenant = f"{style}-{size}"
        lab.tenant(tenant, number, {"a": "10.0.1.0/24"})
        client, server = lab.pod(tenant, "client", "n1", POD), lab.pod(tenant, "server", "n1", SERVER)
        cases.append(Case(style, size, client, server))
        for one in range(size if style == "polder" else 0):
            lab.put(vip(tenant, one))
    await lab.deploy()
    for case in cases:
        if case.style == "proxy":
            with lab.space("n1", f"proxy-{case.size}") as netns:
                run_inside(netns, lambda case=case: run_nft(proxy_style(case.size)))  # type: ignore[misc]
                run_inside(netns, lambda: write_sysctl("net/bridge/bridge-nf-call-iptables", "1"))
                run_inside(netns, lambda: run_nft("delete table inet direct"))
    return cases


def _connect(case: Case, program: Path) -> float:
    """Microseconds of one connection."""
    inside = ["taskset", "-c", "0", "nsenter", f"--net={case.client.path}", str(program), "client"]
    done = subprocess.run(
        [*inside, case.address, "80", str(CONNECTIONS)], capture_output=True, text=True, check=True, timeout=60
    )
    return float(done.stdout) / 1e3


def _serving(case: Case, program: Path) -> subprocess.Popen[str]:
    inside = ["taskset", "-c", "0", "nsenter", f"--net={case.server.path}", str(program), "server", str(PORT)]
    server = subprocess.Popen(inside, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    assert server.stdout.readline() == "ready\n"
    return server


def _rounds(cases: list[Case], program: Path) -> None:
    """The first round warms and does not count."""
    servers = [_serving(case, program) for case in cases]
    chance = random.Random(7)
    try:
        for number in range(ROUNDS + 1):
            for case in chance.sample(cases, len(cases)):
                took = _connect(case, program)
                if number:
                    case.took.append(took)
            ours = [case for case in cases if case.style == "polder"]
            for case in chance.sample(ours, len(ours)) if number % 3 == 1 else ():
                case.streams.append(stream(Way(case.client, case.server, case.address), program))
    finally:
        for server in servers:
            server.kill()
            server.communicate()


async def _changes(lab: Lab, size: int) -> list[float]:
    """Milliseconds from one changed endpoint to the kernel's rules, beside ``size`` services."""
    node, tenant = lab.nodes["n1"], f"polder-{size}"
    desired, wanted = Desired(node.facts), Wanted()
    for part in lab.parts.values():
        desired.put(key_of(part), part)
    for owner in list(desired.keys()):
        wanted.put(owner, desired.render(owner))
    actual = {item.slot: item for item in wanted.all_items()}
    took = []
    for number in range(CHANGES):
        part = _with_backends(vip(tenant, size // 2), 20 + number % 2)
        begun = time.perf_counter()
        owners = desired.put(key_of(part), part)
        slots = {slot for owner in owners for slot in wanted.put(owner, desired.render(owner))}
        difference = wanted.difference(slots, actual)
        failures = await node.kernel.apply(difference.remove, difference.add)
        took.append((time.perf_counter() - begun) * 1e3)
        assert not failures, failures
        actual.update({item.slot: item for item in difference.add})
        for item in difference.remove:
            actual.pop(item.slot, None)
    return took[2:]


def _with_backends(one: Vip, count: int) -> Vip:
    ready = tuple(Backend(f"10.0.1.{20 + number}", PORT, "n1") for number in range(count))
    return Vip(one.tenant, one.name, one.addresses, one.cluster, (VipPort("tcp", 80, ready=ready), one.ports[1]))


def _judge(cases: list[Case], changes: dict[int, list[float]]) -> Iterator[Result]:
    found = {(case.style, case.size): case for case in cases}
    least = found["polder", SIZES[0]]
    for size in SIZES:
        ours, theirs = found["polder", size], found["proxy", size]
        ratio, low, high = ratio_interval(ours.took, theirs.took)
        yield Result(
            f"one connection among {size:,} services, Polder / kube-proxy's style",
            f"{median(ours.took):.1f} / {median(theirs.took):.1f} µs: ratio {ratio:.2f} ({low:.2f} to {high:.2f}, n={ROUNDS})",
        )
    for size in SIZES[1:]:
        yield _flat(f"one connection, {size:,} services / {SIZES[0]}", "µs", found["polder", size].took, least.took)
    for size in SIZES[1:]:
        yield _flat(
            f"one TCP stream, {SIZES[0]} services / {size:,}", "Gbit/s", least.streams, found["polder", size].streams
        )
    for size in SIZES:
        yield Result(
            f"one endpoint changed, until the rules have it, {size:,} services", f"{median(changes[size]):.2f} ms"
        )


def _flat(what: str, unit: str, more: list[float], less: list[float]) -> Result:
    ratio, low, high = ratio_interval(more, less)
    figure = (
        f"{median(more):.1f} / {median(less):.1f} {unit}: ratio {ratio:.2f} ({low:.2f} to {high:.2f}, n={len(more)})"
    )
    return Result(what, figure, f"interval below {FLAT}", high < FLAT)


async def _measure(directory: Path) -> list[Result]:
    program = directory / "connect"
    source = Path(__file__).with_name("connect.c")
    await asyncio.to_thread(subprocess.run, ["cc", "-O2", "-o", str(program), str(source)], check=True)
    lab = Lab(directory, 1, "bench")
    try:
        cases = await _build(lab)
        await asyncio.to_thread(_rounds, cases, program)
        changes = {size: await _changes(lab, size) for size in SIZES}
        return list(_judge(cases, changes))
    finally:
        await lab.close()


def results() -> list[Result]:
    directory = Path(tempfile.mkdtemp(prefix="polder-bench-"))
    try:
        return asyncio.run(_measure(directory))
    finally:
        shutil.rmtree(directory, ignore_errors=True)
