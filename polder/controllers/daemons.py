"""DaemonSets: a pod on each node that fits. Follows upstream's daemonset controller.

Pods are made for a node by its name and placed by the scheduler. Of a tenant's set only those nodes and labels count that the
tenant sees; taints of the platform keep its pods off as they keep off all others.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

import msgspec
import orjson

from polder.api.errors import ApiError
from polder.api.kinds import kind_of
from polder.api.labelselector import matcher_of
from polder.api.meta import OwnerReference, ref_of
from polder.api.podfacts import ControlledPod
from polder.api.sets import ControllerRevision, DaemonPlace, DaemonSet, DaemonSetStatus, place_of
from polder.base.clock import Clock
from polder.base.ids import TenantName
from polder.base.ref import Ref
from polder.client.client import Client
from polder.client.events import Recorder
from polder.client.informer import Informer
from polder.controllers import daemons_pure, history_pure
from polder.controllers.batch import each
from polder.controllers.daemons_pure import Fitting, Place, View, Work
from polder.controllers.history import History
from polder.controllers.history_pure import POD_HASH, Parent
from polder.controllers.podcontrol import BEHIND, PodControl, in_batches
from polder.controllers.reading import find
from polder.loop.pauses import Pauses

BURST = 250
"""Pods that one pass makes or deletes."""
FIRST_RETRY, LONGEST_RETRY = 1.0, 900.0
"""Seconds until a pod that failed on a node again is replaced there."""
REMEMBERED = 4096
"""Failures that are remembered."""
Places = Callable[[TenantName], Iterable[Place]]
"""The nodes as a tenant sees them."""


class Retries:
    """How long a pod that fails again and again waits to be replaced, by set, generation and node."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known: OrderedDict[tuple[str, int, str], tuple[float, float]] = OrderedDict()

    def take(self, key: tuple[str, int, str]) -> float:
        """The seconds to wait; 0 if it may be replaced now, which is counted."""
        now = self._clock.monotonic()
        since, delay = self._known.get(key, (now, 0.0))
        if now - since < delay:
            return since + delay - now
        self._known[key] = (now, min(max(delay * 2, FIRST_RETRY), LONGEST_RETRY))
        self._known.move_to_end(key)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return 0.0


@dataclass(frozen=True, slots=True)
class _Revisions:
    known: list[ControllerRevision]
    current: ControllerRevision
    collisions: int

    @property
    def mark(self) -> str:
        return (self.current.metadata.labels or {}).get(POD_HASH) or self.current.metadata.name


