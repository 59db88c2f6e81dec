"""Many tenants, and a tenant with many networks, present on one node: made by the pipeline as the agent makes them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from polder.api import polder as api
from polder.api.meta import Object
from polder.base.ids import ROOT
from polder.base.ref import Ref
from polder.sdn.apply.linux.failure import ItemFailure
from polder.sdn.compile.keys import Concern, Key
from polder.sdn.pipeline import Pipeline
from polder.sdn.render.linux.items import Item
from polder.sdn.saved import SavedTopology
from polder.sdn.topology.addressing import link_name, mac_of
from tests.system.lab import Host, Lab
from tests.system.lab import Node as Machine
from tests.unit.sdn.objects import Objects, ref

VNI = 0x2000


@dataclass
class Counting:
    """A machine's kernel, and how many items each apply had."""

    machine: Machine
    applied: list[int] = field(default_factory=list)

    async def observe(self, expected: Iterable[Item] = ()) -> frozenset[Item]:
        return await self.machine.kernel.observe(expected)

    async def apply(self, remove: Iterable[Item], add: Iterable[Item]) -> list[ItemFailure]:
        gone, made = list(remove), list(add)
        self.applied.append(len(gone) + len(made))
        return await self.machine.kernel.apply(gone, made)

    async def wait_gone(self, items: Iterable[Item]) -> None:
        await self.machine.kernel.wait_gone(items)

    async def meddled(self) -> bool:
        return await self.machine.kernel.meddled()


@dataclass
class Presence:
    """One node's pipeline. Tenants are t0, t1 …, networks a0, a1 … of both families, pods p0, p1 … in each network."""

    folder: Path
    counting: Counting
    pipeline: Pipeline
    make: Objects = field(default_factory=Objects)
    pods: list[Host] = field(default_factory=list)
    networks: int = 0

    def put(self, obj: Object) -> Ref:
        at = ref(obj)
        self.pipeline.put(type(obj), at, obj)
        return at

    async def tenant(self, number: int) -> float:
        """A tenant arrives with its first network and pod; the seconds until the kernel has all of it."""
        name, began = f"t{number}", time.perf_counter()
        router = self.put(self.make.router(name))
        self.put(self.make.transit(name, "n1", f"100.64.{number // 250}.{number % 250 + 1}"))
        await self.pipeline.settle([Key(Concern.ROUTER, router)])
        return time.perf_counter() - began + await self.network(name, 0)

    async def network(self, tenant: str, number: int) -> float:
        """A network of a tenant with a pod; the seconds until the kernel has both."""
        began = time.perf_counter()
        cidrs = [f"10.{number}.0.0/16", f"fd00:{number + 1:x}::/64"]
        network = self.make.network(tenant, f"a{number}", cidrs[0], VNI + self.networks, cidrs=cidrs)
        self.networks += 1
        self.put(network)
        return time.perf_counter() - began + await self.pod(tenant, number, 0)

    async def pod(self, tenant: str, network: int, number: int) -> float:
        """Another pod; the seconds until its port is in the kernel."""
        name = f"{tenant}.a{network}.p{number}"
        host = Host(name, self.folder / "pods" / name)
        self.pods.append(host)
        began = time.perf_counter()
        port = self.make.port(tenant, name, "n1", self.address(network, number), network=f"a{network}")
        addresses = [self.address(network, number), f"fd00:{network + 1:x}::{number + 2:x}"]
        spec = api.PortSpec(
            network=port.spec.network, node="n1", pod=name, pod_uid=name, addresses=addresses, mac=mac_of(addresses[0])
        )
        status = api.PortStatus(sandbox=name, netns=str(host.path), link=link_name(f"{tenant}:default/{name}", name))
        at = self.put(api.Port(metadata=port.metadata, spec=spec, status=status))
        await self.pipeline.settle([Key(Concern.PORT, at)])
        return time.perf_counter() - began

    def address(self, network: int, number: int) -> str:
        return f"10.{network}.0.{number + 2}"


@asynccontextmanager
async def presence(folder: Path) -> AsyncIterator[Presence]:
    """A machine on a wire, taken down afterwards."""
    lab = Lab(folder, 1)
    place: Presence | None = None
    task: asyncio.Task[None] | None = None
    try:
        lab.start()
        machine = lab.nodes["n1"]
        counting = Counting(machine)
        pipeline = Pipeline(counting, machine.facts, SavedTopology(folder / "topology"))
        place = Presence(folder, counting, pipeline)
        place.put(place.make.node("n1", machine.facts.underlay))
        task = asyncio.create_task(pipeline.run())
        pipeline.set_synced()
        await pipeline.settle([Key(Concern.NODE, Ref(ROOT, "", "n1"))], present=False)
        yield place
    finally:
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        for host in place.pods if place is not None else []:
            host.close()
        await lab.close()
