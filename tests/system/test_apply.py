"""Kernel: observe and apply, change by change."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from polder.sdn.apply.linux.kernel import Kernel, KernelSettings
from polder.sdn.apply.linux.observe import EDITED
from polder.sdn.render.linux.items import (
    Bridge,
    Chain,
    Element,
    Fdb,
    Item,
    NamedSet,
    PortLink,
    Ruleset,
    Space,
    Sysctl,
    Transit,
    Vxlan,
)
from polder.sdn.render.linux.policy_rules import POLICY_TABLE
from polder.system.net import dumps, requests
from polder.system.net.netlink import NetlinkSocket
from polder.system.net.netns import list_netns, open_netns, remove_netns, run_inside
from polder.system.net.nft import run_nft
from tests.system.lab import Host
from tests.system.test_apply_kill import configured, port, router

pytestmark = pytest.mark.system


class Room:
    """A node, two pods, a kernel that has applied ``wanted``."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.node, self.one, self.two = (Host(name, directory / name) for name in ("node", "pod-one", "pod-two"))
        self.kernel = self.another()
        self.wanted = frozenset(router() | port("p-one", str(self.one.path), 5))

    def another(self, *, direct: bool = True) -> Kernel:
        return Kernel(KernelSettings(self.directory / "routers", "kill", self.node.path, direct))

    async def apply(self, remove: set[Item], add: set[Item]) -> list[str]:
        self.wanted = (self.wanted - remove) | add
        return [str(one) for one in await self.kernel.apply(remove, add)]

    async def settled(self) -> bool:
        """Whether the kernel holds exactly what is wanted."""
        seen = await self.kernel.observe(self.wanted)
        assert (self.wanted - seen, seen - self.wanted) == (frozenset(), frozenset())
        return True

    def link(self, name: str, space: str = "acme") -> dumps.Link:
        with open_netns(self.directory / "routers" / space) as netns:
            sock = run_inside(netns, NetlinkSocket)
            try:
                return dumps.link_named(sock, name)
            finally:
                sock.close()

    def nft(self, commands: str) -> str:
        with open_netns(self.directory / "routers" / "acme") as netns:
            return run_inside(netns, lambda: run_nft(commands))

    async def close(self) -> None:
        await self.kernel.close()
        for host in (self.node, self.one, self.two):
            host.close()
        for name in list_netns(self.directory / "routers"):
            remove_netns(self.directory / "routers" / name)


@pytest.fixture
async def room(tmp_path: Path) -> AsyncIterator[Room]:
    made = Room(tmp_path)
    try:
        assert not await made.kernel.apply([], made.wanted)
        yield made
    finally:
        await made.close()


async def test_what_is_applied_is_observed_and_applying_again_changes_nothing(room: Room) -> None:
    assert await room.settled()
    before = room.link("p-one"), room.link("br-1"), room.nft("list ruleset")
    assert not await room.kernel.apply([], room.wanted)
    assert await room.settled()
    assert before == (room.link("p-one"), room.link("br-1"), room.nft("list ruleset"))
    assert configured(room.one) == {"10.0.0.5", "0.0.0.0/0"}


async def test_a_new_process_observes_the_same(room: Room) -> None:
    other = room.another()
    try:
        assert await other.observe(room.wanted) == room.wanted
        blind = {type(item) for item in room.wanted - await other.observe()}
        inside = {Chain, NamedSet, Element}
        assert blind == {Ruleset, Sysctl, *inside}, "texts and settings are told apart only by what is expected"
        assert {item.table for item in room.wanted - await other.observe() if isinstance(item, Element)} == {
            POLICY_TABLE
        }
        assert not await other.apply([], [item for item in room.wanted if isinstance(item, Ruleset)])
    finally:
        await other.close()


@pytest.mark.parametrize(
    "change",
    [
        lambda one: replace(one, mtu=1400) if isinstance(one, Bridge | Vxlan | PortLink | Transit) else one,
        lambda one: replace(one, mac="0a:58:0a:00:00:fe") if isinstance(one, Bridge) else one,
        lambda one: (
            replace(one, mac="0a:00:00:00:00:99", node_mac="0a:00:00:00:00:98", mtu=1498)
            if isinstance(one, Transit)
            else one
        ),
        lambda one: replace(one, mac="0e:58:64:40:00:99", local="192.168.0.9") if isinstance(one, Vxlan) else one,
        lambda one: replace(one, owner="someone else") if hasattr(one, "owner") else one,
        lambda one: replace(one, remote="192.168.0.9") if isinstance(one, Fdb) and one.remote else one,
        lambda one: replace(one, value="0") if isinstance(one, Sysctl) else one,
        # with a table that has chains of its own beside its text these come again (Wanted.difference)
        lambda one: (
            replace(one, text=one.text + " chain more { }\n")
            if isinstance(one, Ruleset) and one.table != POLICY_TABLE
            else one
        ),
        lambda one: replace(one, src="") if type(one).__name__ == "Route" and getattr(one, "src", "") else one,
    ],
    ids=["mtu", "bridge-mac", "transit-mac", "vxlan", "owner", "fdb", "sysctl", "ruleset", "route"],
)
async def test_an_item_with_other_attributes_is_changed(room: Room, change) -> None:
    new = frozenset(change(item) for item in room.wanted)
    assert new != room.wanted
    assert await room.apply(set(room.wanted - new), set(new - room.wanted)) == []
    assert await room.settled()


