"""A server in a process of its own that one tenant attacks while another works: how long that one waits, what it costs."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from polder.apiserver.authn import TENANT_ADMINS, tenant_urn
from tests.process import ServerProcess

MAPS = "/api/v1/namespaces/default/configmaps"
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class Target:
    """The server, and a credential in each of two tenants."""

    server: ServerProcess
    contexts: dict[str, ssl.SSLContext] = field(default_factory=dict)

    def tenant(self, name: str, folder: Path) -> None:
        status, made = self.server.call("POST", "/apis/polder.dev/v1alpha1/tenants", {"metadata": {"name": name}})
        assert status == 201, made
        leaf = self.server.pki.issue_client("admin", [TENANT_ADMINS], tenant_urn(name, made["metadata"]["uid"]))
        certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
        leaf.write(certificate, key)
        self.contexts[name] = ssl.create_default_context(cafile=str(self.server.pki.serving_ca))
        self.contexts[name].load_cert_chain(certificate, key)

    @property
    def process(self) -> Path:
        assert self.server.process is not None
        return Path("/proc") / str(self.server.process.pid)

    @property
    def memory(self) -> float:
        """Resident MB."""
        pages = int((self.process / "statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    @property
    def connections(self) -> int:
        return sum(1 for _ in (self.process / "fd").iterdir())

    async def dial(self, tenant: str = "evil") -> Connection:
        """A connection of a tenant with small buffers, on which nothing was said."""
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self.server.port))
        return await asyncio.open_connection(
            sock=sock, ssl=self.contexts[tenant], server_hostname="localhost", limit=4096
        )

    @asynccontextmanager
    async def session(self, tenant: str) -> AsyncIterator[aiohttp.ClientSession]:
        connector = aiohttp.TCPConnector(ssl=self.contexts[tenant], limit=0)
        async with aiohttp.ClientSession(f"https://127.0.0.1:{self.server.port}", connector=connector) as found:
            yield found


@dataclass
class Seen:
    """What was measured during an attack."""

    waits: list[float] = field(default_factory=list)
    start: float = 0.0
    peak: float = 0.0

    @property
    def median(self) -> float:
        return statistics.median(self.waits)

    @property
    def grown(self) -> float:
        return self.peak - self.start


async def measure(target: Target, attack: Callable[[Target], Awaitable[None]]) -> Seen:
    """Attacks, while the other tenant reads an object over and over."""
    seen = Seen(start=target.memory)
    over = asyncio.Event()

    async def work() -> None:
        async with target.session("good") as session:
            while not over.is_set() or len(seen.waits) < 5:
                begun = time.monotonic()
                async with session.get(f"/tenants/good{MAPS}/kube-root-ca.crt") as answer:
                    assert answer.status == 200
                    await answer.read()
                seen.waits.append(time.monotonic() - begun)
                seen.peak = max(seen.peak, target.memory)
                await asyncio.sleep(0.02)

    worker = asyncio.create_task(work())
    try:
        await attack(target)
    finally:
        over.set()
        await worker
    return seen
