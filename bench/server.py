"""Server and agent: time from the start to readiness, and memory at rest."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.daemon import Server, free_port, resident
from bench.report import Result, median
from polder.main.cluster import Cluster
from polder.system.process import read_pidfile

TITLE = "Server and agent"
NOTES = """\
The server is started on an empty store. The agents are those of a two-node cluster of `polder up`, each in its node's namespace
with a containerd of its own, and no pod. Resident memory counts the pages of shared libraries in full."""

RUNS = 7
READY_GOAL, MEMORY_GOAL = 2.0, 80.0
REST = 10.0


async def _one(server: Server) -> tuple[float, float]:
    begun = time.monotonic()
    server.start()
    client = await server.ready()
    took = time.monotonic() - begun
    await asyncio.sleep(2)
    assert server.process is not None
    memory = resident(server.process.pid) / 1e6
    await client.close()
    server.stop()
    return took, memory


def _polder(state: Path, *words: str) -> None:
    command = [sys.executable, "-m", "polder.main", "--state", str(state), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"polder {' '.join(words)}: {done.stderr or done.stdout}")


def _pid(folder: Path) -> int:
    known = read_pidfile(folder / "pid")
    assert known is not None
    return known.pid


def _cluster() -> tuple[float, float]:
    """Memory of the server and of an agent, in MB, in a cluster at rest."""
    with tempfile.TemporaryDirectory(prefix="plb", dir="/tmp") as folder:
        own = os.getpid()
        cluster = Cluster(Path(folder) / "s", f"plb{own % 100000}", f"172.30.{100 + own % 100}.0/24", free_port())
        words = ("--name", cluster.name, "--subnet", cluster.subnet, "--port", str(cluster.port))
        try:
            _polder(cluster.state, "up", *words)
            time.sleep(REST)
            agents = [resident(_pid(node.folder)) / 1e6 for node in cluster.all_nodes()]
            return resident(_pid(cluster.server_folder)) / 1e6, max(agents)
        finally:
            _polder(cluster.state, "down", "--wipe")


def results() -> list[Result]:
    server = Server.prepare()
    try:
        runs = [asyncio.run(_one(server)) for _ in range(RUNS)]
    finally:
        server.remove()
    took, memory = median([r[0] for r in runs]), median([r[1] for r in runs])
    serving, agent = _cluster()
    goal = f"≤ {MEMORY_GOAL:.0f} MB"
    return [
        Result("server: start to `/readyz`", f"{took:.2f} s", f"≤ {READY_GOAL:.0f} s", took <= READY_GOAL),
        Result("server: resident memory at rest", f"{memory:.0f} MB", goal, memory <= MEMORY_GOAL),
        Result("the same, with two nodes", f"{serving:.0f} MB", goal, serving <= MEMORY_GOAL),
        Result("agent: resident memory at rest", f"{agent:.0f} MB", goal, agent <= MEMORY_GOAL),
    ]
