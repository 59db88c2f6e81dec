"""What follows from decisions: bindings, explanations, preemptions and what claims need, written beside the decisions."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from polder.api.podfacts import ScheduledPod
from polder.api.policy import PodDisruptionBudget
from polder.base.clock import Clock
from polder.base.errors import PolderError
from polder.base.ids import TenantName
from polder.base.ref import Ref
from polder.client.client import Client
from polder.client.events import Recorder
from polder.client.informer import Informer
from polder.scheduler import preempt
from polder.scheduler.backlog import Backlog
from polder.scheduler.claims import Book, ClaimRules, claim_rules, is_bound
from polder.scheduler.cluster import Cluster, Nomination
from polder.scheduler.core import Decision
from polder.scheduler.demand import Demand
from polder.scheduler.filters import Question
from polder.scheduler.write import bind, evict, explain, provide

log = logging.getLogger(__name__)

SLICE: Final = 0.003
"""Seconds of decisions after which others get a turn of the event loop."""
BUDGETS_FOR: Final = 1.0
"""Seconds that a tenant's disruption budgets are remembered."""
TENANTS: Final = 64
"""Tenants whose budgets are remembered."""
CANDIDATES: Final = 100
"""Nodes, at least, of which victims are looked for; of many nodes a tenth."""
CLAIM_TIME: Final = 600.0
"""Seconds within which claims have to be bound, as upstream."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A pod whose node is chosen, but whose claims are not bound yet."""

    demand: Demand
    node: str
    until: float


