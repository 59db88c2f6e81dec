"""What the plugin answers to calls other than ADD and DEL, to broken ones, and to wishes that cannot be met."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from polder.api.meta import ref_of
from polder.base.errors import PolderError
from polder.cni.install import PLUGIN, build_stub
from tests.system.site import Site, until

pytestmark = pytest.mark.system

NEW = {"cniVersion": "1.1.0", "name": "polder"}


async def test_check_sees_what_was_taken_away(site: Site) -> None:
    node = site.nodes["n1"]
    sandbox = await site.prepared("acme", "one", "n1")
    result = await node.add(sandbox)
    asked = {"cniVersion": "1.0.0", "name": "polder", "prevResult": result}
    assert await node.cni(sandbox.environment("CHECK"), asked) == (0, None)
    sandbox.host.route.call(_delete_link(sandbox.host.link("eth0").index))
    code, answer = await node.cni(sandbox.environment("CHECK"), asked)
    assert code == 1
    assert "the kernel lacks" in answer["details"]
    stranger = site.again(sandbox)
    code, answer = await node.cni(stranger.environment("CHECK"), asked)
    assert code == 1
    assert stranger.container in answer["details"]


def _delete_link(index: int):
    from polder.system.net import requests

    return requests.del_link(index)


async def test_gc_detaches_what_is_not_valid(site: Site) -> None:
    node = site.nodes["n1"]
    kept, lost = await site.prepared("acme", "kept", "n1"), await site.prepared("acme", "lost", "n1")
    await node.add(kept)
    await node.add(lost)
    valid = {**NEW, "cni.dev/valid-attachments": [{"containerID": kept.container, "ifname": "eth0"}]}
    assert await node.cni({"CNI_COMMAND": "GC", "CNI_PATH": "/nowhere"}, valid) == (0, None)
    assert await asyncio.to_thread(kept.host.ping, "10.0.0.1")
    assert not await asyncio.to_thread(lost.host.ping, "10.0.0.1", 0.2)


async def test_status_and_version(site: Site) -> None:
    node = site.nodes["n1"]
    await until(lambda: node.live.pipeline.synced)
    assert await node.cni({"CNI_COMMAND": "STATUS"}, NEW) == (0, None)
    code, answer = await node.cni({"CNI_COMMAND": "VERSION"}, {"cniVersion": "1.0.0"})
    assert (code, answer) == (
        0,
        {"cniVersion": "1.0.0", "supportedVersions": ["0.3.1", "0.4.0", "1.0.0", "1.1.0"]},
    )
    await site.stop_serving()
    await node.stop()
    await node.start()
    code, answer = await node.cni({"CNI_COMMAND": "STATUS"}, NEW)
    assert (code, answer["code"]) == (1, 50), "the API is away, so ADD could not work"


async def test_agent_away_says_try_again(site: Site) -> None:
    node = site.nodes["n1"]
    sandbox = await site.prepared("acme", "one", "n1")
    await node.stop()
    code, answer = await node.cni(sandbox.environment("ADD"))
    assert code == 1
    assert answer["code"] == 11
    assert "agent does not answer" in answer["details"]


async def test_broken_calls_name_what_is_broken_and_change_nothing(site: Site) -> None:
    node = site.nodes["n1"]
    sandbox = await site.prepared("acme", "one", "n1")
    before = await node.machine.kernel.observe(node.live.pipeline.wanted())
    environment = sandbox.environment("ADD")
    for config, code, word in (
        (b'{"cniVersion": "1.0.0", "name": ', 6, "decode"),
        ({"cniVersion": "9.0.0", "name": "polder"}, 1, "cniVersion"),
        ({"cniVersion": "1.0.0"}, 7, "name"),
        ({"cniVersion": "1.0.0", "name": "a/b"}, 7, "name"),
        ({"cniVersion": "1.0.0", "name": "polder", "ipam": {"type": "host-local"}}, 2, "ipam"),
        ({"cniVersion": "1.0.0", "name": "polder", "prevResult": {"ips": 5}}, 7, "prevResult.ips"),
    ):
        status, answer = await node.cni(environment, config)
        assert (status, answer["code"]) == (1, code), answer
        assert word in answer["msg"] + answer["details"]
    for variable, value in (("CNI_IFNAME", "far-too-long-for-a-link"), ("CNI_CONTAINERID", "../x"), ("CNI_NETNS", "")):
        status, answer = await node.cni(sandbox.environment("ADD", **{variable: value}))
        assert (status, answer["code"]) == (1, 4)
        assert variable in answer["details"]
    status, answer = await node.cni(sandbox.environment("ADD", CNI_ARGS="K8S_POD_NAME=one"))
    assert "K8S_POD_UID" in answer["details"]
    status, answer = await node.cni(sandbox.environment("ADD", CNI_NETNS="/nowhere/at/all"))
    assert status == 1
    assert "/nowhere/at/all" in answer["details"]
    await node.delete(sandbox)
    assert await node.machine.kernel.observe(node.live.pipeline.wanted()) == before


async def test_static_address_and_mac(site: Site) -> None:
    one = await site.prepared("acme", "one", "n1", address="10.0.7.7", mac="02:00:00:00:00:07")
    answer = await site.nodes["n1"].add(one)
    assert answer["ips"][0]["address"] == "10.0.7.7/32"
    assert answer["interfaces"][0]["mac"] == "02:00:00:00:00:07"
    for name, wish, words in (
        ("two", {"address": "10.0.7.7"}, ["10.0.7.7", "kube-system/default", "is used by Port default/"]),
        ("three", {"address": "10.0.0.1"}, ["10.0.0.1", "kube-system/default"]),
        ("four", {"address": "10.9.0.1"}, ["10.9.0.1", "10.0.0.0/16"]),
        ("five", {"mac": "02:00:00:00:00:07"}, ["02:00:00:00:00:07", "is used by Port default/"]),
        ("six", {"mac": "0a:58:0a:00:00:01"}, ["0a:58", "Polder gives out itself"]),
    ):
        with pytest.raises(PolderError) as caught:
            await _wish(site, name, wish)
        assert all(word in str(caught.value) for word in words), caught.value


async def _wish(site: Site, name: str, wish: dict[str, str]) -> None:
    """Refused by the API when the pod is made, or by the agent before its sandbox."""
    await site.nodes["n1"].live.prepare(await site.pod("acme", name, "n1", **wish))


async def test_a_full_network_is_named(site: Site) -> None:
    await site.create_network("acme", "small", "10.5.0.0/29")
    boxes = [await site.prepared("acme", f"p{n}", f"n{n % 2 + 1}", network="default/small") for n in range(5)]
    assert len({b.uid for b in boxes}) == 5
    late = await site.pod("acme", "late", "n1", network="default/small")
    with pytest.raises(
        Exception, match=r"Network acme:default/small is full: every address of spec\.cidr 10\.5\.0\.0/29"
    ):
        await site.nodes["n1"].live.prepare(late)
    await site.delete_pod("acme", "p1")
    await until(lambda: site.prepare(late, "n1"), what="a freed address is given again")


async def test_an_isolated_network_has_no_way_out(site: Site) -> None:
    await site.create_network("acme", "island", "10.6.0.0/24", router="")
    one = await site.prepared("acme", "one", "n1", network="default/island")
    two = await site.prepared("acme", "two", "n2", network="default/island")
    first, second = await site.nodes["n1"].add(one), await site.nodes["n2"].add(two)
    assert "gateway" not in first["ips"][0]
    there = second["ips"][0]["address"].partition("/")[0]
    assert await asyncio.to_thread(one.host.ping, there)
    assert not await asyncio.to_thread(one.host.ping, "10.6.0.1", 0.2)


async def test_traffic_goes_on_while_the_agent_and_the_api_are_away(site: Site) -> None:
    one, two = await site.prepared("acme", "one", "n1"), await site.prepared("acme", "two", "n2")
    await site.nodes["n1"].add(one)
    there = (await site.nodes["n2"].add(two))["ips"][0]["address"].partition("/")[0]
    node = site.nodes["n1"]
    before = await node.machine.kernel.observe(node.live.pipeline.wanted())
    await node.stop()
    assert await asyncio.to_thread(one.host.ping, there)
    await site.stop_serving()
    await node.start()
    await asyncio.sleep(0.5)
    assert await node.machine.kernel.observe(node.live.pipeline.wanted()) == before, "nothing changed without the API"
    assert await asyncio.to_thread(one.host.ping, there)
    await node.delete(one)
    assert not await asyncio.to_thread(one.host.ping, there, 0.2)


async def test_a_view_that_is_wrong_for_a_moment_takes_no_network_away(site: Site) -> None:
    one, two = await site.prepared("acme", "one", "n1"), await site.prepared("acme", "two", "n1")
    node = site.nodes["n1"]
    await node.add(one)
    there = (await node.add(two))["ips"][0]["address"].partition("/")[0]
    before = {item for item in node.live.pipeline.wanted() if item.slot[1] == "acme"}
    await until(lambda: _is_told(site), what="the API is told")
    await asyncio.sleep(0.2)
    share = site.server._identity.share
    for resource in {key.resource for key in share._rows}:
        share._reset(resource, {})  # as if the server had forgotten who is where
    await until(
        lambda: "acme" not in {ref_of(n).tenant for n in node.live._networks.values()}, what="the agent's view is empty"
    )
    await asyncio.sleep(0.3)
    assert {item for item in node.live.pipeline.wanted() if item.slot[1] == "acme"} == before
    assert await asyncio.to_thread(one.host.ping, there)
    await node.stop()
    await node.start()
    await asyncio.sleep(0.5)
    assert await asyncio.to_thread(one.host.ping, there), "nor does an agent that starts with such a view"
    await share.load()
    await until(lambda: node.live.pipeline.synced, what="the view is whole again")
    await asyncio.sleep(0.3)
    assert {item for item in node.live.pipeline.wanted() if item.slot[1] == "acme"} == before
    assert await asyncio.to_thread(one.host.ping, there)


async def _is_told(site: Site) -> bool:
    return all(port.status.sandbox for port in await site.ports("acme"))


async def test_a_tenant_that_goes_takes_its_routers_along(site: Site) -> None:
    await site.tenant("globex")
    box = await site.prepared("globex", "one", "n1")
    await site.nodes["n1"].add(box)
    assert "globex" in site.nodes["n1"].live.pipeline.entries()
    await site.admin.raw("DELETE", "/apis/polder.dev/v1alpha1/tenants/globex")
    await site.nodes["n1"].delete(box)
    await site.delete_pod("globex", "one")
    await until(lambda: "globex" not in site.nodes["n1"].live.pipeline.entries(), 20.0)
    await until(lambda: _no_tenant(site, "globex"), 20.0)


async def _no_tenant(site: Site, name: str) -> bool:
    listing = json.loads(await site.admin.raw("GET", "/apis/polder.dev/v1alpha1/tenants"))
    return name not in {item["metadata"]["name"] for item in listing["items"]}


async def test_a_node_with_a_pod_on_its_own_network_reaches_the_platforms_pods_elsewhere(site: Site) -> None:
    box = await site.prepared("root", "web", "n2")
    address = (await site.nodes["n2"].add(box))["ips"][0]["address"].partition("/")[0]
    n1 = site.nodes["n1"].machine.host
    with box.host.tcp_server():
        assert n1.tcp(address) == "", "nothing of the platform is there"
        await site.pod("root", "tool", "n1", host=True)
        await until(lambda: asyncio.to_thread(n1.tcp, address, 8080, 1.0), 60.0, "the node reaches the pod")
        await site.delete_pod("root", "tool")
        await until(lambda: site.nodes["n1"].live.router_of("root") is None, 60.0, "the router goes")


async def test_the_python_stub_does_the_same(site: Site) -> None:
    node = site.nodes["n1"]
    assert not build_stub(node.folder / "bin" / "python" / PLUGIN, compiler="no-such-compiler")
    (node.folder / "bin" / "python" / "polder-cni.sock").symlink_to(node.folder / "agent.sock")
    (node.folder / "bin" / PLUGIN).unlink()
    (node.folder / "bin" / PLUGIN).symlink_to(Path("python") / PLUGIN)
    sandbox = await site.prepared("acme", "one", "n1")
    assert (await node.add(sandbox))["ips"][0]["gateway"] == "10.0.0.1"
    await node.stop()
    code, answer = await node.cni(sandbox.environment("ADD"))
    assert (code, answer["code"]) == (1, 11)


async def test_the_loopback_plugin_brings_lo_up(site: Site, tmp_path: Path) -> None:
    pod = await site.pod("acme", "one", "n1")
    sandbox = site.sandbox(pod)
    sandbox.host.route.call(_lo_down())
    process = await asyncio.create_subprocess_exec(
        str(site.nodes["n1"].folder / "bin" / "loopback"), stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE, env=sandbox.environment("ADD"),
    )  # fmt: skip
    output, _ = await process.communicate(b'{"cniVersion": "1.0.0", "name": "lo", "type": "loopback"}')
    assert process.returncode == 0
    assert json.loads(output)["interfaces"][0]["name"] == "lo"
    assert await asyncio.to_thread(sandbox.host.ping, "127.0.0.1")


def _lo_down():
    from polder.system.net import requests

    return requests.change_link(1, up=False)
