"""The pods that wait: fair between tenants, with a back-off for those that did not fit. Pure; time is passed in.

Each tenant has a line of its own (priority, then age) and the tenants take turns, one pod each: a tenant with a thousand
pending pods delays another's single one by one decision. Priority therefore counts inside a tenant only.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass, field

from polder.base.ids import TenantName
from polder.scheduler.demand import Demand

FIRST_DELAY = 1.0
"""Seconds of back-off after the first refusal; doubled by each further one."""
LONGEST_DELAY = 10.0
"""Seconds that the back-off never exceeds."""
LONGEST_REST = 60.0
"""Seconds after which a refused pod is tried again even if nothing was seen to change."""

Line = list[tuple[int, str, int, str]]


@dataclass(slots=True)
class _Waiting:
    """One pod: its demand, how often it was refused, when it may be tried, and whether it rests until a change."""

    demand: Demand
    attempts: int = 0
    not_before: float = 0.0
    resting: bool = False
    ready: bool = False
    turn: int = 0


@dataclass(slots=True)
class Backlog:
    """All waiting pods of all tenants."""

    _pods: dict[str, _Waiting] = field(default_factory=dict)
    _lines: OrderedDict[TenantName, Line] = field(default_factory=OrderedDict)
    _later: list[tuple[float, int, str]] = field(default_factory=list)
    _resting: set[str] = field(default_factory=set)
    _turn: int = 0

    def __len__(self) -> int:
        """How many pods wait, resting ones included."""
        return len(self._pods)

    def __contains__(self, uid: str) -> bool:
        """Whether the pod waits."""
        return uid in self._pods

    def put(self, demand: Demand) -> None:
        """A pod came, or changed in what it asks: it is tried at its next turn, after its back-off if it has one."""
        known = self._pods.get(demand.uid)
        if known is None:
            known = self._pods[demand.uid] = _Waiting(demand)
        elif known.demand == demand:
            return
        else:
            known.demand = demand
        self._resting.discard(demand.uid)
        self._schedule(known)

    def drop(self, uid: str) -> None:
        """The pod went or was bound. Its entries in lines are skipped when they come up."""
        self._pods.pop(uid, None)
        self._resting.discard(uid)

    def take(self, now: float, full: Collection[TenantName] = ()) -> Demand | None:
        """The next pod whose turn it is; tenants that are ``full`` have none. It stays known: follow with ``refuse``, ``fail``
        or ``drop``.
        """
        self._promote(now)
        while (tenant := self._next(full)) is not None:
            line = self._lines[tenant]
            *_, turn, uid = heapq.heappop(line)
            if line:
                self._lines.move_to_end(tenant)
            else:
                del self._lines[tenant]
            pod = self._pods.get(uid)
            if pod is not None and pod.ready and pod.turn == turn:
                pod.ready = False
                return pod.demand
        return None

    def refuse(self, uid: str, now: float) -> None:
        """No node would do: rest until something changes, and back off."""
        pod = self._back_off(uid, now)
        if pod is not None:
            pod.resting = True
            self._resting.add(uid)
            self._at(now + LONGEST_REST, pod)

    def fail(self, uid: str, now: float) -> None:
        """The binding failed: try again after the back-off, whatever happens."""
        pod = self._back_off(uid, now)
        if pod is not None:
            self._at(pod.not_before, pod)

    def wake(self) -> None:
        """Something changed that may let resting pods fit: all of them get a turn after their back-off."""
        resting, self._resting = self._resting, set()
        for uid in resting:
            self._schedule(self._pods[uid])

    def _next(self, full: Collection[TenantName]) -> TenantName | None:
        return next((tenant for tenant in self._lines if tenant not in full), None)

    def next_at(self, full: Collection[TenantName] = ()) -> float | None:
        """When there is something to take: 0 means now, None means not before a change."""
        if self._next(full) is not None:
            return 0.0
        while self._later:
            at, turn, uid = self._later[0]
            pod = self._pods.get(uid)
            if pod is not None and pod.turn == turn:
                return at
            heapq.heappop(self._later)
        return None

    def _back_off(self, uid: str, now: float) -> _Waiting | None:
        pod = self._pods.get(uid)
        if pod is not None:
            pod.not_before = now + min(LONGEST_DELAY, FIRST_DELAY * 2 ** min(pod.attempts, 10))
            pod.attempts += 1
        return pod

    def _schedule(self, pod: _Waiting) -> None:
        pod.resting = False
        if not pod.ready:
            self._at(pod.not_before, pod)

    def _at(self, at: float, pod: _Waiting) -> None:
        """One pod has one valid entry, the one with its newest turn number; older ones are skipped."""
        self._turn += 1
        pod.turn = self._turn
        heapq.heappush(self._later, (at, pod.turn, pod.demand.uid))

    def _promote(self, now: float) -> None:
        while self._later and self._later[0][0] <= now:
            _, turn, uid = heapq.heappop(self._later)
            pod = self._pods.get(uid)
            if pod is None or pod.turn != turn:
                continue
            self._resting.discard(uid)
            pod.ready = True
            demand = pod.demand
            line = self._lines.setdefault(demand.ref.tenant, [])
            heapq.heappush(line, (-demand.priority, demand.created, turn, uid))
