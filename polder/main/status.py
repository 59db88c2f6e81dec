"""`polder status`."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from polder.api.core import Node, Pod
from polder.api.errors import ApiError
from polder.api.polder import Tenant
from polder.base.errors import PolderError
from polder.base.ids import EVERY_TENANT, ROOT
from polder.cli.output import Output
from polder.client.errors import UnreachableError
from polder.main.cluster import Cluster
from polder.main.credentials import Credentials
from polder.main.hostnet import cluster_of
from polder.main.up import Daemon, agent_daemon, server_daemon

KIB_PER_MIB = 1024


def processes(cluster: Cluster) -> list[dict[str, str]]:
    """The daemons: whether they run, since which pid, and their resident memory."""
    daemons = {"server": server_daemon(cluster)} | {n.name: agent_daemon(n) for n in cluster.all_nodes()}
    return [_process(name, daemon) for name, daemon in daemons.items()]


def _process(name: str, daemon: Daemon) -> dict[str, str]:
    running = daemon.running()
    if running is None:
        return {"name": name, "state": "stopped", "pid": "", "memory": "", "log": str(daemon.log)}
    memory = f"{_resident(running.pid) // KIB_PER_MIB} MiB"
    return {"name": name, "state": "running", "pid": str(running.pid), "memory": memory, "log": str(daemon.log)}


def _resident(pid: int) -> int:
    """Resident memory in KiB (VmRSS, proc(5))."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


async def objects(cluster: Cluster) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Nodes and tenants as the API knows them. Raises PolderError if it does not answer."""
    client = Credentials.of(cluster).admin_client()
    try:
        nodes = (await client.list(Node, ROOT)).items
        tenants = (await client.list(Tenant, ROOT)).items
        pods = (await client.list(Pod, EVERY_TENANT)).items
    finally:
        await client.close()
    on_node = [pod.spec.node_name for pod in pods]
    of_tenant = [(pod.metadata.annotations or {}).get("polder.dev/tenant", "") for pod in pods]
    return (
        [
            {"name": n.metadata.name, "state": _ready(n), "pods": str(on_node.count(n.metadata.name))}
            for n in nodes
        ],
        [
            {"name": t.metadata.name, "state": t.status.phase, "pods": str(of_tenant.count(t.metadata.name))}
            for t in tenants
        ],
    )  # fmt: skip


def _ready(node: Node) -> str:
    ready = next((c for c in node.status.conditions or [] if c.type == "Ready"), None)
    return "Ready" if ready is not None and ready.status == "True" else "NotReady"


def command(args: argparse.Namespace) -> int:
    """Prints it; exit code 1 if something that should run does not."""
    cluster = cluster_of(args.state)
    out = Output()
    running = processes(cluster)
    trouble = ""
    nodes: list[dict[str, str]] = []
    tenants: list[dict[str, str]] = []
    try:
        nodes, tenants = asyncio.run(objects(cluster))
    except UnreachableError:
        trouble = f"no connection to {cluster.local_server}"
    except (PolderError, ApiError, OSError) as error:
        trouble = str(error)
    if args.output == "json":
        out.json({"processes": running, "nodes": nodes, "tenants": tenants, "trouble": trouble})
    else:
        out.table(["process", "state", "pid", "memory", "log"], [list(p.values()) for p in running], mark=1)
        for title, rows in (("node", nodes), ("tenant", tenants)):
            if rows:
                out.line()
                out.table([title, "state", "pods"], [list(r.values()) for r in rows], mark=1)
        if trouble:
            out.line(f"\nthe API server does not answer: {trouble}")
    well = not trouble and all(p["state"] == "running" for p in running) and all(n["state"] == "Ready" for n in nodes)
    return 0 if well else 1
