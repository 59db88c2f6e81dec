"""What is for a group reaches every port of the sender's network, on every node that has one, and nobody else."""

from __future__ import annotations

import socket
import struct
import time

import pytest

from polder.sdn.render.linux.spoofing import GROUP_RATE
from polder.sdn.topology.addressing import mac_of
from tests.system import frames
from tests.system import frames6 as ip6
from tests.system.lab import Host, Lab

pytestmark = pytest.mark.system
GROUPS = (
    ("239.1.2.3", "10.0.1.10"),
    ("224.0.0.251", "10.0.1.10"),
    ("ff05::1:3", "fd00:1::10"),
    ("ff02::fb", "fd00:1::10"),
)


async def room(lab: Lab) -> dict[str, Host]:
    """acme's talker and near on n1, far on n2; other in another network on both nodes; globex likewise."""
    pods = {}
    for number, tenant in ((7, "acme"), (8, "globex")):
        lab.tenant(tenant, number, {"a": "10.0.1.0/24,fd00:1::/64", "b": "10.0.2.0/24,fd00:2::/64", "c": "10.0.3.0/24"})
        for name, node, network, host in (
            ("talker", "n1", "a", "10"),
            ("near", "n1", "a", "11"),
            ("far", "n2", "a", "12"),
            ("other", "n1", "b", "10"),
            ("beyond", "n2", "b", "11"),
        ):
            third = "12".find("1" if network == "a" else "2") + 1
            address = f"10.0.{third}.{host},fd00:{third}::{host}"
            pods[f"{tenant}.{name}"] = lab.pod(tenant, name, node, address, network)
    pods["acme.single"] = lab.pod("acme", "single", "n1", "10.0.3.10", "c")
    await lab.deploy()
    await lab.verify()
    return pods


def talk(pod: Host, group: str, mark: bytes, count: int = 1) -> None:
    family = socket.AF_INET6 if ":" in group else socket.AF_INET
    with pod.socket(family, socket.SOCK_DGRAM) as sock:
        at = pod.link("eth0").index
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, at)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 4)
        else:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 4)
        for _ in range(count):
            sock.sendto(mark, (group, 5353))


def member(pod: Host, group: str) -> socket.socket:
    """A socket that has joined."""
    family = socket.AF_INET6 if ":" in group else socket.AF_INET
    sock = pod.socket(family, socket.SOCK_DGRAM)
    sock.bind(("", 5353))
    at = pod.link("eth0").index
    if family == socket.AF_INET6:
        join = socket.inet_pton(family, group) + struct.pack("=I", at)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, join)
    else:
        join = socket.inet_aton(group) + socket.inet_aton("0.0.0.0") + struct.pack("=i", at)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, join)
    return sock


def heard(sock: socket.socket) -> list[tuple[bytes, str]]:
    found = []
    sock.settimeout(0.02)
    try:
        while True:
            data, peer = sock.recvfrom(2048)
            found.append((data, peer[0]))
    except OSError:
        return found


async def test_members_on_one_and_two_nodes_hear_it_once_and_nobody_else_does(lab: Lab) -> None:
    pods = await room(lab)
    for group, _ in GROUPS:
        members = {name: member(pod, group) for name, pod in pods.items() if not (":" in group and "single" in name)}
        mark = f"to {group}".encode()
        with pods["acme.talker"].sniff("eth0") as returned:
            talk(pods["acme.talker"], group, mark)
            assert not returned(mark), "no copy from the bridge"
        found = {name: heard(sock) for name, sock in members.items()}
        for sock in members.values():
            sock.close()
        reached = {name: said for name, said in found.items() if said and name != "acme.talker"}
        assert set(reached) == {"acme.near", "acme.far"}, group
        assert all([data for data, _ in said] == [mark] for said in reached.values()), "once"
        assert [data for data, _ in found["acme.talker"]] == [mark], "its own, once"


async def test_a_node_without_a_port_of_the_network_gets_nothing(lab: Lab) -> None:
    pods = await room(lab)
    with lab.nodes["n2"].host.sniff("eth0") as arrived:
        talk(pods["acme.single"], "239.1.2.3", b"for nobody there")
        talk(pods["acme.talker"], "239.1.2.3", b"for far")
        assert arrived(b"for far"), "control: it comes in VXLAN to a node that has one"
        assert not arrived(b"for nobody there")


async def test_a_port_that_goes_takes_its_nodes_copy_along(lab: Lab) -> None:
    pods = await room(lab)
    key = next(key for key, part in lab.parts.items() if part.name == "default/far" and part.tenant == "acme")
    del lab.parts[key]
    await lab.deploy()
    await lab.verify()
    with lab.nodes["n2"].host.sniff("eth0") as arrived, pods["acme.near"].sniff("eth0") as at_near:
        talk(pods["acme.talker"], "239.1.2.3", b"not for far")
        assert at_near(b"not for far")
        assert not arrived(b"not for far")


async def test_forged_and_odd_group_frames_are_dropped(lab: Lab) -> None:
    pods = await room(lab)
    own, at4, at6 = mac_of("10.0.1.10"), "01:00:5e:01:02:03", "33:33:00:01:00:03"

    def four(source: str, to: str, mark: bytes, by: str = at4, protocol: int = frames.UDP) -> bytes:
        return frames.ethernet(by, own, frames.IPV4, frames.ipv4(source, to, protocol, frames.udp(5, 6, mark)))

    some = {
        b"spoofed": four("10.0.1.99", "239.1.2.3", b"spoofed"),
        b"unicast inside": four("10.0.1.10", "10.0.1.11", b"unicast inside"),
        b"broadcast inside": four("10.0.1.10", "255.255.255.255", b"broadcast inside"),
        b"as broadcast": four("10.0.1.10", "239.1.2.3", b"as broadcast", by=frames.BROADCAST),
        b"listeners": four("10.0.1.10", "239.1.2.3", b"listeners", protocol=2),
        b"spoofed six": frames.ethernet(at6, own, frames.IPV6, ip6.datagram("fd00:1::99", "ff05::1:3", b"spoofed six")),
        b"unicast six": frames.ethernet(
            at6, own, frames.IPV6, ip6.datagram("fd00:1::10", "fd00:1::11", b"unicast six")
        ),
    }
    for name in ("acme.near", "acme.far"):
        with pods[name].sniff("eth0") as arrived:
            pods["acme.talker"].send_frames("eth0", [*some.values(), four("10.0.1.10", "239.1.2.3", b"honest")])
            assert arrived(b"honest")
            for mark in some:
                assert not arrived(mark), mark


async def test_one_port_cannot_flood_its_network_with_group_frames(lab: Lab) -> None:
    pods = await room(lab)
    with member(pods["acme.near"], "239.1.2.3") as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
        began = time.monotonic()
        talk(pods["acme.talker"], "239.1.2.3", b"flood", 8 * GROUP_RATE)
        took = time.monotonic() - began
        got = len(heard(sock))
    assert GROUP_RATE / 2 <= got <= GROUP_RATE * (2 + took), (got, took)
    assert pods["acme.talker"].ping("10.0.1.11"), "what is for one goes on"
