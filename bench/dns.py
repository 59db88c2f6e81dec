"""DNS: our resolver's process beside Debian's unbound, asked by Debian's dnsperf, both with every answer in memory."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import uvloop

from bench.daemon import free_port
from bench.report import Result, median, ratio_interval
from polder.base.errors import PermanentError
from polder.dns import facts, link
from polder.dns.link import Link, LinkSettings

TITLE = "DNS: answers from memory, latency, changes"
NOTES = """\
UDP on loopback, 200 names of services, dnsperf with 20 clients. unbound has its answers from ours, and in memory before it is
measured. CPU is user and system time of the answering process alone. *Half load* is half of what the same server answered at
most; a second dnsperf notes 1,000 answers a second beside it. *A change* is told to the process as the agent does; asked every
millisecond until it shows."""

TENANT, SERVICES, CLIENTS = "bench", 200, "20"
ROUNDS, SECONDS = 5, 3
PROBES = 1000
RATIO_GOAL, LATENCY_GOAL, CHANGE_GOAL = 0.8, 1.0, 200.0
TICKS = os.sysconf("SC_CLK_TCK")


def name(number: int) -> str:
    return f"service-{number}.default.svc.cluster.local"


def service(number: int, last: int = 0) -> facts.Service:
    address = bytes((10, 96, number, last))
    return facts.Service(TENANT, f"default/service-{number}", (address,), (("http", "tcp", 80),))


def cpu_seconds(pid: int) -> float:
    """User and system time (fields 14 and 15 of /proc/PID/stat)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


class Peers:
    """Both servers. Use ``open`` and ``close``."""

    def __init__(self) -> None:
        for program in ("dnsperf", "unbound"):
            if shutil.which(program) is None:
                raise PermanentError(f"{program} is needed and not found; install Debian's package {program}")
        self.folder = Path(tempfile.mkdtemp(prefix="polder-dns", dir="/tmp"))
        self.ports = {"polder": free_port(), "unbound": free_port()}
        self.questions = self.folder / "questions"
        self.questions.write_text("".join(f"{name(n)} A\n" for n in range(SERVICES)))
        self.settings = LinkSettings(self.folder / "dns")
        self.link = Link(self.settings, self._sockets)
        self.unbound: subprocess.Popen[bytes] | None = None
        self.telling: asyncio.Task[None] | None = None

    async def _sockets(self, _space: str, address: str, _port: int) -> tuple[socket.socket, socket.socket]:
        made = []
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            sock = socket.socket(socket.AF_INET, kind)
            sock.bind((address, self.ports["polder"]))
            made.append(sock)
        made[1].listen(64)
        return made[0], made[1]

    async def open(self) -> None:
        for number in range(SERVICES):
            self.link.put(service(number))
        self.link.put(facts.Namespace(TENANT, "default"))
        self.link.put(facts.Service(TENANT, "default/kubernetes", (b"\x0a\x60\0\1",)))
        self.link.put(facts.Slice(TENANT, "default/kubernetes", "kubernetes"))
        self.telling = asyncio.create_task(self.link.run())
        await self.link.set({"bench": (TENANT, "127.0.0.1")})
        async with asyncio.timeout(20):
            await self.link.told.wait()
        config = self.folder / "unbound.conf"
        config.write_text(
            f"""server:
 interface: 127.0.0.1@{self.ports["unbound"]}
 directory: "{self.folder}"
 username: ""
 chroot: ""
 pidfile: ""
 use-syslog: no
 do-daemonize: no
 num-threads: 1
 module-config: "iterator"
 do-not-query-localhost: no
 cache-min-ttl: 3600
 local-zone: "local." nodefault
remote-control:
 control-enable: no
forward-zone:
 name: "."
 forward-addr: 127.0.0.1@{self.ports["polder"]}
"""
        )
        self.unbound = await asyncio.to_thread(self._start_unbound, config)
        await asyncio.sleep(1)

    def _start_unbound(self, config: Path) -> subprocess.Popen[bytes]:
        with (self.folder / "unbound.log").open("wb") as log:
            return subprocess.Popen(["unbound", "-c", str(config)], stdout=log, stderr=log)

    def pid(self, which: str) -> int:
        found = link.find(self.settings)
        return found.pid if which == "polder" and found else self.unbound.pid if self.unbound else 0

    def ask(self, which: str, *options: str, clients: str = CLIENTS, seconds: int = SECONDS) -> str:
        command = ["dnsperf", "-s", "127.0.0.1", "-p", str(self.ports[which]), "-d", str(self.questions)]
        done = subprocess.run(
            [*command, "-c", clients, "-l", str(seconds), *options], capture_output=True, text=True, check=True
        )
        return done.stdout

    async def close(self) -> None:
        if self.telling is not None:
            self.telling.cancel()
            await asyncio.gather(self.telling, return_exceptions=True)
        await link.stop(self.settings)
        if self.unbound is not None:
            self.unbound.terminate()
            self.unbound.wait(10)
        shutil.rmtree(self.folder)


