"""What a hostile pod can put on the wire by IPv6, and that none of it arrives. Each has a positive control beside it."""

from __future__ import annotations

import socket

import pytest

from polder.sdn.topology.addressing import link_local_of, mac_of, mac_of_port, six
from polder.system.net import dumps, requests
from polder.system.net.netlink import NetlinkSocket
from polder.system.net.netns import run_inside
from polder.system.net.nft import run_nft
from tests.system import frames
from tests.system import frames6 as ip6
from tests.system.lab import BRIEF, UNDERLAY6, Host, Lab, waited
from tests.system.test_packets_forged import only_the_guard_drops

pytestmark = pytest.mark.system
EVIL, VICTIM, FAR, STRANGER, GATEWAY = "fd00:1::66", "fd00:1::10", "fd00:1::12", "fd00:1::99", "fd00:1::1"
MACS = {EVIL: "10.0.1.66", VICTIM: "10.0.1.10", FAR: "10.0.1.12", GATEWAY: "10.0.1.1"}
"""The network has both families, so MACs follow from IPv4."""
OWN, ROUTER = mac_of(MACS[EVIL]), mac_of(MACS[GATEWAY])


def mac(address: str) -> str:
    return mac_of(MACS.get(address, address))


async def attacked(lab: Lab) -> tuple[Host, Host, Host]:
    """acme's evil and victim on n1 and far on n2; globex has the victim's and far's addresses too."""
    for number, tenant in ((7, "acme"), (8, "globex")):
        lab.tenant(tenant, number, {"a": "10.0.1.0/24,fd00:1::/64", "b": "fd00:2::/64"})
    pods = {}
    for tenant, name, node, address in (
        ("acme", "evil", "n1", EVIL),
        ("acme", "victim", "n1", VICTIM),
        ("acme", "far", "n2", FAR),
        ("globex", "victim", "n1", VICTIM),
        ("globex", "far", "n2", FAR),
    ):
        pods[tenant, name] = lab.pod(tenant, name, node, f"{MACS[address]},{address}")
    lab.pod("acme", "other", "n1", "fd00:2::10", "b")
    lab.pod("globex", "lonely", "n1", "10.0.1.77,fd00:1::77")
    await lab.deploy()
    await lab.verify()
    return pods["acme", "evil"], pods["acme", "victim"], pods["acme", "far"]


def asked(source: str, to: str, mark: bytes, *, by: str = ROUTER, own: str = OWN) -> bytes:
    """A datagram in a frame to the gateway (or to ``by``)."""
    return frames.ethernet(by, own, frames.IPV6, ip6.datagram(source, to, mark))


async def test_spoofed_addresses_and_macs_are_dropped_to_both_nodes(lab: Lab) -> None:
    evil, victim, far = await attacked(lab)
    marks = (b"spoofed ip", b"neighbour's ip", b"gateway's ip", b"link-local", b"spoofed mac", b"unspecified")

    def forged(to: str) -> list[bytes]:
        return [
            asked(STRANGER, to, b"spoofed ip"),
            asked(FAR if to == VICTIM else VICTIM, to, b"neighbour's ip"),
            asked(GATEWAY, to, b"gateway's ip", by=mac(to)),
            asked("fe80::1", to, b"link-local", by=mac(to)),
            asked(EVIL, to, b"spoofed mac", own=mac_of("10.0.1.99")),
            asked("::", to, b"unspecified", by=mac(to)),
        ]

    for target, address in ((victim, VICTIM), (far, FAR)):
        with target.sniff("eth0") as arrived:
            evil.send_frames("eth0", [*forged(address), asked(EVIL, address, b"honest frame")])
            assert arrived(b"honest frame")
            for mark in marks:
                assert not arrived(mark), mark
            evil.send_frames("eth0", [asked(EVIL, address, b"by its mac", by=mac(address))])
            assert arrived(b"by its mac"), "control: a pod that knows its neighbour's MAC may use it"
    unrouted = [frame for frame in forged(VICTIM) if b"gateway's" in frame or b"link-local" in frame]
    await only_the_guard_drops(lab, unrouted, (b"gateway's ip", b"link-local"))


