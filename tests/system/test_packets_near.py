"""Within a network a frame for the gateway is bridged to the port that it is for (ADR 6), and nothing else is."""

from __future__ import annotations

import socket

import pytest

from polder.sdn.topology.addressing import ISOLATED_PREFIX, mac_of
from polder.sdn.topology.types import Network, Port
from polder.system.net.netns import run_inside
from polder.system.net.nft import run_nft
from polder.system.net.sysctl import write_sysctl
from tests.system import frames
from tests.system.lab import BRIEF, UNDERLAY, Host, Lab
from tests.system.test_packets_forged import EVIL, FAR, STRANGER, VICTIM, attacked, datagram, only_the_guard_drops

pytestmark = pytest.mark.system
GATEWAY, OTHER_GATEWAY, OTHER = mac_of("10.0.1.1"), mac_of("10.0.2.1"), "10.0.2.10"


def asked(source: str, to: str, mark: bytes, *, by: str = GATEWAY, mac: str = mac_of(EVIL)) -> bytes:
    """A datagram in a frame to the gateway (or to ``by``)."""
    return frames.ethernet(by, mac, frames.IPV4, frames.ipv4(source, to, frames.UDP, frames.udp(5, 6, mark)))


def send(pod: Host, to: str, ttl: int, mark: bytes) -> None:
    with pod.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)
        sock.sendto(mark, (to, 9))


def in_space(lab: Lab, node: str, tenant: str, commands: str) -> str:
    with lab.space(node, tenant) as netns:
        return run_inside(netns, lambda: run_nft(commands))


async def two_networks(lab: Lab) -> Host:
    """acme's evil, victim and far in one network, other in another on n1, beyond on n2; evil."""
    evil, _, _ = await attacked(lab)
    lab.tenant("acme", 7, {"a": "10.0.1.0/24", "b": "10.0.2.0/24"})
    lab.pod("acme", "other", "n1", OTHER, "b")
    lab.pod("acme", "beyond", "n2", "10.0.2.11", "b")
    await lab.deploy()
    await lab.verify()
    return evil


async def test_a_network_is_one_hop_and_another_network_is_two(lab: Lab) -> None:
    evil = await two_networks(lab)
    for name, address in (("victim", VICTIM), ("far", FAR)):
        with lab.pods[f"acme.{name}"].sniff("eth0") as arrived:
            send(evil, address, 1, b"one hop")
            assert arrived(b"one hop"), name
    for name, address in (("other", OTHER), ("beyond", "10.0.2.11")):
        with lab.pods[f"acme.{name}"].sniff("eth0") as arrived:
            send(evil, address, 2, b"two hops")
            assert arrived(b"two hops"), name
            send(evil, address, 1, b"one hop")
            assert not arrived(b"one hop"), name


async def test_an_isolated_network_is_one_hop_too_and_broken_frames_reach_none_of_it(lab: Lab) -> None:
    lab.tenant("acme", 7, {"a": "10.0.1.0/24"})
    lab.put(Network("acme", "default/a", 7 * 256 + 1, "10.0.1.0/24"))
    evil = lab.pod("acme", "evil", "n1", EVIL)
    pods = {VICTIM: lab.pod("acme", "victim", "n1", VICTIM), FAR: lab.pod("acme", "far", "n2", FAR)}
    await lab.deploy()
    await lab.verify()
    gateway = mac_of(f"{UNDERLAY}.1", ISOLATED_PREFIX)
    for address, pod in pods.items():
        assert evil.ping(address)
        with pod.sniff("eth0") as arrived:
            send(evil, address, 1, b"one hop")
            assert arrived(b"one hop")
            evil.send_frames("eth0", [asked(STRANGER, address, b"spoofed ip", by=gateway)])
            assert not arrived(b"spoofed ip")


async def test_spoofed_sources_are_dropped_before_anything_is_rewritten(lab: Lab) -> None:
    evil, _, _ = await attacked(lab)

    def forged(to: str) -> list[bytes]:
        return [
            asked(STRANGER, to, b"spoofed ip"),
            asked("10.0.1.1", to, b"gateway's ip"),
            asked(FAR if to == VICTIM else VICTIM, to, b"neighbour's ip"),
            asked(EVIL, to, b"spoofed mac", mac=mac_of(STRANGER)),
        ]

    marks = (b"spoofed ip", b"gateway's ip", b"neighbour's ip", b"spoofed mac")
    for name, address in (("victim", VICTIM), ("far", FAR)):
        with lab.pods[f"acme.{name}"].sniff("eth0") as arrived:
            evil.send_frames("eth0", [*forged(address), asked(EVIL, address, b"honest frame")])
            assert arrived(b"honest frame"), name
            for mark in marks:
                assert not arrived(mark), (name, mark)
    routed = [frame for frame in forged(VICTIM) if b"gateway's ip" not in frame]  # the kernel takes nothing from itself
    await only_the_guard_drops(lab, routed, tuple(mark for mark in marks if mark != b"gateway's ip"))


