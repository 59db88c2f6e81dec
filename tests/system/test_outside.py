"""Addresses on the outside by real packets: who answers for them on the wire, who gets in, and that nobody else does."""

from __future__ import annotations

import socket

import pytest

from polder.sdn.topology.vips import CLOSED, Backend, Outside, Vip, VipPort
from polder.system.net import dumps
from polder.system.net.codec import family_of
from tests.system.lab import BRIEF, OUTSIDE, PATIENT, UNDERLAY, UNDERLAY6, Host, Lab, waited
from tests.system.test_services import FAR, WEB, two_tenants, udp_from, udp_server

pytestmark = pytest.mark.system
GIVEN, OTHERS, GIVEN6 = f"{UNDERLAY}.200", f"{UNDERLAY}.201", f"{UNDERLAY6}:200"
CLUSTER = "10.96.7.7"


def balancer(tenant: str, *backends: Backend, given: str = GIVEN, protocol: str = "tcp", **more: object) -> Vip:
    ports = (VipPort(protocol, 80, "web", ready=backends), VipPort(protocol, 81, "more", ready=backends))
    addresses = tuple(sorted((CLUSTER, given)))
    return Vip(tenant, "default/web", addresses, (CLUSTER,), ports, balanced=(given,), **more)  # type: ignore[arg-type]


def outside(tenant: str, node: str, given: str = GIVEN) -> Outside:
    return Outside(tenant, f"default/{given}", given, "default/web", node)


def asked(client: Host, address: str = GIVEN, port: int = 80, times: int = 8, seconds: float = PATIENT) -> set[str]:
    first = client.tcp(address, port, seconds)
    return {first, *(client.tcp(address, port, PATIENT if first else BRIEF) for _ in range(times - 1))}


async def test_the_outside_reaches_backends_here_and_elsewhere_and_each_tenant_its_own(lab: Lab) -> None:
    pods = two_tenants(lab)
    lab.put(balancer("acme", Backend(WEB, 8080, "n1"), Backend(FAR, 8080, "n2")))
    lab.put(balancer("globex", Backend(WEB, 8080, "n1"), given=OTHERS))
    lab.put(outside("acme", "n1"))
    lab.put(outside("globex", "n2", OTHERS))
    await lab.deploy()
    await lab.verify()
    with (
        pods["acme.web"].tcp_server() as here,
        pods["acme.far"].tcp_server() as there,
        pods["globex.web"].tcp_server() as others,
    ):
        assert asked(lab.outside) == {"acme.web", "acme.far"}
        assert asked(lab.outside, port=81) == {"acme.web", "acme.far"}, "each of its ports"
        assert set(here) == {f"{UNDERLAY}.100"}, "a backend of this node sees who asks"
        assert set(there) == {"100.64.1.7"}, (
            "one of another node sees this node's router, or its answer would leave there"
        )
        assert asked(lab.outside, OTHERS) == {"globex.web"} and set(others) == {"100.64.2.8"}
        assert lab.outside.tcp(GIVEN, 82, seconds=BRIEF) == "" and lab.outside.tcp(GIVEN, 8080, seconds=BRIEF) == "", (
            "no other port leads in"
        )
        assert not lab.outside.ping(GIVEN, seconds=BRIEF)


async def test_an_address_is_told_to_the_wire_and_answered_at_once(lab: Lab) -> None:
    pods = two_tenants(lab)
    lab.put(balancer("acme", Backend(WEB, 8080, "n1"), Backend(FAR, 8080, "n2")))
    lab.put(outside("acme", "n1"))
    await lab.deploy()
    with pods["acme.web"].tcp_server(), pods["acme.far"].tcp_server():
        assert asked(lab.outside, times=2) <= {"acme.web", "acme.far"}
        first = neighbour(lab.outside, GIVEN)
        assert first == lab.nodes["n1"].host.link("eth0").mac
        lab.put(outside("acme", "n2"))
        await lab.deploy()
        assert waited(lambda: neighbour(lab.outside, GIVEN) == lab.nodes["n2"].host.link("eth0").mac, 0.5)
        assert asked(lab.outside) == {"acme.web", "acme.far"}
        await lab.verify()


def neighbour(host: Host, address: str) -> str:
    return next((one.mac for one in dumps.neighbours(host.route) if one.address == address), "")


