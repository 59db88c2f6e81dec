"""`polder up`: a whole cluster on this machine. Idempotent: what runs already is left alone."""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from polder.api.core import Node
from polder.api.errors import ApiError
from polder.base.clock import stamp
from polder.base.errors import PermanentError, PolderError, RetryableError
from polder.base.ids import ROOT
from polder.base.ref import Ref
from polder.cli.output import Output
from polder.client.client import Client
from polder.main.claims import check_free
from polder.main.cluster import Cluster, NodePlan
from polder.main.credentials import Credentials
from polder.main.hostnet import HostNetwork, read_record
from polder.main.images import ensure_images, import_everywhere
from polder.system.commands import inside
from polder.system.process import Command, ProcessId, alive, read_pidfile, start_detached, write_pidfile

READY_WITHIN = 60.0
"""Seconds that a daemon may take to become ready."""


def chosen(args: argparse.Namespace) -> Cluster:
    """The cluster asked for: as it stands, or as the arguments say. Raises PermanentError if these differ."""
    asked = {k: v for k in ("name", "subnet", "port", "nodes") if (v := getattr(args, k)) is not None}
    record = read_record(args.state / "cluster.json")
    if record is not None and record.running:
        for field, value in asked.items():
            if getattr(record, field) != value:
                raise PermanentError(
                    f"--{field} {value}: the cluster in {args.state} was started with {getattr(record, field)}; "
                    "run `polder down` first"
                )
    if record is not None:
        before = {"name": record.name, "subnet": record.subnet, "port": record.port, "nodes": record.nodes}
        asked = before | asked
    cluster = Cluster(state=args.state, **asked)
    cluster.check()
    return cluster


@dataclass(frozen=True, slots=True)
class Daemon:
    """One of our processes: found by its pid file, started if it is not there."""

    folder: Path
    argv: tuple[str, ...]

    @property
    def pidfile(self) -> Path:
        """Who it is."""
        return self.folder / "pid"

    @property
    def log(self) -> Path:
        """What it prints."""
        return self.folder / "log"

    def running(self) -> ProcessId | None:
        """The living process."""
        known = read_pidfile(self.pidfile)
        return known if known and alive(known) else None

    def ensure(self) -> ProcessId:
        """Starts it if it does not run."""
        known = self.running()
        if known is None:
            known = start_detached(Command(self.argv, self.log))
            write_pidfile(self.pidfile, known)
        return known

    def last_words(self) -> str:
        """The end of its log."""
        try:
            lines = self.log.read_text(errors="replace").splitlines()
        except FileNotFoundError:
            return ""
        return "\n".join(lines[-5:])


def server_daemon(cluster: Cluster) -> Daemon:
    """The API server, controllers and scheduler."""
    config = cluster.server_folder / "server.yaml"
    return Daemon(cluster.server_folder, _polder("server", "--config", str(config)))


def agent_daemon(node: NodePlan) -> Daemon:
    """A node's agent, in the node's network namespace."""
    argv = inside(node.netns, *_polder("agent", "--config", str(node.folder / "agent.yaml")))
    return Daemon(node.folder, argv)


def _polder(*args: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "polder.main", *args)


async def wait_for(daemon: Daemon, what: str, ready: Callable[[], Awaitable[bool]]) -> None:
    """Polls until ready. Raises RetryableError with the daemon's last words if it ends or takes too long."""
    end = time.monotonic() + READY_WITHIN
    while not await ready():
        if daemon.running() is None:
            raise RetryableError(f"{what} ended; the last lines of {daemon.log}:\n{daemon.last_words()}")
        if time.monotonic() > end:
            raise RetryableError(
                f"{what} is not ready after {READY_WITHIN:.0f} s; the last lines of {daemon.log}:\n"
                f"{daemon.last_words()}"
            )
        await asyncio.sleep(0.05)


async def _server_ready(client: Client) -> bool:
    try:
        await client.raw("GET", "/readyz")
    except (ApiError, OSError, PolderError):
        return False
    return True


async def _node_ready(client: Client, name: str, since: str) -> bool:
    """Whether the node is ready by a heartbeat not older than ``since``: an earlier agent's word does not count."""
    nodes = {node.metadata.name: node for node in (await client.list(Node, ROOT)).items}
    conditions = nodes[name].status.conditions or [] if name in nodes else []
    return any(c.type == "Ready" and c.status == "True" and (c.last_heartbeat_time or "") >= since for c in conditions)


async def start(cluster: Cluster, out: Output) -> None:
    """Everything, in order."""
    check_free(cluster, server_daemon(cluster).running() is not None)
    cluster.state.mkdir(parents=True, exist_ok=True, mode=0o700)
    with out.step("images"):
        ensure_images(cluster)
    with out.step("underlay network"):
        network = HostNetwork(cluster)
        network.ensure()
        for node in cluster.all_nodes():
            network.ensure_node(node)
    credentials = Credentials.of(cluster)
    credentials.write_server_config()
    credentials.write_admin_kubeconfig()
    client = credentials.admin_client()
    try:
        with out.step("API server"):
            daemon = server_daemon(cluster)
            daemon.ensure()
            await wait_for(daemon, "the API server", lambda: _server_ready(client))
        with out.step(f"{cluster.nodes} node{'s' if cluster.nodes > 1 else ''}"):
            await _start_nodes(cluster, credentials, client)
            await forget_surplus(cluster, client)
        with out.step("toolbox image on every node"):
            await import_everywhere(cluster, cluster.images / "toolbox.tar")
    finally:
        await client.close()


async def _start_nodes(cluster: Cluster, credentials: Credentials, client: Client) -> None:
    waits = []
    for node in cluster.all_nodes():
        credentials.write_agent_config(node)
        daemon = agent_daemon(node)
        since = "" if daemon.running() else stamp(datetime.now(UTC))
        daemon.ensure()
        waits.append(wait_for(daemon, node.name, partial(_node_ready, client, node.name, since)))
    await asyncio.gather(*waits)


async def forget_surplus(cluster: Cluster, client: Client) -> None:
    """Deletes the nodes of an earlier, larger cluster: their pods go with them, which nothing else could end."""
    for node in (await client.list(Node, ROOT)).items:
        name = node.metadata.name
        if re.fullmatch(r"node-[0-9]{1,2}", name) and int(name.removeprefix("node-")) > cluster.nodes:
            await client.delete(Node, Ref(ROOT, "", name))


def command(args: argparse.Namespace) -> int:
    """Runs `polder up`."""
    if os.geteuid() != 0:
        raise PermanentError("polder up makes namespaces and links: run it as root")
    cluster = chosen(args)
    out = Output()
    asyncio.run(start(cluster, out))
    polder = "polder" if args.state == Cluster().state else f"polder --state {args.state}"
    out.line()
    out.line(f"A cluster of {cluster.nodes} node{'s' if cluster.nodes > 1 else ''} runs. Use it:")
    out.line(f"  export KUBECONFIG={cluster.admin_kubeconfig}")
    out.line("  kubectl get nodes")
    out.line("A tenant of its own:")
    out.line(
        "  printf 'apiVersion: polder.dev/v1alpha1\\nkind: Tenant\\nmetadata: {name: acme}\\n' | kubectl create -f -"
    )
    out.line(f"  {polder} kubeconfig acme --file acme.kubeconfig")
    out.line(
        "  kubectl --kubeconfig acme.kubeconfig run web --image=toolbox --image-pull-policy=IfNotPresent -- sleep 1d"
    )
    return 0
