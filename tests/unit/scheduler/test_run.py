import asyncio

import pytest

from polder.client.client import Client, ClientSettings
from polder.scheduler.core import decide
from polder.scheduler.nodes import facts_of
from polder.scheduler.run import Scheduler
from polder.scheduler.settings import SchedulerSettings
from tests.unit.scheduler.make import container, demand, near, node, place, term


@pytest.mark.parametrize("ticks", range(6))
@pytest.mark.parametrize("pending", [False, True])
async def test_a_cancellation_together_with_a_change_is_not_lost(ticks, pending):
    scheduler = Scheduler(Client(ClientSettings("https://127.0.0.1:1", "ca")), SchedulerSettings())
    if pending:
        scheduler._backlog.put(demand())
        scheduler._backlog.refuse(
            scheduler._backlog.take(scheduler._clock.monotonic()).uid, scheduler._clock.monotonic(), ()
        )
    task = asyncio.ensure_future(scheduler._rest())
    await asyncio.sleep(0.01)
    assert not task.done()
    scheduler._wake.set()
    for _ in range(ticks):
        await asyncio.sleep(0)
    was_done = task.done()
    task.cancel()
    (ended,) = await asyncio.gather(task, return_exceptions=True)
    assert was_done or isinstance(ended, asyncio.CancelledError)


class Slow(Scheduler):
    """Whatever is to be written of one tenant's pods takes for ever."""

    async def _write(self, demand, decision, rules):
        self.begun = [*getattr(self, "begun", []), demand.ref]
        if demand.ref.tenant == "big":
            await asyncio.sleep(3600)


async def test_a_tenant_whose_writes_hang_leaves_slots_to_others():
    scheduler = Slow(Client(ClientSettings("https://127.0.0.1:1", "ca")), SchedulerSettings(parallel=6))
    scheduler._cluster.set_node(facts_of(node("one", allocatable={"pods": "100"})))
    for number in range(20):
        scheduler._backlog.put(demand(f"p{number}", "big"))
    for number in range(20):
        scheduler._backlog.put(demand(f"p{number}", "small"))

    async def run(group):
        while True:
            await scheduler._pass(group)
            await scheduler._rest()

    async with asyncio.TaskGroup() as group:
        passes = group.create_task(run(group))
        async with asyncio.timeout(5):
            while sum(ref.tenant == "small" for ref in getattr(scheduler, "begun", [])) < 20:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert sum(ref.tenant == "big" for ref in scheduler.begun) == 3
        passes.cancel()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()


async def test_a_pod_that_cannot_be_decided_holds_up_nobody(monkeypatch, caplog):
    scheduler = Slow(Client(ClientSettings("https://127.0.0.1:1", "ca")), SchedulerSettings(parallel=6))
    scheduler._cluster.set_node(facts_of(node("one")))
    ask = scheduler._ask

    def broken(wanted, rules):
        if wanted.tenant == "bad":
            raise ValueError("what nobody thought of")
        return ask(wanted, rules)

    monkeypatch.setattr(scheduler, "_ask", broken)
    for tenant in ("bad", "small"):
        scheduler._backlog.put(demand("web", tenant))
    async with asyncio.TaskGroup() as group:
        await scheduler._pass(group)
    assert [ref.tenant for ref in scheduler.begun] == ["small"]
    assert "what nobody thought of" in caplog.text and len(scheduler._backlog) == 2


def asked_of(scheduler, monkeypatch):
    """The names of pods that were decided."""
    from polder.scheduler import run

    found = []

    def counted(wanted, *rest):
        found.append(wanted.ref.name)
        return decide(wanted, *rest)

    monkeypatch.setattr(run, "decide", counted)
    return found


def test_pods_of_a_shape_that_was_refused_are_not_asked_one_by_one(monkeypatch):
    scheduler = Scheduler(Client(ClientSettings("https://127.0.0.1:1", "ca")), SchedulerSettings())
    state, asked = scheduler._cluster, asked_of(scheduler, monkeypatch)
    state.set_node(facts_of(node("one")))
    big = [demand(f"p{n}", "acme", container("a", cpu="9")) for n in range(3)]
    assert len({scheduler._ask(one, None).message for one in big}) == 1
    assert asked == ["p0"]
    place(state, demand("other", "globex"), "one")
    scheduler._ask(big[1], None)
    assert asked == ["p0"], "that somebody comes makes no room"
    state.free_pod("globex-other")
    scheduler._ask(big[1], None)
    assert asked == ["p0", "p1"]
    assert scheduler._ask(demand("small", "acme", container("a", cpu="1")), None).node == "one"


def test_a_pod_that_looks_for_others_is_asked_again_when_one_comes(monkeypatch):
    scheduler = Scheduler(Client(ClientSettings("https://127.0.0.1:1", "ca")), SchedulerSettings())
    state, asked = scheduler._cluster, asked_of(scheduler, monkeypatch)
    state.set_node(facts_of(node("one")))
    wants = [demand(f"p{n}", affinity=near(term(app="db"))) for n in range(3)]
    for one in wants[:2]:
        assert not scheduler._ask(one, None).node
    assert asked == ["p0"]
    place(state, demand("db", labels={"app": "db"}), "one")
    assert scheduler._ask(wants[2], None).node == "one" and asked == ["p0", "p2"]
