"""StatefulSets: pods that keep name and storage, one after the other or all at once. Follows upstream's statefulset controller.

A name is never given twice: a pod is made again only when the API has it no more, so one on a node that does not answer stays
until the node is back, is deleted, or is declared out of service.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import msgspec
import orjson

from polder.api.errors import ApiError
from polder.api.kinds import kind_of
from polder.api.labelselector import matcher_of
from polder.api.meta import OwnerReference, ref_of
from polder.api.podfacts import ControlledPod
from polder.api.sets import ControllerRevision, StatefulSet, StatefulSetStatus
from polder.base.clock import Clock
from polder.base.errors import PolderError
from polder.base.ref import Ref
from polder.client.client import Client
from polder.client.events import Recorder
from polder.client.informer import Informer
from polder.controllers import history_pure, stateful_pure
from polder.controllers.history import History
from polder.controllers.history_pure import Parent
from polder.controllers.podcontrol import BEHIND, PodControl, in_batches, is_ending
from polder.controllers.reading import find
from polder.controllers.stateful_claims import ClaimGoingError, Claims, StaleClaimError
from polder.controllers.stateful_pure import Step, View, ordinal_of, revision_of

REMEMBERED = 4096
"""Sets whose claims are known to have the owners that they ought to have."""


@dataclass(frozen=True, slots=True)
class _Revisions:
    """All of a set's, the two that matter, and how many strangers had a name."""

    known: list[ControllerRevision]
    current: ControllerRevision
    update: ControllerRevision
    collisions: int