class DaemonController:
    """Reconciles a DaemonSet; key: its reference."""

    def __init__(
        self,
        client: Client,
        pods: Informer[ControlledPod],
        places: Places,
        clock: Clock,
        recorder: Recorder | None = None,
    ) -> None:
        self._client = client
        self._clock = clock
        self._recorder = recorder
        self._places = places
        self._pods = PodControl(client, pods)
        self._history = History(client)
        self._retries = Retries(clock)

    async def reconcile(self, ref: Ref) -> float | None:
        """One pass. The seconds until something is due, None if nothing is. Raises ApiError."""
        daemons = await find(self._client, DaemonSet, ref)
        if daemons is None:
            self._pods.forget(ref)
            return None
        if daemons.spec.selector is None or daemons.metadata.deletion_timestamp is not None:
            return None
        if not self._pods.is_shown(ref):
            return BEHIND
        chosen, owner = matcher_of(msgspec.to_builtins(daemons.spec.selector)), owner_of(daemons)
        pods = await self._pods.claim(ref, owner, lambda pod: chosen.matches_labels(pod.metadata.labels or {}))
        revisions = await self._revisions(ref, daemons, pods)
        place = place_of(daemons.spec.template)
        view = await self._view(ref, daemons, place, revisions.mark, pods)
        work, wait = self._decide(view)
        problem = await self._do(view, place, work)
        status = daemons_pure.status_of(view, revisions.collisions or daemons.status.collision_count)
        await self._write(ref, daemons, status)
        if problem is not None:
            raise problem
        await self._trim(daemons, revisions, pods)
        late = daemons.spec.min_ready_seconds and status.number_available < status.number_ready
        waits = [*([wait] if wait else []), *([float(daemons.spec.min_ready_seconds)] if late else [])]
        return min(waits, default=None)

    async def _view(
        self, ref: Ref, daemons: DaemonSet, place: DaemonPlace, mark: str, pods: Iterable[ControlledPod]
    ) -> View:
        fits, nodes, pauses = Fitting(place), {}, Pauses()
        for node in list(self._places(ref.tenant)):
            nodes[node.name] = fits(node)
            await pauses.here()
        wanted = frozenset(name for name, (should, _) in nodes.items() if should)
        return View(daemons, mark, nodes, daemons_pure.by_node(pods), self._clock.now(), wanted)

    def _decide(self, view: View) -> tuple[Work, float]:
        """What to do, and the seconds until a failed pod may be replaced."""
        waits: list[float] = []
        daemons = view.daemons

        def may_retry(node: str) -> bool:
            wait = self._retries.take((daemons.metadata.uid, daemons.status.observed_generation, node))
            waits.append(wait)
            return not wait

        work = daemons_pure.manage(view, may_retry)
        return work or daemons_pure.roll(view), min(filter(None, waits), default=0.0)

    async def _do(self, view: View, place: DaemonPlace, work: Work) -> ApiError | None:
        """Makes and deletes pods; what was refused."""
        daemons, ref, owner = view.daemons, ref_of(view.daemons), owner_of(view.daemons)
        for pod in work.ended:
            failed = pod.status.phase == "Failed"
            words = f"Found {pod.status.phase.lower()} daemon pod {ref.namespace}/{pod.metadata.name}"
            where = f"{words} on node {pod.spec.node_name}, will try to {'kill' if failed else 'delete'} it"
            reason = "FailedDaemonPod" if failed else "SucceededDaemonPod"
            self._note(daemons, "Warning" if failed else "Normal", reason, where)

        async def make(node: str) -> None:
            body = orjson.dumps(daemons_pure.pod_of(view, place, owner, node))
            made = await self._pods.create(ref, body)
            self._note(daemons, "Normal", "SuccessfulCreate", f"Created pod: {made.metadata.name}")

        problems = await in_batches([_later(make, node) for node in work.create[:BURST]])
        if problems:
            self._note(daemons, "Warning", "FailedCreate", f"Error creating: {problems[0]}")
        await each([self._delete(daemons, pod, problems) for pod in work.delete[:BURST]])
        return problems[0] if problems else None

    async def _delete(self, daemons: DaemonSet, pod: ControlledPod, problems: list[ApiError]) -> None:
        try:
            await self._pods.delete(ref_of(daemons), pod)
        except ApiError as refused:
            self._note(daemons, "Warning", "FailedDelete", f"Error deleting: {refused}")
            problems.append(refused)
            return
        self._note(daemons, "Normal", "SuccessfulDelete", f"Deleted pod: {pod.metadata.name}")

    async def _revisions(self, ref: Ref, daemons: DaemonSet, pods: Sequence[ControlledPod]) -> _Revisions:
        owner, template, spec = owner_of(daemons), daemons.spec.template, daemons.spec
        assert spec.selector is not None
        known = [await self._marked(r) for r in await self._history.revisions(ref, owner, spec.selector, going=False)]
        equal = history_pure.equal(known, template)
        number = history_pure.next_number(found for found in known if found not in equal)
        if not equal:
            collisions = daemons.status.collision_count or 0
            parent = Parent(owner, daemons.metadata.annotations or {}, template, collisions)
            made, collisions = await self._history.create(ref, parent, number, POD_HASH)
            return _Revisions(known, made, collisions)
        current = equal[-1]
        await self._merge(ref, current, equal[:-1], pods)
        if current.revision < number:
            current = await self._history.renumber(current, number)
        rest = [found for found in known if found not in equal]
        return _Revisions([*rest, current], current, daemons.status.collision_count or 0)

    async def _marked(self, found: ControllerRevision) -> ControllerRevision:
        """A revision that was taken over may lack the label that its pods carry."""
        if (found.metadata.labels or {}).get(POD_HASH):
            return found
        return await self._history.relabel(found, {POD_HASH: found.metadata.name})

    async def _merge(
        self, ref: Ref, kept: ControllerRevision, twins: Sequence[ControllerRevision], pods: Sequence[ControlledPod]
    ) -> None:
        """Revisions of the same template become one."""
        if not twins:
            return
        marks = {(twin.metadata.labels or {}).get(POD_HASH) for twin in twins}
        mark = (kept.metadata.labels or {}).get(POD_HASH, "")
        for pod in pods:
            if (pod.metadata.labels or {}).get(POD_HASH) in marks - {mark}:
                await self._pods.relabel(ref, pod, {POD_HASH: mark})
        await self._history.remove(twins)

    async def _trim(self, daemons: DaemonSet, revisions: _Revisions, pods: Sequence[ControlledPod]) -> None:
        marks = {(pod.metadata.labels or {}).get(POD_HASH) for pod in pods}
        live = {r.metadata.name for r in revisions.known if (r.metadata.labels or {}).get(POD_HASH) in marks}
        live.add(revisions.current.metadata.name)
        limit = daemons.spec.revision_history_limit
        await self._history.remove(history_pure.surplus(revisions.known, live, limit))

    def _note(self, daemons: DaemonSet, kind: str, reason: str, message: str) -> None:
        if self._recorder is not None:
            self._recorder.event(daemons, kind, reason, message)

    async def _write(self, ref: Ref, daemons: DaemonSet, status: DaemonSetStatus) -> None:
        if status == daemons.status:
            return
        names = [field.encode_name for field in msgspec.structs.fields(DaemonSetStatus) if field.default == 0]
        wanted = {**dict.fromkeys(names, 0), **msgspec.to_builtins(status)}
        patch = {"metadata": {"uid": daemons.metadata.uid}, "status": wanted}
        await self._client.patch(DaemonSet, ref, patch, subresource="status")


def _later(make: Callable[[str], Awaitable[None]], node: str) -> Callable[[], Awaitable[None]]:
    return lambda: make(node)


def owner_of(daemons: DaemonSet) -> OwnerReference:
    """The set as the owner of its pods and revisions."""
    kind, meta = kind_of(DaemonSet), daemons.metadata
    return OwnerReference(
        api_version=kind.api_version, kind=kind.kind, name=meta.name, uid=meta.uid, controller=True,
        block_owner_deletion=True,
    )  # fmt: skip
