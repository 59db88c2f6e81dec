"""Services to Vips, Vips to elements."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polder.api import core
from polder.api.discovery import EndpointPort, EndpointSlice
from polder.api.meta import Object, ref_of
from polder.sdn.compile.compiler import Compiler
from polder.sdn.compile.keys import Concern, Key
from polder.sdn.partkeys import part_key
from polder.sdn.render.linux import vips
from polder.sdn.render.linux.desired import Desired, key_of
from polder.sdn.render.linux.items import Element, Item, Ruleset, Sysctl
from polder.sdn.render.linux.vips import chosen
from polder.sdn.render.linux.wanted import Wanted
from polder.sdn.topology.lines import dump_line
from polder.sdn.topology.text import parse_part
from polder.sdn.topology.types import Part
from polder.sdn.topology.vips import Backend, Vip, VipPort, arranged
from tests.unit.sdn.objects import FACTS, Objects, ref, small_cluster
from tests.unit.sdn.service_objects import endpoint, part_of, service, some_services


class Cluster:
    """``small_cluster``, with what is put beside it, up to what the kernel should hold on n1."""

    def __init__(self) -> None:
        self.make = Objects()
        self.make.counter.last = 1000
        self.compiler = Compiler()
        self.desired = Desired(FACTS)
        self.wanted = Wanted()
        for owner in self.desired.keys():  # noqa: SIM118 - no mapping
            self.wanted.put(owner, self.desired.render(owner))
        self.put(*small_cluster())

    def put(self, *objects: Object) -> set[tuple[str, ...]]:
        """The slots that this touches."""
        for obj in objects:
            self.compiler.put(type(obj), ref_of(obj), obj)
        return self.run()

    def gone(self, *objects: Object) -> set[tuple[str, ...]]:
        for obj in objects:
            self.compiler.put(type(obj), ref_of(obj), None)
        return self.run()

    def run(self) -> set[tuple[str, ...]]:
        owners = set()
        for key, part in self.compiler.recompile().items():
            owners |= self.desired.put(part_key(key), part)
        return {slot for owner in owners for slot in self.wanted.put(owner, self.desired.render(owner))}

    def vip(self, obj: core.Service) -> Vip:
        part = self.compiler.parts[Key(Concern.VIP, ref_of(obj))]
        assert isinstance(part, Vip)
        return part

    def elements(self, name: str) -> dict[str, str]:
        items = self.wanted.all_items()
        return {item.key: item.value for item in items if isinstance(item, Element) and item.set == name}


def backends(port: VipPort) -> list[str]:
    return [f"{one.address}:{one.port}" for one in port.ready]


def test_a_port_has_the_endpoints_of_all_slices_that_name_it_by_name_and_protocol() -> None:
    cluster = Cluster()
    ports = [core.ServicePort(port=80, name="http"), core.ServicePort(port=53, name="dns", protocol="UDP")]
    web = service(cluster.make, "acme", "web", "10.96.0.20", ports=ports)
    many = [
        EndpointPort(name="http", port=8080, protocol="TCP"),
        EndpointPort(name="dns", port=5353, protocol="UDP"),
        EndpointPort(name="dns", port=5354, protocol="TCP"),
        EndpointPort(name="more", port=9, protocol="TCP"),
    ]
    one = part_of(cluster.make, web, endpoint("10.0.0.2", "n1"), ports=many)
    two = part_of(cluster.make, web, endpoint("10.0.0.3", "n2"), endpoint("10.0.0.2", "n1"), name="two")
    foreign = part_of(cluster.make, service(cluster.make, "globex", "web", "10.96.0.20"), endpoint("10.0.0.66"))
    cluster.put(web, one, two, foreign)
    udp, tcp = sorted(cluster.vip(web).ports, key=lambda port: port.port)
    assert backends(tcp) == ["10.0.0.2:8080", "10.0.0.3:8080"]
    assert backends(udp) == ["10.0.0.2:5353"]
    assert Key(Concern.VIP, ref(foreign)) not in cluster.compiler.parts


def test_what_ends_and_still_answers_is_used_only_where_nothing_is_ready() -> None:
    cluster = Cluster()
    web = service(cluster.make, "acme", "web", "10.96.0.20")
    ending = endpoint("10.0.0.2", "n1", ready=False, serving=True, terminating=True)
    dead = endpoint("10.0.0.3", "n2", ready=False, serving=False, terminating=True)
    starting = endpoint("10.0.0.4", "n2", ready=False, serving=True, terminating=False)
    cluster.put(web, part_of(cluster.make, web, ending, dead, starting))
    assert list(cluster.elements("ends4").values()) == ["10.0.0.2 . 8080"]
    cluster.put(part_of(cluster.make, web, ending, dead, endpoint("10.0.0.4", "n2")))
    assert list(cluster.elements("ends4").values()) == ["10.0.0.4 . 8080"]
    cluster.put(part_of(cluster.make, web, dead))
    assert cluster.elements("vips4") == {}
    assert cluster.elements("cluster4") == {"10.96.0.20": ""}, "refused there"


def test_a_slice_cannot_send_clients_to_the_router_itself_or_to_nobody() -> None:
    cluster = Cluster()
    web = service(cluster.make, "acme", "web", "10.96.0.20")
    evil = ("127.0.0.1", "169.254.1.1", "100.64.0.1", "224.0.0.1", "0.0.0.0", "::1", "fe80::1", "::ffff:127.0.0.1", "x",
            "fd00::9%x", "fd00::9%x } ; flush ruleset",
            "fd70:6f6c:6465:7200::1")  # fmt: skip
    cluster.put(web, part_of(cluster.make, web, *(endpoint(address) for address in evil), endpoint("203.0.113.5")))
    assert backends(cluster.vip(web).ports[0]) == ["203.0.113.5:8080"]


@pytest.mark.parametrize("spec", [{"type": "ExternalName"}, {"cluster_ip": "None"}, {"cluster_ip": "10.96.0.1"},
                                  {"cluster_ip": "10.96.0.10"}])  # fmt: skip
def test_services_that_the_datapath_has_no_part_in(spec: dict[str, str]) -> None:
    """One by name, a headless one, and the two that the router answers itself."""
    cluster = Cluster()
    address = spec.pop("cluster_ip", "10.96.0.20")
    web = service(cluster.make, "acme", "web", address, **spec)
    cluster.put(web, part_of(cluster.make, web, endpoint("10.0.0.2")))
    assert Key(Concern.VIP, ref(web)) not in cluster.compiler.parts
    assert not any(isinstance(item, Ruleset) and item.table == "service" for item in cluster.wanted.all_items())


def balanced(web: core.Service, *addresses: str) -> core.Service:
    ingress = [core.LoadBalancerIngress(ip=one) for one in addresses]
    status = core.ServiceStatus(load_balancer=core.LoadBalancerStatus(ingress=ingress))
    return core.Service(metadata=web.metadata, spec=web.spec, status=status)


def test_nobody_takes_an_address_from_inside_by_writing_it_as_external() -> None:
    """Not a service range's, another service's, a pod's, a gateway's, a router's, nor what a load balancer was given."""
    cluster = Cluster()
    own = ["2001:db8::9", "203.0.113.9"]
    taken = ["10.96.0.99", "10.97.0.20", "198.51.100.1", "10.0.0.2", "10.0.0.1", "100.64.0.1", "127.0.0.1", "224.0.0.1",
             "169.254.169.254", "::1", "fd70:6f6c:6465:7200::1", "::ffff:10.0.0.2", "None"]  # fmt: skip
    evil = service(cluster.make, "acme", "aaa", "10.96.0.20", external_ips=[*own, *taken])
    further = service(cluster.make, "acme", "further", "10.97.0.20")
    shop = balanced(
        service(cluster.make, "acme", "shop", "10.96.0.21", type="LoadBalancer"), "198.51.100.1", "10.0.0.2"
    )
    cluster.put(
        evil, further, shop, *(part_of(cluster.make, one, endpoint("10.0.0.3")) for one in (evil, further, shop))
    )
    assert cluster.vip(evil).addresses == ("10.96.0.20", *own)
    assert cluster.vip(shop).addresses == ("10.96.0.21", "198.51.100.1")
    elsewhere = service(cluster.make, "globex", "web", "10.96.0.20", external_ips=["198.51.100.1"])
    cluster.put(elsewhere)
    assert cluster.vip(elsewhere).addresses == ("10.96.0.20", "198.51.100.1"), "another tenant's are nobody's here"
    cluster.gone(shop)
    assert cluster.vip(evil).addresses == ("10.96.0.20", "198.51.100.1", *own)
    cluster.put(shop)
    assert cluster.vip(evil).addresses == ("10.96.0.20", *own)


