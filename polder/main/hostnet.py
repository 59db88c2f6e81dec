"""The underlay of a cluster on one machine: a bridge, a namespace per node, and egress through the host."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from polder.base.errors import PermanentError
from polder.main.cluster import Cluster, NodePlan
from polder.system.commands import inside, read_sysctl, run, succeeds, write_sysctl

FORWARD = "net/ipv4/ip_forward"


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """Who we are, and while we run what was there before: written before anything is changed, so that it can be undone.
    After `down` the choices stay, so that the next `up` brings the same cluster back.
    """

    name: str
    subnet: str
    port: int
    nodes: int
    running: bool = True
    sysctls: dict[str, str] = {}


def read_record(path: Path) -> Record | None:
    """The record of an earlier `up`, None if there is none."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Record)
    except FileNotFoundError:
        return None


def cluster_of(state: Path) -> Cluster:
    """The cluster that was started with this state directory. Raises PermanentError if there is none."""
    record = read_record(state / "cluster.json")
    if record is None or not record.running:
        raise PermanentError(f"no cluster in {state}: start one with `polder up`, or name its --state")
    return Cluster(state=state, name=record.name, subnet=record.subnet, port=record.port, nodes=record.nodes)


def write_record(path: Path, record: Record) -> None:
    """Replaces the record in one step."""
    fresh = path.with_suffix(".new")
    fresh.write_bytes(msgspec.json.encode(record))
    fresh.replace(path)


class _Bridge(msgspec.Struct, frozen=True):
    """An element of ``ip -j link``."""

    ifname: str
    ifalias: str = ""


def other_clusters(state: Path) -> list[Record]:
    """The clusters that run on this machine beside the one of ``state``: their bridges say where their records are."""
    bridges = msgspec.json.decode(run("ip", "-j", "link", "show", "type", "bridge"), type=list[_Bridge])
    folders = [Path(b.ifalias) for b in bridges if b.ifalias.startswith("/") and b.ifalias != str(state)]
    records = [read_record(folder / "cluster.json") for folder in folders]
    return [record for record in records if record is not None and record.running]


def ensure_no_link(name: str) -> None:
    """Deletes a link of the host, if it is there. One whose namespace ends may go by itself meanwhile. Raises HostError."""
    if not succeeds("ip", "link", "del", name) and succeeds("ip", "link", "show", name):
        run("ip", "link", "del", name)


@dataclass(frozen=True, slots=True)
class HostNetwork:
    """Makes and removes the underlay. Every step is idempotent."""

    cluster: Cluster

    @property
    def _table(self) -> str:
        return f"{self.cluster.name}_host"

    def ensure(self) -> None:
        """The bridge with the host's address, forwarding, and the host's guard."""
        self._record()
        bridge = self.cluster.bridge
        write_sysctl(FORWARD, "1")
        if not succeeds("ip", "link", "show", bridge):
            run("ip", "link", "add", bridge, "type", "bridge")
        run("ip", "link", "set", bridge, "alias", str(self.cluster.state))
        run("ip", "addr", "replace", f"{self.cluster.host_address}/24", "dev", bridge)
        run("ip", "link", "set", bridge, "up")
        run("nft", "-f", "-", stdin=self._ruleset())

    def _record(self) -> None:
        known = read_record(self.cluster.record)
        before = {FORWARD: read_sysctl(FORWARD)}
        for other in other_clusters(self.cluster.state):
            before |= other.sysctls  # what it is now, that cluster made it
        sysctls = before | (known.sysctls if known else {})
        c = self.cluster
        write_record(c.record, Record(name=c.name, subnet=c.subnet, port=c.port, nodes=c.nodes, sysctls=sysctls))

    def _ruleset(self) -> str:
        """Pods leave the nodes with egress addresses: these pass the host to the outside and never enter it."""
        bridge, egress, table = self.cluster.bridge, self.cluster.egress_addresses, self._table
        return f"""
table inet {table} {{}}
delete table inet {table}
table inet {table} {{
    chain input {{
        type filter hook input priority -10; policy accept;
        iifname "{bridge}" ip saddr {egress} ct state established,related accept
        iifname "{bridge}" ip saddr {egress} drop
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr {self.cluster.subnet} oifname != "{bridge}" masquerade
    }}
}}
"""

    def ensure_node(self, node: NodePlan) -> None:
        """The node's namespace, its uplink and addresses."""
        node.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.ensure_namespace(node.netns, node.host_link, "uplink", node.address)
        run(*inside(node.netns, "ip", "addr", "replace", f"{node.egress}/32", "dev", "uplink"))
        run(*inside(node.netns, "ip", "route", "replace", "default", "via", self.cluster.host_address))

    def ensure_namespace(self, netns: Path, host_link: str, link: str, address: str) -> None:
        """A namespace at a file, joined to the bridge by ``link``."""
        if not succeeds("nsenter", f"--net={netns}", "true"):
            netns.touch()
            run("unshare", f"--net={netns}", "true")
        if not succeeds(*inside(netns, "ip", "link", "show", link)):
            ensure_no_link(host_link)
            run("ip", "link", "add", host_link, "type", "veth", "peer", "name", link, "netns", str(netns))
        run("ip", "link", "set", host_link, "master", self.cluster.bridge, "up")
        run(*inside(netns, "ip", "addr", "replace", f"{address}/24", "dev", link))
        run(*inside(netns, "ip", "link", "set", "lo", "up"))
        run(*inside(netns, "ip", "link", "set", link, "up"))

    def remove_namespace(self, netns: Path, host_link: str) -> None:
        """Takes the link and the namespace's file away; the namespace goes with its last process."""
        ensure_no_link(host_link)
        if succeeds("mountpoint", "-q", str(netns)):
            run("umount", str(netns))
        netns.unlink(missing_ok=True)

    def remove(self) -> None:
        """Undoes `ensure`."""
        ensure_no_link(self.cluster.bridge)
        if succeeds("nft", "list", "table", "inet", self._table):
            run("nft", "delete", "table", "inet", self._table)
        record = read_record(self.cluster.record)
        if record is None:
            return
        if not other_clusters(self.cluster.state):  # the last one restores: the others forward still
            for path, value in record.sysctls.items():
                write_sysctl(path, value)
        write_record(self.cluster.record, msgspec.structs.replace(record, running=False, sysctls={}))
