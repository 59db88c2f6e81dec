"""From a Service and pods to endpoints: pure. Follows upstream's endpointslice library and endpoints controller."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from polder.api.core import ObjectReference, Service, ServicePort
from polder.api.discovery import Endpoint, EndpointHints, EndpointPort, HintedFor
from polder.api.endpoints import EndpointAddress, EndpointsPort, EndpointSubset
from polder.api.podfacts import ContainerNames, ControlledPod

SLICE_LIMIT = 100
"""Endpoints of one slice."""
CAPACITY = 1000
"""Addresses of an Endpoints object."""
HEADLESS = "service.kubernetes.io/headless"
SERVICE_NAME = "kubernetes.io/service-name"
MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
ENDED = frozenset({"Failed", "Succeeded"})
CLOSE = frozenset({"PreferClose", "PreferSameZone", "PreferSameNode"})
"""Values of ``trafficDistribution`` that keep traffic in the client's zone."""
ZoneOf = Callable[[str], str]
"""The zone of a node, empty if it has none."""


@dataclass(frozen=True, slots=True)
class Backend:
    """A pod as an endpoint."""

    address: str
    ready: bool
    serving: bool
    terminating: bool
    node: str
    hostname: str
    pod: ObjectReference
    zone: str = ""


def selects(selector: Mapping[str, str], labels: Mapping[str, str] | None) -> bool:
    """Whether labels have all that a map selector names; an empty one selects nothing."""
    have = labels or {}
    return bool(selector) and all(have.get(name) == value for name, value in selector.items())


def nowhere(_node: str) -> str:
    """The zone of nodes of which none is known."""
    return ""


def is_ready(pod: ControlledPod) -> bool:
    """Whether the pod's Ready condition holds."""
    return any(c.type == "Ready" and c.status == "True" for c in pod.status.conditions or ())


def is_headless(service: Service) -> bool:
    """Whether the Service has no address of its own."""
    return service.spec.cluster_ip == "None"


def address_of(pod: ControlledPod, family: str) -> str:
    """The pod's address of an IP family."""
    known = [found.ip for found in pod.status.pod_ips or ()] or [pod.status.pod_ip]
    return next((ip for ip in known if ip and (":" in ip) == (family == "IPv6")), "")


def backend_of(service: Service, pod: ControlledPod, family: str, zone_of: ZoneOf = nowhere) -> Backend | None:
    """The pod as an endpoint of the Service; None if it is none: it has ended, or has no address."""
    address = address_of(pod, family)
    if not address or pod.status.phase in ENDED:
        return None
    serving, terminating = is_ready(pod), pod.metadata.deletion_timestamp is not None
    meta, spec = pod.metadata, pod.spec
    named = spec.hostname and spec.subdomain == service.metadata.name and meta.namespace == service.metadata.namespace
    return Backend(
        address,
        service.spec.publish_not_ready_addresses or (serving and not terminating),
        serving,
        terminating,
        spec.node_name,
        spec.hostname if named else "",
        ObjectReference(kind="Pod", namespace=meta.namespace, name=meta.name, uid=meta.uid),
        zone_of(spec.node_name) if spec.node_name else "",
    )


def find_port(pod: ControlledPod, port: ServicePort) -> int | None:
    """The number that a Service's port means in a pod; None if a name means nothing there."""
    target = port.target_port or port.port
    if isinstance(target, int):
        return target
    if target.isdigit():
        return int(target)
    sidecars = [c for c in pod.spec.init_containers or () if c.restart_policy == "Always"]
    for container in (*pod.spec.containers, *sidecars):
        found = _named(container, target, port.protocol)
        if found is not None:
            return found
    return None


def _named(container: ContainerNames, name: str, protocol: str) -> int | None:
    return next(
        (p.container_port for p in container.ports or () if (p.name, p.protocol) == (name, protocol)),
        None,
    )


Ports = tuple[tuple[str, str, int, str | None], ...]
"""(name, protocol, number, application protocol) of each."""


