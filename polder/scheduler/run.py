"""The scheduler's loop: events keep cluster and backlog up to date, decisions are made in turns, bindings go out beside.

One scheduler serves all tenants. Between a decision and the moment when the API shows it, the pod is assumed to be on its
node, so that the next decision already counts it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter

from polder.api.core import Node
from polder.api.podfacts import ScheduledPod
from polder.base.errors import PermanentError, PolderError
from polder.base.ids import ROOT, TenantName
from polder.base.ref import Ref
from polder.client.client import Client
from polder.client.events import Recorder
from polder.client.informer import Informer
from polder.loop.wait import wait_set
from polder.scheduler.backlog import Backlog
from polder.scheduler.cluster import Cluster, facts_of, overlay_of
from polder.scheduler.core import Decision, decide
from polder.scheduler.demand import DEFAULT_SCHEDULER, Demand, demand_of, is_pending, is_terminal
from polder.scheduler.settings import SchedulerSettings
from polder.scheduler.write import bind, explain

log = logging.getLogger(__name__)


class Scheduler:
    """Composes the pure parts with the API."""

    def __init__(self, client: Client, settings: SchedulerSettings) -> None:
        self._client = client
        self._settings = settings
        self._clock = settings.clock
        self._cluster = Cluster()
        self._backlog = Backlog()
        self._seen_changes = 0
        self._wake = asyncio.Event()
        self._slots = asyncio.Semaphore(settings.parallel)
        self._busy: Counter[TenantName] = Counter()
        self._full: set[TenantName] = set()
        self._recorder = Recorder(client, DEFAULT_SCHEDULER, settings.clock)
        self._nodes = Informer(client, Node)
        self._pods = Informer(client, ScheduledPod)
        self._nodes.on_change(self._on_node)
        self._pods.on_change(self._on_pod)

    async def run(self) -> None:
        """Schedules until cancelled."""
        async with asyncio.TaskGroup() as group:
            for part in (self._nodes.run(), self._pods.run(), self._recorder.run()):
                group.create_task(part)
            await self._nodes.wait_synced()
            await self._pods.wait_synced()
            while True:
                await self._pass(group)
                await self._rest()

    def _on_node(self, ref: Ref, _old: Node | None, new: Node | None) -> None:
        """Root's nodes are the nodes; a tenant's is what the tenant put on one of them."""
        if ref.tenant != ROOT:
            self._cluster.set_overlay(ref.tenant, ref.name, overlay_of(new) if new is not None else None)
        elif new is None:
            self._cluster.remove_node(ref.name)
        else:
            try:
                self._cluster.set_node(facts_of(new))
            except PermanentError as error:
                log.warning("node %s takes no pods, its status is malformed: %s", ref.name, error)
                self._cluster.remove_node(ref.name)
        self._wake.set()

    def _on_pod(self, _ref: Ref, old: ScheduledPod | None, new: ScheduledPod | None) -> None:
        if old is not None and (new is None or new.metadata.uid != old.metadata.uid):
            self._cluster.free_pod(old.metadata.uid)
            self._backlog.drop(old.metadata.uid)
        if new is not None:
            self._see(new)
        self._wake.set()

    def _see(self, pod: ScheduledPod) -> None:
        uid = pod.metadata.uid
        if pod.spec.node_name and not is_terminal(pod):
            self._backlog.drop(uid)
            placed = self._cluster.placement(uid)
            if placed is None or placed.assumed or placed.node != pod.spec.node_name:
                self._cluster.place(demand_of(pod), pod.spec.node_name, assumed=False)
        elif not is_pending(pod):
            self._backlog.drop(uid)
            self._cluster.free_pod(uid)
        elif self._cluster.placement(uid) is None:
            self._backlog.put(demand_of(pod))

    async def _rest(self) -> None:
        """Until there is something to take or something happened."""
        at = self._backlog.next_at(self._full)
        if self._cluster.changes != self._seen_changes:
            return
        timeout = None if at is None else max(0.0, at - self._clock.monotonic())
        await wait_set(self._wake, timeout)
        self._wake.clear()

    async def _pass(self, group: asyncio.TaskGroup) -> None:
        """Up to a batch of decisions; the slots hold the loop back when the API is slower than the decisions. One tenant has
        at most half of them: what it makes slow holds up nobody else's pods.
        """
        if self._cluster.changes != self._seen_changes:
            self._seen_changes = self._cluster.changes
            self._backlog.wake()
        for _ in range(self._settings.batch):
            demand = self._backlog.take(self._clock.monotonic(), self._full)
            if demand is None:
                return
            decision = decide(demand, self._cluster)
            if decision.node:
                self._cluster.place(demand, decision.node, assumed=True)
            else:
                self._backlog.refuse(demand.uid, self._clock.monotonic())
            self._count(demand.ref.tenant, 1)
            await self._slots.acquire()
            group.create_task(self._carry_out(demand, decision))

    def _count(self, tenant: TenantName, more: int) -> None:
        self._busy[tenant] += more
        if self._busy[tenant] >= max(1, self._settings.parallel // 2):
            self._full.add(tenant)
        elif tenant in self._full:
            self._full.discard(tenant)
            self._wake.set()
        if not self._busy[tenant]:
            del self._busy[tenant]

    async def _carry_out(self, demand: Demand, decision: Decision) -> None:
        try:
            await self._write(demand, decision)
        finally:
            self._slots.release()
            self._count(demand.ref.tenant, -1)

    async def _write(self, demand: Demand, decision: Decision) -> None:
        pod = self._pods.get(demand.ref)
        try:
            if pod is None or pod.metadata.uid != demand.uid:
                self._cluster.forget(demand.uid)
                self._backlog.drop(demand.uid)
            elif decision.node:
                await self._bind(pod, demand, decision.node)
            elif await explain(self._client, pod, decision.message, self._clock):
                self._recorder.event(pod, "Warning", "FailedScheduling", decision.message)
        except (PolderError, OSError) as error:
            log.info("pod %s: %s", demand.ref, error)

    async def _bind(self, pod: ScheduledPod, demand: Demand, node: str) -> None:
        try:
            await bind(self._client, pod, node)
        except (PolderError, OSError):
            # It may have been bound all the same; then the informer says so and the placement is no assumption.
            self._cluster.forget(demand.uid)
            self._backlog.fail(demand.uid, self._clock.monotonic())
            self._wake.set()
            raise
        self._recorder.event(pod, "Normal", "Scheduled", f"Successfully assigned {_shown(demand.ref)} to {node}")


def _shown(ref: Ref) -> str:
    return f"{ref.namespace}/{ref.name}"


async def run_scheduler(client: Client, settings: SchedulerSettings) -> None:
    """Schedules the pods of every tenant until cancelled."""
    await Scheduler(client, settings).run()