def test_a_service_fills_no_node_however_many_addresses_ports_and_endpoints_it_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(vips, "MOST_PLACES", 1000)
    cluster = Cluster()
    outside = [f"203.0.113.{n}" for n in range(100)]
    ports = [core.ServicePort(port=1000 + n, name=f"p{n}") for n in range(10)]
    web = service(cluster.make, "acme", "web", "10.96.0.20", ports=ports, external_ips=outside)
    named = [EndpointPort(name=f"p{n}", port=8000, protocol="TCP") for n in range(10)]
    ends = [endpoint(f"10.0.0.{n}") for n in range(2, 22)]
    cluster.put(web, part_of(cluster.make, web, *ends, ports=named))
    assert len(cluster.elements("vips4")) == 10 * (1 + 16), "each port answers at each address that counts"
    assert len(cluster.elements("ends4")) == 10 * (1 + 16) * 5, "at as many backends as there is room for"


def test_external_and_balancers_addresses_answer_too_but_refuse_no_other_port() -> None:
    cluster = Cluster()
    ingress = [
        core.LoadBalancerIngress(ip="198.51.100.1"),
        core.LoadBalancerIngress(ip="198.51.100.2", ip_mode="Proxy"),
    ]
    web = service(cluster.make, "acme", "web", "10.96.0.20", external_ips=["203.0.113.9"])
    status = core.ServiceStatus(load_balancer=core.LoadBalancerStatus(ingress=ingress))
    web = core.Service(metadata=web.metadata, spec=web.spec, status=status)
    cluster.put(web, part_of(cluster.make, web, endpoint("10.0.0.2")))
    asked = {key.split(" . ")[0] for key in cluster.elements("vips4")}
    assert asked == {"10.96.0.20", "203.0.113.9", "198.51.100.1"}
    assert cluster.elements("cluster4") == {"10.96.0.20": ""}