async def test_only_those_get_in_who_may_and_local_asks_this_node_alone(lab: Lab) -> None:
    pods = two_tenants(lab)
    lab.put(outside("acme", "n1"))
    with pods["acme.web"].tcp_server() as here, pods["acme.far"].tcp_server():
        both = (Backend(WEB, 8080, "n1"), Backend(FAR, 8080, "n2"))
        lab.put(balancer("acme", *both, sources=(f"{OUTSIDE}/32",)))
        await lab.deploy()
        assert asked(lab.outside, times=2, seconds=BRIEF) == {""}, "from the wire's address"
        assert from_source(lab.outside, OUTSIDE) in {"acme.web", "acme.far"}
        assert asked(pods["acme.client"], times=2, seconds=BRIEF) == {""}, "its own pods are no exception"
        assert asked(pods["acme.client"], CLUSTER, times=2) <= {"acme.web", "acme.far"}
        lab.put(balancer("acme", *both, sources=(f"{UNDERLAY}.0/24", "10.0.1.0/24"), local_outside=True))
        await lab.deploy()
        await lab.verify()
        assert from_source(lab.outside, OUTSIDE) == ""
        assert asked(lab.outside, times=12) == {"acme.web"}, "with a local policy this node's alone"
        assert asked(pods["acme.client"], times=20) == {"acme.web", "acme.far"}, "from inside, all"
        assert f"{UNDERLAY}.100" in here
        lab.put(balancer("acme", Backend(FAR, 8080, "n2"), local_outside=True))
        await lab.deploy()
        assert asked(lab.outside, times=2, seconds=BRIEF) == {""}, "none here"
        lab.put(balancer("acme", *both, sources=(CLOSED,)))
        await lab.deploy()
        assert asked(lab.outside, times=2, seconds=BRIEF) == {""}, "what means no prefix lets nobody in"


def from_source(client: Host, source: str, address: str = GIVEN) -> str:
    with client.socket(family_of(address), socket.SOCK_STREAM) as sock:
        sock.bind((source, 0))
        sock.settimeout(0.7)
        try:
            sock.connect((address, 80))
            return sock.recv(64).decode()
        except OSError:
            return ""


async def test_datagrams_come_in_and_their_answers_go_out(lab: Lab) -> None:
    pods = two_tenants(lab)
    both = (Backend(WEB, 8053, "n1"), Backend(FAR, 8053, "n2"))
    lab.put(balancer("acme", *both, protocol="udp"))
    lab.put(outside("acme", "n1"))
    await lab.deploy()
    with udp_server(pods["acme.web"]), udp_server(pods["acme.far"]):
        assert {udp_from(lab.outside, GIVEN, 80) for _ in range(12)} == {"acme.web", "acme.far"}


async def test_ipv6_comes_in_the_same_way(lab: Lab) -> None:
    for number, tenant in ((7, "acme"), (8, "globex")):
        lab.tenant(tenant, number, {"a": "10.0.1.0/24,fd00:10:1::/64"})
    here = lab.pod("acme", "web", "n1", "10.0.1.10,fd00:10:1::10")
    there = lab.pod("acme", "far", "n2", "10.0.1.12,fd00:10:1::12")
    backends = Backend("fd00:10:1::10", 8080, "n1"), Backend("fd00:10:1::12", 8080, "n2")
    lab.put(balancer("acme", *backends, given=GIVEN6, sources=(f"{UNDERLAY6}:/64",)))
    lab.put(outside("acme", "n1", GIVEN6))
    await lab.deploy()
    await lab.verify()
    with here.tcp_server(address="::") as seen, there.tcp_server(address="::"):
        assert waited(lambda: asked(lab.outside, GIVEN6) == {"acme.web", "acme.far"})
        assert set(seen) == {f"{UNDERLAY6}:100"}
        lab.put(outside("acme", "n2", GIVEN6))
        await lab.deploy()
        assert waited(lambda: neighbour(lab.outside, GIVEN6) == lab.nodes["n2"].host.link("eth0").mac, 0.5)
        assert waited(lambda: asked(lab.outside, GIVEN6) == {"acme.web", "acme.far"}), (
            "(a fresh machine settles its own addresses)"
        )


async def test_no_other_tenant_and_no_machine_of_the_cluster_comes_in(lab: Lab) -> None:
    pods = two_tenants(lab)
    lab.put(balancer("acme", Backend(WEB, 8080, "n1"), Backend(FAR, 8080, "n2")))
    lab.put(outside("acme", "n1"))
    await lab.deploy()
    with pods["acme.web"].tcp_server(), pods["acme.far"].tcp_server():
        assert asked(lab.outside) == {"acme.web", "acme.far"}
        for name in ("globex.client", "globex.far"):
            assert pods[name].tcp(GIVEN, 80, seconds=BRIEF) == "", f"{name}: on the node that answers, and on another"
            assert not pods[name].ping(GIVEN, seconds=BRIEF)
        assert lab.nodes["n2"].host.tcp(GIVEN, 80, seconds=BRIEF) == ""
        assert {pods["acme.client"].tcp(GIVEN, 80), pods["acme.far"].tcp(GIVEN, 80)} <= {"acme.web", "acme.far"}
