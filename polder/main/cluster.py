"""One cluster on one machine: its names, addresses and paths, all derived from a few choices."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from polder.base.errors import PermanentError

DEFAULT_STATE = Path("/var/lib/polder")
DEFAULT_NAME = "polder"
DEFAULT_SUBNET = "172.30.0.0/24"
DEFAULT_PORT = 6443
NODE_OFFSET, EGRESS_OFFSET, OUTSIDE_OFFSET, MAX_NODES = 10, 100, 200, 80
LONGEST_SOCKET = 107
"""Bytes of a unix socket's path (unix(7))."""


@dataclass(frozen=True)
class NodePlan:
    """One node of the cluster: a network namespace with an agent and a containerd of its own."""

    name: str
    address: str
    egress: str
    folder: Path
    host_link: str

    @property
    def netns(self) -> Path:
        """The node's own network namespace, as a file."""
        return self.folder / "net"


@dataclass(frozen=True)
class Cluster:
    """What `polder up` makes. ``name`` prefixes everything on the host that is no file."""

    state: Path = DEFAULT_STATE
    name: str = DEFAULT_NAME
    subnet: str = DEFAULT_SUBNET
    port: int = DEFAULT_PORT
    nodes: int = 2

    def check(self) -> None:
        """Raises PermanentError where a choice cannot work."""
        if not re.fullmatch(r"[a-z][a-z0-9]{0,8}", self.name):
            raise PermanentError(f"--name {self.name!r}: use 1 to 9 lower-case letters and digits, a letter first")
        if not 1 <= self.nodes <= MAX_NODES:
            raise PermanentError(f"--nodes {self.nodes}: use 1 to {MAX_NODES}")
        if not 1 <= self.port <= 65535:
            raise PermanentError(f"--port {self.port}: use 1 to 65535")
        try:
            network = ipaddress.IPv4Network(self.subnet)
        except ValueError as error:
            raise PermanentError(f"--subnet {self.subnet}: {error}") from error
        if network.prefixlen != 24:
            raise PermanentError(f"--subnet {self.subnet}: use an IPv4 /24")
        longest = self.state / "nodes" / "node-80" / "containerd" / "containerd.sock.ttrpc"
        if len(str(longest)) > LONGEST_SOCKET:
            raise PermanentError(f"--state {self.state}: too long for a unix socket below it; choose a shorter path")

    @cached_property
    def _network(self) -> ipaddress.IPv4Network:
        return ipaddress.IPv4Network(self.subnet)

    def _address(self, offset: int) -> str:
        return str(self._network[offset])

    @property
    def host_address(self) -> str:
        """The machine's own address on the underlay: where the server listens for agents."""
        return self._address(1)

    @property
    def outside_address(self) -> str:
        """Where the demo's server outside the cluster stands."""
        return self._address(OUTSIDE_OFFSET)

    @property
    def egress_addresses(self) -> str:
        """The range that pods' traffic leaves the nodes with, so that the host can tell it from the nodes' own."""
        return f"{self._address(EGRESS_OFFSET)}-{self._address(EGRESS_OFFSET + MAX_NODES)}"

    @property
    def bridge(self) -> str:
        """The underlay's bridge on the host."""
        return f"{self.name}0"

    @property
    def server(self) -> str:
        """The server's URL for the agents."""
        return f"https://{self.host_address}:{self.port}"

    @property
    def local_server(self) -> str:
        """The server's URL for people on this machine."""
        return f"https://127.0.0.1:{self.port}"

    @property
    def pki(self) -> Path:
        """Authorities and certificates."""
        return self.state / "pki"

    @property
    def server_folder(self) -> Path:
        """The server's configuration, database, log and pid."""
        return self.state / "server"

    @property
    def images(self) -> Path:
        """Image archives that the project builds."""
        return self.state / "images"

    @property
    def admin_kubeconfig(self) -> Path:
        """The platform administrator's."""
        return self.state / "admin.kubeconfig"

    @property
    def record(self) -> Path:
        """What was made on the host."""
        return self.state / "cluster.json"

    def node(self, index: int) -> NodePlan:
        """The node number ``index``, from 1."""
        name = f"node-{index}"
        return NodePlan(
            name=name,
            address=self._address(NODE_OFFSET + index),
            egress=self._address(EGRESS_OFFSET + index),
            folder=self.state / "nodes" / name,
            host_link=f"{self.name}n{index}",
        )

    def all_nodes(self) -> list[NodePlan]:
        """Every node, in order."""
        return [self.node(i) for i in range(1, self.nodes + 1)]