def test_a_local_service_uses_its_own_nodes_backends_and_drops_where_there_are_only_others() -> None:
    near, far = Backend("10.0.0.2", 80, "n1"), Backend("10.0.0.3", 80, "n2")
    ending = Backend("10.0.0.4", 80, "n1")
    assert chosen(VipPort("tcp", 80, ready=(near, far)), "4", "", "n1", local=True) == [near]
    assert chosen(VipPort("tcp", 80, ready=(far,), ending=(ending,)), "4", "", "n1", local=True) == [ending]
    cluster = Cluster()
    web = service(cluster.make, "acme", "web", "10.96.0.20", internal_traffic_policy="Local")
    cluster.put(web, part_of(cluster.make, web, endpoint("10.0.0.3", "n2")))
    assert cluster.elements("vips4") == {"10.96.0.20 . tcp . 80": "drop"}


def test_hints_count_where_all_ready_backends_have_them_and_one_is_for_here() -> None:
    def port(*some: Backend) -> VipPort:
        return VipPort("tcp", 80, ready=some)

    one, two = Backend("10.0.0.2", 80, "n1", ("z1",), ("n1",)), Backend("10.0.0.3", 80, "n2", ("z2",), ("n2",))
    assert chosen(port(one, two), "4", "z2", "n1", local=False) == [one], "the node before the zone"
    assert chosen(port(one, replace(two, nodes=())), "4", "z2", "n1", local=False) == [replace(two, nodes=())]
    assert chosen(port(one, two), "4", "z3", "n3", local=False) == [one, two], "none is for here"
    plain = Backend("10.0.0.4", 80)
    assert chosen(port(one, plain), "4", "z1", "n1", local=False) == [one, plain], "one has no hint"


