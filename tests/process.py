"""A `polder server` of its own in a process, on a port of this machine, as `polder up` would configure it."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from polder.main.config import ServerConfig, dump
from polder.main.config_storage import EtcdConfig, SealingConfig
from polder.main.hostnet import Record, write_record
from polder.system.pki import PLATFORM_ADMINS, ROOT_URN, ensure_pki
from polder.system.pki.sealing import ensure_keyring
from tests.etcd import free_port


@dataclass
class ServerProcess:
    """A state directory with a server; ``environment`` is added to ours. With ``etcd`` it stores there."""

    state: Path
    environment: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None
    etcd: EtcdConfig | None = None

    def __post_init__(self) -> None:
        folder = self.state / "server"
        folder.mkdir(parents=True)
        self.pki = ensure_pki(self.state / "pki")
        ensure_keyring(folder / "keyring")
        self.config = folder / "server.yaml"
        config = ServerConfig(
            listen=[f"127.0.0.1:{self.port}"],
            names=["localhost"],
            store="" if self.etcd else str(folder / "polder.db"),
            sealing=SealingConfig(keyring=str(folder / "keyring")),
            pki=str(self.state / "pki"),
            etcd=self.etcd,
        )
        self.config.write_text(dump(config))
        write_record(self.state / "cluster.json", Record(name="t", subnet="172.31.99.0/24", port=self.port, nodes=1))
        certificate, key = self.state / "pki" / "admin.crt", self.state / "pki" / "admin.key"
        self.pki.issue_client("admin", [PLATFORM_ADMINS], ROOT_URN).write(certificate, key)
        self._context = ssl.create_default_context(cafile=str(self.pki.serving_ca))
        self._context.load_cert_chain(certificate, key)

    def start(self) -> ServerProcess:
        argv = [sys.executable, "-m", "polder.main", "server", "--config", str(self.config)]
        with (self.state / "server" / "log").open("ab") as log:
            self.process = subprocess.Popen(argv, stdout=log, stderr=log, env={**os.environ, **self.environment})
        end = time.monotonic() + 30
        while True:
            assert self.process.poll() is None and time.monotonic() < end, self.log()
            try:
                self.call("GET", "/readyz")
                return self
            except OSError:
                time.sleep(0.05)

    def log(self) -> str:
        return (self.state / "server" / "log").read_text()[-4000:]

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        data = None if body is None else msgspec.json.encode(body)
        headers = {"Content-Type": "application/merge-patch+json" if method == "PATCH" else "application/json"}
        request = urllib.request.Request(
            f"https://127.0.0.1:{self.port}{path}", data=data, method=method, headers=headers
        )
        try:
            with urllib.request.urlopen(request, context=self._context, timeout=10) as answer:
                return answer.status, _decoded(answer.read())
        except urllib.error.HTTPError as refused:
            with refused:
                return refused.code, _decoded(refused.read())

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait(30)


def _decoded(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body.decode()
