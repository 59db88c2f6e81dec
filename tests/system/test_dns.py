"""Pods ask their tenant's resolver, on two nodes and of two tenants with equal names and addresses."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import dns.exception
import dns.flags
import dns.message
import dns.rcode
import pytest

from polder.dns import link
from tests.system.dns_kit import RESOLVER, ask, create, create_slice, ended, first, resolving, shown, upstream
from tests.system.site import Sandbox, Site, until

pytestmark = pytest.mark.system
SVC = "svc.cluster.local."


@pytest.fixture
async def pods(site: Site) -> AsyncIterator[dict[str, Sandbox]]:
    """A pod of acme on each node, one of globex on the first; both tenants have services of the same names."""
    await site.tenant("globex")
    web = {"spec": {"clusterIP": "10.96.0.20", "ports": [{"name": "http", "port": 80}]}}
    await create(site, "acme", "services", "web", web)
    await create(site, "globex", "services", "web", {"spec": {**web["spec"], "clusterIP": "10.96.0.21"}})
    await create(site, "globex", "services", "secret", {"spec": {**web["spec"], "clusterIP": "10.96.0.22"}})
    headless = {"spec": {"clusterIP": "None", "ports": [{"name": "pg", "port": 5432}]}}
    await create(site, "acme", "services", "db", headless)
    await create_slice(site, "acme", "db", [("10.0.200.5", "db-0"), ("10.0.200.6", "")])
    await create(site, "acme", "services", "far", {"spec": {"type": "ExternalName", "externalName": "www.example.com"}})
    made = {}
    for tenant, node in (("acme", "n1"), ("acme", "n2"), ("globex", "n1")):
        sandbox = await site.prepared(tenant, f"p-{node}", node)
        await site.nodes[node].add(sandbox)
        made[f"{tenant} {node}"] = sandbox
    try:
        yield made
    finally:
        for node in site.nodes.values():
            await ended(node)


async def test_names_of_services(site: Site, pods: dict[str, Sandbox]) -> None:
    async with resolving(site.nodes["n1"]), resolving(site.nodes["n2"]):
        for node in ("n1", "n2"):
            pod = pods[f"acme {node}"]
            assert shown(await first(pod, f"web.default.{SVC}")) == {f"web.default.{SVC} 10.96.0.20"}
            kube = f"kubernetes.default.{SVC}"
            assert shown(await ask(pod, kube)) == {f"{kube} 10.96.0.1"}
            own = f"kube-dns.kube-system.{SVC}"
            assert shown(await ask(pod, own)) == {f"{own} {RESOLVER}"}
            db = f"db.default.{SVC}"
            assert shown(await ask(pod, db)) == {f"{db} 10.0.200.5", f"{db} 10.0.200.6"}
            assert shown(await ask(pod, f"db-0.{db}")) == {f"db-0.{db} 10.0.200.5"}
            assert shown(await ask(pod, f"_pg._tcp.{db}", "SRV")) == {
                f"_pg._tcp.{db} 0 50 5432 db-0.{db}",
                f"_pg._tcp.{db} 0 50 5432 10-0-200-6.{db}",
            }
            back = "20.0.96.10.in-addr.arpa."
            assert shown(await ask(pod, back, "PTR")) == {f"{back} web.default.{SVC}"}
            assert shown(await ask(pod, f"web.default.{SVC}", stream=True)) == {f"web.default.{SVC} 10.96.0.20"}
            address = (await ask_own_address(site, "acme", f"p-{node}")).replace(".", "-")
            record = f"{address}.default.pod.cluster.local."
            assert shown(await ask(pod, record)) == {f"{record} {address.replace('-', '.')}"}
        assert shown(await ask(pods["globex n1"], f"web.default.{SVC}")) == {f"web.default.{SVC} 10.96.0.21"}


async def ask_own_address(site: Site, tenant: str, pod: str) -> str:
    return next(p.spec.addresses[0] for p in await site.ports(tenant) if p.spec.pod == pod)


async def test_another_tenants_names_are_as_if_they_were_not(site: Site, pods: dict[str, Sandbox]) -> None:
    async with resolving(site.nodes["n1"]):
        assert shown(await first(pods["globex n1"], f"secret.default.{SVC}"))
        for kind in ("A", "AAAA", "SRV", "TXT", "ANY"):
            for edns in (None, 0):
                answers = []
                for name in ("secret", "absent"):
                    found = await ask(pods["acme n1"], f"{name}.default.{SVC}", kind, use_edns=edns)
                    assert found.rcode() == (dns.rcode.REFUSED if kind == "ANY" else dns.rcode.NXDOMAIN)
                    found.id = 0
                    answers.append(found.to_wire().replace(b"\x06absent", b"\x06secret"))
                assert answers[0] == answers[1]
        reverse = await ask(pods["acme n1"], "22.0.96.10.in-addr.arpa.", "PTR")
        assert reverse.rcode() == dns.rcode.NXDOMAIN


async def test_the_rest_is_asked_outside_and_remembered(site: Site, pods: dict[str, Sandbox]) -> None:
    pod = pods["acme n1"]
    with upstream(site.lab.outside) as seen:
        async with resolving(site.nodes["n1"]):
            far = f"far.default.{SVC}"
            chain = {f"{far} www.example.com.", "www.example.com. 198.51.100.7"}
            assert shown(await first(pod, far)) == chain
            assert shown(await ask(pod, "www.example.com.")) == {"www.example.com. 198.51.100.7"}
            assert [name for name, _, _ in seen.asked] == ["www.example.com."], "the second came from memory"
            assert shown(await ask(pods["globex n1"], "www.example.com.")) == {"www.example.com. 198.51.100.7"}
            assert len(seen.asked) == 2, "what one tenant has asked is nothing that another may learn"
            cut = await ask(pod, "big.example.com.", "TXT")
            assert cut.flags & dns.flags.TC
            assert seen.streams == 1
            whole = await ask(pod, "big.example.com.", "TXT", stream=True)
            assert len(whole.answer[0]) == 40
            assert seen.streams == 1
            for number in range(12):
                gone = await ask(pod, f"n{number}.example.com.")
                assert (gone.rcode(), gone.authority[0].rdtype) == (dns.rcode.NXDOMAIN, dns.rdatatype.SOA)
            assert len({port for _, port, _ in seen.asked}) > 10, "each question comes from a port of its own"
            assert len({number for _, _, number in seen.asked}) > 10
    assert (await ask(pod, "later.example.com.", seconds=10)).rcode() == dns.rcode.SERVFAIL, "nobody is there to ask"


async def test_a_change_shows_at_once(site: Site, pods: dict[str, Sandbox]) -> None:
    """From the API's answer to the resolver's, within 200 ms."""
    pod, times = pods["acme n1"], []
    async with resolving(site.nodes["n1"]):
        await first(pod, f"web.default.{SVC}")
        for number in range(5):
            name = f"new{number}.default.{SVC}"
            assert (await ask(pod, name)).rcode() == dns.rcode.NXDOMAIN
            await create(site, "acme", "services", f"new{number}", {"spec": {"ports": [{"port": 80}]}})
            begun = time.perf_counter()
            while (await ask(pod, name)).rcode() != dns.rcode.NOERROR:
                assert time.perf_counter() - begun < 5
            times.append(time.perf_counter() - begun)
    print(f"changes showed after {[round(t * 1000) for t in times]} ms")
    assert sorted(times)[2] < 0.2


async def test_process_and_agent_come_and_go(site: Site, pods: dict[str, Sandbox]) -> None:
    pod, name = pods["acme n1"], f"web.default.{SVC}"
    async with resolving(site.nodes["n1"]) as one:
        await first(pod, name)
        found = link.find(one.settings)
        assert found is not None
        os.kill(found.pid, signal.SIGKILL)
        # The question waits in the socket, which the agent holds too, until the next process has learnt all.
        assert shown(await ask(pod, name, seconds=15)) == {f"{name} 10.96.0.20"}
        second = link.find(one.settings)
        assert second is not None and second.pid != found.pid
    for _ in range(20):
        assert shown(await ask(pod, name)) == {f"{name} 10.96.0.20"}, "without an agent all is answered on"
    async with resolving(site.nodes["n1"]) as again:
        await until(again.link.told.is_set, what="the next agent has told all")
        for _ in range(20):
            assert shown(await ask(pod, name)) == {f"{name} 10.96.0.20"}
        assert link.find(again.settings) == second, "the process is the same"
    async with resolving(site.nodes["n1"], release="v9") as newer:
        await until(newer.link.told.is_set, what="an agent of another release has told all")
        assert shown(await first(pod, name)) == {f"{name} 10.96.0.20"}
        third = link.find(newer.settings)
        assert third is not None and third != second, "the process is of the agent's release"


async def test_one_address_for_all_tenants_decides_by_who_asks(site: Site, pods: dict[str, Sandbox]) -> None:
    node, name = site.nodes["n1"], f"web.default.{SVC}"
    at = node.machine.facts.underlay
    with pytest.raises(dns.exception.Timeout):
        await ask(pods["acme n1"], name, at=at, seconds=0.3)
    await node.stop()
    node.machine.facts = replace(node.machine.facts, shared_dns=at)
    await node.start()
    async with resolving(node, shared=at):
        assert shown(await first(pods["acme n1"], name, at)) == {f"{name} 10.96.0.20"}
        assert shown(await first(pods["globex n1"], name, at)) == {f"{name} 10.96.0.21"}
        assert shown(await ask(pods["globex n1"], name, at=at, stream=True)) == {f"{name} 10.96.0.21"}
        assert shown(await ask(pods["globex n1"], name)) == {f"{name} 10.96.0.21"}, "its own router answers too"


def status_of(pid: int) -> str:
    return Path(f"/proc/{pid}/status").read_text()


async def test_the_process_has_no_rights(site: Site, pods: dict[str, Sandbox]) -> None:
    async with resolving(site.nodes["n1"]) as one:
        await first(pods["acme n1"], f"web.default.{SVC}")
        found = link.find(one.settings)
        assert found is not None
        lines = dict(line.split(":\t", 1) for line in status_of(found.pid).splitlines())
        assert lines["Uid"].split() == ["65534"] * 4
        assert int(lines["CapEff"], 16) == int(lines["CapPrm"], 16) == 0
        assert lines["NoNewPrivs"] == "1"


async def test_one_tenants_flood_leaves_others_their_answers(site: Site, pods: dict[str, Sandbox]) -> None:
    """Questions for names that were never asked before, as fast as a pod can send."""
    async with resolving(site.nodes["n1"]):
        name = f"web.default.{SVC}"
        await first(pods["globex n1"], name)
        stop = time.monotonic() + 2

        def flood() -> int:
            sent = 0
            with pods["acme n1"].host.socket(2, 2) as sock:
                sock.setblocking(False)
                while time.monotonic() < stop:
                    try:
                        sock.sendto(dns.message.make_query(f"x{sent}.default.{SVC}", "A").to_wire(), (RESOLVER, 53))
                    except BlockingIOError:
                        time.sleep(0.001)
                    sent += 1
            return sent

        flooding = asyncio.create_task(asyncio.to_thread(flood))
        times = []
        while not flooding.done():
            begun = time.perf_counter()
            await ask(pods["globex n1"], name)
            times.append(time.perf_counter() - begun)
        assert await flooding > 500
        assert len(times) > 20
        print(f"beside a flood: median {sorted(times)[len(times) // 2] * 1000:.1f} ms of {len(times)}")
        assert sorted(times)[len(times) // 2] < 0.2
