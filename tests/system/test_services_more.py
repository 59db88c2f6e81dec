"""Services with IPv6, with node ports and local policies, and what goes on beside them while rules see bridged packets."""

from __future__ import annotations

import socket

import pytest

from polder.sdn.topology.vips import Backend, Vip, VipPort
from tests.system.lab import Host, Lab
from tests.system.test_multicast import GROUPS, heard, member, room, talk
from tests.system.test_services import (
    CLIENT,
    FAR,
    OTHER,
    SERVICE,
    WEB,
    answers,
    service,
    two_tenants,
    udp_from,
    udp_server,
)

pytestmark = pytest.mark.system
SERVICE6 = "fd00:96::5"


def dual(tenant: str, *backends: Backend, protocol: str = "tcp", **more: object) -> Vip:
    both = ("10.96.5.5", SERVICE6)
    return Vip(tenant, "default/web", both, both, (VipPort(protocol, 80, ready=backends),), **more)  # type: ignore[arg-type]


async def dual_stack(lab: Lab) -> dict[str, Host]:
    """acme and globex with pods of both families: client and web on n1, far and other on n2, the last in another network."""
    pods = {}
    for number, tenant in ((7, "acme"), (8, "globex")):
        lab.tenant(tenant, number, {"a": "10.0.1.0/24,fd00:1::/64", "b": "10.0.2.0/24,fd00:2::/64"})
        for name, node, address, network in (
            ("web", "n1", f"{WEB},fd00:1::10", "a"),
            ("client", "n1", f"{CLIENT},fd00:1::11", "a"),
            ("far", "n2", f"{FAR},fd00:1::12", "a"),
            ("other", "n2", f"{OTHER},fd00:2::10", "b"),
        ):
            pods[f"{tenant}.{name}"] = lab.pod(tenant, name, node, address, network)
    return pods


async def test_each_family_has_its_backends(lab: Lab) -> None:
    pods = await dual_stack(lab)
    backends = (Backend(FAR, 8080, "n2"), Backend("fd00:1::10", 8080, "n1"), Backend("fd00:2::10", 8080, "n2"))
    lab.put(dual("acme", *backends))
    lab.put(dual("globex", Backend("fd00:1::12", 8080, "n2"), affinity=60))
    await lab.deploy()
    await lab.verify()
    servers = [
        pods[f"{t}.{name}"].tcp_server(8080, "::") for t in ("acme", "globex") for name in ("web", "far", "other")
    ]
    seen = [server.__enter__() for server in servers]
    try:
        for name in ("client", "far", "web", "other"):
            assert answers(pods[f"acme.{name}"], 4) == {"acme.far"}, name
            assert answers(pods[f"acme.{name}"], 20, SERVICE6) == {"acme.web", "acme.other"}, name
            assert answers(pods[f"globex.{name}"], 3, SERVICE6) == {"globex.far"}, name
        assert {"fd00:1::11", "fd00:1::12"} <= set(seen[0]), "the server sees who asks"
    finally:
        for server in servers:
            server.__exit__(None, None, None)
    with pods["globex.client"].socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.settimeout(2)
        with pytest.raises(ConnectionRefusedError):
            sock.connect((SERVICE, 80))
    with pods["acme.client"].socket(socket.AF_INET6, socket.SOCK_STREAM) as sock:
        sock.settimeout(2)
        with pytest.raises(ConnectionRefusedError):
            sock.connect((SERVICE6, 81))


async def test_a_node_port_answers_the_tenants_pods_at_its_own_router_and_nobody_else(lab: Lab) -> None:
    """The router's address on the client's node: 100.64.NODE.TENANT."""
    pods = two_tenants(lab)
    port = VipPort("tcp", 80, node_port=30080, ready=(Backend(WEB, 8080, "n1"), Backend(FAR, 8080, "n2")))
    lab.put(Vip("acme", "default/web", (SERVICE,), (SERVICE,), (port,)))
    lab.put(Vip("acme", "default/local", ("10.96.5.6",), ("10.96.5.6",), (replaced(port, 30081),), local_outside=True))
    lab.put(service("globex", Backend(OTHER, 8080, "n2")))
    await lab.deploy()
    await lab.verify()
    with pods["acme.web"].tcp_server(), pods["acme.far"].tcp_server():
        for name, router in (("client", "100.64.1.7"), ("far", "100.64.2.7"), ("other", "100.64.2.7")):
            assert answers(pods[f"acme.{name}"], 20, router, 30080) == {"acme.web", "acme.far"}, name
        assert answers(pods["acme.client"], 8, "100.64.1.7", 30081) == {"acme.web"}, "of this node alone"
        assert answers(pods["acme.other"], 8, "100.64.2.7", 30081) == {"acme.far"}
        for name in ("client", "far"):
            for router in ("100.64.1.7", "100.64.2.7", "100.64.1.8", "100.64.2.8"):
                assert answers(pods[f"globex.{name}"], 1, router, 30080) == {""}, (name, router)