async def test_router_advertisements_redirects_and_foreign_neighbour_advertisements_are_dropped(lab: Lab) -> None:
    evil, victim, far = await attacked(lab)
    local, theirs = link_local_of(OWN), mac(VICTIM)
    everybody, groups = "ff02::1", "33:33:00:00:00:01"
    false = {
        "advertisement of a router": ip6.router_advertisement(local, everybody, OWN),
        "redirect": ip6.redirect(local, VICTIM, EVIL, STRANGER),
        "neighbour's address": ip6.advertisement(EVIL, VICTIM, FAR, OWN),
        "gateway's address": ip6.advertisement(local, VICTIM, GATEWAY, OWN),
        "behind an option": ip6.with_option(ip6.router_advertisement(local, everybody, OWN)),
    }
    for target, to in ((victim, theirs), (far, mac(FAR))):
        with target.sniff("eth0") as arrived:
            for by in (to, groups):
                evil.send_frames("eth0", [frames.ethernet(by, OWN, frames.IPV6, one) for one in false.values()])
            own = frames.ethernet(
                to, OWN, frames.IPV6, ip6.advertisement(EVIL, VICTIM if target is victim else FAR, EVIL, OWN)
            )
            evil.send_frames("eth0", [own])
            assert arrived(frames.mac(OWN) + b"\x86\xdd"), "control: what it says of itself passes"
            for what, packet in false.items():
                assert not arrived(packet[40:]), what
    some = [frames.ethernet(theirs, OWN, frames.IPV6, packet) for packet in false.values()]
    await only_the_guard_drops(lab, some, tuple(packet[40:] for packet in false.values()))


async def test_a_question_for_an_address_reaches_its_owner_alone(lab: Lab) -> None:
    """And what nobody has is asked of nobody."""
    evil, victim, far = await attacked(lab)
    with victim.sniff("eth0") as at_victim, far.sniff("eth0") as at_far, evil.sniff("eth0") as at_evil:
        for target, answered in (
            (GATEWAY, True),
            (VICTIM, True),
            (FAR, True),
            (STRANGER, False),
            ("fd00:2::10", False),
        ):
            question = ip6.solicitation(EVIL, target, OWN)
            evil.send_frames("eth0", [frames.ethernet(ip6.group_mac(target), OWN, frames.IPV6, question)])
            answer = socket.inet_pton(socket.AF_INET6, target) + b"\x02\x01"
            assert at_evil(answer) is answered, target
            assert at_victim(question[40:]) is (target == VICTIM), target
            assert at_far(question[40:]) is (target == FAR), target
        forged = ip6.solicitation(STRANGER, VICTIM, OWN)
        evil.send_frames("eth0", [frames.ethernet(ip6.group_mac(VICTIM), OWN, frames.IPV6, forged)])
        assert not at_victim(forged[40:])


async def test_no_pod_reaches_a_node_the_transit_or_another_router(lab: Lab) -> None:
    evil, victim, _ = await attacked(lab)
    nodes = [lab.nodes[name].host for name in ("n1", "n2")]
    with lab.outside.tcp_server(address="::"), nodes[0].tcp_server(address="::"), nodes[1].tcp_server(address="::"):
        assert lab.outside.tcp(f"{UNDERLAY6}:1") == "n1", "control: the nodes answer on the wire"
        assert lab.outside.tcp(f"{UNDERLAY6}:2") == "n2"
        local = [a.address for a in dumps.addresses(nodes[0].route) if a.address.startswith("fe80")]
        for target in (f"{UNDERLAY6}:1", f"{UNDERLAY6}:2", f"{UNDERLAY6}:100", six("169.254.1.1"), *local):
            assert not evil.ping(target, seconds=BRIEF), target
            assert evil.tcp(target, seconds=BRIEF) == "", target
        for router in ("100.64.1.7", "100.64.2.7", "100.64.1.8", "100.64.2.8"):
            assert not evil.ping(six(router), seconds=BRIEF), router
    assert evil.ping(VICTIM), "control"
    assert victim.ping(FAR)


