"""From a Service and pods to endpoints: pure. Follows upstream's endpointslice library and endpoints controller."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from polder.api.core import ObjectReference, Pod, Service, ServicePort
from polder.api.discovery import Endpoint, EndpointPort
from polder.api.endpoints import EndpointAddress, EndpointsPort, EndpointSubset
from polder.api.podspec import Container

SLICE_LIMIT = 100
"""Endpoints of one slice."""
SUBSET_LIMIT = 1000
"""Addresses of an Endpoints object, and of a mirrored subset."""
HEADLESS = "service.kubernetes.io/headless"
SERVICE_NAME = "kubernetes.io/service-name"
MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
ENDED = frozenset({"Failed", "Succeeded"})


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


def is_ready(pod: Pod) -> bool:
    """Whether the pod's Ready condition holds."""
    return any(c.type == "Ready" and c.status == "True" for c in pod.status.conditions or ())


def is_headless(service: Service) -> bool:
    """Whether the Service has no address of its own."""
    return service.spec.cluster_ip == "None"


def address_of(pod: Pod, family: str) -> str:
    """The pod's address of an IP family."""
    known = [found.ip for found in pod.status.pod_ips or ()] or [pod.status.pod_ip]
    return next((ip for ip in known if ip and (":" in ip) == (family == "IPv6")), "")


def backend_of(service: Service, pod: Pod, family: str) -> Backend | None:
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
    )


def find_port(pod: Pod, port: ServicePort) -> int | None:
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


def _named(container: Container, name: str, protocol: str) -> int | None:
    return next(
        (p.container_port for p in container.ports or () if (p.name, p.protocol) == (name, protocol)),
        None,
    )


Ports = tuple[tuple[str, str, int, str | None], ...]
"""(name, protocol, number, application protocol) of each."""


def ports_of(service: Service, pod: Pod) -> Ports:
    """The ports of the Service in a pod."""
    found = [(p.name, p.protocol, find_port(pod, p), p.app_protocol) for p in service.spec.ports or ()]
    return tuple((name, protocol, number, app) for name, protocol, number, app in found if number is not None)


def grouped(service: Service, pods: Iterable[Pod], family: str) -> dict[Ports, list[Backend]]:
    """The endpoints by their ports, each list in the order of addresses."""
    found: dict[Ports, list[Backend]] = {}
    for pod in pods:
        backend = backend_of(service, pod, family)
        if backend is None:
            continue
        ports = ports_of(service, pod)
        if ports or is_headless(service) or not service.spec.ports:
            found.setdefault(ports, []).append(backend)
    return {ports: sorted(found[ports], key=lambda b: (b.address, b.pod.uid)) for ports in sorted(found, key=repr)}


def slice_ports(ports: Ports) -> list[EndpointPort]:
    """As an EndpointSlice says it."""
    return [EndpointPort(name=n, protocol=p, port=number, app_protocol=app) for n, p, number, app in ports]


def slice_endpoint(backend: Backend) -> Endpoint:
    """As an EndpointSlice says it."""
    conditions = {"ready": backend.ready, "serving": backend.serving, "terminating": backend.terminating}
    return Endpoint(
        addresses=[backend.address],
        conditions=conditions,
        hostname=backend.hostname or None,
        node_name=backend.node or None,
        target_ref=backend.pod,
    )


def subsets_of(groups: dict[Ports, list[Backend]]) -> list[EndpointSubset]:
    """As an Endpoints object says it: ready addresses and others, nothing of pods that end."""
    found, left = [], SUBSET_LIMIT
    for ports, backends in groups.items():
        alive = [b for b in backends if b.ready or not b.terminating][:left]
        left -= len(alive)
        if not alive:
            continue
        found.append(
            EndpointSubset(
                addresses=[_address(b) for b in alive if b.ready] or None,
                not_ready_addresses=[_address(b) for b in alive if not b.ready] or None,
                ports=[EndpointsPort(name=n, protocol=p, port=number, app_protocol=app) for n, p, number, app in ports]
                or None,
            )
        )
    return found


def _address(backend: Backend) -> EndpointAddress:
    return EndpointAddress(
        ip=backend.address, hostname=backend.hostname, node_name=backend.node or None, target_ref=backend.pod
    )


def mirrored(subset: EndpointSubset, family: str) -> list[Endpoint]:
    """The addresses of one family of a hand-made subset, as an EndpointSlice says it."""
    known = [(a, True) for a in subset.addresses or ()] + [(a, False) for a in subset.not_ready_addresses or ()]
    return [
        Endpoint(
            addresses=[address.ip],
            conditions={"ready": ready},
            hostname=address.hostname or None,
            node_name=address.node_name,
            target_ref=address.target_ref,
        )
        for address, ready in known[:SUBSET_LIMIT]
        if (":" in address.ip) == (family == "IPv6")
    ]
