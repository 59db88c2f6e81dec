"""Who of several leads, against a real API server."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from polder.api.discovery import Lease
from polder.base.clock import SystemClock
from polder.base.ids import ROOT
from polder.base.ref import Ref
from polder.client.client import Client, ClientSettings
from polder.loop.leader import Leader, LeaderSettings, LeadershipError

QUICK = {"duration": 2, "renew_within": 1.3, "retry": 0.1}


@asynccontextmanager
async def candidate(running, name, work, **more):
    leaf = running.leaf("system:polder:controllers", "polder:components")
    certificate, key = running.folder / f"{name}.crt", running.folder / f"{name}.key"
    leaf.write(certificate, key)
    client = Client(
        ClientSettings(f"https://127.0.0.1:{running.port}", running.pki.serving_ca, certificate, key, timeout=0.6)
    )
    leader = Leader(client, LeaderSettings("test", name, **{**QUICK, **more}), SystemClock())
    leader.client = client
    task = asyncio.create_task(leader.run(work))
    try:
        yield leader, task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await client.close()


def worker(log, name):
    async def work():
        log.append(("begin", name))
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0.05)  # ending takes a moment, which nobody else may fall into
            log.append(("end", name))

    return work


async def until(condition):
    async with asyncio.timeout(8):
        while not condition():  # noqa: ASYNC110 - what it waits for is no event
            await asyncio.sleep(0.01)


async def test_one_leads_and_a_leader_that_leaves_hands_over_at_once(running):
    log = []
    async with candidate(running, "a", worker(log, "a")) as (first, task):
        await until(lambda: log)
        async with candidate(running, "b", worker(log, "b")) as (second, _):
            await asyncio.sleep(2.3)  # longer than the lease: renewals keep it
            assert log == [("begin", "a")]
            assert (first.leading, second.leading) == (True, False)
            task.cancel()
            loop = asyncio.get_running_loop()
            began = loop.time()
            await until(lambda: len(log) == 3)
            assert loop.time() - began < 1.8
            assert log == [("begin", "a"), ("end", "a"), ("begin", "b")]
            lease = await second.client.get(Lease, Ref(ROOT, "kube-system", "test"))
            assert (lease.spec.holder_identity, lease.spec.lease_transitions) == ("b", 1)
    assert log[-1] == ("end", "b")


async def test_a_leader_that_cannot_renew_stops_before_another_begins(running):
    log = []
    async with candidate(running, "a", worker(log, "a")) as (first, _):
        await until(lambda: log)
        async with candidate(running, "b", worker(log, "b")) as (second, _):
            first.client._server = "https://127.0.0.1:1"  # cut off
            await until(lambda: len(log) == 3)
            assert log == [("begin", "a"), ("end", "a"), ("begin", "b")]
            await asyncio.sleep(0.3)
            assert (first.leading, second.leading) == (False, True)


async def test_another_one_takes_over_only_after_the_duration_on_its_own_clock(running):
    """The first one vanishes without a word, and its clock was an hour ahead."""
    log = []
    async with candidate(running, "a", worker(log, "a")) as (first, task):
        await until(lambda: log)
        lease = await first.client.get(Lease, Ref(ROOT, "kube-system", "test"))
        first.client._server = "https://127.0.0.1:1"
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    admin = running.admin()
    ahead = {"spec": {"renewTime": "2099-01-01T00:00:00.000000Z", "holderIdentity": lease.spec.holder_identity}}
    path = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/test"
    assert (await admin.patch(path, ahead)).status == 200
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with candidate(running, "b", worker(log, "b")):
        await until(lambda: ("begin", "b") in log)
        assert 1.9 < loop.time() - began < 6


async def test_work_that_does_not_end_is_said(running):
    async def stubborn():
        for _ in range(100):
            try:
                await asyncio.sleep(0.02)
            except asyncio.CancelledError:
                continue

    async with candidate(running, "a", stubborn) as (leader, task):
        await until(lambda: leader.leading)
        leader.client._server = "https://127.0.0.1:1"
        with pytest.raises(LeadershipError, match="does not end"):
            await asyncio.shield(task)


async def test_work_that_fails_is_raised(running):
    async def failing():
        raise ValueError("broken")

    async with candidate(running, "a", failing) as (_, task):
        with pytest.raises(ValueError, match="broken"):
            await asyncio.shield(task)
