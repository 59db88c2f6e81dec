"""`polder inspect tenant NAME`."""

from __future__ import annotations

import argparse
import asyncio

import msgspec

from polder.base.errors import PermanentError, RetryableError
from polder.cli.output import Output
from polder.main.cluster import Cluster, NodePlan
from polder.main.hostnet import cluster_of
from polder.node.admin import Inspection, ask


async def look(cluster: Cluster, tenant: str, only: str) -> dict[str, Inspection]:
    """What each node (or one) says of a tenant. Raises PermanentError if no node has the tenant."""
    nodes = [n for n in cluster.all_nodes() if only in ("", n.name)]
    if not nodes:
        raise PermanentError(f"--node {only}: no such node; there are {', '.join(n.name for n in cluster.all_nodes())}")
    found = {node.name: await _ask(node, tenant) for node in nodes}
    present = {name: inspection for name, inspection in found.items() if inspection.present}
    if not present:
        raise PermanentError(f"tenant {tenant}: not present on {', '.join(found)} (no such tenant, or no pod there)")
    return present


async def _ask(node: NodePlan, tenant: str) -> Inspection:
    try:
        return await ask(node.folder / "admin.sock", tenant)
    except OSError as error:
        raise RetryableError(
            f"{node.name}: its agent does not answer ({error.strerror}); see `polder status`"
        ) from error


def command(args: argparse.Namespace) -> int:
    """Prints topology, desired kernel state and differences; exit code 1 if there are any."""
    out = Output()
    found = asyncio.run(look(cluster_of(args.state), args.name, args.node))
    if args.output == "json":
        out.json([{"node": node, **msgspec.structs.asdict(inspection)} for node, inspection in found.items()])
    else:
        for node, inspection in found.items():
            _show(out, node, inspection)
    return int(any(inspection.differences for inspection in found.values()))


def _show(out: Output, node: str, inspection: Inspection) -> None:
    out.heading(f"{inspection.tenant} on {node}: topology")
    out.line(inspection.topology.rstrip())
    out.heading(f"{inspection.tenant} on {node}: desired kernel state")
    out.line(inspection.desired.rstrip())
    out.heading(f"{inspection.tenant} on {node}: dropped by policies")
    out.line(inspection.drops.rstrip() or "nothing")
    out.heading(f"{inspection.tenant} on {node}: what differs")
    out.line(inspection.differences.rstrip() or "nothing")
