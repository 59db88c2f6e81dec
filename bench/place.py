"""A server, a machine room of namespaces, and on its node n1 the network part of an agent: each a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from bench.daemon import Server
from bench.nodenet import Plan
from polder.api.errors import ApiError
from polder.api.polder import Port, port_name
from polder.apiserver.authn import NODES
from polder.base.ids import TenantName
from polder.base.ref import Ref
from polder.cni.install import PLUGIN
from polder.system.net.netns import list_netns, remove_netns
from tests.system.lab import Host, Lab
from tests.system.site import Sandbox, Site, until

NODE, TENANT = "n1", "acme"
CONFIG = b'{"cniVersion":"1.0.0","name":"polder","type":"polder-cni"}'
REST = 0.1
"""Seconds before each timed call: what an earlier step left to be done in the background is over by then."""


@dataclass(frozen=True)
class Call:
    """A CNI call, as a runtime makes it: which program, in which node's namespace, with which words."""

    host: Host
    program: Path
    environment: Mapping[str, str]
    config: bytes


def timed(call: Call) -> tuple[float, Any]:
    """Milliseconds from starting the program to its end, and what it answered."""

    def body() -> tuple[float, subprocess.CompletedProcess[bytes]]:
        begun = time.perf_counter()
        done = subprocess.run(
            [call.program], input=call.config, env=call.environment, stdout=subprocess.PIPE, check=False
        )
        return (time.perf_counter() - begun) * 1000, done

    took, done = call.host.run(body)
    if done.returncode:
        raise RuntimeError(f"{call.program.name} {call.environment['CNI_COMMAND']}: {done.stdout.decode()}")
    return took, msgspec.json.decode(done.stdout) if done.stdout.strip() else None


@dataclass
class Place:
    """Use ``open`` and ``close``."""

    server: Server
    lab: Lab
    site: Site
    agent: subprocess.Popen[bytes] | None = None

    @classmethod
    async def open(cls, machines: int = 1) -> Place:
        """All running, with one tenant. Nothing stays behind if it fails."""
        server = Server.prepare()
        lab = Lab(server.state / "room", machines, "bench")
        place = cls(server, lab, Site(server.state, lab))
        try:
            await place._start()
        except BaseException:
            await place.close()
            raise
        return place

    async def _start(self) -> None:
        self.server.start()
        self.lab.start()
        self.site.admin = await self.server.ready()
        await self.site.register(NODE, self.lab.nodes[NODE])
        await self.site.tenant(TENANT)
        await asyncio.to_thread(self._start_agent)

    def _start_agent(self) -> None:
        credentials, folder = self.server.credentials, self.server.state / NODE
        folder.mkdir()
        certificate, key = folder / "node.crt", folder / "node.key"
        credentials.pki.issue_client(f"system:node:{NODE}", [NODES]).write(certificate, key)
        machine = self.lab.nodes[NODE]
        plan = Plan(
            facts=machine.facts,
            netns=str(machine.host.path),
            folder=str(folder),
            server=credentials.cluster.local_server,
            authority=str(credentials.pki.serving_ca),
            certificate=str(certificate),
            key=str(key),
        )
        (folder / "plan").write_bytes(msgspec.json.encode(plan))
        command = [sys.executable, "-m", "bench.nodenet", str(folder / "plan")]
        with (folder / "log").open("ab") as log:
            self.agent = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
        assert self.agent.stdout is not None
        if self.agent.stdout.readline() != b"ready\n":
            raise RuntimeError(f"the node's network did not start:\n{(folder / 'log').read_text()}")

    async def close(self) -> None:
        """Take all down; safe after a half start."""
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0)  # an interrupt under way is taken here: what follows is done all the same
        if self.agent is not None:
            self.agent.terminate()
            self.agent.communicate(timeout=20)
        if hasattr(self.site, "admin"):
            await self.site.admin.close()
        if self.server.process is not None:
            self.server.stop()
        for host in self.site.sandboxes:
            host.close()
        await self.lab.close()
        spaces = self.server.state / NODE / "netns"
        for name in list_netns(spaces):
            remove_netns(spaces / name)
        self.server.remove()

    async def pod(self, name: str, **annotations: str) -> Sandbox:
        """A pod bound to the node, prepared unless ``cold`` is among the annotations, and a sandbox for it."""
        pod = await self.site.pod(TENANT, name, NODE, **annotations)
        if "cold" in annotations:
            await asyncio.sleep(REST)  # the agent sees it
        else:
            await until(lambda: self._prepared(pod.metadata.uid), what=f"pod {name} is prepared")
        return self.site.sandbox(pod)

    async def _prepared(self, uid: str) -> bool:
        try:
            port = await self.site.admin.get(Port, Ref(TenantName(TENANT), "default", port_name(uid, "eth0")))
        except ApiError as error:
            if not error.is_not_found:
                raise
            return False
        return bool(port.spec.mac)

    def call(self, box: Sandbox, command: str) -> Call:
        """A call of Polder's plugin."""
        program = self.server.state / NODE / "bin" / PLUGIN
        return Call(self.lab.nodes[NODE].host, program, box.environment(command), CONFIG)

    async def leave(self, box: Sandbox) -> None:
        """The pod and its sandbox's namespace go."""
        await self.site.delete_pod(TENANT, box.name)
        self.drop(box)

    def drop(self, box: Sandbox) -> None:
        """The sandbox's namespace goes."""
        self.site.sandboxes.remove(box.host)
        box.host.close()