def test_the_zone_of_the_node_decides_and_its_change_is_followed() -> None:
    cluster = Cluster()
    web = service(cluster.make, "acme", "web", "10.96.0.20")
    cluster.put(web, part_of(cluster.make, web, endpoint("10.0.0.2", zone="z1"), endpoint("10.0.0.3", zone="z2")))
    assert len(cluster.elements("ends4")) == 2
    node = cluster.make.node("n1", "192.168.7.1")
    labels = {"topology.kubernetes.io/zone": "z2"}
    node = core.Node(metadata=cluster.make.counter.meta("root", "", "n1", labels=labels), status=node.status)
    cluster.put(node)
    assert list(cluster.elements("ends4").values()) == ["10.0.0.3 . 8080"]


def test_rules_see_bridged_packets_while_there_is_a_service() -> None:
    cluster = Cluster()

    def switch() -> set[str]:
        items = cluster.wanted.all_items()
        return {i.value for i in items if isinstance(i, Sysctl) and i.path == "net/bridge/bridge-nf-call-iptables"}

    assert switch() == {"0"}
    web = service(cluster.make, "acme", "web", "10.96.0.20")
    cluster.put(web)
    assert switch() == {"1"}
    cluster.gone(web)
    assert switch() == {"0"}


def test_one_backend_is_three_elements_at_most_and_costs_the_same_among_a_thousand_services() -> None:
    costs = []
    for size in (1, 1000):
        cluster = Cluster()
        services = [service(cluster.make, "acme", f"s{n}", f"10.96.{1 + n // 250}.{n % 250}") for n in range(size)]
        ready = [endpoint(f"10.0.1.{n}", "n2") for n in range(1, 21)]
        slices = [part_of(cluster.make, one, *ready) for one in services]
        cluster.put(*services, *slices)
        less = part_of(cluster.make, services[0], *ready[:3], *ready[4:])
        touched = [slot for slot in cluster.put(less) if slot[0] == "element"]
        more = part_of(cluster.make, services[0], *ready)
        again = [slot for slot in cluster.put(more) if slot[0] == "element"]
        costs.append((len(touched), len(again)))
    assert costs == [(3, 2), (3, 2)], "the verdict, the slot that it had, the last slot; the verdict and a slot"


def test_backends_keep_their_places() -> None:
    def at(*names: str) -> dict[tuple[str, int], Backend]:
        return {(name, 1): Backend(name, 1) for name in names}

    def names(some: tuple[Backend, ...]) -> str:
        return "".join(one.address for one in some)

    first = arranged(at("c", "a", "b"), ())
    assert names(first) == "abc"
    assert names(arranged(at("a", "b", "c", "d"), first)) == "abcd"
    assert names(arranged(at("b", "c"), first)) == "cb"
    assert names(arranged(at("b", "c", "z"), first)) == "zbc"
    assert names(arranged(at("a"), first)) == "a"
    assert names(arranged({}, first)) == ""


def test_a_vip_has_canonical_text() -> None:
    cluster = Cluster()
    cluster.put(*some_services())
    vips = [part for part in cluster.compiler.parts.values() if isinstance(part, Vip)]
    assert len(vips) == 4
    for vip in vips:
        assert parse_part(dump_line(vip)) == vip


def test_two_backends_never_share_a_mark() -> None:
    from polder.sdn.render.linux import vips

    some = [Backend(f"10.0.{n // 250}.{n % 250}", 80) for n in range(2000)]
    assert len(set(vips._marks(some))) == len(some)
    assert all(mark >> 31 == 1 for mark in vips._marks(some))


# -- incremental equals from scratch, but for the places of backends ------------------------------------------------

NAMES = st.sampled_from(["web", "shop", "dns"])
ADDRESSES = st.sampled_from(["10.96.0.20", "10.96.0.21", "None", "10.96.0.1"])
ENDPOINTS = st.lists(
    st.tuples(st.sampled_from(["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5"]), st.sampled_from(["n1", "n2"]),
              st.sampled_from(["ready", "ending", "dead"]), st.sampled_from(["", "z1", "z2"])),
    max_size=4,
)  # fmt: skip
steps = st.one_of(
    st.tuples(st.just("service"), NAMES, ADDRESSES, st.booleans(), st.booleans(), st.booleans()),
    st.tuples(st.just("slice"), NAMES, st.sampled_from("ab"), ENDPOINTS, st.booleans()),
    st.tuples(st.just("transit"), st.sampled_from(["100.64.0.1", "100.64.0.9"]), st.booleans()),
    st.tuples(st.just("node"), st.sampled_from(["", "z1", "z2"]), st.just(True)),
)
STATES = {"ready": {}, "ending": {"ready": False, "terminating": True}, "dead": {"ready": False, "serving": False}}


