"""The CNI plugin as a runtime calls it: through the stub, to the agent's network, into the kernel, with a real server."""

from __future__ import annotations

import asyncio

import pytest

from polder.node.journal import Journal
from polder.sdn.render.linux.items import Element, Transit
from tests.system.site import Site, until

pytestmark = pytest.mark.system


async def test_add_gives_addresses_that_work(site: Site) -> None:
    one, two = await site.prepared("acme", "one", "n1"), await site.prepared("acme", "two", "n2")
    first, second = await site.nodes["n1"].add(one), await site.nodes["n2"].add(two)
    address = second["ips"][0]["address"].partition("/")[0]
    assert first["cniVersion"] == "1.0.0"
    assert first["ips"][0]["gateway"] == "10.0.0.1"
    assert first["interfaces"][0]["name"] == "eth0"
    assert one.host.link("eth0").mac == first["interfaces"][0]["mac"]
    assert await asyncio.to_thread(one.host.ping, "10.0.0.1")
    assert await asyncio.to_thread(one.host.ping, address), "over the wire to the other node"
    await until(lambda: _has_sandboxes(site, [one.container, two.container]), what="the API is told")


async def test_add_twice_gives_the_same_and_del_twice_succeeds(site: Site) -> None:
    node = site.nodes["n1"]
    sandbox = await site.prepared("acme", "one", "n1")
    assert await node.add(sandbox) == await node.add(sandbox)
    await node.delete(sandbox)
    assert not await asyncio.to_thread(sandbox.host.ping, "10.0.0.1", 0.2)
    await node.delete(sandbox)
    await node.delete(sandbox, CNI_NETNS="")
    again = await node.add(sandbox)
    assert await asyncio.to_thread(sandbox.host.ping, again["ips"][0]["gateway"])


async def test_a_late_del_leaves_the_successor_alone(site: Site) -> None:
    node = site.nodes["n1"]
    old = await site.prepared("acme", "one", "n1")
    before = await node.add(old)
    new = site.again(old)
    after = await node.add(new)
    assert before["ips"] == after["ips"], "the pod keeps its address"
    assert not await asyncio.to_thread(old.host.ping, "10.0.0.1", 0.2), "the older sandbox is off the network"
    await node.delete(old)
    assert await asyncio.to_thread(new.host.ping, "10.0.0.1")
    await until(lambda: _has_sandboxes(site, [new.container]), what="the API is told")


async def test_fifty_adds_at_once_get_fifty_addresses(site: Site) -> None:
    pods = [await site.pod("acme", f"p{number}", f"n{number % 2 + 1}") for number in range(50)]
    boxes = [site.sandbox(pod) for pod in pods]

    async def add(number: int) -> str:
        """As soon as the agent knows the pod: nothing was prepared."""
        node = site.nodes[f"n{number % 2 + 1}"]
        await until(lambda: node.live.attachments.knows(boxes[number].uid), what="the pod is seen")
        answer = await node.add(boxes[number])
        return str(answer["ips"][0]["address"])

    found = await asyncio.gather(*(add(number) for number in range(50)))
    assert len(set(found)) == 50
    assert {f"default.{address.partition('/')[0]}" for address in found} == set(await site.addresses("acme"))
    last = found[-1].partition("/")[0]
    assert await asyncio.to_thread(boxes[0].host.ping, last)


async def test_two_hundred_attachments_leave_nothing(site: Site) -> None:
    node = site.nodes["n1"]
    for round_ in range(4):
        names = [f"r{round_}p{number}" for number in range(50)]
        boxes = await asyncio.gather(*(site.prepared("acme", name, "n1") for name in names))
        await asyncio.gather(*(node.add(box) for box in boxes))
        assert len(node.live.pipeline.attached()) == 50
        await asyncio.gather(*(node.delete(box) for box in boxes))
        await asyncio.gather(*(site.delete_pod("acme", name) for name in names))
    await until(lambda: _nothing_of(site, "acme"), 30.0, "ports and addresses are gone")
    await until(lambda: "acme" not in node.live.pipeline.entries(), what="the router is gone")
    left = await node.machine.kernel.observe(node.live.pipeline.wanted())
    assert left == node.live.pipeline.wanted()
    assert {item.slot[1] for item in left} == {""}, "nothing but the node's guard"
    assert not [item for item in left if isinstance(item, Transit) or (isinstance(item, Element) and "+" in item.key)]
    assert not [problem for problem in node.live.pipeline.problems() if "acme" in problem]
    assert Journal(node.folder / "journal").uses() == []


async def _nothing_of(site: Site, tenant: str) -> bool:
    return not await site.ports(tenant) and not await site.addresses(tenant)


async def test_del_without_pod_and_without_api(site: Site) -> None:
    node = site.nodes["n1"]
    gone, away = await site.prepared("acme", "gone", "n1"), await site.prepared("acme", "away", "n1")
    await node.add(gone)
    await node.add(away)
    await site.delete_pod("acme", "gone")
    await until(lambda: _is_released(site, "gone", 1), what="the port of a deleted pod goes by itself")
    await node.delete(gone)
    await site.stop_serving()
    await node.delete(away)
    assert not await asyncio.to_thread(away.host.ping, "10.0.0.1", 0.2)
    back = site.again(away)
    await node.add(back)
    assert await asyncio.to_thread(back.host.ping, "10.0.0.1"), "what is prepared needs no API"
    await node.delete(back)
    await node.stop()
    await node.start()
    await site.serve()
    await until(lambda: _has_sandboxes(site, [""]), what="the server hears of it")
    await site.delete_pod("acme", "away")
    await until(lambda: _nothing_of(site, "acme"))


async def _is_released(site: Site, _: str, left: int) -> bool:
    return len(await site.ports("acme")) == left and len(await site.addresses("acme")) == left


async def _has_sandboxes(site: Site, wanted: list[str]) -> bool:
    return sorted(port.status.sandbox for port in await site.ports("acme")) == sorted(wanted)
