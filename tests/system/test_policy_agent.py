"""Policies with the agent's network and a real server: from the first packet of a new pod, over restarts, as pods change."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from polder.sdn.droplog import DropLog
from polder.system.net.netlink import NETFILTER, NetlinkSocket
from polder.system.net.netns import run_inside
from polder.system.net.nft import NftError, generation, run_nft
from tests.system.lab import BRIEF, Host
from tests.system.site import Sandbox, Site, until

pytestmark = pytest.mark.system
VICTIM = "10.0.0.77"


async def put_policy(site: Site, name: str, spec: dict[str, Any], tenant: str = "acme") -> None:
    body = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": name}, "spec": spec}
    path = f"/tenants/{tenant}/apis/networking.k8s.io/v1/namespaces/default/networkpolicies"
    await site.admin.raw("POST", path, json.dumps(body).encode())


async def delete_policy(site: Site, name: str) -> None:
    path = f"/tenants/acme/apis/networking.k8s.io/v1/namespaces/default/networkpolicies/{name}"
    await site.admin.raw("DELETE", path)


async def label(site: Site, pod: str, **labels: str | None) -> None:
    path, body = f"/tenants/acme/api/v1/namespaces/default/pods/{pod}", {"metadata": {"labels": labels}}
    await site.admin.raw("PATCH", path, json.dumps(body).encode(), content_type="application/merge-patch+json")


async def address_of(site: Site, box: Sandbox, node: str) -> str:
    answer = await site.nodes[node].add(box)
    return str(answer["ips"][0]["address"]).partition("/")[0]


def rules(site: Site, node: str, tenant: str = "acme") -> str:
    """The table of policies as it stands, without its counts; empty without one."""
    netns = site.lab.space(node, tenant)
    with netns:
        try:
            text = run_inside(netns, lambda: run_nft("list table inet policies"))
        except NftError:
            return ""
    return re.sub(r"packets \d+ bytes \d+", "", text)


@contextmanager
def flood(host: Host, address: str) -> Iterator[None]:
    """A datagram to the address every millisecond."""
    ended = threading.Event()
    sock = host.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def send() -> None:
        while not ended.wait(0.001):
            sock.sendto(b"flood", (address, 9))

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        sock.close()


@contextmanager
def heard(host: Host) -> Iterator[list[bytes]]:
    """The flood's datagrams that reach a namespace, from before it has a link on."""
    sock = host.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    sock.settimeout(0.1)
    found: list[bytes] = []
    ended = threading.Event()

    def listen() -> None:
        while not ended.is_set():
            try:
                data, peer = sock.recvfrom(2048)
            except OSError:
                continue
            if b"flood" in data and peer[2] != socket.PACKET_OUTGOING:
                found.append(data)

    thread = threading.Thread(target=listen)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join()
        sock.close()


@pytest.mark.parametrize("isolated", [True, False])
async def test_no_packet_reaches_an_isolated_pod_before_its_policy_does(site: Site, isolated: bool) -> None:
    """The first pod of the tenant on its node, and the node has never heard of the policy; without it the flood arrives."""
    if isolated:
        await put_policy(site, "deny", {"podSelector": {}, "policyTypes": ["Ingress"]})
    evil = await site.prepared("acme", "evil", "n2")
    await site.nodes["n2"].add(evil)
    with flood(evil.host, VICTIM):
        for number in range(3):
            victim = await site.prepared("acme", f"victim{number}", "n1", address=VICTIM)
            with heard(victim.host) as packets:
                await site.nodes["n1"].add(victim)
                if isolated:
                    await asyncio.sleep(0.3)
                    assert packets == []
                else:
                    await until(lambda packets=packets: packets, what="control: the flood arrives")
            await site.nodes["n1"].delete(victim)
            await site.delete_pod("acme", f"victim{number}")
            await until(lambda: _free(site), what="the address is free again")


async def _free(site: Site) -> bool:
    return f"default.{VICTIM}" not in await site.addresses("acme")


async def test_a_restart_changes_nothing_and_isolation_stands_without_the_agent(site: Site) -> None:
    await put_policy(site, "deny", {"podSelector": {"matchLabels": {"role": "db"}}, "policyTypes": ["Ingress"]})
    web, client = await site.prepared("acme", "web", "n1"), await site.prepared("acme", "client", "n1")
    address = await address_of(site, web, "n1")
    await address_of(site, client, "n1")
    with web.host.tcp_server():
        assert await asyncio.to_thread(client.host.tcp, address), "control: not selected yet"
        await label(site, "web", role="db")
        started = time.monotonic()
        await until(lambda: "goto" in rules(site, "n1"), what="the label counts")
        print(f"a pod's label counted after {time.monotonic() - started:.3f} s")
        assert not await asyncio.to_thread(client.host.tcp, address, seconds=BRIEF)
        await asyncio.sleep(0.5)  # the change is whole: other tables have their part in it
        before, node = rules(site, "n1"), site.nodes["n1"]
        transactions = _generation(site)
        await node.stop()
        assert not await asyncio.to_thread(client.host.tcp, address, seconds=BRIEF), "without the agent"
        await node.start()
        await until(lambda: node.live.pipeline.synced, what="the agent is back")
        await asyncio.sleep(0.5)
        assert rules(site, "n1") == before
        assert _generation(site) == transactions, "not one transaction"
        await put_policy(site, "let", {"podSelector": {}, "ingress": [{}], "policyTypes": ["Ingress"]})
        await until(lambda: asyncio.to_thread(client.host.tcp, address), what="a policy allows it")
        await delete_policy(site, "let")
        await delete_policy(site, "deny")
        await until(lambda: not rules(site, "n1"), what="nothing is left of the policies")
        assert await asyncio.to_thread(client.host.tcp, address)


