"""etcd for tests: Debian's server, started by the test on unix sockets or free ports of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from polder.store.etcd_client import EtcdSettings

PACKAGE = "etcd-server"


def binary() -> str:
    """etcd of the PATH, or Debian's taken out of its package, which starts no service on this machine."""
    found = shutil.which("etcd")
    if found:
        return found
    where = Path(__file__).parents[1] / ".venv" / PACKAGE
    extracted = where / "usr" / "bin" / "etcd"
    if not extracted.exists():
        where.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", PACKAGE], cwd=where, check=True, capture_output=True)
        (package,) = where.glob("*.deb")
        subprocess.run(["dpkg-deb", "-x", package, where], check=True, capture_output=True)
        package.unlink()
    return str(extracted)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Etcd:
    """One member that is a cluster of its own. Its data are in memory unless a folder is given."""

    flags: tuple[str, ...] = ()
    port: int = 0
    scheme: str = "http"
    folder: str = field(default_factory=lambda: tempfile.mkdtemp(prefix="etcd", dir="/dev/shm"))
    process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.port}" if self.port else f"unix:{self.folder}/client:1"

    def settings(self, **more: object) -> EtcdSettings:
        return EtcdSettings((self.endpoint,), **more)

    def start(self) -> Etcd:
        client = f"{self.scheme}://127.0.0.1:{self.port}" if self.port else "unix://client:1"
        argv = [
            binary(), "--data-dir", "data", "--listen-client-urls", client, "--advertise-client-urls", client,
            "--listen-peer-urls", "unix://peer:1", "--initial-advertise-peer-urls", "http://127.0.0.1:1",
            "--initial-cluster", "default=http://127.0.0.1:1", "--heartbeat-interval", "10", "--election-timeout", "50",
            "--logger", "zap", "--log-level", "error", *self.flags,
        ]  # fmt: skip
        with open(f"{self.folder}/log", "ab") as log:
            self.process = subprocess.Popen(argv, cwd=self.folder, stdout=log, stderr=log)
        end = time.monotonic() + 20
        while not self._answers():
            assert self.process.poll() is None and time.monotonic() < end, Path(self.folder, "log").read_text()
            time.sleep(0.01)
        return self

    def _answers(self) -> bool:
        kind = socket.AF_INET if self.port else socket.AF_UNIX
        with socket.socket(kind) as probe, contextlib.suppress(OSError):
            probe.connect(("127.0.0.1", self.port) if self.port else f"{self.folder}/client:1")
            return True
        return False

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        for name in ("client:1", "peer:1"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{self.folder}/{name}")

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