async def test_an_element_with_another_value_is_replaced_in_one_transaction(room: Room) -> None:
    rules = Ruleset("acme", "ip", "vip", " map eps { type ipv4_addr : ipv4_addr; }\n chain c { }\n")
    old = Element("acme", "ip", "vip", "eps", "10.96.0.1", "10.0.0.5")
    assert await room.apply(set(), {rules, old}) == []
    assert await room.apply({old}, {replace(old, value="10.0.0.6")}) == []
    assert await room.settled()


async def test_a_new_text_keeps_the_elements_and_leaves_no_gap(room: Room) -> None:
    """A packet stream from pod to gateway through the guard while its table is replaced twenty times."""
    guard = next(item for item in room.wanted if isinstance(item, Ruleset) and item.family == "bridge")
    arp = Ruleset(guard.space, guard.family, guard.table, guard.text.replace("drop;", "drop; ether type arp accept;"))
    assert await room.apply({guard}, {arp}) == []
    assert await asyncio.to_thread(room.one.ping, "10.0.0.1")
    for number in range(20):
        new = Ruleset(arp.space, arp.family, arp.table, arp.text + f" chain n{number} {{ }}\n")
        ping = asyncio.to_thread(room.one.ping, "10.0.0.1")
        _, answered = await asyncio.gather(room.apply({arp}, {new}), ping)
        assert answered
        arp = new
    assert await room.settled()


async def test_an_edited_table_shows_and_is_loaded_again(room: Room) -> None:
    room.nft("insert rule bridge polder prerouting accept")
    seen = await room.kernel.observe(room.wanted)
    (other,) = seen - room.wanted
    assert isinstance(other, Ruleset)
    assert other.text == EDITED
    assert not await room.kernel.apply(seen - room.wanted, room.wanted - seen)
    assert await room.settled()
    assert "accept" not in room.nft("list chain bridge polder prerouting").replace("@ports4 accept", "")


async def test_a_port_whose_flags_were_changed_shows_and_is_set_right(room: Room) -> None:
    with open_netns(room.directory / "routers" / "acme") as netns:
        sock = run_inside(netns, NetlinkSocket)
    loose = requests.BridgePort(hairpin=True, learning=True, flood=True, neigh_suppress=False)
    sock.call(requests.change_link(dumps.link_named(sock, "p-one").index, port=loose))
    sock.close()
    seen = await room.kernel.observe(room.wanted)
    assert [type(item) for item in room.wanted - seen] == [PortLink]
    assert not await room.kernel.apply(seen - room.wanted, room.wanted - seen)
    assert await room.settled()


async def test_a_port_whose_sandbox_vanished_fails_alone_and_says_so(room: Room) -> None:
    lost = next(item for item in port("p-lost", str(room.directory / "nowhere"), 9) if isinstance(item, PortLink))
    (failed,) = await room.kernel.apply([], {lost, *port("p-two", str(room.two.path), 6)})
    assert failed.item == lost
    assert "nowhere: No such file or directory" in failed.reason
    room.wanted |= port("p-two", str(room.two.path), 6)
    assert await room.settled()
    assert configured(room.two) == {"10.0.0.6", "0.0.0.0/0"}


async def test_items_of_a_space_that_does_not_exist_fail_by_name_and_their_removal_is_fine(room: Room) -> None:
    items = {Bridge("nowhere", "br-9", "0a:58:0a:00:00:01", 1450, "x"), Element("nowhere", "inet", "t", "s", "1.2.3.4")}
    failures = await room.kernel.apply([], items)
    assert {one.item for one in failures} == items
    assert all("nowhere" in one.reason for one in failures)
    assert not await room.kernel.apply(items, [])
    assert await room.settled()


