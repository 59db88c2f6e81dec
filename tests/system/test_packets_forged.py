"""What a hostile pod can put on the wire, and that none of it arrives. Each has a positive control beside it."""

from __future__ import annotations

import socket

import pytest

from polder.sdn.topology.addressing import mac_of
from polder.system.net import dumps, requests
from polder.system.net.netlink import NetlinkSocket
from polder.system.net.netns import run_inside
from polder.system.net.nft import run_nft
from tests.system import frames
from tests.system.lab import BRIEF, UNDERLAY, Host, Lab, waited

pytestmark = pytest.mark.system
EVIL, VICTIM, FAR, STRANGER = "10.0.1.66", "10.0.1.10", "10.0.1.12", "10.0.1.99"


async def attacked(lab: Lab) -> tuple[Host, Host, Host]:
    """acme's evil and victim on n1 and far on n2; globex has the victim's and far's addresses too."""
    for number, tenant in ((7, "acme"), (8, "globex")):
        lab.tenant(tenant, number, {"a": "10.0.1.0/24"})
    evil = lab.pod("acme", "evil", "n1", EVIL)
    victim = lab.pod("acme", "victim", "n1", VICTIM)
    far = lab.pod("acme", "far", "n2", FAR)
    lab.pod("globex", "victim", "n1", VICTIM)
    lab.pod("globex", "far", "n2", FAR)
    await lab.deploy()
    return evil, victim, far


async def only_the_guard_drops(lab: Lab, some: list[bytes], marks: tuple[bytes, ...]) -> None:
    """The control of a drop: without anti-spoofing the same frames arrive at the victim; the kernel says that it is gone."""
    node = lab.nodes["n1"]
    lab.unguard("n1", "acme")
    with lab.pods["acme.victim"].sniff("eth0") as arrived:
        lab.pods["acme.evil"].send_frames("eth0", some)
        for mark in marks:
            assert arrived(mark), f"{mark!r} does not arrive even without the guard: the test proves nothing"
    missing = node.items - await node.kernel.observe(node.items)
    assert {type(one).__name__ for one in missing} == {"Ruleset", "Element"}
    assert not await node.kernel.apply([], missing)
    await lab.verify()


def datagram(source_mac: str, source: str, to: str, mark: bytes) -> bytes:
    packet = frames.ipv4(source, to, frames.UDP, frames.udp(5, 6, mark))
    return frames.ethernet(mac_of(to), source_mac, frames.IPV4, packet)


async def test_spoofed_mac_and_ip_are_dropped_to_both_nodes(lab: Lab) -> None:
    evil, victim, far = await attacked(lab)
    own = mac_of(EVIL)
    marks = (b"spoofed ip", b"neighbour's ip", b"spoofed mac", b"gateway's mac")

    def forged(to: str) -> list[bytes]:
        return [
            datagram(own, STRANGER, to, b"spoofed ip"),
            datagram(own, VICTIM if to == FAR else FAR, to, b"neighbour's ip"),
            datagram(mac_of(STRANGER), EVIL, to, b"spoofed mac"),
            datagram(mac_of("10.0.1.1"), EVIL, to, b"gateway's mac"),
        ]

    for target, address in ((victim, VICTIM), (far, FAR)):
        with target.sniff("eth0") as arrived:
            evil.send_frames("eth0", [*forged(address), datagram(own, EVIL, address, b"honest frame")])
            assert arrived(b"honest frame")
            for mark in marks:
                assert not arrived(mark), mark
    assert evil.ping(VICTIM)
    assert evil.ping("10.0.1.1"), "nothing moved the gateway's MAC to the port"
    await only_the_guard_drops(lab, forged(VICTIM), marks)
    with victim.sniff("eth0") as arrived:
        evil.send_frames("eth0", [*forged(VICTIM), datagram(own, EVIL, VICTIM, b"honest frame")])
        assert arrived(b"honest frame")
        assert not any(arrived(mark) for mark in marks), "the guard is back"