class Carrier:
    """Carries decisions out."""

    def __init__(
        self, client: Client, clock: Clock, cluster: Cluster, backlog: Backlog, pods: Informer[ScheduledPod], recorder: Recorder
    ) -> None:  # fmt: skip
        self._client = client
        self._clock = clock
        self._cluster = cluster
        self._backlog = backlog
        self._pods = pods
        self._recorder = recorder
        self._budgets: OrderedDict[TenantName, tuple[float, list[PodDisruptionBudget]]] = OrderedDict()
        self.preempting: set[str] = set()
        """UIDs of pods for which room is being made."""
        self.missed: set[str] = set()
        """Those of them whose turn came meanwhile."""
        self.waiting: dict[str, Waiting] = {}
        self._by_claim: dict[Ref, set[str]] = {}

    def pod_of(self, demand: Demand) -> ScheduledPod | None:
        """The pod as last seen; None if it is another one by now, which is then forgotten."""
        pod = self._pods.get(demand.ref)
        if pod is not None and pod.metadata.uid == demand.uid:
            return pod
        self._cluster.forget(demand.uid)
        self._backlog.drop(demand.uid)
        return None

    # bindings

    async def bind(self, pod: ScheduledPod, demand: Demand, node: str, rules: ClaimRules | None) -> None:
        """Binds, once the pod's claims are. Raises PolderError, OSError."""
        try:
            if rules is not None and rules.late and await self._provide(demand, node, rules):
                return
            await bind(self._client, pod, node)
        except (PolderError, OSError):
            # It may have been bound all the same; then the informer says so and the placement is no assumption.
            self.give_up(demand)
            raise
        name = f"{demand.ref.namespace}/{demand.ref.name}"
        self._recorder.event(pod, "Normal", "Scheduled", f"Successfully assigned {name} to {node}")

    def give_up(self, demand: Demand) -> None:
        """The pod is not on the node after all; it is tried again after its back-off."""
        self._cluster.forget(demand.uid)
        self._backlog.fail(demand.uid, self._clock.monotonic())

    async def _provide(self, demand: Demand, node: str, rules: ClaimRules) -> bool:
        """Begins to bind the claims; the pod's turn comes again when they are."""
        facts = self._cluster.seen_by(demand.tenant).by_name.get(node)
        plan = rules.plan(facts) if facts is not None else None
        if not plan:
            self.give_up(demand)
            return True
        self.waiting[demand.uid] = Waiting(demand, node, self._clock.monotonic() + CLAIM_TIME)
        for claim in demand.claims:
            self._by_claim.setdefault(Ref(demand.tenant, demand.ref.namespace, claim), set()).add(demand.uid)
        try:
            for binding in plan:
                await provide(self._client, binding, node)
        except (PolderError, OSError):
            self.end_wait(demand)
            raise
        return True

    def end_wait(self, demand: Demand) -> Waiting | None:
        """The pod waits for claims no longer."""
        for claim in demand.claims:
            ref = Ref(demand.tenant, demand.ref.namespace, claim)
            users = self._by_claim.get(ref)
            if users is not None:
                users.discard(demand.uid)
                if not users:
                    del self._by_claim[ref]
        return self.waiting.pop(demand.uid, None)

    def settled(self, ref: Ref, book: Book) -> list[Waiting]:
        """A claim changed: the pods whose claims are all bound now."""
        found = []
        for uid in list(self._by_claim.get(ref, ())):
            demand = self.waiting[uid].demand
            claims = [book.claim(demand.tenant, demand.ref.namespace, name) for name in demand.claims]
            if all(claim is not None and is_bound(claim) for claim in claims):
                waited = self.end_wait(demand)
                if waited is not None:
                    found.append(waited)
        return found

    def overdue(self) -> None:
        """Pods whose claims were not bound in time are tried again, as are those that are gone."""
        now = self._clock.monotonic()
        for waited in [w for w in self.waiting.values() if w.until <= now or w.demand.uid not in self._backlog]:
            self.end_wait(waited.demand)
            self.give_up(waited.demand)

    # refusals

    async def explain(self, pod: ScheduledPod, message: str, nominated: str = "") -> None:
        """Says why the pod has no node. Raises PolderError, OSError."""
        if await explain(self._client, pod, message, self._clock, nominated):
            self._recorder.event(pod, "Warning", "FailedScheduling", message)

    async def make_room(self, pod: ScheduledPod, demand: Demand, decision: Decision, book: Book) -> bool:
        """Makes room for the pod among its own tenant's; whether there is any. Raises PolderError, OSError."""
        self.preempting.add(demand.uid)
        try:
            found, said = await self._find(demand, decision, book)
            if found is None:
                known = self._cluster.nomination(demand.uid)
                keeps = known is not None and said == preempt.WAITS
                if known is not None and not keeps:
                    self._cluster.withdraw(demand.uid)
                await self.explain(pod, f"{decision.message} {said}", known.node if known and keeps else "")
                return False
            if self.pod_of(demand) is None:
                return False
            uids = frozenset(victim.demand.uid for victim in found.pods)
            self._cluster.nominate(Nomination(demand, found.node, earned=True, victims=uids))
            await self._clear(pod, demand, found)
            await self.explain(pod, decision.message, found.node)
        finally:
            self.preempting.discard(demand.uid)
            if demand.uid in self.missed:
                self.missed.discard(demand.uid)
                self._backlog.recall(demand.uid)
        return True

    async def _clear(self, pod: ScheduledPod, demand: Demand, found: preempt.Victims) -> None:
        try:
            await asyncio.gather(*(self._evict(victim.demand, pod, found.node) for victim in found.pods))
        except (PolderError, OSError):
            self._cluster.withdraw(demand.uid)
            self._backlog.fail(demand.uid, self._clock.monotonic())
            raise
        self._cluster.overrule(demand, found.node)

    async def _evict(self, victim: Demand, pod: ScheduledPod, node: str) -> None:
        known = self._pods.get(victim.ref)
        if known is None or known.metadata.uid != victim.uid or known.metadata.deletion_timestamp is not None:
            return
        if await evict(self._client, known, self._clock):
            message = f"Preempted by pod {pod.metadata.uid} on node {node}"
            self._recorder.event(known, "Normal", "Preempted", message)

    async def _find(self, demand: Demand, decision: Decision, book: Book) -> tuple[preempt.Victims | None, str]:
        """Whose leaving helps the most, or what is said if there is nobody."""
        budgets = await self._budgets_of(demand.tenant)
        rules = claim_rules(demand, book, self._cluster.claim_users(demand))
        question = Question(demand, self._cluster, rules)
        why = preempt.ineligible(question)
        if why:
            return None, why
        found: list[preempt.Victims] = []
        reasons: Counter[str] = Counter()
        begun = self._clock.monotonic()
        for name in decision.hopeful[: max(CANDIDATES, decision.nodes // 10)]:
            if self._clock.monotonic() - begun >= SLICE:
                await asyncio.sleep(0)
                question, begun = Question(demand, self._cluster, rules), self._clock.monotonic()
            node = question.view.by_name.get(name)
            outcome = preempt.victims_on(question, node, budgets) if node is not None else (preempt.NOT_HELPFUL,)
            if isinstance(outcome, preempt.Victims):
                found.append(outcome)
            else:
                reasons.update(outcome)
        if not found:
            return None, preempt.unhelpful(decision, reasons)
        return preempt.choose(found), ""

    async def _budgets_of(self, tenant: TenantName) -> Sequence[PodDisruptionBudget]:
        now = self._clock.monotonic()
        known = self._budgets.get(tenant)
        if known is None or now - known[0] > BUDGETS_FOR:
            listing = await self._client.list(PodDisruptionBudget, tenant)
            known = self._budgets[tenant] = (now, list(listing.items))
            if len(self._budgets) > TENANTS:
                self._budgets.popitem(last=False)
        return known[1]