async def test_removed_links_are_reported_when_they_are_gone(room: Room) -> None:
    more = port("p-two", str(room.two.path), 6)
    assert await room.apply(set(), more) == []
    told: list[Item] = []
    room.kernel.on_gone(told.append)
    links = [item for item in room.wanted if isinstance(item, PortLink)]
    gone = {item for item in room.wanted if item in more or "p-one" in repr(item) or "10.0.0.5" in repr(item)}
    assert await room.apply(gone, set()) == []
    assert not room.link("p-one").up, "no packet passes from here on, the link itself goes a little later"
    await room.kernel.wait_gone(links)
    assert sorted(told) == sorted(links)
    assert [link.name for link in dumps.links(room.one.route)] == ["lo"]
    assert await room.settled()
    await asyncio.wait_for(room.kernel.wait_gone(links), 0.1)


async def test_a_link_can_be_made_again_while_its_predecessor_waits_to_be_deleted(room: Room) -> None:
    items = {item for item in room.wanted if "p-one" in repr(item) or "10.0.0.5" in repr(item)}
    for _ in range(3):
        assert not await room.kernel.apply(items, [])
        assert not await room.kernel.apply([], items)
        assert await room.settled()
        assert configured(room.one) == {"10.0.0.5", "0.0.0.0/0"}


async def test_a_port_moves_to_a_new_sandbox(room: Room) -> None:
    moved = next(i for i in port("p-one", str(room.two.path), 5) if isinstance(i, PortLink))
    assert await room.apply(set(), {moved, replace(moved, mtu=1440)} - {moved}) == []
    assert configured(room.two) == {"10.0.0.5", "0.0.0.0/0"}
    assert [link.name for link in dumps.links(room.one.route)] == ["lo"]


async def test_foreign_things_in_a_space_show_and_go(room: Room) -> None:
    with open_netns(room.directory / "routers" / "acme") as netns:
        sock = run_inside(netns, NetlinkSocket)
    sock.call(requests.add_bridge(requests.NewLink("intruder", up=False)))
    sock.call(requests.neighbour(dumps.link_named(sock, "br-1").index, "10.0.0.200", "0a:00:00:00:00:01", add=True))
    sock.close()
    room.nft("add table inet foreign")
    foreign = await room.kernel.observe(room.wanted) - room.wanted
    assert {item.slot[0] for item in foreign} == {"link", "neigh", "ruleset"}
    assert not await room.kernel.apply(foreign, [])
    assert await room.settled()


async def test_things_of_others_in_the_nodes_namespace_stay(room: Room) -> None:
    room.node.route.call(requests.add_bridge(requests.NewLink("docker0")))
    room.node.route.call(requests.address(room.node.link("docker0").index, "172.17.0.1", 16, add=True))
    room.node.run(lambda: run_nft('add table inet kill2; add table inet other { comment "polder kill2 x"; }'))
    assert await room.settled()
    assert not await room.kernel.apply(room.wanted, [])
    assert room.node.link("docker0").up
    assert "kill2" in room.node.run(lambda: run_nft("list tables"))


async def test_a_vxlan_made_the_old_way_is_the_same(room: Room) -> None:
    other = room.another(direct=False)
    vxlan = Vxlan("acme", "vx-9", 999, "0e:58:64:40:00:08", 1450, "br-1", "192.168.0.1", "network b")
    try:
        assert not await other.apply([], {vxlan})
        assert await other.observe(room.wanted) == room.wanted | {vxlan}
        assert not [link for link in dumps.links(room.node.route) if link.kind == "vxlan"]
    finally:
        await other.close()


async def test_sockets_in_a_space(room: Room) -> None:
    listener = await room.kernel.listen_in("acme", "10.0.0.1", 443)
    loop = asyncio.get_running_loop()
    accepting = asyncio.ensure_future(loop.sock_accept(listener))
    client = await room.kernel.connect_in("acme", "10.0.0.1", 443)
    connection, peer = await accepting
    assert peer[0] == "10.0.0.1"
    for sock in (connection, client, listener):
        sock.close()
    with pytest.raises(OSError, match="444"):
        await room.kernel.connect_in("acme", "10.0.0.1", 444)


async def test_a_bad_name_of_a_space_is_refused(room: Room) -> None:
    for name in ("../up", ".", "a/b"):
        (failed,) = await room.kernel.apply([], {Space(name, "x")})
        assert "not usable" in failed.reason


async def test_the_event_loop_goes_on_while_the_kernel_works(room: Room) -> None:
    worst, last, done = 0.0, time.perf_counter(), False

    async def heart() -> None:
        nonlocal worst, last
        while not done:
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            worst, last = max(worst, now - last), now

    beating = asyncio.ensure_future(heart())
    spaces = [Space(f"s{number}", "x") for number in range(30)]
    assert not await room.kernel.apply([], spaces)
    assert not await room.kernel.apply(spaces, [])
    done = True
    await beating
    assert worst < 0.1, "seconds; the machine may be busy, the kernel's work is a second"
