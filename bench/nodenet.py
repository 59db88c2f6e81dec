"""A node's agent without a container runtime: CNI socket, network and kernel, composed as `polder agent` does.

``python -m bench.nodenet PLAN`` prints ``ready`` once it has seen the API. As the agent's pod workers do, it makes the network
ready for each pod that it sees, but not for those with the annotation ``COLD``: of these it hears by the CNI call.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import msgspec

from polder.api.core import Pod
from polder.api.discovery import Lease, LeaseSpec
from polder.api.errors import ApiError
from polder.api.meta import ObjectMeta
from polder.base.clock import SystemClock, micro_stamp
from polder.base.ids import EVERY_TENANT, ROOT
from polder.base.ref import Ref
from polder.client.client import Client, ClientSettings
from polder.client.informer import Informer
from polder.cni.install import install
from polder.cni.server import CniServer
from polder.loop.runner import Runner
from polder.main.cni import CniAttachments
from polder.main.daemon import run
from polder.main.logs import set_up
from polder.node.network import NetworkSettings, NodeNetwork
from polder.node.status import LEASE_EVERY, LEASE_NAMESPACE, LEASE_SECONDS
from polder.sdn.apply.linux.kernel import Kernel
from polder.sdn.apply.linux.spaces import KernelSettings
from polder.sdn.render.linux.facts import NodeFacts

COLD = "polder.dev/cold"
WORKERS = 8


class Plan(msgspec.Struct, frozen=True):
    """Who the node is, where its namespace and its files are, and how it reaches the server."""

    facts: NodeFacts
    netns: str
    folder: str
    server: str
    authority: str
    certificate: str
    key: str


class NodeNet:
    """The composition."""

    def __init__(self, plan: Plan) -> None:
        folder = Path(plan.folder)
        self._name = plan.facts.name
        self._client = Client(ClientSettings(plan.server, plan.authority, plan.certificate, plan.key))
        self._pods: Informer[Pod] = Informer(self._client, Pod, EVERY_TENANT, fields=f"spec.nodeName={self._name}")
        self._kernel = Kernel(KernelSettings(folder / "netns", plan.facts.prefix, Path(plan.netns)))
        self._network = NodeNetwork(NetworkSettings(plan.facts, folder), self._client, self._kernel, self._pods)
        self._cni = CniServer(folder / "agent.sock", CniAttachments(self._network.attachments))
        self._prepared: Runner[Ref] = Runner("pods", self._prepare, workers=WORKERS)
        self._pods.on_change(lambda ref, _, __: self._prepared.add(ref))
        install(folder / "bin", folder / "conf", folder / "agent.sock")

    async def _prepare(self, ref: Ref) -> None:
        pod = self._pods.get(ref)
        if pod is not None and pod.metadata.deletion_timestamp is None and COLD not in (pod.metadata.annotations or {}):
            await self._network.prepare(pod)

    async def _keep_lease(self) -> None:
        clock = SystemClock()
        while True:
            now = micro_stamp(clock.now())
            spec = LeaseSpec(holder_identity=self._name, lease_duration_seconds=LEASE_SECONDS, renew_time=now)
            try:
                await self._client.patch(Lease, Ref(ROOT, LEASE_NAMESPACE, self._name), {"spec": spec})
            except ApiError as error:
                if not error.is_not_found:
                    raise
                meta = ObjectMeta(name=self._name, namespace=LEASE_NAMESPACE)
                await self._client.create(ROOT, Lease(metadata=meta, spec=spec))
            await asyncio.sleep(LEASE_EVERY)

    async def _announce(self) -> None:
        while not self._network.pipeline.synced:  # noqa: ASYNC110 - once, at the start
            await asyncio.sleep(0.02)
        print("ready", flush=True)

    async def run(self) -> None:
        """Until cancelled."""
        await self._cni.start()
        try:
            async with asyncio.TaskGroup() as group:
                for part in (self._pods, self._network, self._prepared):
                    group.create_task(part.run())
                group.create_task(self._keep_lease())
                group.create_task(self._announce())
        finally:
            await self._cni.close()
            await self._kernel.close()
            await self._client.close()


async def main(plan: Plan) -> None:
    await NodeNet(plan).run()


if __name__ == "__main__":
    set_up("text")
    given = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Plan)
    run(lambda: main(given))