class StatefulController:
    """Reconciles a StatefulSet; key: its reference."""

    def __init__(
        self, client: Client, pods: Informer[ControlledPod], clock: Clock, recorder: Recorder | None = None
    ) -> None:
        self._client = client
        self._clock = clock
        self._recorder = recorder
        self._pods = PodControl(client, pods)
        self._history = History(client)
        self._claims = Claims(client, self._note)
        self._retained: OrderedDict[Ref, object] = OrderedDict()

    async def reconcile(self, ref: Ref) -> float | None:
        """One pass. The seconds until a pod has been ready for long enough, None if none waits for that. Raises ApiError."""
        stateful = await find(self._client, StatefulSet, ref)
        if stateful is None:
            self._pods.forget(ref)
            self._retained.pop(ref, None)
            return None
        if stateful.spec.selector is None or stateful.metadata.deletion_timestamp is not None:
            return None
        if not self._pods.is_shown(ref):
            return BEHIND
        pods = await self._members(ref, stateful)
        revisions = await self._revisions(ref, stateful)
        by_ordinal = {ordinal_of(ref.name, pod.metadata.name) or 0: pod for pod in pods}
        names = (revisions.current.metadata.name, revisions.update.metadata.name)
        view = View(stateful, *names, by_ordinal, self._clock.now())
        problem, replaced = await self._work(view, revisions)
        status = stateful_pure.status_of(view, revisions.collisions, replaced)
        await self._write(ref, stateful, status)
        if problem is not None:
            raise problem
        await self._trim(stateful, revisions, pods)
        waits = stateful.spec.min_ready_seconds and status.available_replicas < status.ready_replicas
        return float(stateful.spec.min_ready_seconds) if waits else None

    async def _members(self, ref: Ref, stateful: StatefulSet) -> list[ControlledPod]:
        chosen = matcher_of(msgspec.to_builtins(stateful.spec.selector))

        def fits(pod: ControlledPod) -> bool:
            named = ordinal_of(ref.name, pod.metadata.name) is not None
            return named and chosen.matches_labels(pod.metadata.labels or {})

        return await self._pods.claim(ref, owner_of(stateful), fits)

    async def _revisions(self, ref: Ref, stateful: StatefulSet) -> _Revisions:
        owner, template = owner_of(stateful), stateful.spec.template
        assert stateful.spec.selector is not None
        known = await self._history.revisions(ref, owner, stateful.spec.selector, going=False)
        collisions = stateful.status.collision_count or 0
        equal = history_pure.equal(known, template)
        if equal and equal[-1] is known[-1]:
            update = equal[-1]
        elif equal:
            update = await self._history.renumber(equal[-1], history_pure.next_number(known))
        else:
            parent = Parent(owner, stateful.metadata.annotations or {}, template, collisions)
            number = history_pure.next_number(known)
            update, collisions = await self._history.create(ref, parent, number, history_pure.HASH)
        now = next((found for found in known if found.metadata.name == stateful.status.current_revision), update)
        return _Revisions(known, now, update, collisions)

    async def _work(self, view: View, revisions: _Revisions) -> tuple[PolderError | None, int]:
        """Takes the steps; what was refused, and how many pods were deleted for an update."""
        replaced, stages, seen = 0, stateful_pure.plan(view), _seen(view)
        retained = self._retained.get(ref_of(view.stateful)) == seen
        for stage in stages:
            steps = [step for step in stage if not (step.kind == "retention" and retained)]
            try:
                problem = await self._stage(view, revisions, steps)
            except StaleClaimError:
                return None, replaced
            except ClaimGoingError as going:
                return going, replaced
            if problem is not None:
                return (None if is_ending(problem) else problem), replaced
            replaced += sum(step.update for step in steps)
        if len(stages) > 1:
            self._remember(ref_of(view.stateful), seen)
        return None, replaced

    async def _stage(self, view: View, revisions: _Revisions, steps: Sequence[Step]) -> ApiError | None:
        """The steps of a stage; what was refused. Raises StaleClaimError, ClaimGoingError."""
        if view.is_parallel:
            problems = await in_batches([self._step(view, revisions, step) for step in steps])
            return problems[0] if problems else None
        for step in steps:
            try:
                await self._step(view, revisions, step)()
            except ApiError as refused:
                return refused
        return None

    def _step(self, view: View, revisions: _Revisions, step: Step) -> Callable[[], Awaitable[None]]:
        async def take() -> None:
            try:
                await self._take(view, revisions, step)
            except ApiError as refused:
                if not is_ending(refused) and step.kind in ("create", "delete", "identity"):
                    verb = {"create": "Create", "delete": "Delete"}.get(step.kind, "Update")
                    self._told(view.stateful, verb, step.ordinal, refused)
                raise

        return take

    async def _take(self, view: View, revisions: _Revisions, step: Step) -> None:
        ref, stateful, pod = ref_of(view.stateful), view.stateful, step.pod
        if step.kind == "create":
            await self._create(view, revisions, step)
        elif pod is None:
            return
        elif step.kind == "delete":
            await self._pods.delete(ref, pod)
            self._told(stateful, "Delete", step.ordinal)
        elif step.kind == "claims":
            await self._claims.ensure(stateful, step.ordinal)
        elif step.kind == "identity":
            labels = {stateful_pure.POD_NAME: pod.metadata.name, stateful_pure.POD_INDEX: str(step.ordinal)}
            await self._pods.relabel(ref, pod, labels)
        else:
            await self._claims.retain(view, owner_of(stateful), step.ordinal, pod.metadata.uid)

    async def _create(self, view: View, revisions: _Revisions, step: Step) -> None:
        stateful, ref = view.stateful, ref_of(view.stateful)
        await self._claims.check(view, owner_of(stateful), step.ordinal)
        await self._claims.ensure(stateful, step.ordinal)
        chosen = revisions.current if step.revision == revisions.current.metadata.name else revisions.update
        template = history_pure.template_of(chosen) or stateful.spec.template
        body = stateful_pure.pod_of(stateful, owner_of(stateful), template, step.ordinal, step.revision)
        made = await self._pods.create(ref, orjson.dumps(body))
        self._told(stateful, "Create", step.ordinal)
        await self._claims.retain(view, owner_of(stateful), step.ordinal, made.metadata.uid)

    def _remember(self, ref: Ref, seen: object) -> None:
        """The claims of just these pods have the owners that just this spec asks for."""
        self._retained[ref] = seen
        if len(self._retained) > REMEMBERED:
            self._retained.popitem(last=False)

    async def _trim(self, stateful: StatefulSet, revisions: _Revisions, pods: Sequence[ControlledPod]) -> None:
        live = {revisions.current.metadata.name, revisions.update.metadata.name, *map(revision_of, pods)}
        limit = stateful.spec.revision_history_limit
        await self._history.remove(history_pure.surplus(revisions.known, live, limit))

    def _told(self, stateful: StatefulSet, verb: str, ordinal: int, refused: ApiError | None = None) -> None:
        what = f"{verb} Pod {stateful.metadata.name}-{ordinal} in StatefulSet {stateful.metadata.name}"
        if refused is None:
            self._note(stateful, "Normal", f"Successful{verb}", f"{what} successful")
        else:
            self._note(stateful, "Warning", f"Failed{verb}", f"{what} failed error: {refused}")

    def _note(self, stateful: StatefulSet, kind: str, reason: str, message: str) -> None:
        if self._recorder is not None:
            self._recorder.event(stateful, kind, reason, message)

    async def _write(self, ref: Ref, stateful: StatefulSet, status: StatefulSetStatus) -> None:
        if status == stateful.status:
            return
        names = ("replicas", "readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas")
        wanted = {**dict.fromkeys((*names, "observedGeneration"), 0), **msgspec.to_builtins(status)}
        patch = {"metadata": {"uid": stateful.metadata.uid}, "status": wanted}
        await self._client.patch(StatefulSet, ref, patch, subresource="status")


def _seen(view: View) -> object:
    """What owners of claims are decided by."""
    meta = view.stateful.metadata
    return meta.uid, meta.generation, frozenset(pod.metadata.uid for pod in view.pods.values())


def owner_of(stateful: StatefulSet) -> OwnerReference:
    """The set as the owner of its pods and revisions."""
    kind, meta = kind_of(StatefulSet), stateful.metadata
    return OwnerReference(
        api_version=kind.api_version, kind=kind.kind, name=meta.name, uid=meta.uid, controller=True,
        block_owner_deletion=True,
    )  # fmt: skip
