"""Addresses on the outside and ports of machines: what of API objects they follow from, and whom they are for."""

from __future__ import annotations

import pytest

from polder.api import core
from polder.api.addresses import ExternalAddress, ExternalAddressSpec, ExternalAddressStatus
from polder.api.meta import Object, ref_of
from polder.api.podspec import Container, ContainerPort
from polder.api.polder import EGRESS_ANNOTATION
from polder.sdn.compile.compiler import Compiler
from polder.sdn.compile.fragments import compile_node
from polder.sdn.topology.types import Part
from polder.sdn.topology.vips import CLOSED, Hosted, HostPort, Outside, Vip
from tests.unit.sdn.objects import Objects, small_cluster
from tests.unit.sdn.service_objects import service

GIVEN = "192.0.2.7"


def parts(kind: type[Part], *objects: Object) -> list[Part]:
    compiler = Compiler()
    for obj in [*small_cluster(), *objects]:
        compiler.put(type(obj), ref_of(obj), obj)
    compiler.recompile()
    assert not compiler.errors
    return [part for part in compiler.parts.values() if isinstance(part, kind)]


def claim(make: Objects, node: str, address: str = GIVEN) -> ExternalAddress:
    make.counter.last += 1000
    spec = ExternalAddressSpec(address=address, pool="p", tenant="acme", service="default/web", service_uid="u")
    meta = make.counter.meta("root", "", address)
    return ExternalAddress(metadata=meta, spec=spec, status=ExternalAddressStatus(node=node))


def test_the_platforms_claim_opens_and_what_a_service_says_does_not() -> None:
    make = Objects()
    assert parts(Outside, claim(make, "n1")) == [Outside("acme", f"default/{GIVEN}", GIVEN, "default/web", "n1")]
    said = core.ServiceStatus(load_balancer=core.LoadBalancerStatus(ingress=[core.LoadBalancerIngress(ip=GIVEN)]))
    lying = service(make, "acme", "web", "10.96.0.20", type="LoadBalancer")
    lying = core.Service(metadata=lying.metadata, spec=lying.spec, status=said)
    assert parts(Outside, lying) == []


@pytest.mark.parametrize(
    ("written", "annotated", "sources"),
    [
        (None, "", ()),
        (["10.1.2.3/8", " 2001:db8::/32 "], "", ("10.0.0.0/8", "2001:db8::/32")),
        (None, "192.0.2.0/24, 10.0.0.0/8", ("10.0.0.0/8", "192.0.2.0/24")),
        (["nonsense"], "", (CLOSED,)),
    ],
)
def test_who_may_ask_a_load_balancer(written: list[str] | None, annotated: str, sources: tuple[str, ...]) -> None:
    make = Objects()
    make.counter.last = 5000
    found = service(make, "acme", "web", "10.96.0.20", type="LoadBalancer", load_balancer_source_ranges=written)
    (found.metadata.annotations or {})["service.beta.kubernetes.io/load-balancer-source-ranges"] = annotated
    status = core.ServiceStatus(load_balancer=core.LoadBalancerStatus(ingress=[core.LoadBalancerIngress(ip=GIVEN)]))
    (vip,) = parts(Vip, core.Service(metadata=found.metadata, spec=found.spec, status=status))
    assert isinstance(vip, Vip)
    assert (vip.balanced, vip.sources) == ((GIVEN,), sources)


def pod(make: Objects, tenant: str, *ports: ContainerPort, **spec: object) -> core.Pod:
    container = Container(name="c", image="i", ports=list(ports))
    meta = make.counter.meta(tenant, "default", "web")
    return core.Pod(metadata=meta, spec=core.PodSpec(containers=[container], **spec))  # type: ignore[arg-type]


def hosting(tenant: str, **spec: object) -> list[Part]:
    """The pod web with a port on n1, its sandbox there."""
    make = Objects()
    make.counter.last = 5000
    wished = (
        ContainerPort(container_port=80, host_port=8080),
        ContainerPort(container_port=53, host_port=53, host_ip="192.0.2.1", protocol="UDP"),
        ContainerPort(container_port=90, host_port=90, host_ip="x; drop"),
        ContainerPort(container_port=91),
    )
    found = pod(make, tenant, *wished, **spec)
    there = [make.tenant(tenant), make.network(tenant, "w", "10.77.0.0/24", 77)]
    port = make.port(tenant, found.metadata.uid, "n1", "10.77.0.9", network="w", sandbox="s")
    return parts(Hosted, *there, port, found)


def test_ports_of_a_machine_lead_to_the_platforms_pods_alone() -> None:
    make = Objects()
    found = pod(make, "root", ContainerPort(container_port=1, host_port=1))
    assert parts(Hosted, found) == [], "it has no address yet"
    web = HostPort("tcp", 8080, "10.77.0.9", 80)
    dns = HostPort("udp", 53, "10.77.0.9", 53, "192.0.2.1")
    assert hosting("root") == [Hosted("root", "default/web", (web, dns))]
    assert hosting("acme") == []
    assert hosting("root", host_network=True) == []


def test_a_node_says_from_where_its_tenants_leave_it() -> None:
    node = Objects().node("n1", "192.168.7.1")
    (node.metadata.annotations or {})[EGRESS_ANNOTATION] = "192.168.7.101,2001:db8::5,nonsense"
    assert compile_node(node).egress == ("192.168.7.101", "2001:db8::5")
