"""Nodes with the network of the agent, on a real server: everything but a container runtime.

The runtime's part is played by the test: it makes a namespace for each pod and calls the CNI plugin, as containerd does.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from polder.api.core import Pod
from polder.api.meta import ref_of
from polder.api.polder import Address, Network, Port
from polder.apiserver.authn import NODES, PLATFORM_ADMINS, ROOT_URN
from polder.base.errors import RetryableError
from polder.base.ids import EVERY_TENANT, TenantName
from polder.base.ref import Ref
from polder.client.client import Client, ClientSettings
from polder.client.errors import UnreachableError
from polder.client.informer import Informer
from polder.cni.install import PLUGIN, install
from polder.cni.server import CniServer
from polder.main.cni import CniAttachments
from polder.main.config import ServerConfig
from polder.main.server import Server
from polder.node.network import NetworkSettings, NodeNetwork
from polder.store.memory import MemoryStore
from polder.store.protocol import Store
from polder.system.pki import ensure_pki
from tests.system.lab import Host, Lab
from tests.system.lab import Node as Machine


async def until(condition: Callable[[], Any], seconds: float = 15.0, what: str = "") -> Any:
    """Waits for a condition (sync or async) to give something true."""
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        try:
            found = condition()
            if asyncio.iscoroutine(found):
                found = await found
        except UnreachableError:
            found = None  # the server is not up yet
        if found:
            return found
        assert asyncio.get_running_loop().time() < deadline, f"not within {seconds} s: {what or condition}"
        await asyncio.sleep(0.03)


@dataclass
class Sandbox:
    """What a runtime has of a pod: its identity, its container id, its namespace."""

    uid: str
    name: str
    container: str
    host: Host

    def environment(self, command: str, **more: str) -> dict[str, str]:
        return {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": self.container,
            "CNI_NETNS": str(self.host.path),
            "CNI_IFNAME": "eth0",
            "CNI_PATH": "/nowhere",
            "CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAMESPACE=acme/default;K8S_POD_NAME={self.name};K8S_POD_UID={self.uid}",
            **more,
        }


@dataclass
class NodeUnderTest:
    """The agent's network of one machine, which can be stopped and started."""

    site: Site
    name: str
    machine: Machine
    folder: Path
    network: NodeNetwork | None = None
    client: Client | None = None
    server: CniServer | None = None
    task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self.client = self.site.client(f"system:node:{self.name}", NODES)
        pods = Informer(self.client, Pod, EVERY_TENANT, fields=f"spec.nodeName={self.name}")
        settings = NetworkSettings(self.machine.facts, self.folder, linger=0.5)
        self.network = NodeNetwork(settings, self.client, self.machine.kernel, pods)
        socket_path = self.folder / "agent.sock"
        self.server = CniServer(socket_path, CniAttachments(self.network.attachments))
        install(self.folder / "bin", self.folder / "conf", socket_path)
        await self.server.start()
        self.task = asyncio.create_task(self._run(pods))

    async def _run(self, pods: Informer[Pod]) -> None:
        assert self.network is not None
        async with asyncio.TaskGroup() as group:
            group.create_task(pods.run())
            group.create_task(self.network.run())

    async def stop(self) -> None:
        """As a killed agent: the kernel and the files stay."""
        if self.task is None or self.server is None or self.client is None:
            return
        await self.server.close()
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self.client.close()
        self.task = None

    @property
    def live(self) -> NodeNetwork:
        assert self.network is not None
        return self.network

    async def cni(self, environment: dict[str, str], config: dict[str, Any] | bytes | None = None) -> tuple[int, Any]:
        """Calls the plugin as a runtime does: exit code and what it printed."""
        body = (
            config
            if isinstance(config, bytes)
            else json.dumps(config or {"cniVersion": "1.0.0", "name": "polder"}).encode()
        )
        plugin = str(self.folder / "bin" / PLUGIN)
        with TemporaryFile() as stdin:  # a pipe breaks where the plugin ends before it has read
            stdin.write(body)
            stdin.seek(0)
            process = await asyncio.create_subprocess_exec(
                plugin, stdin=stdin, stdout=asyncio.subprocess.PIPE, env=environment
            )
        output, _ = await process.communicate()
        return process.returncode or 0, json.loads(output) if output.strip() else None

    async def add(self, sandbox: Sandbox) -> Any:
        code, answer = await self.cni(sandbox.environment("ADD"))
        assert code == 0, answer
        return answer

    async def delete(self, sandbox: Sandbox, **more: str) -> None:
        code, answer = await self.cni(sandbox.environment("DEL", **more))
        assert code == 0, answer