def figure(text: str, what: str) -> float:
    found = re.search(rf"{what}:\s+([\d.]+)", text)
    if found is None:
        raise PermanentError(f"dnsperf says nothing of {what!r}: {text}")
    return float(found[1])


def most(peers: Peers, which: str) -> tuple[float, float]:
    """Answers a second, and answers for each second of CPU."""
    begun = cpu_seconds(peers.pid(which))
    text = peers.ask(which)
    spent = cpu_seconds(peers.pid(which)) - begun
    if f"NOERROR {int(figure(text, 'Queries completed'))} (100.00%)" not in text:
        raise PermanentError(f"{which} did not answer every question with addresses: {text}")
    return figure(text, "Queries per second"), figure(text, "Queries completed") / spent


async def late(peers: Peers, which: str, rate: float) -> float:
    """Milliseconds within which 99 of 100 answers come at half the rate: of a second dnsperf, that writes down each."""
    load = asyncio.create_task(asyncio.to_thread(peers.ask, which, "-Q", str(int(rate / 2) - PROBES), clients=CLIENTS))
    await asyncio.sleep(0.5)
    text = await asyncio.to_thread(peers.ask, which, "-v", "-Q", str(PROBES), clients="1", seconds=SECONDS - 1)
    await load
    times = sorted(float(line.split()[-1]) for line in text.splitlines() if line.startswith("> NOERROR"))
    return times[int(len(times) * 0.99)] * 1000


async def change(peers: Peers, last: int) -> float:
    """Milliseconds from telling a service's new address to its being answered."""
    asked = _question(name(7))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("127.0.0.1", peers.ports["polder"]))
        sock.setblocking(False)
        begun = time.perf_counter()
        peers.link.put(service(7, last))
        while True:
            sock.send(asked)
            answer = await asyncio.get_running_loop().sock_recv(sock, 512)
            if answer[-1] == last:
                return (time.perf_counter() - begun) * 1000
            await asyncio.sleep(0.001)


def _question(text: str) -> bytes:
    labels = b"".join(bytes((len(part),)) + part.encode() for part in text.split("."))
    return bytes.fromhex("000101000001000000000000") + labels + bytes.fromhex("0000010001")


async def measure() -> Mapping[str, list[float]]:
    found: dict[str, list[float]] = {}
    peers = Peers()
    try:
        await peers.open()
        for which in peers.ports:
            await asyncio.to_thread(peers.ask, which, seconds=1)
        for number in range(ROUNDS):
            for which in peers.ports:
                rate, per_cpu = await asyncio.to_thread(most, peers, which)
                found.setdefault(f"{which} rate", []).append(rate)
                found.setdefault(f"{which} per cpu", []).append(per_cpu)
                found.setdefault(f"{which} late", []).append(await late(peers, which, rate))
            found.setdefault("change", []).append(await change(peers, number + 1))
    finally:
        await peers.close()
    return found


def results() -> list[Result]:
    found = uvloop.run(measure())
    ratio, low, high = ratio_interval(found["polder per cpu"], found["unbound per cpu"])
    ours, theirs = median(found["polder per cpu"]), median(found["unbound per cpu"])
    late_, their_late = median(found["polder late"]), median(found["unbound late"])
    changed = max(found["change"])
    return [
        Result("answers for each second of CPU", f"{ours:,.0f} (unbound {theirs:,.0f})"),
        Result(
            "the same, Polder / unbound",
            f"{ratio:.2f} ({low:.2f} to {high:.2f})",
            f"≥ {RATIO_GOAL}",
            ratio >= RATIO_GOAL,
        ),
        Result(
            "answers a second", f"{median(found['polder rate']):,.0f} (unbound {median(found['unbound rate']):,.0f})"
        ),
        Result(
            "p99 at half load",
            f"{late_:.2f} ms (unbound {their_late:.2f})",
            f"< {LATENCY_GOAL:g} ms",
            late_ < LATENCY_GOAL,
        ),
        Result(
            "a change told is answered, longest", f"{changed:.1f} ms", f"< {CHANGE_GOAL:g} ms", changed < CHANGE_GOAL
        ),
    ]