async def test_tenants_do_not_meet(lab: Lab) -> None:
    evil, victim, _ = await attacked(lab)
    lonely = lab.pods["globex.lonely"]
    assert lab.pods["globex.victim"].ping("fd00:1::77"), "control: its own tenant reaches it"
    with lonely.sniff("eth0") as at_lonely, lab.pods["globex.victim"].sniff("eth0") as at_other:
        with victim.sniff("eth0") as arrived:
            both = [
                asked(EVIL, "fd00:1::77", b"over the border"),
                asked(EVIL, "fd00:1::77", b"by its mac", by=mac_of("10.0.1.77")),
            ]
            evil.send_frames("eth0", [*both, asked(EVIL, VICTIM, b"for the own victim")])
            assert arrived(b"for the own victim")
        for mark in (b"over the border", b"by its mac", b"for the own victim"):
            assert not at_lonely(mark), mark
            assert not at_other(mark), mark


async def test_networks_meet_in_the_router_alone(lab: Lab) -> None:
    evil, _, _ = await attacked(lab)
    other = lab.pods["acme.other"]
    theirs = mac_of_port(["fd00:2::10"])
    gateway = "0e:5a:00:00:07:02"
    with other.sniff("eth0") as arrived:
        some = [
            asked(EVIL, "fd00:2::10", b"foreign gateway", by=gateway),
            asked(EVIL, "fd00:2::10", b"foreign mac", by=theirs),
            asked(EVIL, "fd00:2::10", b"routed"),
        ]
        evil.send_frames("eth0", some)
        assert arrived(b"routed")
        assert not arrived(b"foreign gateway")
        assert not arrived(b"foreign mac")
        with lab.space("n1", "acme") as netns:
            run_inside(netns, lambda: run_nft("insert rule inet polder forward ip6 daddr fd00:2::10 drop"))
        evil.send_frames("eth0", [asked(EVIL, "fd00:2::10", b"against the rules")])
        assert not arrived(b"against the rules")


async def test_a_sweep_of_addresses_leaves_the_hosts_neighbour_table_alone(lab: Lab) -> None:
    """2,000 addresses of the own network, of another one, and of the link: more than the table's threshold of 1,024."""
    evil, _, _ = await attacked(lab)
    at = evil.link("eth0").index
    with evil.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        for number in range(0x1000, 0x1000 + 700):
            for prefix in ("fd00:1::", "fd00:2::", "fe80::"):
                try:
                    sock.sendto(b"sweep", (f"{prefix}{number:x}", 9, 0, at if prefix == "fe80::" else 0))
                except OSError:
                    continue
    evil.send_frames(
        "eth0",
        [
            frames.ethernet(
                ip6.group_mac(f"fd00:1::{n:x}"), OWN, frames.IPV6, ip6.solicitation(EVIL, f"fd00:1::{n:x}", OWN)
            )
            for n in range(0x2000, 0x2000 + 300)
        ],
    )
    assert evil.ping(FAR), "control"
    made = [one for one in dumps.neighbours(evil.route) if ":" in one.address and not one.state & (0x80 | 0x40)]
    assert {one.address for one in made} <= {GATEWAY}, "the pod knows its gateway alone"
    for name in ("n1", "n2"):
        for tenant in ("acme", "globex"):
            with lab.space(name, tenant) as netns:
                sock = run_inside(netns, NetlinkSocket)
                found = [one.address for one in dumps.neighbours(sock) if not one.state & (0x80 | 0x40)]
                sock.close()
            assert found == [], (name, tenant)


async def test_a_pod_that_readdresses_itself_reaches_nobody(lab: Lab) -> None:
    """With all rights in its own namespace."""
    evil, _, _ = await attacked(lab)
    assert evil.ping(VICTIM)
    at = evil.link("eth0").index
    evil.route.call(requests.address(at, STRANGER, 128, add=True))
    assert not evil.ping(VICTIM, source=STRANGER, seconds=BRIEF)
    assert evil.ping(VICTIM, source=EVIL), "control"
    evil.route.call(requests.address(at, STRANGER, 128, add=False))
    assert waited(lambda: evil.ping(VICTIM))


async def test_a_node_without_a_way_out_has_none_for_tenants(lab: Lab) -> None:
    await attacked(lab)
    evil = lab.pods["acme.evil"]
    with lab.outside.tcp_server(address="::"):
        assert evil.tcp("2001:db8:ff::10") == "outside", "control"
        lab.without_six("n1")
        await lab.deploy()
        await lab.verify()
        assert evil.tcp("2001:db8:ff::10", seconds=BRIEF) == ""
        assert lab.pods["acme.far"].tcp("2001:db8:ff::10") == "outside", "the other node has one"
    assert evil.ping(VICTIM)
    assert evil.ping(FAR)
