"""The pods that wait: fair between tenants, with a back-off for those that did not fit. Pure; time is passed in.

Each tenant has a line of its own (priority, then age) and the tenants take turns, one pod each: a tenant with a thousand
pending pods delays another's single one by one decision. Priority therefore counts inside a tenant only.

A refused pod rests until something happens that may end one of the causes of its refusal. However many pods that is, they
are woken a few at a time, tenant by tenant.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Final

from polder.base.ids import TenantName
from polder.scheduler.demand import Demand

FIRST_DELAY: Final = 1.0
"""Seconds of back-off after the first refusal; doubled by each further one."""
LONGEST_DELAY: Final = 10.0
"""Seconds that the back-off never exceeds."""
LONGEST_REST: Final = 300.0
"""Seconds after which a refused pod is tried again even if nothing was seen to change (upstream's flush)."""
AT_ONCE: Final = 32
"""Pods that come out of their rest, or of their back-off, with one look."""
ANY: Final = ""
"""The cause of every refusal."""

Line = list[tuple[int, str, int, str]]


@dataclass(slots=True)
class _Waiting:
    """One pod: its demand, how often it was refused, when it may be tried, and what it rests for."""

    demand: Demand
    attempts: int = 0
    not_before: float = 0.0
    causes: frozenset[str] = frozenset()
    ready: bool = False
    turn: int = 0


@dataclass(slots=True)
class Backlog:
    """All waiting pods of all tenants."""

    _pods: dict[str, _Waiting] = field(default_factory=dict)
    _lines: OrderedDict[TenantName, Line] = field(default_factory=OrderedDict)
    _later: list[tuple[float, int, str]] = field(default_factory=list)
    _resting: dict[str, dict[TenantName, dict[str, None]]] = field(default_factory=dict)
    _woken: OrderedDict[TenantName, list[dict[str, None]]] = field(default_factory=OrderedDict)
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
            self._unrest(known)
            known.demand = demand
        if not known.ready:
            self._schedule(known)

    def _schedule(self, pod: _Waiting) -> None:
        self._turn += 1
        pod.turn = self._turn
        if pod.not_before:
            heapq.heappush(self._later, (pod.not_before, pod.turn, pod.demand.uid))
        else:
            self._line_up(pod)

    def _line_up(self, pod: _Waiting) -> None:
        pod.ready = True
        demand = pod.demand
        line = self._lines.setdefault(demand.tenant, [])
        heapq.heappush(line, (-demand.priority, demand.created, pod.turn, demand.uid))

    def _unrest(self, pod: _Waiting) -> None:
        """The pod is no longer found by what it rests for."""
        tenant, uid = pod.demand.tenant, pod.demand.uid
        for cause in pod.causes:
            tenants = self._resting.get(cause, {})
            mine = tenants.get(tenant, {})
            mine.pop(uid, None)
            if not mine:
                tenants.pop(tenant, None)
                if not tenants:
                    self._resting.pop(cause, None)
        pod.causes = frozenset()

    def drop(self, uid: str) -> None:
        """The pod went or was bound. Its entries in lines are skipped when they come up."""
        pod = self._pods.pop(uid, None)
        if pod is not None:
            self._unrest(pod)

    def take(self, now: float, full: Collection[TenantName] = ()) -> Demand | None:
        """The next pod whose turn it is; tenants that are ``full`` have none. It stays known: follow with ``refuse``, ``fail``
        or ``drop``.
        """
        self._promote(now)
        while (tenant := self._next(full)) is not None:
            line = self._lines[tenant]
            *_, turn, uid = heapq.heappop(line)
            pod = self._pods.get(uid)
            is_valid = pod is not None and pod.ready and pod.turn == turn
            if not line:
                del self._lines[tenant]
            elif is_valid:
                self._lines.move_to_end(tenant)
            if is_valid:
                assert pod is not None
                pod.ready = False
                return pod.demand
        return None

    def refuse(self, uid: str, now: float, causes: Iterable[str], *, patient: bool = True) -> None:
        """No node would do: rest until one of the causes may have ended, and (if ``patient``) back off."""
        pod = self._back_off(uid, now) if patient else self._pods.get(uid)
        if pod is None:
            return
        self._unrest(pod)
        pod.causes = frozenset({*causes, ANY})
        for cause in pod.causes:
            self._resting.setdefault(cause, {}).setdefault(pod.demand.tenant, {})[uid] = None
        self._at(now + LONGEST_REST, pod)

    def fail(self, uid: str, now: float) -> None:
        """The binding failed: try again after the back-off, whatever happens."""
        pod = self._back_off(uid, now)
        if pod is not None:
            self._at(pod.not_before, pod)

    def wake(self, cause: str = ANY, tenant: TenantName | None = None) -> None:
        """Something changed that may let pods fit which were refused for that cause: they get a turn after their back-off."""
        tenants = self._resting.get(cause)
        if tenants is None:
            return
        for one in [tenant] if tenant is not None else list(tenants):
            woken = tenants.pop(one, None)
            if woken:
                self._woken.setdefault(one, []).append(woken)
        if not tenants:
            del self._resting[cause]

    def recall(self, uid: str) -> None:
        """The pod is to be tried at its next turn, whatever it rests for."""
        pod = self._pods.get(uid)
        if pod is not None and pod.causes:
            self._unrest(pod)
            self._turn += 1
            pod.turn = self._turn
            self._line_up(pod)

    def _next(self, full: Collection[TenantName]) -> TenantName | None:
        return next((tenant for tenant in self._lines if tenant not in full), None)

    def next_at(self, full: Collection[TenantName] = ()) -> float | None:
        """When there is something to take: 0 means now, None means not before a change."""
        if self._woken or self._next(full) is not None:
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

    def _at(self, at: float, pod: _Waiting) -> None:
        """One pod has one valid entry, the one with its newest turn number; older ones are skipped."""
        self._turn += 1
        pod.turn = self._turn
        heapq.heappush(self._later, (at, pod.turn, pod.demand.uid))

    def _promote(self, now: float) -> None:
        """A few of the woken pods, and of those whose time has come, get into line."""
        for _ in range(AT_ONCE):
            if not self._woken:
                break
            self._rouse(now)
        for _ in range(AT_ONCE):
            if not self._later or self._later[0][0] > now:
                break
            _, turn, uid = heapq.heappop(self._later)
            pod = self._pods.get(uid)
            if pod is not None and pod.turn == turn:
                self._unrest(pod)
                self._line_up(pod)
        if len(self._later) > 4 * len(self._pods) + AT_ONCE:
            self._sweep()

    def _sweep(self) -> None:
        """Takes out entries that are no longer valid, when they are many."""
        self._later = [(at, turn, uid) for at, turn, uid in self._later
                       if (pod := self._pods.get(uid)) is not None and pod.turn == turn]  # fmt: skip
        heapq.heapify(self._later)

    def _rouse(self, now: float) -> None:
        """One pod that was woken, of the tenant whose turn it is."""
        tenant, sets = next(iter(self._woken.items()))
        uid, _ = sets[-1].popitem()
        if not sets[-1]:
            sets.pop()
        if sets:
            self._woken.move_to_end(tenant)
        else:
            del self._woken[tenant]
        pod = self._pods.get(uid)
        if pod is None or not pod.causes:
            return
        self._unrest(pod)
        if pod.not_before <= now:
            self._turn += 1
            pod.turn = self._turn
            self._line_up(pod)
        else:
            self._at(pod.not_before, pod)
