"""What a new cluster takes of the machine, looked at before anything is changed: what others have is never touched."""

from __future__ import annotations

import errno
import ipaddress
import socket
from pathlib import Path

import msgspec

from polder.base.errors import PermanentError
from polder.main.cluster import Cluster
from polder.main.hostnet import read_record
from polder.system.commands import run

BEFORE_RECORD = {"images"}
"""What `up` makes in the state directory before it writes its record."""


class _Address(msgspec.Struct, frozen=True):
    """An element of ``addr_info`` of ``ip -j address``."""

    local: str
    prefixlen: int


class _Link(msgspec.Struct, frozen=True):
    """An element of ``ip -j address``."""

    ifname: str
    ifalias: str = ""
    addr_info: list[_Address] = []


def check_free(cluster: Cluster, server_runs: bool) -> None:
    """Raises PermanentError naming the option whose choice belongs to somebody else. A cluster that is recorded as
    running has its network already: only its port may have gone to another program meanwhile.
    """
    record = read_record(cluster.record)
    if record is None:
        _check_state(cluster.state)
    if record is None or not record.running:
        links = msgspec.json.decode(run("ip", "-j", "-4", "address", "show"), type=list[_Link])
        bridges = msgspec.json.decode(run("ip", "-j", "link", "show", "type", "bridge"), type=list[_Link])
        _check_name(cluster, {link.ifname: link.ifalias for link in [*links, *bridges]})
        _check_subnet(cluster, links)
    if not server_runs:
        _check_port(cluster.port)


def _check_state(state: Path) -> None:
    strange = sorted(path.name for path in state.iterdir() if path.name not in BEFORE_RECORD) if state.exists() else []
    if strange:
        raise PermanentError(f"--state {state}: holds {strange[0]} but no cluster; name a new or empty directory")


def _check_name(cluster: Cluster, aliases: dict[str, str]) -> None:
    if cluster.bridge not in aliases:
        return
    owner = aliases[cluster.bridge]
    if not owner:
        raise PermanentError(
            f"--name {cluster.name}: there is a link {cluster.bridge} of somebody else; choose another --name"
        )
    theirs = read_record(Path(owner) / cluster.record.name)
    if owner != str(cluster.state) and theirs is not None and theirs.running:
        raise PermanentError(f"--name {cluster.name}: the cluster in {owner} has this name; choose another --name")


def _check_subnet(cluster: Cluster, links: list[_Link]) -> None:
    wanted = ipaddress.IPv4Network(cluster.subnet)
    for link in links:
        for address in link.addr_info:
            taken = ipaddress.IPv4Interface(f"{address.local}/{address.prefixlen}").network
            if link.ifname != cluster.bridge and taken.overlaps(wanted):
                raise PermanentError(
                    f"--subnet {wanted}: link {link.ifname} of this machine is in {taken}; choose another --subnet"
                )


def _check_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            why = "is used by another program" if error.errno == errno.EADDRINUSE else str(error.strerror)
            raise PermanentError(f"--port {port}: {why}; choose another --port") from error