def ports_of(service: Service, pod: ControlledPod) -> Ports:
    """The ports of the Service in a pod."""
    found = [(p.name, p.protocol, find_port(pod, p), p.app_protocol) for p in service.spec.ports or ()]
    return tuple((name, protocol, number, app) for name, protocol, number, app in found if number is not None)


def grouped(
    service: Service, pods: Iterable[ControlledPod], family: str, zone_of: ZoneOf = nowhere
) -> dict[Ports, list[Backend]]:
    """The endpoints by their ports, each list in the order of addresses."""
    found: dict[Ports, list[Backend]] = {}
    for pod in pods:
        backend = backend_of(service, pod, family, zone_of)
        if backend is None:
            continue
        ports = ports_of(service, pod)
        if ports or is_headless(service) or not service.spec.ports:
            found.setdefault(ports, []).append(backend)
    return ordered(found)


def ordered(found: dict[Ports, list[Backend]]) -> dict[Ports, list[Backend]]:
    """The same, by ports and addresses."""
    return {ports: sorted(found[ports], key=lambda b: (b.address, b.pod.uid)) for ports in sorted(found, key=repr)}


def slice_ports(ports: Ports) -> list[EndpointPort]:
    """As an EndpointSlice says it."""
    return [EndpointPort(name=n, protocol=p, port=number, app_protocol=app) for n, p, number, app in ports]


def slice_endpoint(backend: Backend, distribution: str | None = None) -> Endpoint:
    """As an EndpointSlice says it, with the hints that a Service's ``trafficDistribution`` gives."""
    conditions = {"ready": backend.ready, "serving": backend.serving, "terminating": backend.terminating}
    return Endpoint(
        addresses=[backend.address],
        conditions=conditions,
        hostname=backend.hostname or None,
        node_name=backend.node or None,
        target_ref=backend.pod,
        zone=backend.zone or None,
        hints=hints_of(backend, distribution),
    )


def hints_of(backend: Backend, distribution: str | None) -> EndpointHints | None:
    """Whose clients should come to a ready endpoint (KEP 4444, 3015): those of its zone, of its node if it is asked for."""
    if distribution not in CLOSE or not backend.ready:
        return None
    zones = [HintedFor(name=backend.zone)] if backend.zone else None
    nodes = [HintedFor(name=backend.node)] if backend.node and distribution == "PreferSameNode" else None
    return EndpointHints(for_zones=zones, for_nodes=nodes) if zones or nodes else None


def subsets_of(groups: dict[Ports, list[Backend]]) -> tuple[list[EndpointSubset], bool]:
    """As an Endpoints object says it: ready addresses and others, nothing of pods that end; and whether that is not all,
    for it holds 1,000 addresses: ready ones go first, each subset has its part.
    """
    alive = {ports: [b for b in found if b.ready or not b.terminating] for ports, found in groups.items()}
    ready = {ports: [b for b in found if b.ready] for ports, found in alive.items()}
    waiting = {ports: [b for b in found if not b.ready] for ports, found in alive.items()}
    kept = _fitting(ready, CAPACITY)
    kept_waiting = _fitting(waiting, CAPACITY - sum(map(len, kept.values())))
    subsets = [
        EndpointSubset(
            addresses=[_address(b) for b in kept[ports]] or None,
            not_ready_addresses=[_address(b) for b in kept_waiting[ports]] or None,
            ports=[EndpointsPort(name=n, protocol=p, port=number, app_protocol=app) for n, p, number, app in ports]
            or None,
        )
        for ports in alive
        if kept[ports] or kept_waiting[ports]
    ]
    return subsets, sum(map(len, alive.values())) > CAPACITY


def _fitting(groups: dict[Ports, list[Backend]], room: int) -> dict[Ports, list[Backend]]:
    """The first of each group, as many as fit, in proportion to the groups' sizes."""
    total, left, found = sum(map(len, groups.values())), room, {}
    for ports, backends in groups.items():
        part = min(-(-len(backends) * room // total), left) if total > room else len(backends)
        found[ports] = backends[:part]
        left -= len(found[ports])
    return found


def _address(backend: Backend) -> EndpointAddress:
    return EndpointAddress(
        ip=backend.address, hostname=backend.hostname, node_name=backend.node or None, target_ref=backend.pod
    )
