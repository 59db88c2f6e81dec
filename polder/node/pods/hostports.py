"""Ports of the node that its pods hold: who comes second is refused, as upstream's node does. Pure."""

from __future__ import annotations

from polder.api.core import Pod
from polder.node.pods.restarts import is_sidecar

NODE_PORTS = "NodePorts"
"""The reason of a refusal."""
TAKEN = "Pod was rejected: Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports"
_ANY = ("", "0.0.0.0", "::")  # noqa: S104 - addresses as they are written in specs, nothing is bound

Port = tuple[str, int, str]
"""Protocol, number, address; no address means all."""


def ports_of(pod: Pod) -> frozenset[Port]:
    """The node's ports that a pod asks for as long as it runs."""
    spec = pod.spec
    containers = [*spec.containers, *(found for found in spec.init_containers or () if is_sidecar(found))]
    found = (port for container in containers for port in container.ports or () if port.host_port)
    return frozenset((p.protocol, p.host_port, "" if p.host_ip in _ANY else p.host_ip) for p in found)


class HostPorts:
    """Who holds what."""

    def __init__(self) -> None:
        self._held: dict[str, frozenset[Port]] = {}

    def take(self, uid: str, wanted: frozenset[Port], *, sure: bool = False) -> bool:
        """Gives a pod its ports, unless another one holds one of them. With ``sure`` it has them already: it runs."""
        if not wanted:
            return True
        others = {port for other, held in self._held.items() if other != uid for port in held}
        if not sure and any(_meet(port, other) for port in wanted for other in others):
            return False
        self._held[uid] = wanted
        return True

    def free(self, uid: str) -> None:
        """The pod holds none any more."""
        self._held.pop(uid, None)


def _meet(one: Port, other: Port) -> bool:
    return one[:2] == other[:2] and (not one[2] or not other[2] or one[2] == other[2])
