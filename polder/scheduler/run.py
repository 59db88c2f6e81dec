"""The scheduler's loop: events keep cluster and backlog up to date, decisions are made in turns, bindings go out beside.

One scheduler serves all tenants. Between a decision and the moment when the API shows it, the pod is assumed to be on its
node, so that the next decision already counts it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, OrderedDict
from functools import partial
from typing import Final

from polder.api.nodefacts import ScheduledNode
from polder.api.podfacts import ScheduledPod
from polder.base.errors import PolderError
from polder.base.ids import TenantName
from polder.base.ref import Ref
from polder.client.client import Client
from polder.client.events import Recorder
from polder.client.informer import Informer
from polder.loop.wait import wait_set
from polder.scheduler import preempt
from polder.scheduler.backlog import Backlog
from polder.scheduler.carry import SLICE, Carrier, Waiting
from polder.scheduler.claims import ClaimRules, claim_rules
from polder.scheduler.cluster import AROUND, CLAIMS, NODE, Cluster, Placement
from polder.scheduler.core import Decision, decide
from polder.scheduler.demand import DEFAULT_SCHEDULER, Demand, Shape
from polder.scheduler.intake import Intake
from polder.scheduler.settings import SchedulerSettings
from polder.scheduler.storage import Namespaces, RuntimeClasses, Storage
from polder.scheduler.write import says

log = logging.getLogger(__name__)

REMEMBERED: Final = 1024
"""Shapes of pods of which it is remembered that no node would do, until something changes."""
LOOK: Final = 60.0
"""Seconds after which pods are looked for whose claims were not bound in time."""


class Scheduler:
    """Composes the pure parts with the API."""

    def __init__(self, client: Client, settings: SchedulerSettings) -> None:
        self._settings = settings
        self._clock = settings.clock
        self._cluster = Cluster()
        self._backlog = Backlog()
        self._wake = asyncio.Event()
        self._slots = asyncio.Semaphore(settings.parallel)
        self._busy: Counter[TenantName] = Counter()
        self._full: set[TenantName] = set()
        self._recorder = Recorder(client, DEFAULT_SCHEDULER, settings.clock)
        self._nodes = Informer(client, ScheduledNode)
        self._pods = Informer(client, ScheduledPod)
        self._intake = Intake(self._cluster, self._backlog)
        self._storage = Storage(client, self._cluster, self._on_claim)
        self._classes = RuntimeClasses(client, self._cluster)
        self._namespaces = Namespaces(client, self._cluster)
        self._carrier = Carrier(client, settings.clock, self._cluster, self._backlog, self._pods, self._recorder)
        self._settled: list[Waiting] = []
        self._refused: OrderedDict[Shape, tuple[int, Decision]] = OrderedDict()
        self._start = 0
        self._nodes.on_change(self._on_node)
        self._pods.on_change(self._on_pod)

    async def run(self) -> None:
        """Schedules until cancelled."""
        async with asyncio.TaskGroup() as group:
            for part in (
                self._nodes.run(), self._pods.run(), self._recorder.run(), self._look(),
                self._storage.run(partial(self._filled, CLAIMS)), self._classes.run(partial(self._filled, NODE)),
                self._namespaces.run(partial(self._filled, AROUND)),
            ):  # fmt: skip
                group.create_task(part)
            await self._nodes.wait_synced()
            await self._pods.wait_synced()
            while True:
                await self._pass(group)
                await self._rest()

    # what happens

    def _on_node(self, ref: Ref, old: ScheduledNode | None, new: ScheduledNode | None) -> None:
        self._intake.on_node(ref, old, new)
        self._wake.set()

    def _on_pod(self, _ref: Ref, old: ScheduledPod | None, new: ScheduledPod | None) -> None:
        demand = self._intake.on_pod(old, new)
        if demand is not None and demand.claims:
            self._storage.want()
        if demand is not None and demand.runtime_class:
            self._classes.want()
        if demand is not None and demand.shape.selects_namespaces:
            self._namespaces.want()
        self._wake.set()

    def _on_claim(self, ref: Ref) -> None:
        self._settled += self._carrier.settled(ref, self._storage)
        self._wake.set()

    def _filled(self, cause: str) -> None:
        self._cluster.tell((cause, None))
        self._wake.set()

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK)
            self._carrier.overdue()
            self._wake.set()

    # turns

    async def _rest(self) -> None:
        """Until there is something to take or something happened."""
        at = self._backlog.next_at(self._full)
        if self._cluster.wakes or self._settled:
            return
        timeout = None if at is None else max(0.0, at - self._clock.monotonic())
        await wait_set(self._wake, timeout)
        self._wake.clear()

    async def _pass(self, group: asyncio.TaskGroup) -> None:
        """Decisions, until nobody waits; after each few milliseconds others get a turn of the event loop. The slots hold the
        loop back when the API is slower than the decisions. One tenant has at most half of them: what it makes slow holds up
        nobody else's pods.
        """
        begun = self._clock.monotonic()
        while True:
            await self._bind_settled(group)
            wakes, self._cluster.wakes = self._cluster.wakes, set()
            for cause, tenant in wakes:
                self._backlog.wake(cause, tenant)
            demand = self._backlog.take(self._clock.monotonic(), self._full)
            if demand is None:
                return
            try:
                work = self._decided(demand)
            except Exception:
                # What one pod brings up must not end the scheduling of all others.
                log.exception("pod %s: no decision", demand.ref)
                self._backlog.fail(demand.uid, self._clock.monotonic())
                continue
            if work is not None:
                await self._carry_out(group, *work)
            if self._clock.monotonic() - begun >= SLICE:
                await asyncio.sleep(0)
                begun = self._clock.monotonic()

    async def _bind_settled(self, group: asyncio.TaskGroup) -> None:
        settled, self._settled = self._settled, []
        for waited in settled:
            if self._cluster.placement(waited.demand.uid) is not None:
                await self._carry_out(group, waited.demand, Decision(node=waited.node), None)

    def _decided(self, demand: Demand) -> tuple[Demand, Decision, ClaimRules | None] | None:
        """What was asked, the decision, and what it needs, if there is something to be written."""
        now = self._clock.monotonic()
        if demand.uid in self._carrier.preempting:
            self._carrier.missed.add(demand.uid)
            self._backlog.refuse(demand.uid, now, (), patient=False)
            return None
        lacking = self._lacking(demand)
        if lacking:
            self._backlog.refuse(demand.uid, now, (lacking,), patient=False)
            return None
        if demand.runtime_class:
            demand = self._classes.placed(demand)
        rules = claim_rules(demand, self._storage, self._cluster.claim_users(demand)) if demand.claims else None
        decision = self._ask(demand, rules)
        if decision.node:
            self._cluster.place(Placement(decision.node, demand, assumed=True))
            return demand, decision, rules
        self._backlog.refuse(demand.uid, now, decision.causes)
        if self._may_preempt(demand, decision):
            return demand, decision, rules
        pod = self._carrier.pod_of(demand)
        return None if pod is None or says(pod, _told(demand, decision)) else (demand, decision, rules)

    def _lacking(self, demand: Demand) -> str:
        """What has to be followed first, by the cause that it ends; empty if nothing has."""
        if demand.claims and not self._storage.want():
            return CLAIMS
        if demand.runtime_class and not self._classes.want():
            return NODE
        return AROUND if demand.shape.selects_namespaces and not self._namespaces.want() else ""

    def _ask(self, demand: Demand, rules: ClaimRules | None) -> Decision:
        """Decides, unless a pod of the same shape was refused since anything changed."""
        shape, cluster = demand.shape, self._cluster
        is_plain = not demand.claims and not demand.refusal and cluster.nomination(demand.uid) is None
        state = cluster.moves if shape.looks_around else cluster.changes
        known = self._refused.get(shape) if is_plain else None
        if known is not None and known[0] == state:
            return known[1]
        self._start += 1
        decision = decide(demand, cluster, rules, self._start)
        if is_plain and not decision.node:
            self._refused[shape] = state, decision
            self._refused.move_to_end(shape)
            if len(self._refused) > REMEMBERED:
                self._refused.popitem(last=False)
        return decision

    def _may_preempt(self, demand: Demand, decision: Decision) -> bool:
        shape = demand.shape
        return bool(decision.hopeful) and shape.preempts and self._cluster.has_below(shape.tenant, shape.priority)

    # work beside

    async def _carry_out(
        self, group: asyncio.TaskGroup, demand: Demand, decision: Decision, rules: ClaimRules | None
    ) -> None:
        self._count(demand.tenant, 1)
        await self._slots.acquire()
        group.create_task(self._work(demand, decision, rules))

    def _count(self, tenant: TenantName, more: int) -> None:
        self._busy[tenant] += more
        if self._busy[tenant] >= max(1, self._settings.parallel // 2):
            self._full.add(tenant)
        elif tenant in self._full:
            self._full.discard(tenant)
            self._wake.set()
        if not self._busy[tenant]:
            del self._busy[tenant]

    async def _work(self, demand: Demand, decision: Decision, rules: ClaimRules | None) -> None:
        try:
            await self._write(demand, decision, rules)
        except (PolderError, OSError) as error:
            log.info("pod %s: %s", demand.ref, error)
        except Exception:
            log.exception("pod %s: not carried out", demand.ref)
            self._carrier.give_up(demand)
        finally:
            self._slots.release()
            self._count(demand.tenant, -1)
            self._wake.set()

    async def _write(self, demand: Demand, decision: Decision, rules: ClaimRules | None) -> None:
        pod = self._carrier.pod_of(demand)
        if pod is None:
            return
        if decision.node:
            await self._carrier.bind(pod, demand, decision.node, rules)
        elif self._may_preempt(demand, decision):
            await self._carrier.make_room(pod, demand, decision, self._storage)
        else:
            self._cluster.withdraw(demand.uid)
            await self._carrier.explain(pod, _told(demand, decision))


def _told(demand: Demand, decision: Decision) -> str:
    """What is said of a refusal where nobody can be made to leave."""
    if not decision.nodes:
        return decision.message
    if not demand.shape.preempts:
        return f"{decision.message} {preempt.NEVER}"
    return f"{decision.message} {preempt.unhelpful(decision, Counter({preempt.NO_VICTIMS: len(decision.hopeful)}))}"


async def run_scheduler(client: Client, settings: SchedulerSettings) -> None:
    """Schedules the pods of every tenant until cancelled."""
    await Scheduler(client, settings).run()
