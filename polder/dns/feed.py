"""From the objects that a node sees to facts."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from polder.api.core import Namespace, Service
from polder.api.discovery import EndpointSlice
from polder.api.meta import Object
from polder.api.polder import Port
from polder.base.ref import Ref
from polder.client.informer import Informer
from polder.dns import facts
from polder.dns.link import Link

SERVICE_LABEL = "kubernetes.io/service-name"
MOST_PORTS = 1000
"""Of one service or slice."""
T = TypeVar("T", bound=Object)


@dataclass(frozen=True, slots=True)
class Views:
    """What the node sees of each kind."""

    services: Informer[Service]
    slices: Informer[EndpointSlice]
    namespaces: Informer[Namespace]
    ports: Informer[Port]


async def feed(views: Views, link: Link) -> None:
    """Tells the process of everything and of each change; until cancelled. It begins when everything has been seen: till then a
    process of an earlier agent answers on.
    """
    _follow(views.services, facts.Service, service_fact, link)
    _follow(views.slices, facts.Slice, slice_fact, link)
    _follow(views.namespaces, facts.Namespace, namespace_fact, link)
    _follow(views.ports, facts.Pod, pod_fact, link)
    for informer in (views.services, views.slices, views.namespaces, views.ports):
        await informer.wait_synced()
    await link.run()


def _follow(
    informer: Informer[T], kind: type[facts.Fact], made: Callable[[Ref, T], facts.AnyFact | None], link: Link
) -> None:
    def change(ref: Ref, _: T | None, new: T | None) -> None:
        fact = made(ref, new) if new is not None else None
        if fact is not None:
            link.put(fact)
        else:
            link.drop(ref.tenant, kind, key_of(ref))

    informer.on_change(change)


def key_of(ref: Ref) -> str:
    """A fact's key."""
    return f"{ref.namespace}/{ref.name}" if ref.namespace else ref.name


def namespace_fact(ref: Ref, _: Namespace) -> facts.Namespace:
    """A namespace is there."""
    return facts.Namespace(ref.tenant, ref.name)


def service_fact(ref: Ref, service: Service) -> facts.Service:
    """A service's addresses, or its other name."""
    spec = service.spec
    if spec.type == "ExternalName":
        return facts.Service(ref.tenant, key_of(ref), external=spec.external_name)
    ports = tuple((port.name.lower(), port.protocol.lower(), port.port) for port in (spec.ports or ())[:MOST_PORTS])
    return facts.Service(ref.tenant, key_of(ref), packed(spec.cluster_ips or [spec.cluster_ip]), ports)


def slice_fact(ref: Ref, one: EndpointSlice) -> facts.Slice | None:
    """The endpoints that are ready; those that do not say whether they are, are. Of an endpoint's addresses, which mean the same,
    the first; of ports no more than any answer tells. So the largest slice fits into a message to the process.
    """
    service = (one.metadata.labels or {}).get(SERVICE_LABEL, "")
    if not service:
        return None
    ready = [point for point in one.endpoints or () if (point.conditions or {}).get("ready") is not False]
    endpoints = tuple((address, point.hostname or "") for point in ready for address in packed(point.addresses[:1]))
    ports = tuple(
        ((port.name or "").lower(), (port.protocol or "TCP").lower(), port.port)
        for port in (one.ports or ())[:MOST_PORTS]
        if port.port is not None
    )
    return facts.Slice(ref.tenant, key_of(ref), service, endpoints, ports)


def pod_fact(ref: Ref, port: Port) -> facts.Pod | None:
    """A pod's addresses; a router's are nobody's."""
    if port.spec.router_of or port.metadata.deletion_timestamp is not None:
        return None
    return facts.Pod(ref.tenant, key_of(ref), packed(port.spec.addresses))


def packed(addresses: Iterable[str]) -> tuple[bytes, ...]:
    """Those that are addresses: of a headless service ``None`` is written in their place."""
    found = []
    for address in addresses:
        try:
            found.append(socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address))
        except OSError:
            continue
    return tuple(found)
