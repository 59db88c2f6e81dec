"""Pods of this node to the ports of the node that lead to them.

A machine's addresses are the platform's: only its own pods (tenant root) get ports of it. The API refuses others; here they
are left
out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from polder.api.core import Pod
from polder.api.polder import port_name
from polder.base.ids import ROOT
from polder.base.ref import Ref
from polder.sdn.compile.concern import Declaration, Home, View
from polder.sdn.compile.keys import Concern, Key
from polder.sdn.compile.outside import canonical
from polder.sdn.compile.vips import MAX_PORT, PROTOCOLS
from polder.sdn.topology.types import Port
from polder.sdn.topology.vips import Hosted, HostPort

INTERFACE = "eth0"
ANY = ("", "0.0.0.0", "::")  # noqa: S104 - what a pod may write for all addresses


def _wishing(ref: Ref, pod: Pod) -> Iterable[Ref]:
    """Only pods that ask for some, and are neither on the machine's own network nor a tenant's."""
    wishes = any(port.host_port for container in pod.spec.containers for port in container.ports or ())
    return (ref,) if wishes and ref.tenant == ROOT and not pod.spec.host_network else ()


def _hosted(ref: Ref, view: View) -> Hosted | None:
    pod = view.get(Pod, ref)
    if pod is None:
        return None
    key = Key(Concern.PORT, Ref(ref.tenant, ref.namespace, port_name(pod.metadata.uid, INTERFACE)))
    port = view.part(key, Port)
    if port is None or not port.attached:
        return None
    ports = tuple(sorted(set(_ports(pod, port.addresses))))
    return Hosted(ref.tenant, f"{ref.namespace}/{ref.name}", ports) if ports else None


def _ports(pod: Pod, addresses: Iterable[str]) -> Iterator[HostPort]:
    """One for each address of the pod, of the family of the machine's address where one is named."""
    for container in pod.spec.containers:
        for one in container.ports or ():
            protocol, host = PROTOCOLS.get(one.protocol), "" if one.host_ip in ANY else canonical(one.host_ip)
            valid = 0 < one.host_port <= MAX_PORT and 0 < one.container_port <= MAX_PORT
            if protocol is None or not valid or (one.host_ip not in ANY and not host):
                continue
            for address in addresses:
                if not one.host_ip or (":" in one.host_ip) == (":" in address):
                    yield HostPort(protocol, one.host_port, address, one.container_port, host)


HOSTED = Declaration(Concern.HOSTED, Hosted, (Home(Pod, _wishing),), _hosted)
