"""`polder down`: stops the cluster of a state directory and undoes what it changed on the host.

Works on whatever is left of a cluster: every step finds out by itself what there is to do.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import signal
from pathlib import Path

from polder.base.errors import PermanentError, RetryableError
from polder.cli.output import Output
from polder.dns import link
from polder.main.cluster import Cluster, NodePlan
from polder.main.hostnet import HostNetwork, cluster_of, read_record
from polder.main.outside import Outside
from polder.main.up import agent_daemon, server_daemon
from polder.node.orphans import remove_traces, shim_sockets
from polder.system.cgroups import Cgroups
from polder.system.containerd import ContainerdPaths
from polder.system.cri import CriClient
from polder.system.cri_types import RuntimeFailureError
from polder.system.mounts import unmount_below
from polder.system.process import ProcessId, alive, find_by_argument, read_pidfile, send, stop, wait_gone
from polder.system.trees import remove_tree

GRACE = 10.0
"""Seconds that a daemon has to end by itself."""
STOPPING_PODS = 30.0
"""Seconds for a node's runtime to stop all its pods, before they are killed."""
PARALLEL = 8


async def stop_node(node: NodePlan) -> str:
    """Agent, pods, containerd, and whatever of them does not end by itself; why pods had to be killed, if they had to."""
    paths = ContainerdPaths(node.folder / "containerd", node.folder / "cni" / "bin", node.folder / "cni" / "conf")
    sockets = shim_sockets(paths)
    killed = ""
    agent = agent_daemon(node).running()
    if agent is not None:
        await stop(agent, GRACE)
    await link.stop(link.LinkSettings(node.folder / "dns"))
    containerd = read_pidfile(paths.pidfile)
    if containerd is not None and alive(containerd):
        killed = await _stop_pods(paths.socket)
        await stop(containerd, GRACE)
    await _kill(find_by_argument("containerd", str(node.folder)))
    await asyncio.to_thread(remove_traces, paths, sockets)
    for pidfile in (agent_daemon(node).pidfile, paths.pidfile):
        pidfile.unlink(missing_ok=True)
    return killed and f"node {node.name}: pods were killed, {killed}"


async def _stop_pods(socket: Path) -> str:
    """Asks the runtime to stop all containers; sandboxes go with the node's network, for whose end no agent is there any more.
    Why it did not, empty where it did: what runs then is killed next.
    """
    client = CriClient(socket)
    turns = asyncio.Semaphore(PARALLEL)

    async def end(container: str) -> None:
        async with turns:
            await client.stop_container(container, 0)

    try:
        async with asyncio.timeout(STOPPING_PODS):
            containers = await client.list_containers()
            await asyncio.gather(*(end(c.id) for c in containers))
        return ""
    except TimeoutError:
        return f"for the runtime had not stopped them after {STOPPING_PODS:g} seconds"
    except RuntimeFailureError as error:
        return f"for the runtime could not stop them: {error}"
    finally:
        await client.close()


async def _kill(processes: list[ProcessId]) -> None:
    for process in processes:
        send(process, signal.SIGKILL)
    await asyncio.gather(*(wait_gone(p) for p in processes))


async def _kill_group(group: str) -> None:
    """Kills what still runs in the cluster's cgroups, until nothing does."""
    cgroups = Cgroups()
    while processes := cgroups.processes(group):
        await _kill(processes)
    if not cgroups.remove(group, within=GRACE):
        raise RetryableError(f"the cgroup {group} is still in use; run `polder down` again")


async def stop_cluster(cluster: Cluster, out: Output) -> None:
    """Everything, in the order of its making reversed."""
    with out.step("nodes and pods"):
        killed = await asyncio.gather(*(stop_node(node) for node in cluster.all_nodes()))
        await _kill_group(f"/{cluster.name}")
    for problem in filter(None, killed):
        out.note(problem)
    with out.step("API server"):
        server = server_daemon(cluster)
        running = server.running()
        if running is not None:
            await stop(running, GRACE)
        server.pidfile.unlink(missing_ok=True)
        outside = Outside(cluster).daemon.running()
        if outside is not None:
            await stop(outside, GRACE)
    with out.step("network and mounts"):
        network = HostNetwork(cluster)
        unmount_below(cluster.state)
        for node in cluster.all_nodes():
            network.remove_namespace(node.netns, node.host_link)
            shutil.rmtree(node.folder / "netns", ignore_errors=True)
        Outside(cluster).remove()
        network.remove()


def _wipe(state: Path) -> None:
    """All of it but what cannot be; tenants' directories may be deeper than the interpreter goes."""
    try:
        remove_tree(state)
    except OSError:
        shutil.rmtree(state, ignore_errors=True)


def command(args: argparse.Namespace) -> int:
    """Runs `polder down`."""
    if os.geteuid() != 0:
        raise PermanentError("polder down removes namespaces and links: run it as root")
    out = Output()
    record = read_record(args.state / "cluster.json")
    if record is None or not record.running:
        out.line(f"no cluster runs from {args.state}; nothing to stop")
    else:
        asyncio.run(stop_cluster(cluster_of(args.state), out))
        out.line(f"stopped; objects and keys are kept in {args.state}" if not args.wipe else "stopped")
    if args.wipe:
        unmount_below(args.state)
        _wipe(args.state)
        out.line(f"deleted {args.state}")
    return 0
