"""What the controllers' tests share: a typed client that can be cut off at a chosen write, a clock moved by hand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from polder.api.core import Node, NodeCondition, NodeStatus, Pod
from polder.api.errors import ApiError
from polder.api.meta import Object, ObjectMeta
from polder.api.podspec import Container, PodSpec
from polder.api.polder import PORT_FINALIZER, Address, AddressSpec, Port, PortSpec, Tenant, address_name, port_name
from polder.apiserver.authn import COMPONENTS
from polder.base.ids import ROOT, TenantName
from polder.base.ref import Ref
from polder.client.client import Client, ClientSettings
from polder.controllers.run import run_controllers
from polder.controllers.settings import ControllerSettings
from polder.system.pki import Pki

ACME = TenantName("acme")
GLOBEX = TenantName("globex")
SETTINGS = ControllerSettings(root_ca="CA", recheck=0.1)


class CutError(Exception):
    """The process ended here."""


class HandClock:
    """Moves by hand; starts at the machine's time."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self.ahead)


class WallClock(HandClock):
    """Only the time of day moves by hand, as where somebody sets a machine's clock."""

    def monotonic(self) -> float:
        return time.monotonic()


class CuttableClient(Client):
    """A real client; ``cut`` ends it before or after its n-th write from now, ``before`` runs before each write."""

    writes = 0
    limit: int | None = None
    after = False
    before: Callable[[str, str], Awaitable[None]] | None = None

    def cut(self, at: int | None, *, after: bool = False) -> None:
        self.writes, self.limit, self.after = 0, at, after

    async def raw(
        self, method: str, path: str, body: bytes | None = None, *, content_type: str = "application/json"
    ) -> bytes:
        if method == "GET":
            return await super().raw(method, path, body, content_type=content_type)
        if self.before is not None:
            await self.before(method, path)
        self.writes += 1
        due = self.limit is not None and self.writes >= self.limit
        if due and not self.after:
            raise CutError
        answer = await super().raw(method, path, body, content_type=content_type)
        if due:
            raise CutError
        return answer


def client_of(running: Any) -> CuttableClient:
    """A component's client."""
    folder: Path = running.folder
    running.leaf("system:polder:controllers", COMPONENTS).write(folder / "k.crt", folder / "k.key")
    settings = ClientSettings(
        f"https://127.0.0.1:{running.port}", running.pki.serving_ca, folder / "k.crt", folder / "k.key"
    )
    return CuttableClient(settings)


@asynccontextmanager
async def controlled(
    running: Any,
    settings: ControllerSettings = SETTINGS,
    tenants: Sequence[TenantName] = (ACME,),
    pki: Pki | None = None,
) -> AsyncIterator[CuttableClient]:
    """All the controllers at work for these tenants, and their client."""
    client = client_of(running)
    for name in tenants:
        await add_tenant(client, name)
    part = asyncio.create_task(run_controllers(client, settings, pki))
    try:
        yield client
    finally:
        part.cancel()
        await asyncio.gather(part, return_exceptions=True)
        await client.close()


async def until(check: Callable[[], Awaitable[Any]], seconds: float = 10.0) -> Any:
    """Waits for something to become true; its value."""
    end = time.monotonic() + seconds
    while True:
        found = await check()
        if found:
            return found
        assert time.monotonic() < end, f"not within {seconds} s"
        await asyncio.sleep(0.02)


async def find(client: Client, kind: type[Any], ref: Ref) -> Any:
    """The object, None if there is none."""
    try:
        return await client.get(kind, ref)
    except ApiError as error:
        if error.is_not_found:
            return None
        raise


async def gone(client: Client, kind: type[Object], ref: Ref) -> bool:
    return await find(client, kind, ref) is None


async def settle(reconcile: Callable[[Any], Awaitable[float | None]], key: Any, tries: int = 50) -> None:
    """Reconciles until nothing is left to do, as a runner does."""
    for _ in range(tries):
        try:
            if await reconcile(key) is None:
                return
        except ApiError as error:
            if not error.is_conflict:
                raise
        await asyncio.sleep(0.01)
    raise AssertionError(f"{key} does not settle")


async def add_tenant(client: Client, name: TenantName) -> Tenant:
    return await client.create(ROOT, Tenant(metadata=ObjectMeta(name=name)))


async def add_node(client: Client, name: str, cpu: str = "4", ready: str = "True") -> Node:
    status = NodeStatus(
        allocatable={"cpu": cpu, "memory": "8Gi", "pods": "110", "ephemeral-storage": "50Gi"},
        conditions=[NodeCondition(type="Ready", status=ready)],
    )
    await client.create(ROOT, Node(metadata=ObjectMeta(name=name), status=status))
    conditions = [{"type": "Ready", "status": ready}]
    patch = {"status": {"allocatable": status.allocatable, "conditions": conditions}}
    return await client.patch(Node, Ref(ROOT, "", name), patch, subresource="status")


def pod(name: str, namespace: str = "default", **spec: Any) -> Pod:
    containers = [Container(name="main", image="toolbox", **spec.pop("container", {}))]
    return Pod(metadata=ObjectMeta(name=name, namespace=namespace), spec=PodSpec(containers=containers, **spec))


async def attach(
    client: Client, made: Pod, tenant: TenantName, node: str, address: str, network: str = "default"
) -> tuple[Ref, Ref]:
    """What an agent does for a pod: Port, then Address in a network of ``kube-system``."""
    name = port_name(made.metadata.uid, "eth0")
    namespace = made.metadata.namespace
    port = Port(
        metadata=ObjectMeta(name=name, namespace=namespace, finalizers=[PORT_FINALIZER]),
        spec=PortSpec(
            network=f"kube-system/{network}",
            node=node,
            pod=made.metadata.name,
            pod_uid=made.metadata.uid,
            addresses=[address],
        ),
    )
    await client.create(tenant, port)
    held = Address(
        metadata=ObjectMeta(name=address_name(network, address), namespace="kube-system"),
        spec=AddressSpec(
            network=f"kube-system/{network}",
            address=address,
            port=f"{namespace}/{name}",
            pod_uid=made.metadata.uid,
            node=node,
        ),
    )
    await client.create(tenant, held)
    return Ref(tenant, namespace, name), Ref(tenant, "kube-system", held.metadata.name)


async def release(client: Client, port: Ref) -> None:
    """What an agent does when the link is gone."""
    await client.patch(Port, port, {"metadata": {"finalizers": None}})