def build(make: Objects, step: tuple) -> tuple[Object, bool]:
    match step:
        case ("service", name, address, local, stays, present):
            more = {"session_affinity": "ClientIP"} if stays else {}
            ports = [core.ServicePort(port=80, name="http", node_port=30080)]
            policy = "Local" if local else None
            return service(make, "acme", name, address, internal_traffic_policy=policy, ports=ports, **more), present
        case ("slice", name, letter, some, present):
            owner = service(make, "acme", name, "10.96.0.99")
            found = [endpoint(at, node, zone=zone, **STATES[state]) for at, node, state, zone in some]
            return part_of(make, owner, *found, name=letter), present
        case ("transit", address, present):
            return make.transit("acme", "n1", address), present
        case ("node", zone, present):
            labels = {"topology.kubernetes.io/zone": zone}
            status = make.node("n1", "192.168.7.1").status
            return core.Node(metadata=make.counter.meta("root", "", "n1", labels=labels), status=status), present
    raise AssertionError(step)


def placeless(items: frozenset[Item]) -> Counter[object]:
    """Items without the numbers of slots."""
    slot = re.compile(r" \. \d+$")
    return Counter(
        (item.set, slot.sub("", item.key), item.value)
        if isinstance(item, Element) and item.set[:-1] in ("ends", "ids")
        else item
        for item in items
    )


def normal(part: Part) -> Part:
    if not isinstance(part, Vip):
        return part
    ports = (replace(p, ready=tuple(sorted(p.ready)), ending=tuple(sorted(p.ending))) for p in part.ports)
    return replace(part, ports=tuple(ports))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(steps, min_size=1, max_size=3), min_size=1, max_size=6))
def test_incremental_is_the_same_as_from_scratch(runs: list[list[tuple]]) -> None:
    cluster, alive = Cluster(), {(type(obj), ref(obj)): obj for obj in small_cluster()}
    for run in runs:
        for step in run:
            obj, present = build(cluster.make, step)
            cluster.compiler.put(type(obj), ref(obj), obj if present else None)
            alive.pop((type(obj), ref(obj)), None)
            if present:
                alive[type(obj), ref(obj)] = obj
        cluster.run()
    fresh = Compiler()
    for (kind, at), obj in alive.items():
        fresh.put(kind, at, obj)
    fresh.recompile()
    assert {k: normal(p) for k, p in cluster.compiler.parts.items()} == {k: normal(p) for k, p in fresh.parts.items()}
    clean, anew = Desired(FACTS), Wanted()
    for part in fresh.parts.values():
        clean.put(key_of(part), part)
    for owner in list(clean.keys()):
        anew.put(owner, clean.render(owner))
    assert placeless(cluster.wanted.all_items()) == placeless(anew.all_items())


def test_a_slice_that_changes_its_owner_leaves_the_first() -> None:
    cluster = Cluster()
    web, shop = service(cluster.make, "acme", "web", "10.96.0.20"), service(cluster.make, "acme", "shop", "10.96.0.21")
    one = part_of(cluster.make, web, endpoint("10.0.0.2"))
    cluster.put(web, shop, one)
    assert backends(cluster.vip(web).ports[0]) == ["10.0.0.2:8080"]
    meta = cluster.make.counter.meta("acme", "default", "web-one", labels={"kubernetes.io/service-name": "shop"})
    cluster.put(EndpointSlice(metadata=meta, address_type="IPv4", endpoints=one.endpoints, ports=one.ports))
    assert backends(cluster.vip(web).ports[0]) == []
    assert backends(cluster.vip(shop).ports[0]) == ["10.0.0.2:8080"]
