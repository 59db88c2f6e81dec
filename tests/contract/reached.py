"""A tenant with pods on a node whose agent is connected; the runtime is tests/streaming.py's, pods' HTTP this process's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from polder.api.meta import Raw
from polder.apiserver.authn import NODES
from polder.client.carry import carry
from polder.client.client import ClientSettings
from polder.client.mux import Stream
from polder.node.pages import NodePages, Page, healthy
from polder.node.remote import RemoteCommands
from polder.node.spdydial import connect_here
from polder.node.stream import ServerStream
from tests.contract.conftest import Api, Running
from tests.streaming import Runtime, container, runtime

PODS = "/api/v1/namespaces/default/pods"


@dataclass
class Node:
    """A connected agent: commands run for real, forwarded ports and logs answer in memory."""

    stream: ServerStream
    cri: Runtime
    ports: dict[int, Any] = field(default_factory=dict)
    opened: list[Raw] = field(default_factory=list)
    web: dict[int, int] = field(default_factory=dict)

    async def forward(self, header: Raw, stream: Stream) -> None:
        self.opened.append(header)
        answer = self.ports.get(header["port"])
        if answer is None:
            await stream.reset(f"dial tcp4 127.0.0.1:{header['port']}: connect: connection refused")
            return
        await stream.write(b"\0")
        await answer(stream)

    async def dial(self, header: Raw, stream: Stream) -> None:
        """Whatever address is dialled, its port leads to a port of this machine, if to any."""
        self.opened.append(header)
        port = self.web.get(header["port"])
        if port is None:
            await stream.reset(f"dial tcp {header['address']}:{header['port']}: connect: connection refused")
            return
        sock = await connect_here("127.0.0.1", port)
        await stream.write(b"\0")
        await carry(sock, stream)

    async def logs(self, header: Raw, stream: Stream) -> None:
        self.opened.append(header)
        await stream.write(b"line\n" * 3)


async def large(query: Mapping[str, str]) -> Page:
    return Page(b"x" * int(query["size"]), "text/x")


async def echo(stream: Stream) -> None:
    while data := await stream.read():
        await stream.write(data)


async def greet(stream: Stream) -> None:
    await stream.write(b"hello from the pod\n")


@asynccontextmanager
async def connected(running: Running, tmp_path: Path) -> AsyncIterator[Node]:
    """A node's agent, connected to the server."""
    certificate, key = tmp_path / "node.crt", tmp_path / "node.key"
    running.leaf("system:node:n1", NODES).write(certificate, key)
    settings = ClientSettings(f"https://127.0.0.1:{running.port}", running.pki.serving_ca, certificate, key)
    async with runtime() as cri:
        found = Node(None, cri, {80: echo, 81: greet})  # type: ignore[arg-type]
        commands = RemoteCommands(cri).serve  # type: ignore[arg-type]
        pages = NodePages({"healthz": healthy, "big": large}).serve
        handlers = {
            "exec": commands,
            "attach": commands,
            "forward": found.forward,
            "logs": found.logs,
            "page": pages,
            "dial": found.dial,
        }
        found.stream = ServerStream(settings, handlers)
        task = asyncio.create_task(found.stream.run())
        async with asyncio.timeout(10):
            await found.stream.wait_connected()
        yield found
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def peopled(running: Running, admin: Api, node: Node) -> Api:
    """A tenant's administrator; its pod ``p`` runs on the node, ``q`` runs nowhere. Tenant ``other`` has a pod ``mine``."""
    for tenant, pods in (("acme", ("p", "q")), ("other", ("mine",))):
        assert (await admin.post("/apis/polder.dev/v1alpha1/tenants", {"metadata": {"name": tenant}})).status == 201
        for name in pods:
            await make(admin, node, f"/tenants/{tenant}{PODS}", name, "" if name == "q" else "n1")
    return await running.tenant_admin("acme")


async def make(admin: Api, node: Node, path: str, name: str, where: str) -> None:
    spec: Raw = {"containers": [{"name": "c", "image": "i"}], "terminationGracePeriodSeconds": 0}
    if where:
        spec["nodeName"] = where
    made = await admin.post(path, {"metadata": {"name": name}, "spec": spec})
    assert made.status == 201, made.body
    node.cri.containers.append(container(made.json["metadata"]["uid"]))
    status = {"phase": "Running", "containerStatuses": [{"name": "c", "state": {"running": {}}, "image": "i", "imageID": "i",
                                                         "ready": True, "restartCount": 0}],
              "podIP": "10.9.8.7", "podIPs": [{"ip": "10.9.8.7"}]}  # fmt: skip
    done = await admin.patch(f"{path}/{name}/status", {"status": status})
    assert done.status == 200, done.body


@asynccontextmanager
async def socket(api: Api, path: str, *protocols: str) -> AsyncIterator[aiohttp.ClientWebSocketResponse[bool]]:
    url = f"https://127.0.0.1:{api.server.port}{api.prefix}{path}"
    async with api.session.ws_connect(url, protocols=protocols, max_msg_size=0) as found:
        yield found


async def messages(found: aiohttp.ClientWebSocketResponse[bool]) -> dict[int, bytes]:
    got: dict[int, bytes] = {}
    async for message in found:
        got[message.data[0]] = got.get(message.data[0], b"") + message.data[1:]
    return got


def query(*command: str, **more: str) -> str:
    return "exec?" + "&".join([*(f"command={part}" for part in command), *(f"{k}={v}" for k, v in more.items())])
