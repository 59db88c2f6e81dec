"""What of ours somebody deletes by hand is back within five seconds, and a tenant's packets go on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable

import pytest

from polder.sdn.render.linux.items import Item
from polder.sdn.render.linux.text import dump
from polder.system.commands import run
from tests.system.lab import Host, waited
from tests.system.site import Site, until

pytestmark = pytest.mark.system
WITHIN = 5.0


@pytest.fixture
async def pair(site: Site) -> AsyncIterator[tuple[Site, Host, str]]:
    """A pod on each node: one to ask from, and the address of the other."""
    here = await site.prepared("acme", "here", "n1")
    there = await site.prepared("acme", "there", "n2")
    await site.nodes["n1"].add(here)
    await site.nodes["n2"].add(there)
    address = {p.spec.pod: p.spec.addresses[0] for p in await site.ports("acme")}
    (at,) = [value for name, value in address.items() if name.endswith("there")]
    await until(lambda: asyncio.to_thread(here.host.ping, at), what="the two reach each other")
    yield site, here.host, at


def in_router(site: Site, *command: str) -> None:
    space = site.folder / "n1.routers" / "acme"
    run("nsenter", f"--net={space}", *command)


def in_node(site: Site, *command: str) -> None:
    run("nsenter", f"--net={site.lab.nodes['n1'].host.path}", *command)


def named(site: Site, kind: str) -> str:
    """The network's bridge or VXLAN device in the router."""
    space = site.folder / "n1.routers" / "acme"
    lines = run("nsenter", f"--net={space}", "ip", "-o", "link").splitlines()
    return next(line.split(": ")[1].split("@")[0] for line in lines if f": {kind}-" in line)


BREAKS: dict[str, Callable[[Site], None]] = {
    "bridge": lambda site: in_router(site, "ip", "link", "del", named(site, "br")),
    "vxlan": lambda site: in_router(site, "ip", "link", "del", named(site, "vx")),
    "bridge down": lambda site: in_router(site, "ip", "link", "set", named(site, "br"), "down"),
    "default route": lambda site: in_router(site, "ip", "route", "del", "default"),
    "transit": lambda site: in_router(site, "ip", "link", "del", "dev", "up"),
    "route of the node": lambda site: in_node(site, "sh", "-c", "ip route del $(ip route | grep -m1 'dev lab+' | cut -d' ' -f1)"),
    "rules": lambda site: in_router(site, "nft", "delete", "table", "inet", "polder"),
    "guard": lambda site: in_node(site, "nft", "delete", "table", "inet", "lab"),
    "neighbours": lambda site: in_router(site, "sh", "-c", "ip neigh flush all nud permanent"),
    "forwarding": lambda site: in_router(
        site, "sh", "-c", "bridge fdb show | grep ' dst ' | while read mac on; do set -- $on; "
        "bridge fdb del $mac dev $2 dst $4 self; done"
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", sorted(BREAKS))
async def test_what_is_deleted_by_hand_is_back_within_five_seconds(
    what: str, pair: tuple[Site, Host, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    site, pod, address = pair
    pipeline, kernel = site.nodes["n1"].live.pipeline, site.lab.nodes["n1"].kernel
    wanted = pipeline.wanted()
    observe = kernel.observe
    assert not wanted - await observe(wanted)
    looked, ran = asyncio.Event(), asyncio.Event()

    async def heard(expected: Iterable[Item] = ()) -> frozenset[Item]:
        found = await observe(expected)
        looked.set()
        ran.clear()
        return found

    monkeypatch.setattr(kernel, "observe", heard)
    pipeline.on_run(ran.set)
    BREAKS[what](site)
    async with asyncio.timeout(WITHIN):
        await looked.wait()  # a look of the test's own would count as the agent's
        await ran.wait()
        lacking = wanted - await observe(wanted)
        assert not lacking, dump(lacking)
        assert await asyncio.to_thread(waited, lambda: pod.ping(address))
