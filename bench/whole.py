"""A whole cluster of its own, made by `polder up`, for measuring; nothing of it stays."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bench.daemon import free_port
from polder.client.client import Client
from polder.main.cluster import Cluster
from polder.main.credentials import Credentials
from polder.main.up import agent_daemon
from polder.node.archive import Image, archive, pause
from polder.system.process import alive, read_pidfile

IMAGE = "pause-bench:1"
"""A program that waits, under a name that pods may use."""
Raw = dict[str, Any]


@dataclass(frozen=True)
class Whole:
    """Use ``running``."""

    cluster: Cluster

    def polder(self, *words: str) -> None:
        """Runs a command of Polder's. Raises RuntimeError."""
        command = [sys.executable, "-m", "polder.main", "--state", str(self.cluster.state), *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"polder {' '.join(words)}: {done.stderr or done.stdout}")

    def client(self) -> Client:
        """The platform administrator's."""
        return Credentials.of(self.cluster).admin_client()

    def runtime(self, node: int) -> Path:
        """The socket of a node's containerd."""
        return self.cluster.node(node).folder / "containerd" / "sock"

    def pid(self, folder: Path) -> int:
        """Whose state is in the folder."""
        known = read_pidfile(folder / "pid")
        assert known is not None
        return known.pid

    def up(self) -> None:
        """Starts it, and brings the image."""
        one = self.cluster
        self.polder(
            "up", "--nodes", str(one.nodes), "--name", one.name, "--subnet", one.subnet, "--port", str(one.port)
        )
        own = pause()
        path = one.state / "pause-bench.tar"
        path.write_bytes(archive(Image(IMAGE, own.entries, own.entrypoint)))
        self.polder("image", "import", str(path))

    def admit(self, pods: int) -> None:
        """Lets each node take so many pods: its agent is started anew with ``maxPods`` in its file."""
        for node in self.cluster.all_nodes():
            path = node.folder / "agent.yaml"
            path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "maxPods": pods}))
            known = read_pidfile(node.folder / "pid")
            if known is not None and alive(known):
                os.kill(known.pid, signal.SIGTERM)
            while known is not None and alive(known):
                time.sleep(0.05)
            agent_daemon(node).ensure()
        asyncio.run(self._until_admitted(str(pods)))

    async def _until_admitted(self, pods: str) -> None:
        client = self.client()
        try:
            async with asyncio.timeout(60):
                while True:
                    found = json.loads(await client.raw("GET", "/api/v1/nodes"))["items"]
                    if all(one["status"].get("allocatable", {}).get("pods") == pods for one in found):
                        return
                    await asyncio.sleep(0.2)
        finally:
            await client.close()


@contextmanager
def running(nodes: int, max_pods: int = 0) -> Iterator[Whole]:
    """A cluster with the image ``IMAGE`` on its nodes, each of which takes ``max_pods``, unless that is 0."""
    own = os.getpid()
    with tempfile.TemporaryDirectory(prefix="plb", dir="/tmp") as folder:
        subnet = f"172.30.{100 + own % 100}.0/24"
        whole = Whole(Cluster(Path(folder) / "s", f"plb{own % 100000}", subnet, free_port(), nodes))
        try:
            whole.up()
            if max_pods:
                whole.admit(max_pods)
            yield whole
        finally:
            whole.polder("down", "--wipe")


def pod(name: str, **spec: Any) -> Raw:
    """A pod that waits, asks for next to nothing, and has the usual token. With a second of grace it is its node that removes
    it from the API, when nothing of it is left there; without any it would go at once.
    """
    requests = {"requests": {"cpu": "1m", "memory": "1Mi"}}
    container = {"name": "c", "image": IMAGE, "imagePullPolicy": "IfNotPresent", "resources": requests}
    wanted = {"containers": [container], "terminationGracePeriodSeconds": 1, **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": wanted}


def encoded(raw: Raw) -> bytes:
    return json.dumps(raw).encode()
