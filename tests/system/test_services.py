"""Services by real packets: who answers, who is refused, and that tenants with equal addresses never meet."""

from __future__ import annotations

import socket

import pytest

from polder.sdn.topology.vips import Backend, Vip, VipPort
from tests.system.lab import Host, Lab

pytestmark = pytest.mark.system
SERVICE = "10.96.5.5"
WEB, CLIENT, FAR, OTHER = "10.0.1.10", "10.0.1.11", "10.0.1.12", "10.0.2.10"


def two_tenants(lab: Lab) -> dict[str, Host]:
    """acme and globex: the same networks and the same addresses."""
    pods = {}
    for number, tenant in ((7, "acme"), (8, "globex")):
        lab.tenant(tenant, number, {"a": "10.0.1.0/24", "b": "10.0.2.0/24"})
        for name, node, address, network in (
            ("web", "n1", WEB, "a"),
            ("client", "n1", CLIENT, "a"),
            ("far", "n2", FAR, "a"),
            ("other", "n2", OTHER, "b"),
        ):
            pods[f"{tenant}.{name}"] = lab.pod(tenant, name, node, address, network)
    return pods


def service(tenant: str, *backends: Backend, name: str = "web", address: str = SERVICE, **more: object) -> Vip:
    port = VipPort("tcp", 80, ready=backends)
    return Vip(tenant, f"default/{name}", (address,), (address,), (port,), **more)  # type: ignore[arg-type]


def answers(client: Host, times: int = 30, address: str = SERVICE, port: int = 80) -> set[str]:
    return {client.tcp(address, port) for _ in range(times)}


async def test_a_service_answers_from_both_nodes_and_networks_and_only_its_own_tenant(lab: Lab) -> None:
    pods = two_tenants(lab)
    lab.put(service("acme", Backend(WEB, 8080, "n1"), Backend(FAR, 8080, "n2"), Backend(OTHER, 8080, "n2")))
    lab.put(service("globex", Backend(FAR, 8080, "n2")))
    await lab.deploy()
    await lab.verify()
    names = ("web", "far", "other")
    servers = [pods[f"{tenant}.{name}"].tcp_server() for tenant in ("acme", "globex") for name in names]
    seen = [server.__enter__() for server in servers]
    try:
        everyone = {"acme.web", "acme.far", "acme.other"}
        for name in ("client", "far", "other", "web"):
            assert answers(pods[f"acme.{name}"]) == everyone, name
            assert answers(pods[f"globex.{name}"], 6) == {"globex.far"}, name
        assert {CLIENT, FAR, OTHER} <= set(seen[0]), "the server sees who asks"
    finally:
        for server in servers:
            server.__exit__(None, None, None)


async def test_hairpin_a_pod_reaches_itself_by_its_service(lab: Lab) -> None:
    pods = two_tenants(lab)
    lab.put(service("acme", Backend(WEB, 8080, "n1")))
    lab.put(service("globex", Backend(FAR, 8080, "n2")))
    await lab.deploy()
    with pods["acme.web"].tcp_server() as seen, pods["globex.far"].tcp_server():
        assert pods["acme.web"].tcp(SERVICE, 80) == "acme.web"
        assert seen == ["10.0.1.1"], "from the gateway: a host drops what comes from itself"
        assert pods["globex.far"].tcp(SERVICE, 80) == "globex.far"


async def test_no_backend_is_refused_at_once_and_so_is_another_port(lab: Lab) -> None:
    pods = two_tenants(lab)
    lab.put(service("acme"))
    lab.put(service("globex", Backend(WEB, 8080, "n1")))
    await lab.deploy()
    for tenant, port in (("acme", 80), ("globex", 81)):
        with pods[f"{tenant}.client"].socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
            sock.settimeout(2)
            with pytest.raises(ConnectionRefusedError):
                sock.connect((SERVICE, port))
        with pods[f"{tenant}.client"].socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(2)
            sock.connect((SERVICE, port))
            sock.send(b"x")
            with pytest.raises(ConnectionRefusedError):
                sock.recv(10)
    with pods["acme.client"].socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.settimeout(0.3)
        with pytest.raises(TimeoutError):
            sock.connect(("10.96.5.6", 80))  # no service has it: dropped, as before
