"""Policies beside services, the tenant's resolver and its API, isolated networks, and the outside."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

import pytest

from polder.sdn.topology.policies import Group, GroupMember, Peer, Policy, PolicyRule, Ports
from polder.sdn.topology.types import Network, Router
from polder.sdn.topology.vips import Backend, Vip, VipPort
from polder.system.net.netns import run_inside
from tests.system.lab import BRIEF, OUTSIDE, Lab

pytestmark = pytest.mark.system
WEB, CLIENT, FAR = "10.0.1.10", "10.0.1.11", "10.0.1.12"
SERVICE, API, RESOLVER = "10.96.5.5", "10.96.0.1", "10.96.0.10"
ALL = PolicyRule("accept", anyone=True)


async def town(lab: Lab) -> None:
    """acme's web and client on n1, far on n2, a service with both servers; all of acme's pods are the group ``all``."""
    lab.tenant("acme", 7, {"a": "10.0.1.0/24"})
    for name, node, address in (("web", "n1", WEB), ("client", "n1", CLIENT), ("far", "n2", FAR)):
        lab.pod("acme", name, node, address)
    port = VipPort("tcp", 80, ready=(Backend(WEB, 8080, "n1"), Backend(FAR, 8080, "n2")))
    lab.put(Vip("acme", "default/web", (SERVICE,), (SERVICE,), (port,)))
    for key, part in list(lab.parts.items()):
        if isinstance(part, Router):
            lab.parts[key] = replace(part, dns=RESOLVER)
    lab.put(group("all", *[one(n, a) for n, a in (("web", WEB), ("client", CLIENT), ("far", FAR))]))
    await lab.deploy()


def one(name: str, address: str) -> GroupMember:
    return GroupMember(f"default/{name}", "default/a", (address,))


def group(name: str, *members: GroupMember, peer: bool = False) -> Group:
    return Group("acme", f"/{name}", peer, members=members)


def egress(*rules: PolicyRule) -> Policy:
    return Policy("acme", "default/out", "network", "all", isolates=("egress",), egress=rules)


def ingress(*rules: PolicyRule, subject: str = "all") -> Policy:
    return Policy("acme", "default/in", "network", subject, isolates=("ingress",), ingress=rules)


async def test_policies_see_the_backend_and_the_client_not_the_services_address(lab: Lab) -> None:
    await town(lab)
    client = lab.pods["acme.client"]
    with lab.pods["acme.web"].tcp_server(), lab.pods["acme.far"].tcp_server():
        lab.put(egress(PolicyRule("accept", (Peer(block=f"{SERVICE}/32"),))))
        await lab.deploy()
        assert {client.tcp(SERVICE, 80, BRIEF) for _ in range(4)} == {""}, "the service's address is nobody's"
        lab.put(egress(PolicyRule("accept", (Peer(block=f"{WEB}/32"),), (Ports("TCP", 8080, 8080),))))
        await lab.deploy()
        assert {client.tcp(SERVICE, 80, 0.3) for _ in range(20)} == {"acme.web", ""}, "one backend of two"
        lab.put(egress(ALL))
        lab.put(group("friends", one("client", CLIENT), peer=True))
        lab.put(ingress(PolicyRule("accept", (Peer("friends"),))))
        await lab.deploy()
        assert {client.tcp(SERVICE, 80) for _ in range(20)} == {"acme.web", "acme.far"}
        assert {lab.pods["acme.far"].tcp(SERVICE, 80, 0.3) for _ in range(20)} == {"acme.far", ""}, "itself alone"
        lab.put(ingress())
        lab.put(egress())
        await lab.deploy()
        assert {lab.pods["acme.web"].tcp(SERVICE, 80, 0.3) for _ in range(20)} == {"acme.web", ""}, (
            "a pod reaches itself"
        )


@contextmanager
def answering(lab: Lab, node: str, address: str, port: int, kind: int) -> Iterator[None]:
    """Something of the router's own, as the agent puts it there."""
    with lab.space(node, "acme") as netns:
        sock = run_inside(netns, lambda: socket.socket(socket.AF_INET, kind))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((address, port))
    if kind == socket.SOCK_STREAM:
        sock.listen()

    sock.settimeout(0.1)
    ended = threading.Event()

    def serve() -> None:
        while not ended.is_set():
            with suppress(OSError):
                if kind == socket.SOCK_STREAM:
                    with sock.accept()[0] as connection:
                        connection.sendall(b"here")
                else:
                    sock.sendto(*sock.recvfrom(512))

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        sock.close()