def _generation(site: Site) -> int:
    """How many transactions the rules of the router's namespace have had."""
    netns = site.lab.space("n1", "acme")
    with netns:
        sock = run_inside(netns, lambda: NetlinkSocket(NETFILTER))
    try:
        return generation(sock)
    finally:
        sock.close()


async def test_a_connection_that_stands_goes_on_and_a_new_one_does_not(site: Site) -> None:
    web, client = await site.prepared("acme", "web", "n1"), await site.prepared("acme", "client", "n2")
    address = await address_of(site, web, "n1")
    await address_of(site, client, "n2")
    await put_policy(site, "all", {"podSelector": {}, "ingress": [{}]})
    await until(lambda: rules(site, "n1"), what="the policy is there")
    listener = web.host.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.bind((address, 8080))
    listener.listen()
    standing = client.host.socket(socket.AF_INET, socket.SOCK_STREAM)
    standing.settimeout(2.0)
    await asyncio.to_thread(standing.connect, (address, 8080))
    served, _ = listener.accept()
    served.settimeout(2.0)
    await delete_policy(site, "all")
    await put_policy(site, "deny", {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]})
    await until(lambda: "drop" in rules(site, "n1") and "drop" in rules(site, "n2"), what="the policy is there")
    standing.sendall(b"ping")
    assert await asyncio.to_thread(served.recv, 16) == b"ping"
    served.sendall(b"pong")
    assert await asyncio.to_thread(standing.recv, 16) == b"pong"
    assert not await asyncio.to_thread(client.host.tcp, address, seconds=BRIEF)
    for sock in (served, standing, listener):
        sock.close()


@pytest.mark.parametrize(
    "harm",
    [
        "delete table inet policies",
        "flush chain inet policies {way}",
        "flush chain inet policies {rules}",
        "add rule inet policies {rules} accept",
        "insert rule inet policies ingress accept",
        "flush map inet policies ingress4",
    ],
)
async def test_rules_that_somebody_harms_are_put_right(site: Site, harm: str) -> None:
    await put_policy(
        site, "deny", {"podSelector": {}, "ingress": [{"from": [{"podSelector": {}}], "ports": [{"port": 1}]}]}
    )
    web, client = await site.prepared("acme", "web", "n1"), await site.prepared("acme", "client", "n1")
    address = await address_of(site, web, "n1")
    await address_of(site, client, "n1")
    await until(lambda: "goto" in rules(site, "n1"), what="the policy counts")
    before = _plain(rules(site, "n1"))
    names = re.findall(r"chain ([cp]\.\S+) \{", before)
    way, own = (next(one for one in names if one.startswith(kind)) for kind in "cp")
    with web.host.tcp_server():
        assert not await asyncio.to_thread(client.host.tcp, address, seconds=BRIEF)
        with site.lab.space("n1", "acme") as netns:
            run_inside(netns, lambda: run_nft(harm.format(way=way, rules=own)))
        assert _plain(rules(site, "n1")) != before, "control: it is harmed"
        await until(lambda: _plain(rules(site, "n1")) == before, seconds=5.0, what="put right")
        assert not await asyncio.to_thread(client.host.tcp, address, seconds=BRIEF)


def _plain(text: str) -> str:
    """Without what differs by the order in which it was made."""
    return "\n".join(
        sorted(",".join(sorted(line.split(", "))) for line in text.splitlines() if "chain polder-" not in line)
    )


async def test_drops_are_counted_by_policy_and_direction(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    await put_policy(site, "deny", {"podSelector": {}, "policyTypes": ["Ingress"]})
    body = {
        "apiVersion": "policy.networking.k8s.io/v1alpha2",
        "kind": "ClusterNetworkPolicy",
        "metadata": {"name": "no-way"},
        "spec": {
            "tier": "Admin",
            "priority": 1,
            "subject": {"namespaces": {}},
            "egress": [
                {"action": "Pass", "to": [{"networks": ["198.51.100.0/24"]}]},
                {"action": "Deny", "to": [{"networks": ["192.0.2.0/24"]}]},
            ],
        },
    }
    path = "/tenants/acme/apis/policy.networking.k8s.io/v1alpha2/clusternetworkpolicies"
    await site.admin.raw("POST", path, json.dumps(body).encode())
    web, client = await site.prepared("acme", "web", "n1"), await site.prepared("acme", "client", "n1")
    address = await address_of(site, web, "n1")
    await address_of(site, client, "n1")
    await until(
        lambda: "192.0.2.0/24" in rules(site, "n1") and "ingress4" in rules(site, "n1"), what="the policies count"
    )
    with client.host.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for to, times in ((address, 3), ("192.0.2.7", 5), ("198.51.100.7", 1)):
            for _ in range(times):
                sock.sendto(b"dropped", (to, 9))
    pipeline = site.nodes["n1"].live.pipeline
    expected = {"ingress NetworkPolicy default/deny": (3, 105), "egress ClusterNetworkPolicy no-way": (5, 175)}
    await until(lambda: _equal(pipeline.drops("acme"), expected), what="the drops are counted")
    with caplog.at_level(logging.INFO, "polder.sdn.droplog"):
        await DropLog(pipeline).look()
    told = "network: tenant acme: policy egress ClusterNetworkPolicy no-way dropped 5 packets (175 bytes)"
    assert told in caplog.messages


async def _equal(asked: Any, expected: Any) -> bool:
    return bool(await asked == expected)