def replaced(port: VipPort, node_port: int) -> VipPort:
    return VipPort(port.protocol, port.port, node_port=node_port, ready=port.ready)


async def test_a_local_service_answers_on_its_nodes_alone(lab: Lab) -> None:
    pods = two_tenants(lab)
    lab.put(service("acme", Backend(FAR, 8080, "n2"), Backend(OTHER, 8080, "n2"), local=True))
    await lab.deploy()
    with pods["acme.far"].tcp_server(), pods["acme.other"].tcp_server():
        assert answers(pods["acme.far"]) == {"acme.far", "acme.other"}
        with pods["acme.client"].socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
            sock.settimeout(0.3)
            with pytest.raises(TimeoutError):
                sock.connect((SERVICE, 80))


async def test_connections_go_on_while_the_first_service_comes_and_the_last_goes(lab: Lab) -> None:
    """Rules begin to see bridged packets, and cease to: what goes between pods directly never notices."""
    pods = two_tenants(lab)
    await lab.deploy()
    listeners, ends = [], []
    for name, address in (("web", WEB), ("far", FAR), ("other", OTHER)):
        listener = pods[f"acme.{name}"].socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.bind(("", 9000))
        listener.listen(1)
        sock = pods["acme.client"].socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.connect((address, 9000))
        listeners.append(listener)
        ends.append((sock, listener.accept()[0]))
    try:
        for present in (True, False, True, False):
            if present:
                lab.put(service("acme", Backend(WEB, 8080, "n1")))
            else:
                lab.parts = {key: part for key, part in lab.parts.items() if not isinstance(part, Vip)}
            await lab.deploy()
            await lab.verify()
            for client, server in ends:
                for one, another in ((client, server), (server, client)):
                    one.sendall(b"x")
                    another.settimeout(1)
                    assert another.recv(1) == b"x"
            assert pods["acme.client"].ping(FAR)
            assert pods["acme.client"].ping(OTHER)
    finally:
        for sock in [*listeners, *(one for pair in ends for one in pair)]:
            sock.close()


async def test_groups_and_questions_for_macs_go_on_beside_services(lab: Lab) -> None:
    pods = await room(lab)
    lab.put(service("acme", Backend("10.0.1.11", 8080, "n1")))
    await lab.deploy()
    for group, _ in GROUPS:
        members = {name: member(pods[f"acme.{name}"], group) for name in ("near", "far")}
        talk(pods["acme.talker"], group, b"with services")
        for name, sock in members.items():
            with sock:
                assert [data for data, _ in heard(sock)] == [b"with services"], (group, name)
    assert pods["acme.talker"].ping("fd00:1::12")
    assert pods["acme.talker"].ping("fd00:2::11")


async def test_udp_over_ipv6_ends_with_its_backend_too(lab: Lab) -> None:
    pods = await dual_stack(lab)
    first, second = Backend("fd00:1::12", 8053, "n2"), Backend("fd00:1::10", 8053, "n1")
    client = pods["acme.client"]
    lab.put(dual("acme", first, protocol="udp"))
    await lab.deploy()
    with udp_server(pods["acme.far"], address="::"), udp_server(pods["acme.web"], address="::"):
        assert udp_from(client, SERVICE6, 80, 4000) == "acme.far"
        lab.put(dual("acme", second, protocol="udp"))
        await lab.deploy()
        await lab.verify()
        assert udp_from(client, SERVICE6, 80, 4000) == "acme.web"