async def test_spoofed_arp_is_dropped(lab: Lab) -> None:
    evil, victim, _ = await attacked(lab)
    own, theirs = mac_of(EVIL), mac_of(VICTIM)
    claims = {
        "foreign address": (own, own, STRANGER),
        "gateway's address": (own, own, "10.0.1.1"),
        "foreign inner MAC": (own, mac_of(STRANGER), EVIL),
        "foreign outer MAC": (mac_of(STRANGER), own, EVIL),
    }

    def answer(outer: str, inner: str, address: str) -> bytes:
        return frames.ethernet(theirs, outer, frames.ARP, frames.arp(2, inner, address, theirs, VICTIM))

    with victim.sniff("eth0") as arrived:
        evil.send_frames("eth0", [answer(*claim) for claim in claims.values()])
        evil.send_frames("eth0", [answer(own, own, EVIL)])
        assert arrived(frames.arp(2, own, EVIL, theirs, VICTIM)), "control: the honest answer passes"
        for what, (_, inner, address) in claims.items():
            if what != "foreign outer MAC":
                assert not arrived(frames.arp(2, inner, address, theirs, VICTIM)), what
        assert not arrived(frames.mac(theirs) + frames.mac(mac_of(STRANGER)))


async def test_tags_unknown_types_and_ipv6_are_dropped(lab: Lab) -> None:
    evil, victim, far = await attacked(lab)
    own = mac_of(EVIL)
    marks = (b"tagged", b"unknown type", b"version six")

    def odd(address: str) -> list[bytes]:
        to = mac_of(address)
        tagged = b"\0\x05" + frames.IPV4.to_bytes(2, "big")
        tagged += frames.ipv4(EVIL, address, frames.UDP, frames.udp(5, 6, b"tagged"))
        six = frames.ipv6_udp("fe80::1", "fe80::2", b"version six")
        return [
            frames.ethernet(to, own, frames.VLAN, tagged),
            frames.ethernet(to, own, 0x88A8, tagged),
            frames.ethernet(to, own, 0x1234, b"unknown type"),
            frames.ethernet(to, own, frames.IPV6, six),
            frames.ethernet("33:33:00:00:00:01", own, frames.IPV6, six),
            frames.ethernet("01:80:c2:00:00:0e", own, 0x88CC, b"unknown type"),
        ]

    for target, address in ((victim, VICTIM), (far, FAR)):
        with target.sniff("eth0") as arrived:
            evil.send_frames("eth0", [*odd(address), datagram(own, EVIL, address, b"honest frame")])
            assert arrived(b"honest frame")
            for mark in marks:
                assert not arrived(mark), mark
    await only_the_guard_drops(lab, odd(VICTIM), marks)


async def test_forged_vxlan_reaches_no_tenant_through_any_node(lab: Lab) -> None:
    """The VNI of globex's network, with the source of a node: from a pod to both nodes, and from a stranger on the wire."""
    evil, _, _ = await attacked(lab)
    network = next(part for part in lab.parts.values() if getattr(part, "vni", 0) and part.tenant == "globex")
    gateway = evil_gateway_mac()
    for node, name, address in (("n1", "globex.victim", VICTIM), ("n2", "globex.far", FAR)):
        underlay = f"{UNDERLAY}.{node[1:]}"

        def outer(source: str, mark: bytes, to: str = underlay, pod: str = address) -> bytes:
            inner = datagram(mac_of("10.0.1.1"), "10.0.1.1", pod, mark)
            return frames.ipv4(source, to, frames.UDP, frames.udp(4444, 4789, frames.vxlan(network.vni, inner)))

        other = f"{UNDERLAY}.{3 - int(node[1:])}"
        with lab.pods[name].sniff("eth0") as arrived:
            evil.send_frames(
                "eth0",
                [
                    frames.ethernet(gateway, mac_of(EVIL), frames.IPV4, outer(EVIL, b"from a pod")),
                    frames.ethernet(gateway, mac_of(EVIL), frames.IPV4, outer(other, b"as a node")),
                ],
            )
            with evil.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                inner = datagram(mac_of("10.0.1.1"), "10.0.1.1", address, b"by a socket")
                sock.sendto(frames.vxlan(network.vni, inner), (underlay, 4789))
            to_node = lab.nodes[node].host.link("eth0").mac
            own = lab.outside.link("eth0").mac
            stranger = frames.ethernet(to_node, own, frames.IPV4, outer(f"{UNDERLAY}.100", b"by a stranger"))
            control = frames.ethernet(to_node, own, frames.IPV4, outer(other, b"by a node"))
            lab.outside.send_frames("eth0", [stranger, control])
            assert arrived(b"by a node"), "control: the same frame from a node's address is delivered"
            for mark in (b"from a pod", b"as a node", b"by a socket", b"by a stranger"):
                assert not arrived(mark), mark


