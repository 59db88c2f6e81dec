"""Ports of machines by real packets: of the platform's pods and services, and of nobody else's."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial

import pytest

from polder.sdn.topology.addressing import six as six_of
from polder.sdn.topology.vips import Backend, Hosted, HostPort, Vip, VipPort
from polder.system.net import requests
from polder.system.net.codec import Message
from polder.system.net.requests import NewRoute
from tests.system.lab import BRIEF, UNDERLAY, UNDERLAY6, Host, Lab, waited
from tests.system.test_services import CLIENT, FAR, WEB, two_tenants, udp_from, udp_server

pytestmark = pytest.mark.system
N1, N2 = f"{UNDERLAY}.1", f"{UNDERLAY}.2"
PORT = 30080


def platform(lab: Lab) -> dict[str, Host]:
    """root, acme and globex with the same networks and addresses."""
    pods = two_tenants(lab)
    lab.tenant("root", 1, {"a": "10.0.1.0/24"})
    for name, node, address in (("web", "n1", WEB), ("client", "n1", CLIENT), ("far", "n2", FAR)):
        pods[f"root.{name}"] = lab.pod("root", name, node, address)
    return pods


async def test_host_ports_lead_to_the_platforms_pods_from_everywhere_but_tenants(lab: Lab) -> None:
    pods = platform(lab)
    ports = (
        HostPort("tcp", 54323, WEB, 8080, "127.0.0.1"),
        HostPort("tcp", 54324, WEB, 8080),
        HostPort("udp", 54323, WEB, 8053, N1),
    )
    lab.put(Hosted("root", "default/web", ports))
    lab.put(Hosted("root", "default/client", (HostPort("tcp", 54323, CLIENT, 8080, N1),)))
    await lab.deploy()
    await lab.verify()
    n1, n2 = lab.nodes["n1"].host, lab.nodes["n2"].host
    with pods["root.web"].tcp_server() as seen, pods["root.client"].tcp_server(), udp_server(pods["root.web"]):
        assert lab.outside.tcp(N1, 54324) == "root.web" and seen == [f"{UNDERLAY}.100"], "it sees who asks"
        assert lab.outside.tcp(N1, 54323) == "root.client", "by the address that was named"
        assert udp_from(lab.outside, N1, 54323) == "root.web"
        assert n1.tcp("127.0.0.1", 54323) == "root.web", "the machine itself, at its loopback"
        assert n1.tcp(N1, 54323) == "root.client" and n1.tcp("127.0.0.1", 54324) == "root.web"
        assert n2.tcp(N1, 54324) == "root.web", "another machine"
        assert lab.outside.tcp(N1, 8080, seconds=BRIEF) == "" and lab.outside.tcp(N2, 54324, seconds=BRIEF) == "", (
            "no other port, no other machine"
        )
        for name in ("acme.client", "acme.far", "globex.far"):
            assert (
                pods[name].tcp(N1, 54324, seconds=BRIEF) == "" and udp_from(pods[name], N1, 54323, seconds=BRIEF) == ""
            ), name
        lab.outside.route.call(direct(lab, WEB))
        assert lab.outside.tcp(WEB, 8080, seconds=BRIEF) == "", "the pod's own address leads nowhere from outside"


def direct(lab: Lab, address: str) -> Message:
    """A way to a pod by its own address, over its machine."""
    at = lab.outside.link("eth0").index
    return requests.route(NewRoute(f"{address}/32", at, via=N1, onlink=True), add=True)


async def test_node_ports_answer_at_machines_for_the_platform_and_inside_a_tenant_for_its_own(lab: Lab) -> None:
    pods = platform(lab)
    for tenant in ("root", "acme"):
        backends = Backend(WEB, 8080, "n1"), Backend(FAR, 8080, "n2")
        port = VipPort("tcp", 80, node_port=PORT, ready=backends)
        lab.put(Vip(tenant, "default/web", ("10.96.5.5",), ("10.96.5.5",), (port,)))
    await lab.deploy()
    await lab.verify()
    servers = [pods[f"{tenant}.{name}"].tcp_server() for tenant in ("root", "acme") for name in ("web", "far")]
    for server in servers:
        server.__enter__()
    try:
        ours, theirs = {"root.web", "root.far"}, {"acme.web", "acme.far"}
        for machine in (N1, N2):
            assert {lab.outside.tcp(machine, PORT) for _ in range(12)} == ours, "from outside, the platform's alone"
            assert {pods["root.client"].tcp(machine, PORT) for _ in range(12)} == ours
            assert {lab.nodes["n2"].host.tcp(machine, PORT) for _ in range(12)} == ours
            for name in ("acme.client", "acme.far"):
                assert {pods[name].tcp(machine, PORT) for _ in range(12)} == theirs, "inside a tenant its own"
            assert pods["globex.client"].tcp(machine, PORT, seconds=BRIEF) == "", "who has none reaches nobody's"
    finally:
        for server in servers:
            server.__exit__(None, None, None)


async def test_with_a_local_policy_a_machine_answers_by_its_own_pods(lab: Lab) -> None:
    pods = platform(lab)
    port = VipPort("tcp", 80, node_port=PORT, ready=(Backend(FAR, 8080, "n2"),))
    lab.put(Vip("root", "default/web", ("10.96.5.5",), ("10.96.5.5",), (port,), local_outside=True))
    await lab.deploy()
    with pods["root.far"].tcp_server() as seen:
        assert lab.outside.tcp(N2, PORT) == "root.far" and seen == [f"{UNDERLAY}.100"]
        assert lab.outside.tcp(N1, PORT, seconds=BRIEF) == ""


LONE = "10.0.1.99"


def answers(client: Host, address: str, who: str) -> bool:
    return udp_from(client, address, 8053) == who


async def test_the_machine_itself_reaches_the_platforms_pods_and_no_tenants(lab: Lab) -> None:
    pods = two_tenants(lab)
    pods["acme.lone"] = lab.pod("acme", "lone", "n1", LONE)
    lab.tenant("root", 1, {"a": "10.0.1.0/24,fd00:10::/64"})
    addresses = {"web": ("n1", f"{WEB},fd00:10::10"), "client": ("n1", CLIENT), "far": ("n2", f"{FAR},fd00:10::12")}
    for name, (node, both) in addresses.items():
        pods[f"root.{name}"] = lab.pod("root", name, node, both)
    await lab.deploy()
    await lab.verify()
    n1, n2 = lab.nodes["n1"].host, lab.nodes["n2"].host
    with ExitStack() as stack:
        seen = {name: stack.enter_context(pod.tcp_server()) for name, pod in pods.items()}
        seen6 = {name: stack.enter_context(pods[name].tcp_server(8081, "::")) for name in ("root.web", "root.far")}
        for pod in pods.values():
            stack.enter_context(udp_server(pod))
        for host in (n1, n2):
            for name in ("web", "far"):
                four, six = addresses[name][1].split(",")
                assert host.tcp(four, seconds=10) == host.tcp(six, 8081, 10) == f"root.{name}"
                assert waited(partial(answers, host, four, f"root.{name}"), 10)
                assert waited(partial(host.ping, four), 10)
            assert (
                host.tcp(LONE, seconds=BRIEF) == ""
                and udp_from(host, LONE, 8053, seconds=BRIEF) == ""
                and not host.ping(LONE, seconds=BRIEF)
            )
        assert seen["root.web"] == [N1, "100.64.2.1"] and seen["root.far"] == ["100.64.1.1", N2], "answers find back"
        assert seen6 == {
            "root.web": [f"{UNDERLAY6}:1", six_of("100.64.2.1")],
            "root.far": [six_of("100.64.1.1"), f"{UNDERLAY6}:2"],
        }
        assert not any(seen[name] for name in seen if not name.startswith("root."))
        with n1.tcp_server() as asked, udp_server(n1):
            for name in ("root.client", "root.far", "acme.client"):
                assert pods[name].tcp(N1, seconds=BRIEF) == udp_from(pods[name], N1, 8053, seconds=BRIEF) == "", (
                    "no pod reaches the machine"
                )
            assert asked == []
        lab.outside.route.call(direct(lab, WEB))
        assert lab.outside.tcp(WEB, seconds=BRIEF) == "" and not lab.outside.ping(WEB, seconds=BRIEF), (
            "nobody on the wire comes by this way"
        )


async def test_what_is_a_machines_address_stays_a_machines_where_a_pod_has_it_too(lab: Lab) -> None:
    lab.tenant("root", 1, {"a": f"{UNDERLAY}.0/24"})
    pods = {name: lab.pod("root", name, "n1", address) for name, address in (("twin", N2), ("guest", f"{UNDERLAY}.99"))}
    await lab.deploy()
    n1, n2 = lab.nodes["n1"].host, lab.nodes["n2"].host
    with n2.tcp_server(), pods["twin"].tcp_server(), pods["guest"].tcp_server():
        assert n1.tcp(N2, seconds=10) == "n2"
        assert n1.tcp(f"{UNDERLAY}.99", seconds=BRIEF) == "", "a protected address"