def asks(lab: Lab, pod: str) -> bool:
    with lab.pods[pod].socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(0.4)
        try:
            sock.sendto(b"question", (RESOLVER, 53))
            return sock.recv(64) == b"question"
        except OSError:
            return False


async def test_an_isolated_pod_asks_the_resolver_and_the_api_if_a_rule_says_so(lab: Lab) -> None:
    await town(lab)
    client = lab.pods["acme.client"]
    with answering(lab, "n1", API, 443, socket.SOCK_STREAM), answering(lab, "n1", RESOLVER, 53, socket.SOCK_DGRAM):
        assert client.tcp(API, 443) == "here", "control"
        assert asks(lab, "acme.client"), "control"
        lab.put(egress())
        await lab.deploy()
        assert not client.tcp(API, 443, seconds=BRIEF)
        assert not asks(lab, "acme.client")
        lab.put(group("dns", GroupMember("", "", (RESOLVER,)), peer=True))
        lab.put(egress(PolicyRule("accept", (Peer("dns"),), (Ports("UDP", 53, 53),))))
        await lab.deploy()
        assert asks(lab, "acme.client")
        assert not client.tcp(API, 443, seconds=BRIEF)
        lab.put(egress(PolicyRule("accept", (Peer(block=f"{API}/32"),), (Ports("TCP", 443, 443),))))
        await lab.deploy()
        assert client.tcp(API, 443) == "here"
        assert not asks(lab, "acme.client")


async def test_the_outside_is_a_block_like_others_and_answers_come_back(lab: Lab) -> None:
    await town(lab)
    client = lab.pods["acme.client"]
    with lab.outside.tcp_server():
        assert client.tcp(OUTSIDE) == "outside", "control"
        lab.put(egress(PolicyRule("accept", (Peer(block="0.0.0.0/0", without=("203.0.113.0/24",)),))))
        lab.put(ingress())
        await lab.deploy()
        assert not client.tcp(OUTSIDE, seconds=BRIEF)
        assert not client.ping(OUTSIDE, seconds=BRIEF)
        lab.put(egress(PolicyRule("accept", (Peer(block="203.0.113.0/28"),))))
        await lab.deploy()
        assert client.tcp(OUTSIDE) == "outside", "isolated for ingress too, yet answers are no ingress"
        assert client.ping(OUTSIDE)
        assert not client.ping("10.0.1.1", seconds=BRIEF), "the gateway is not in the block"


async def test_a_network_without_a_router_has_policies_of_its_tenant(lab: Lab) -> None:
    await town(lab)
    lab.put(Network("acme", "default/island", 0x909, "10.0.9.0/24"))
    for name, node, address in (("i1", "n1", "10.0.9.2"), ("i2", "n1", "10.0.9.3"), ("i3", "n2", "10.0.9.4")):
        lab.pod("acme", name, node, address, "island")
    await lab.deploy()
    one_, two, three = (lab.pods[f"acme.{name}"] for name in ("i1", "i2", "i3"))
    assert one_.ping("10.0.9.3"), "control; the same the other way would count as a connection that stands"
    island = "default/island"
    lab.put(group("i1", GroupMember("default/i1", island, ("10.0.9.2",))))
    lab.put(group("i3", GroupMember("default/i3", island, ("10.0.9.4",)), peer=True))
    lab.put(ingress(PolicyRule("accept", (Peer("i3"),)), subject="i1"))
    await lab.deploy()
    await lab.verify()
    assert not two.ping("10.0.9.2", seconds=BRIEF)
    assert three.ping("10.0.9.2")
    assert one_.ping("10.0.9.3")
    assert lab.pods["acme.client"].ping(WEB), "the other networks are free"
