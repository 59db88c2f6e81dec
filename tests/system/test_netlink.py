"""The netlink codec against this kernel."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from polder.system.net import dumps, requests
from polder.system.net.codec import Message
from polder.system.net.netlink import NetlinkError
from polder.system.net.netns import (
    NetnsError,
    ensure_netns,
    is_netns,
    list_netns,
    open_netns,
    own_netns,
    remove_netns,
    run_inside,
)
from polder.system.net.requests import BridgePort, NewLink, NewRoute
from polder.system.net.sockets import listening_socket
from polder.system.net.sysctl import SysctlError, read_sysctl, write_sysctl
from tests.system.lab import Host, waited

pytestmark = pytest.mark.system


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[tuple[Host, Host]]:
    made = [Host(name, tmp_path / name) for name in ("one", "two")]
    try:
        yield made[0], made[1]
    finally:
        for host in made:
            host.close()


def bridge(host: Host, name: str = "br") -> int:
    host.route.call(requests.add_bridge(NewLink(name, "0a:58:00:00:00:01")))
    return host.link(name).index


def test_a_batch_answers_each_request_in_its_place_with_the_kernels_words(hosts: tuple[Host, Host]) -> None:
    one, _ = hosts
    at = bridge(one)
    messages = [
        requests.address(at, "10.0.0.1", 24, add=True),
        requests.address(at, "10.0.0.1", 24, add=True),
        requests.change_link(4711, up=True),
        requests.neighbour(at, "10.0.0.2", "0a:58:00:00:00:02", add=True),
        requests.route(NewRoute("10.9.0.0/24", at, via="172.16.0.1"), add=True),
        requests.address(at, "10.0.0.3", 24, add=True),
    ]
    answers = one.route.batch(messages)
    assert [failed.number if failed else 0 for failed in answers] == [
        0,
        errno.EEXIST,
        errno.ENODEV,
        0,
        errno.ENETUNREACH,
        0,
    ]
    assert "Nexthop has invalid gateway" in str(answers[4]), "the extended ack's text"
    assert str(answers[4]).startswith("route 10.9.0.0/24: ")
    assert {item.address for item in dumps.addresses(one.route) if item.index == at} >= {"10.0.0.1", "10.0.0.3"}


def test_a_batch_larger_than_the_buffers_is_answered_whole(hosts: tuple[Host, Host]) -> None:
    one, _ = hosts
    at = bridge(one)
    macs = [f"0a:58:0a:00:{number >> 8:02x}:{number & 255:02x}" for number in range(5000)]
    added = [requests.neighbour(at, f"10.1.{n >> 8}.{n & 255}", mac, add=True) for n, mac in enumerate(macs)]
    assert one.route.batch(added) == [None] * 5000
    again = [Message(one.kind, requests._EXCLUSIVE, one.body, one.about) for one in added]
    assert [failed.number for failed in one.route.batch(again) if failed] == [errno.EEXIST] * 5000
    assert len([near for near in dumps.neighbours(one.route) if near.index == at]) >= 5000


def test_links_are_made_in_their_place_and_read_back(hosts: tuple[Host, Host]) -> None:
    one, two = hosts
    master = bridge(one)
    vxlan = NewLink("vx", "0e:58:00:00:00:01", 1400, netns=one.netns.fd, up=False)
    two.route.call(requests.add_vxlan(vxlan, 77, "192.168.0.1"))
    pod = NewLink("eth0", "0a:58:00:00:00:05", 1400, netns=two.netns.fd, up=False)
    one.route.call(requests.add_veth(NewLink("p", mtu=1400, master=master), pod))
    port = BridgePort(hairpin=True, learning=False, flood=False, neigh_suppress=True)
    one.route.call(requests.change_link(one.link("p").index, alias="owner äö", port=port))
    seen = one.link("p")
    assert (seen.kind, seen.master, seen.mtu, seen.up, seen.alias) == ("veth", master, 1400, True, "owner äö")
    assert (seen.hairpin, seen.learning, seen.flood, seen.neigh_suppress) == (True, False, False, True)
    inner = two.link("eth0")
    assert (inner.mac, inner.peer, inner.peer_elsewhere, inner.up) == ("0a:58:00:00:00:05", seen.index, True, False)
    made = one.link("vx")
    assert (made.kind, made.vni, made.local, made.mac) == ("vxlan", 77, "192.168.0.1", "0e:58:00:00:00:01")
    with pytest.raises(NetlinkError, match="already exists"):
        two.route.call(requests.add_vxlan(NewLink("vx2", netns=one.netns.fd), 77, "192.168.0.1"))


def test_entries_are_read_back_as_they_were_given(hosts: tuple[Host, Host]) -> None:
    one, two = hosts
    at = bridge(one)
    two.route.call(requests.add_vxlan(NewLink("vx", master=at, netns=one.netns.fd), 78, "192.168.0.1"))
    vx = one.link("vx").index
    assert (
        one.route.batch(
            [
                requests.address(at, "10.0.0.1", 24, add=True),
                requests.address(at, "fd00::1", 64, add=True),
                requests.route(NewRoute("10.5.0.0/16", at, "169.254.1.1", "10.0.0.1", onlink=True), add=True),
                requests.route(NewRoute("fd05::/64", at, "fd00::2"), add=True),
                requests.neighbour(at, "10.0.0.9", "0a:58:00:00:00:09", add=True),
                requests.forwarding(vx, "0a:58:00:00:00:09", "192.168.0.2", add=True),
                requests.forwarding(vx, "0a:58:00:00:00:09", "", add=True),
            ]
        )
        == [None] * 7
    )
    ways = {(way.destination, way.via, way.src, way.onlink) for way in dumps.routes(one.route) if way.protocol == 112}
    assert ways == {("10.5.0.0/16", "169.254.1.1", "10.0.0.1", True), ("fd05::/64", "fd00::2", "", False)}
    assert dumps.Neighbour(at, "10.0.0.9", "0a:58:00:00:00:09", requests.PERMANENT) in dumps.neighbours(one.route)
    entries = [e for e in dumps.forwarding_entries(one.route) if e.mac == "0a:58:00:00:00:09"]
    assert sorted((e.index, e.remote, e.master) for e in entries) == [(vx, "", at), (vx, "192.168.0.2", 0)]
    gone = [
        requests.forwarding(vx, "0a:58:00:00:00:09", "192.168.0.2", add=False),
        requests.forwarding(vx, "0a:58:00:00:00:09", "", add=False),
        requests.neighbour(at, "10.0.0.9", "", add=False),
        requests.route(NewRoute("10.5.0.0/16", at), add=False),
        requests.address(at, "10.0.0.1", 24, add=False),
    ]
    assert one.route.batch(gone) == [None] * 5
    assert all(failed and failed.number in {2, 3, 99} for failed in one.route.batch(gone)[:5])


def test_a_group_of_links_is_deleted_together_and_no_other(hosts: tuple[Host, Host]) -> None:
    one, two = hosts
    for number in range(5):
        peer = NewLink(f"e{number}", netns=two.netns.fd, up=False)
        one.route.call(requests.add_veth(NewLink(f"p{number}"), peer))
    for number in range(4):
        one.route.call(requests.change_link(one.link(f"p{number}").index, up=False, more=requests.set_group(9)))
    one.route.call(requests.del_group(9))
    assert [link.name for link in dumps.links(one.route)] == ["lo", "p4"]
    assert [link.name for link in dumps.links(two.route)] == ["lo", "e4"]


def test_a_namespace_is_made_once_found_again_and_removed_twice(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "space"
    assert ensure_netns(path) is True
    with open_netns(path) as first:
        assert ensure_netns(path) is False
        with open_netns(path) as second, own_netns() as own:
            numbers = [os.fstat(one.fd).st_ino for one in (first, second, own)]
            assert numbers[0] == numbers[1] != numbers[2]
            assert run_inside(second, lambda: os.stat("/proc/thread-self/ns/net").st_ino) == numbers[0]
    assert list_netns(path.parent) == ["space"]
    remove_netns(path)
    remove_netns(path)
    assert list_netns(path.parent) == []


def test_a_plain_file_as_after_a_reboot_is_told_and_used_again(tmp_path: Path) -> None:
    path = tmp_path / "space"
    path.touch()
    assert not is_netns(path)
    with pytest.raises(NetnsError, match="is no network namespace"):
        open_netns(path)
    assert ensure_netns(path) is True
    assert is_netns(path)
    remove_netns(path)
    path.touch()
    remove_netns(path)
    assert not path.exists()


def test_sysctls_are_those_of_the_namespace(hosts: tuple[Host, Host]) -> None:
    one, two = hosts
    one.run(lambda: write_sysctl("net/ipv4/ip_forward", "1"))
    two.run(lambda: write_sysctl("net/ipv4/ip_forward", "0"))
    assert one.run(lambda: read_sysctl("net/ipv4/ip_forward")) == "1"
    assert two.run(lambda: read_sysctl("net/ipv4/ip_forward")) == "0"
    assert one.run(lambda: read_sysctl("net/ipv4/no_such")) is None
    with pytest.raises(SysctlError, match="net/ipv4/no_such"):
        one.run(lambda: write_sysctl("net/ipv4/no_such", "1"))


def test_a_listening_socket_is_in_its_namespace_only(hosts: tuple[Host, Host]) -> None:
    one, two = hosts
    with listening_socket(one.netns, "127.0.0.1", 7000) as sock:
        assert sock.getsockname() == ("127.0.0.1", 7000)
        with one.socket(2, 1) as client:
            client.connect(("127.0.0.1", 7000))
        with two.socket(2, 1) as client, pytest.raises(ConnectionRefusedError):
            client.connect(("127.0.0.1", 7000))
        with pytest.raises(OSError, match="in use"):
            listening_socket(one.netns, "127.0.0.1", 7000)


def test_a_namespace_ends_with_its_last_holder(tmp_path: Path) -> None:
    """A veth's end in another namespace tells when one is really gone."""
    stays, goes = Host("stays", tmp_path / "stays"), Host("goes", tmp_path / "goes")
    try:
        stays.route.call(requests.add_veth(NewLink("here"), NewLink("there", netns=goes.netns.fd, up=False)))
        goes.close()
        assert waited(lambda: [link.name for link in dumps.links(stays.route)] == ["lo"])
    finally:
        stays.close()
