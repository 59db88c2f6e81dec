"""ReplicaSets and ReplicationControllers: as many pods of a template as are wanted. Follows upstream's replicaset controller.

Pods are known from the cache; what was written is waited for there before anything is decided again, so that a late
cache makes no pod too many.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import orjson

from polder.api.errors import ApiError
from polder.api.kinds import kind_of
from polder.api.meta import ref_of
from polder.api.podfacts import ControlledPod
from polder.api.workloads import ReplicaSetStatus
from polder.base.clock import Clock
from polder.base.ref import Ref
from polder.client.client import Client
from polder.client.events import Recorder
from polder.client.informer import Informer
from polder.controllers.batch import each
from polder.controllers.podcontrol import BEHIND, PodControl, in_batches
from polder.controllers.reading import find
from polder.controllers.replicas_pure import (
    Outcome,
    Owner,
    SetOfPods,
    claim,
    first_to_go,
    is_active,
    pod_of,
    set_of,
    status_of,
)

BURST = 500
"""Pods that one pass makes or deletes."""
Pods = Callable[[Ref], Sequence[ControlledPod]]


class ReplicaController:
    """Reconciles the sets of one kind; key: the set's reference."""

    def __init__(
        self,
        client: Client,
        kind: type[Owner],
        pods: Informer[ControlledPod],
        clock: Clock,
        recorder: Recorder | None = None,
    ) -> None:
        self._client = client
        self._recorder = recorder
        self._type = kind
        self._kind = kind_of(kind)
        self._pods = PodControl(client, pods)
        self._clock = clock

    async def reconcile(self, ref: Ref) -> float | None:
        """One pass. The seconds until a pod has been ready for long enough, None if none waits for that. Raises ApiError."""
        obj = await find(self._client, self._type, ref)
        if obj is None:
            self._pods.forget(ref)
            return None
        wanted = set_of(obj, self._kind.api_version, self._kind.kind)
        claims = claim(wanted, self._pods.beside(ref))
        if not self._pods.is_shown(ref):
            return BEHIND
        await each([self._pods.adopt(ref, pod, wanted.owner) for pod in claims.adopt])
        await each([self._pods.release(ref, pod, wanted.owner.uid) for pod in claims.release])
        pods = [*claims.own, *claims.adopt]
        problem: ApiError | None = None
        if not wanted.going:
            problem = await self._manage(obj, wanted, [pod for pod in pods if is_active(pod)])
        short = len([pod for pod in pods if is_active(pod)]) < wanted.replicas
        outcome = Outcome("FailedCreate" if short else "FailedDelete", str(problem)) if problem else Outcome()
        status = status_of(obj, wanted, pods, outcome, self._clock.now())
        await self._write(ref, obj, status)
        if problem is not None:
            raise problem
        waits = wanted.min_ready and status.available_replicas < status.ready_replicas
        return float(wanted.min_ready) if waits else None

    async def _manage(self, obj: Owner, wanted: SetOfPods, active: Sequence[ControlledPod]) -> ApiError | None:
        """Makes or deletes pods; what was refused."""
        missing = wanted.replicas - len(active)
        if missing > 0:
            return await self._create(obj, wanted, min(missing, BURST))
        surplus = first_to_go(active, min(-missing, BURST))
        problems: list[ApiError] = []
        await each([self._delete(obj, pod, problems) for pod in surplus])
        if problems:
            self._note(obj, "Warning", "FailedDelete", f"Error deleting: {problems[0]}")
        return problems[0] if problems else None

    def _note(self, obj: Owner, kind: str, reason: str, message: str) -> None:
        if self._recorder is not None:
            self._recorder.event(obj, kind, reason, message)

    async def _create(self, obj: Owner, wanted: SetOfPods, count: int) -> ApiError | None:
        body, ref = orjson.dumps(pod_of(wanted)), ref_of(obj)

        async def one() -> None:
            made = await self._pods.create(ref, body)
            self._note(obj, "Normal", "SuccessfulCreate", f"Created pod: {made.metadata.name}")

        problems = await in_batches([one] * count)
        if problems:
            self._note(obj, "Warning", "FailedCreate", f"Error creating: {problems[0]}")
        return problems[0] if problems else None

    async def _delete(self, obj: Owner, pod: ControlledPod, problems: list[ApiError]) -> None:
        try:
            await self._pods.delete(ref_of(obj), pod)
        except ApiError as refused:
            problems.append(refused)
            return
        self._note(obj, "Normal", "SuccessfulDelete", f"Deleted pod: {pod.metadata.name}")

    async def _write(self, ref: Ref, obj: Owner, status: ReplicaSetStatus) -> None:
        if status == obj.status:
            return
        numbers = ("replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas", "observedGeneration")
        wanted = {**dict.fromkeys(numbers, 0), "conditions": None, **msgspec.to_builtins(status)}
        patch = {"metadata": {"uid": obj.metadata.uid}, "status": wanted}
        await self._client.patch(self._type, ref, patch, subresource="status")
