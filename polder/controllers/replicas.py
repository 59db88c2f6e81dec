"""ReplicaSets and ReplicationControllers: as many pods of a template as are wanted. Follows upstream's replicaset controller.

Pods are known from the cache; what was written is waited for there before anything is decided again, so that a late
cache makes no pod too many.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote

import msgspec
import orjson

from polder.api.errors import ApiError
from polder.api.kinds import kind_of
from polder.api.meta import Object, ref_of
from polder.api.podfacts import ControlledPod
from polder.api.workloads import ReplicaSetStatus
from polder.base.clock import Clock
from polder.base.ref import Ref
from polder.client.client import Client
from polder.client.events import Recorder
from polder.client.informer import Informer
from polder.controllers.batch import each
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
FIRST_BATCH = 1
BEHIND = 0.2
"""Seconds after which a cache that is behind is looked at again, beside the change that it waits for."""
TERMINATING = "NamespaceTerminating"
Pods = Callable[[Ref], Sequence[ControlledPod]]


@dataclass(slots=True)
class _Written:
    """What the cache must show before the set is looked at again: a revision, and pods that are going."""

    revision: int = 0
    deleted: set[str] = field(default_factory=set)


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
        self._pods = pods
        self._clock = clock
        self._written: dict[Ref, _Written] = {}

    async def reconcile(self, ref: Ref) -> float | None:
        """One pass. The seconds until a pod has been ready for long enough, None if none waits for that. Raises ApiError."""
        obj = await find(self._client, self._type, ref)
        if obj is None:
            self._written.pop(ref, None)
            return None
        wanted = set_of(obj, self._kind.api_version, self._kind.kind)
        claims = claim(wanted, self._pods.by_index("namespace", Ref(ref.tenant, ref.namespace, "")))
        if not self._is_shown(ref):
            return BEHIND
        await each([self._adopt(ref, wanted, pod) for pod in claims.adopt])
        await each([self._release(ref, wanted, pod) for pod in claims.release])
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

    def _is_shown(self, ref: Ref) -> bool:
        """Whether the cache shows what was written for the set."""
        written = self._written.get(ref)
        if written is None:
            return True
        if self._pods.position < written.revision:
            return False
        going = (self._pods.by_index("uid", uid) for uid in written.deleted)
        if any(pod.metadata.deletion_timestamp is None for found in going for pod in found):
            return False
        del self._written[ref]
        return True

    def _wrote(self, ref: Ref, made: Object) -> None:
        version = made.metadata.resource_version
        written = self._written.setdefault(ref, _Written())
        written.revision = max(written.revision, int(version) if version.isdigit() else 0)

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
        """In batches that double while all goes well, so that what is refused is refused a few times only."""
        body, size, ref = orjson.dumps(pod_of(wanted)), FIRST_BATCH, ref_of(obj)
        path = f"/tenants/{quote(ref.tenant)}/api/v1/namespaces/{quote(ref.namespace)}/pods"
        while count > 0:
            now = min(size, count)
            problems: list[ApiError] = []
            await each([self._create_one(obj, path, body, problems) for _ in range(now)])
            if problems:
                ending = any(c.get("reason") == TERMINATING for c in problems[0].details.get("causes") or ())
                if ending:
                    return None
                self._note(obj, "Warning", "FailedCreate", f"Error creating: {problems[0]}")
                return problems[0]
            count, size = count - now, size * 2
        return None

    async def _create_one(self, obj: Owner, path: str, body: bytes, problems: list[ApiError]) -> None:
        try:
            made = msgspec.json.decode(await self._client.raw("POST", path, body), type=Object)
        except ApiError as refused:
            problems.append(refused)
            return
        self._wrote(ref_of(obj), made)
        self._note(obj, "Normal", "SuccessfulCreate", f"Created pod: {made.metadata.name}")

    async def _delete(self, obj: Owner, pod: ControlledPod, problems: list[ApiError]) -> None:
        ref = ref_of(obj)
        try:
            await self._client.delete(ControlledPod, ref_of(pod), uid=pod.metadata.uid)
            self._note(obj, "Normal", "SuccessfulDelete", f"Deleted pod: {pod.metadata.name}")
        except ApiError as refused:
            if not (refused.is_not_found or refused.is_conflict):
                problems.append(refused)
                return
        self._written.setdefault(ref, _Written()).deleted.add(pod.metadata.uid)

    async def _adopt(self, ref: Ref, wanted: SetOfPods, pod: ControlledPod) -> None:
        owners = [*(pod.metadata.owner_references or ()), wanted.owner]
        await self._own(ref, pod, owners)

    async def _release(self, ref: Ref, wanted: SetOfPods, pod: ControlledPod) -> None:
        kept = [o for o in pod.metadata.owner_references or () if o.uid != wanted.owner.uid]
        await self._own(ref, pod, kept)

    async def _own(self, ref: Ref, pod: ControlledPod, owners: Iterable[object]) -> None:
        meta = {"uid": pod.metadata.uid, "resourceVersion": pod.metadata.resource_version}
        patch = {"metadata": {**meta, "ownerReferences": msgspec.to_builtins(list(owners)) or None}}
        try:
            changed = await self._client.patch(ControlledPod, ref_of(pod), patch)
        except ApiError as error:
            if error.is_not_found:
                return
            raise
        written = self._written.setdefault(ref, _Written())
        written.revision = max(written.revision, int(changed.metadata.resource_version))

    async def _write(self, ref: Ref, obj: Owner, status: ReplicaSetStatus) -> None:
        if status == obj.status:
            return
        numbers = ("replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas", "observedGeneration")
        wanted = {**dict.fromkeys(numbers, 0), "conditions": None, **msgspec.to_builtins(status)}
        patch = {"metadata": {"uid": obj.metadata.uid}, "status": wanted}
        await self._client.patch(self._type, ref, patch, subresource="status")