async def test_without_the_nodes_guard_a_pods_forged_vxlan_does_arrive(lab: Lab) -> None:
    """The control of the test above: it is the guard that keeps tenants apart, not luck."""
    evil, _, _ = await attacked(lab)
    network = next(part for part in lab.parts.values() if getattr(part, "vni", 0) and part.tenant == "globex")
    node = lab.nodes["n1"]
    node.host.run(lambda: run_nft(f"delete table inet {lab.prefix}"))
    with (
        lab.pods["globex.victim"].sniff("eth0") as arrived,
        evil.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
    ):
        inner = datagram(mac_of("10.0.1.1"), "10.0.1.1", VICTIM, b"by a socket")
        sock.sendto(frames.vxlan(network.vni, inner), (f"{UNDERLAY}.1", 4789))
        assert arrived(b"by a socket")


def evil_gateway_mac() -> str:
    return mac_of("10.0.1.1")


async def test_an_address_sweep_leaves_the_hosts_neighbour_table_and_other_tenants_alone(lab: Lab) -> None:
    evil, _, _ = await attacked(lab)
    lab.tenant("acme", 7, {"a": "10.0.1.0/24", "b": "10.0.8.0/21"})
    lab.pod("acme", "there", "n2", "10.0.8.9", "b")
    await lab.deploy()
    node = lab.nodes["n1"]
    before = await node.kernel.observe(node.items)
    sock = evil.socket(socket.AF_INET, socket.SOCK_DGRAM)
    # 2,000 addresses beyond the gateway and the rest of the own network: more than the host's threshold of 1,024
    for number in range(10, 2040):
        sock.sendto(b"sweep", (f"10.0.{8 + number // 256}.{number % 256}", 9))
    own = mac_of(EVIL)
    evil.send_frames("eth0", [datagram(own, EVIL, f"10.0.1.{last}", b"sweep") for last in range(20, 255)])
    evil.send_frames(
        "eth0",
        [
            frames.ethernet(frames.BROADCAST, own, frames.ARP, frames.arp(1, own, EVIL, "00:00:00:00:00:00", to))
            for to in (f"10.0.1.{last}" for last in range(20, 255))
        ],
    )
    assert evil.ping("10.0.8.9"), "control: an address that exists is reached by the same way"
    sock.close()
    assert await node.kernel.observe(node.items) == before
    for name in ("n1", "n2"):
        assert transient_neighbours(lab, name) == []
    assert lab.pods["globex.victim"].ping(FAR)


def transient_neighbours(lab: Lab, name: str) -> list[dumps.Neighbour]:
    """Neighbours in the routers' namespaces that the kernel made by itself."""
    found: list[dumps.Neighbour] = []
    for tenant in ("acme", "globex"):
        with lab.space(name, tenant) as netns:
            sock = run_inside(netns, NetlinkSocket)
            try:
                found += [one for one in dumps.neighbours(sock) if not one.state & 0x80 and "." in one.address]
            finally:
                sock.close()
    return found


async def test_a_pod_that_readdresses_itself_reaches_nobody(lab: Lab) -> None:
    """With all rights in its own namespace."""
    evil, victim, _ = await attacked(lab)
    assert evil.ping(VICTIM)
    at = evil.link("eth0").index
    evil.route.call(requests.address(at, STRANGER, 24, add=True))
    assert not evil.ping(VICTIM, source=STRANGER, seconds=BRIEF)
    evil.route.call(requests.address(at, STRANGER, 24, add=False))
    assert waited(lambda: evil.ping(VICTIM)), "control: without it, it works"
    evil.route.call(requests.change_link(at, more=requests.set_mac("0a:58:0a:00:01:63")))
    assert not evil.ping(VICTIM, seconds=BRIEF)
    evil.route.call(requests.change_link(at, more=requests.set_mac(mac_of(EVIL))))
    assert waited(lambda: evil.ping(VICTIM)), "control: as it was, it works again"
    assert victim.ping(EVIL)
