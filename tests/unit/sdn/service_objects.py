"""Services and EndpointSlices, for tests of compile and render."""

from __future__ import annotations

from polder.api import core
from polder.api.discovery import Endpoint, EndpointHints, EndpointPort, EndpointSlice, HintedFor
from polder.api.meta import Object
from tests.unit.sdn.objects import Objects


def service(make: Objects, tenant: str, name: str, address: str, **spec: object) -> core.Service:
    """With one port, 80 to http, unless ``ports`` are given."""
    spec.setdefault("ports", [core.ServicePort(port=80, name="http")])
    made = core.ServiceSpec(cluster_ip=address, cluster_ips=[address], **spec)  # type: ignore[arg-type]
    return core.Service(metadata=make.counter.meta(tenant, "default", name), spec=made)


def endpoint(address: str, node: str = "", *, zone: str = "", hint: str = "", **conditions: bool) -> Endpoint:
    """``zone`` and ``hint``: the zone and the node whose clients should come to it."""
    hints = EndpointHints(
        for_zones=[HintedFor(name=zone)] if zone else None, for_nodes=[HintedFor(name=hint)] if hint else None
    )
    return Endpoint(addresses=[address], node_name=node or None, conditions=conditions or None, hints=hints)


def part_of(
    make: Objects, owner: core.Service, *endpoints: Endpoint, name: str = "one", ports: list[EndpointPort] | None = None
) -> EndpointSlice:
    """A slice of a service; its port is http at 8080 unless ``ports`` are given."""
    meta = owner.metadata
    tenant = (meta.annotations or {})["polder.dev/tenant"]
    labels = {"kubernetes.io/service-name": meta.name}
    return EndpointSlice(
        metadata=make.counter.meta(tenant, meta.namespace, f"{meta.name}-{name}", labels=labels),
        address_type="IPv4",
        endpoints=list(endpoints),
        ports=ports or [EndpointPort(name="http", port=8080, protocol="TCP")],
    )


def some_services() -> list[Object]:
    """Beside ``small_cluster``: one that is spread, one that keeps its clients, one local with a node port, one with nobody."""
    make = Objects()
    make.counter.last = 500
    web = service(make, "acme", "web", "10.96.0.20")
    dns_ports = [core.ServicePort(port=53, name="dns", protocol="UDP", node_port=30053)]
    dns = service(make, "acme", "dns", "10.96.0.21", ports=dns_ports, type="NodePort", internal_traffic_policy="Local")
    shop = service(make, "acme", "shop", "10.96.0.22", session_affinity="ClientIP")
    empty = service(make, "acme", "empty", "10.96.0.23")
    udp = [EndpointPort(name="dns", port=5353, protocol="UDP")]
    both = endpoint("10.0.0.2", "n1"), endpoint("10.0.0.3", "n2")
    return [
        web,
        part_of(make, web, *both),
        dns,
        part_of(make, dns, *both, ports=udp),
        shop,
        part_of(make, shop, *both),
        empty,
        part_of(make, empty, endpoint("10.0.0.2", "n1", ready=False, serving=False)),
    ]