async def test_broadcast_and_pairs_of_mac_and_address_that_no_port_has_are_dropped(lab: Lab) -> None:
    evil, _, _ = await attacked(lab)
    odd = [
        asked(EVIL, VICTIM, b"broadcast mac", by=frames.BROADCAST),
        asked(EVIL, "10.0.1.255", b"broadcast", by=frames.BROADCAST),
        asked(EVIL, VICTIM, b"multicast mac", by="01:00:5e:00:00:fb"),
        asked(EVIL, "224.0.0.251", b"unicast mac", by=mac_of(VICTIM)),
        datagram(mac_of(EVIL), EVIL, STRANGER, b"no port's").replace(frames.mac(mac_of(STRANGER)), frames.mac(mac_of(VICTIM))),
        asked(EVIL, FAR, b"another's address", by=mac_of(VICTIM)),
    ]  # fmt: skip
    marks = (b"broadcast mac", b"broadcast", b"multicast mac", b"unicast mac", b"no port's")
    with lab.pods["acme.victim"].sniff("eth0") as arrived:
        evil.send_frames("eth0", [*odd, asked(EVIL, VICTIM, b"honest frame", by=mac_of(VICTIM))])
        assert arrived(b"honest frame"), "control: a pod that knows its neighbour's MAC may use it"
        for mark in (*marks, b"another's address"):
            assert not arrived(mark), mark
    await only_the_guard_drops(lab, odd, (*marks, b"another's address"))


async def test_another_network_is_reached_by_way_of_the_rules_and_never_by_its_gateways_mac(lab: Lab) -> None:
    evil = await two_networks(lab)
    for name, address in (("other", OTHER), ("beyond", "10.0.2.11")):
        with lab.pods[f"acme.{name}"].sniff("eth0") as arrived:
            evil.send_frames(
                "eth0",
                [
                    asked(EVIL, address, b"foreign gateway", by=OTHER_GATEWAY),
                    asked(EVIL, address, b"foreign mac", by=mac_of(address)),
                    asked(EVIL, address, b"routed"),
                ],
            )
            assert arrived(b"routed"), name
            assert not arrived(b"foreign gateway"), name
            assert not arrived(b"foreign mac"), name
            in_space(lab, "n1", "acme", f"insert rule inet polder forward ip daddr {address} drop")
            evil.send_frames("eth0", [asked(EVIL, address, b"against the rules")])
            assert not arrived(b"against the rules"), name
    assert evil.ping(VICTIM), "control: the own network is bridged on"


async def test_nothing_is_rewritten_towards_another_tenant(lab: Lab) -> None:
    """An address that only the other tenant has, and one that both have."""
    evil, victim, _ = await attacked(lab)
    lonely = lab.pod("globex", "lonely", "n1", "10.0.1.77")
    await lab.deploy()
    assert lab.pods["globex.victim"].ping("10.0.1.77"), "control: its own tenant reaches it"
    with lonely.sniff("eth0") as at_lonely, lab.pods["globex.victim"].sniff("eth0") as at_other:
        with victim.sniff("eth0") as arrived:
            both = [
                asked(EVIL, "10.0.1.77", b"over the border"),
                asked(EVIL, "10.0.1.77", b"by its mac", by=mac_of("10.0.1.77")),
            ]
            evil.send_frames("eth0", [*both, asked(EVIL, VICTIM, b"for the own victim")])
            assert arrived(b"for the own victim")
        for mark in (b"over the border", b"by its mac", b"for the own victim"):
            assert not at_lonely(mark), mark
            assert not at_other(mark), mark


async def test_the_rewrite_goes_with_the_port(lab: Lab) -> None:
    evil, _, _ = await attacked(lab)
    assert evil.ping(FAR)
    assert f" {VICTIM} : {mac_of(VICTIM)}" in in_space(lab, "n1", "acme", "list map bridge polder near")
    gone = ("default/victim", "default/far")
    for key, part in list(lab.parts.items()):
        if isinstance(part, Port) and part.tenant == "acme" and part.name in gone:
            del lab.parts[key]
    await lab.deploy()
    await lab.verify()
    near = in_space(lab, "n1", "acme", "list map bridge polder near")
    assert VICTIM not in near
    assert FAR not in near
    assert EVIL in near, "control: who stays is there"
    assert not evil.ping(VICTIM, seconds=BRIEF)
    assert not evil.ping(FAR, seconds=BRIEF)


async def test_with_the_switch_on_the_rules_see_bridged_frames_too(lab: Lab) -> None:
    """What policies need: bridge-nf-call-iptables of the space. Off, the same rule sees nothing of a network's own traffic."""
    evil, _, _ = await attacked(lab)
    in_space(lab, "n1", "acme", f"insert rule inet polder forward ip saddr {EVIL} drop")
    for address in (VICTIM, FAR):
        assert evil.ping(address), address
    with lab.space("n1", "acme") as netns:
        run_inside(netns, lambda: write_sysctl("net/bridge/bridge-nf-call-iptables", "1"))
    for address in (VICTIM, FAR):
        assert not evil.ping(address, seconds=BRIEF), address
    in_space(lab, "n1", "acme", f"insert rule inet polder forward ip saddr {EVIL} accept")
    for address in (VICTIM, FAR):
        assert evil.ping(address), address
