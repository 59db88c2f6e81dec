"""A thousand pods and a thousand policies in one tenant, on a pipeline over any kernel, and one change at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from polder.api import polder as api
from polder.api.core import Namespace
from polder.api.meta import Object, ObjectMeta
from polder.api.netpolicies import NetworkPolicy
from polder.sdn.apply.linux.failure import ItemFailure
from polder.sdn.kernelport import KernelPort
from polder.sdn.pipeline import Pipeline
from polder.sdn.render.linux.items import Item
from polder.sdn.topology.addressing import link_name, mac_of
from tests.unit.sdn.objects import Objects, ref

Raw = dict[str, Any]


@dataclass
class Watched:
    """A kernel, and what each apply had."""

    kernel: KernelPort
    applied: list[tuple[list[Item], list[Item]]] = field(default_factory=list)

    async def observe(self, expected: Iterable[Item] = ()) -> frozenset[Item]:
        return await self.kernel.observe(expected)

    async def apply(self, remove: Iterable[Item], add: Iterable[Item]) -> list[ItemFailure]:
        self.applied.append((list(remove), list(add)))
        return await self.kernel.apply(*self.applied[-1])

    async def wait_gone(self, items: Iterable[Item]) -> None:
        await self.kernel.wait_gone(items)

    async def meddled(self) -> bool:
        return await self.kernel.meddled()

    async def counts(self, space: str) -> dict[str, list[tuple[int, int]]]:
        return await self.kernel.counts(space)


@dataclass(frozen=True)
class Change:
    """What one change cost: seconds until the kernel had it, items that went and came."""

    seconds: float
    removed: list[Item]
    added: list[Item]

    @property
    def items(self) -> int:
        return len(self.removed) + len(self.added)

    def kinds(self) -> list[str]:
        return sorted(
            f"{sign}{type(one).__name__}" for sign, some in (("-", self.removed), ("+", self.added)) for one in some
        )


class Crowd:
    """Pods ``p0`` … with labels ``app=aN`` (ten pods for each N) and ``tier``, half of them on n1; policies ``n0`` …, of which
    each isolates one app and lets another one in.
    """

    def __init__(self, pipeline: Pipeline, kernel: Watched, size: int, tenant: str = "acme", number: int = 1) -> None:
        self.pipeline, self.kernel, self.size = pipeline, kernel, size
        self.tenant, self.number = tenant, number
        self.make = Objects()
        self.ran = asyncio.Event()
        pipeline.on_run(self.ran.set)

    def put(self, obj: Object, gone: bool = False) -> None:
        self.pipeline.put(type(obj), ref(obj), None if gone else obj)

    def meta(self, namespace: str, name: str, **more: Any) -> ObjectMeta:
        return self.make.counter.meta(self.tenant, namespace, name, **more)

    def pod(self, number: int, labels: dict[str, str] | None = None, sandbox: str = "", netns: str = "") -> api.Port:
        app = {"app": f"a{number % (self.size // 10)}", "tier": "web" if number % 2 else "db"}
        address = f"10.0.{number // 200}.{2 + number % 200}"
        spec = api.PortSpec(
            network="default/a", node=f"n{1 + number % 2}", pod=f"p{number}", pod_uid=f"p{number}", addresses=[address],
            mac=mac_of(address), labels=labels or app,
        )  # fmt: skip
        link = link_name(f"{self.tenant}:default/p{number}", sandbox) if sandbox else ""
        status = api.PortStatus(sandbox=sandbox, netns=netns, link=link)
        return api.Port(metadata=self.meta("default", f"p{number}"), spec=spec, status=status)

    def policy(self, number: int, port: int = 80, **spec: Any) -> NetworkPolicy:
        apps = self.size // 10
        whole: Raw = {
            "podSelector": {"matchLabels": {"app": f"a{number % apps}"}},
            "ingress": [
                {
                    "from": [{"podSelector": {"matchLabels": {"app": f"a{(number + 1 + number // apps) % apps}"}}}],
                    "ports": [{"port": port}],
                }
            ],
            **spec,
        }
        found = msgspec.convert({"metadata": {"name": f"n{number}"}, "spec": whole}, NetworkPolicy)
        return msgspec.structs.replace(found, metadata=self.meta("default", f"n{number}"))

    async def settle(self) -> Change:
        """Until what was put is in the kernel."""
        self.kernel.applied.clear()
        self.ran.clear()
        began = time.perf_counter()
        await self.ran.wait()
        seconds = time.perf_counter() - began
        removed = [one for some, _ in self.kernel.applied for one in some]
        return Change(seconds, removed, [one for _, some in self.kernel.applied for one in some])

    async def fill(self, policies: int | None = None) -> Change:
        """Everything at once; as many policies as pods, unless said otherwise."""
        make = self.make
        self.put(make.node("n1", "192.168.77.1"))
        self.put(make.node("n2", "192.168.77.2"))
        self.put(make.router(self.tenant))
        self.put(make.transit(self.tenant, "n1", f"100.64.0.{self.number}"))
        self.put(make.network(self.tenant, "a", "10.0.0.0/16", 0x1000 + self.number))
        self.put(Namespace(metadata=self.meta("", "default")))
        for number in range(self.size):
            self.put(self.pod(number))
        for number in range(self.size if policies is None else policies):
            self.put(self.policy(number))
        self.pipeline.set_synced()
        return await self.settle()

    async def change(self, obj: Object, gone: bool = False) -> Change:
        self.put(obj, gone)
        return await self.settle()
