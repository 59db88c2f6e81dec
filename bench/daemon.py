"""A server process of its own, for measuring."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import yaml

from polder.base.errors import PolderError
from polder.client.client import Client
from polder.main.cluster import Cluster
from polder.main.credentials import Credentials


def resident(pid: int) -> int:
    """Resident memory (VmRSS, pages of shared libraries included), in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"process {pid} has no memory")


def free_port() -> int:
    """A TCP port of loopback that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Server:
    """`polder server` on loopback, with an empty store."""

    state: Path
    credentials: Credentials
    process: subprocess.Popen[bytes] | None = None

    @classmethod
    def prepare(cls, etcd: str = "") -> Server:
        """With a file for its store, or with what stands at an etcd's endpoint."""
        state = Path(tempfile.mkdtemp(prefix="polder-bench", dir="/tmp"))
        port = free_port()
        cluster = Cluster(state=state, name="bench", subnet="127.0.0.0/24", port=port)
        credentials = Credentials.of(cluster)
        credentials.write_server_config()
        config = state / "server" / "server.yaml"
        config.write_text(
            config.read_text().replace(f"- 127.0.0.1:{port}\n- 127.0.0.1:{port}\n", f"- 127.0.0.1:{port}\n")
        )
        if etcd:
            document = yaml.safe_load(config.read_text())
            config.write_text(yaml.safe_dump({**document, "store": "", "etcd": {"endpoints": [etcd]}}))
        credentials.admin()
        return cls(state, credentials)

    def start(self) -> None:
        config = str(self.state / "server" / "server.yaml")
        with (self.state / "server" / "log").open("ab") as log:
            command = [sys.executable, "-m", "polder.main", "server", "--config", config]
            self.process = subprocess.Popen(command, stdout=log, stderr=log)

    async def ready(self) -> Client:
        client = self.credentials.admin_client()
        end = time.monotonic() + 30
        while True:
            try:
                await client.raw("GET", "/readyz")
                return client
            except (PolderError, OSError):
                if time.monotonic() > end:
                    raise
                await asyncio.sleep(0.01)

    def stop(self) -> None:
        assert self.process is not None
        self.process.terminate()
        self.process.wait(20)
        self.process = None

    def remove(self) -> None:
        shutil.rmtree(self.state)
