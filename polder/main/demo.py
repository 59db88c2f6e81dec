"""`polder demo`."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack

from polder.api.core import Pod
from polder.base.ids import ROOT, TenantName
from polder.base.ref import Ref
from polder.cli.demo import Scene, ensure_tenants, run
from polder.cli.demo_objects import TENANTS, Place
from polder.cli.output import Output
from polder.client.client import Client
from polder.main.cluster import Cluster
from polder.main.credentials import Credentials
from polder.main.hostnet import cluster_of
from polder.main.outside import Outside
from polder.system.cri import CriClient

AT_ONCE = 16
"""Commands in pods at one time: more only make a small machine slow enough to miss their time limits."""


class PodShell:
    """Runs commands in the demo's containers through the nodes' runtimes on this machine."""

    def __init__(self, cluster: Cluster, client: Client) -> None:
        self._client = client
        self._runtimes = {n.name: CriClient(n.folder / "containerd" / "sock") for n in cluster.all_nodes()}
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._containers: dict[Place, str] = {}

    async def __call__(self, place: Place, argv: Sequence[str]) -> str:
        """What the command printed, empty if it failed without a word."""
        async with self._turns:
            done = await self._runtimes[place.node].exec_sync(await self._container(place), list(argv), 20)
        return done.stdout.decode(errors="replace")

    async def _container(self, place: Place) -> str:
        if place not in self._containers:
            pod = await self._client.get(Pod, Ref(place.tenant, "default", place.name))
            statuses = pod.status.container_statuses or []
            self._containers[place] = statuses[0].container_id.removeprefix("containerd://")
        return self._containers[place]

    async def close(self) -> None:
        """Ends the connections."""
        for runtime in self._runtimes.values():
            await runtime.close()


async def play(cluster: Cluster, out: Output, *, json: bool) -> bool:
    """Prepares the scene and runs the demo in it."""
    Outside(cluster).ensure()
    credentials = Credentials.of(cluster)
    async with AsyncExitStack() as ends:
        platform = credentials.admin_client()
        ends.push_async_callback(platform.close)
        await ensure_tenants(platform)
        admins = {}
        for name in TENANTS:
            admins[name] = await _admin(credentials, platform, name)
            ends.push_async_callback(admins[name].close)
        shell = PodShell(cluster, platform)
        ends.push_async_callback(shell.close)
        hosts = {node.name: (node.address, 22) for node in cluster.all_nodes()}
        hosts["API server"] = (cluster.host_address, cluster.port)
        scene = Scene(
            platform=platform,
            admins=admins,
            nodes=[node.name for node in cluster.all_nodes()],
            hosts=hosts,
            outside=cluster.outside_address,
            execute=shell,
        )
        return await run(scene, out, json=json)


async def _admin(credentials: Credentials, platform: Client, tenant: TenantName) -> Client:
    assert tenant != ROOT
    folder = credentials.cluster.state / "demo"
    certificate, key = folder / f"{tenant}.crt", folder / f"{tenant}.key"
    (await credentials.tenant_admin(platform, tenant)).write(certificate, key)
    return credentials.client(certificate, key)


def command(args: argparse.Namespace) -> int:
    """Runs `polder demo`; exit code 1 if anything went otherwise than it must."""
    out = Output()
    ok = asyncio.run(play(cluster_of(args.state), out, json=args.output == "json"))
    if ok and args.output == "table":
        out.line(
            "It is left running: `polder kubeconfig acme`, then kubectl; `polder inspect tenant acme` looks inside."
        )
    return 0 if ok else 1