@dataclass
class Site:
    """A server, and the lab's machines as nodes n1, n2."""

    folder: Path
    lab: Lab
    store: Store = field(default_factory=MemoryStore)
    nodes: dict[str, NodeUnderTest] = field(default_factory=dict)
    sandboxes: list[Host] = field(default_factory=list)
    clients: list[Client] = field(default_factory=list)
    serving: asyncio.Task[None] | None = None
    numbers: int = 0

    async def start(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.pki = ensure_pki(self.folder / "pki")
        await self.serve()
        self.admin = self.client("admin", PLATFORM_ADMINS, ROOT_URN)
        self.clients.append(self.admin)
        for name, machine in self.lab.nodes.items():
            await until(lambda name=name, machine=machine: self.register(name, machine), what="the server answers")
            self.nodes[name] = NodeUnderTest(self, name, machine, self.folder / name)
            await self.nodes[name].start()

    async def serve(self) -> None:
        config = ServerConfig(listen=[f"127.0.0.1:{self.port}"], store="", pki=str(self.folder / "pki"))
        self.server = Server(config, self.store)
        self.serving = asyncio.create_task(self.server.run())

    async def stop_serving(self) -> None:
        assert self.serving is not None
        self.serving.cancel()
        await asyncio.gather(self.serving, return_exceptions=True)

    async def register(self, name: str, machine: Machine) -> bool:
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}
        status = {"status": {"addresses": [{"type": "InternalIP", "address": machine.facts.underlay}]}}
        await self.admin.raw("POST", "/api/v1/nodes", json.dumps(node).encode())
        path, body = f"/api/v1/nodes/{name}/status", json.dumps(status).encode()
        await self.admin.raw("PATCH", path, body, content_type="application/merge-patch+json")
        return True

    def client(self, name: str, group: str, uri: str = "") -> Client:
        stem = self.folder / f"{name.replace(':', '-')}"
        certificate, key = stem.with_suffix(".crt"), stem.with_suffix(".key")
        self.pki.issue_client(name, [group], uri).write(certificate, key)
        return Client(
            ClientSettings(f"https://127.0.0.1:{self.port}", self.pki.serving_ca, certificate, key, timeout=5.0)
        )

    async def tenant(self, name: str, *pod_cidrs: str) -> None:
        body = {
            "apiVersion": "polder.dev/v1alpha1",
            "kind": "Tenant",
            "metadata": {"name": name},
            "spec": {"podCidrs": list(pod_cidrs) or ["10.0.0.0/16"]},
        }
        await self.admin.raw("POST", "/apis/polder.dev/v1alpha1/tenants", json.dumps(body).encode())

    async def create_network(self, tenant: str, name: str, *cidrs: str, **spec: str) -> None:
        body = {
            "apiVersion": "polder.dev/v1alpha1",
            "kind": "Network",
            "metadata": {"name": name},
            "spec": {"cidrs": list(cidrs), **spec},
        }
        path = f"/tenants/{tenant}/apis/polder.dev/v1alpha1/namespaces/default/networks"
        await self.admin.raw("POST", path, json.dumps(body).encode())

    async def pod(self, tenant: str, name: str, node: str, *, host: bool = False, **annotations: str) -> Pod:
        """A pod bound to a node; ``host``: on the node's own network."""
        meta: dict[str, Any] = {"name": name, "annotations": {f"polder.dev/{k}": v for k, v in annotations.items()}}
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": meta,
            "spec": {"containers": [{"name": "c", "image": "toolbox"}], "hostNetwork": host},
        }
        path = f"/tenants/{tenant}/api/v1/namespaces/default/pods"
        await self.admin.raw("POST", path, json.dumps(body).encode())
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": name},
            "target": {"kind": "Node", "name": node},
        }
        await self.admin.raw("POST", f"{path}/{name}/binding", json.dumps(binding).encode())
        return await self.admin.get(Pod, Ref(TenantName(tenant), "default", name))

    async def prepared(self, tenant: str, name: str, node: str, **annotations: str) -> Sandbox:
        pod = await self.pod(tenant, name, node, **annotations)
        await until(lambda: self.prepare(pod, node), what=f"pod {name} is prepared")
        return self.sandbox(pod)

    async def prepare(self, pod: Pod, node: str) -> bool:
        try:
            await self.nodes[node].live.prepare(pod)
        except RetryableError:
            return False
        return True

    def sandbox(self, pod: Pod) -> Sandbox:
        """A new sandbox of a pod."""
        return self._sandbox(pod.metadata.uid, pod.metadata.name)

    def again(self, old: Sandbox) -> Sandbox:
        """Another sandbox of the same pod."""
        return self._sandbox(old.uid, old.name)

    def _sandbox(self, uid: str, name: str) -> Sandbox:
        self.numbers += 1
        container = f"sb{os.getpid()}x{self.numbers}"
        host = Host(container, self.folder / "sandboxes" / container)
        self.sandboxes.append(host)
        return Sandbox(uid, name, container, host)

    async def delete_pod(self, tenant: str, name: str) -> None:
        await self.admin.delete(Pod, Ref(TenantName(tenant), "default", name), grace=0)

    async def ports(self, tenant: str) -> list[Port]:
        return (await self.admin.list(Port, TenantName(tenant))).items

    async def addresses(self, tenant: str) -> list[str]:
        return sorted(ref_of(a).name for a in (await self.admin.list(Address, TenantName(tenant))).items)

    async def network(self, tenant: str, namespace: str, name: str) -> Network:
        return await self.admin.get(Network, Ref(TenantName(tenant), namespace, name))

    async def close(self) -> None:
        for node in self.nodes.values():
            await node.stop()
        for client in self.clients:
            await client.close()
        if self.serving is not None:
            await self.stop_serving()
        for host in self.sandboxes:
            host.close()
