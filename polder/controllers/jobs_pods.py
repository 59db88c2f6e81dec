"""Pods that their Job counts: a finalizer holds each until it has been counted."""

from __future__ import annotations

import msgspec

from polder.api.batch import TRACKING, Job
from polder.api.errors import ApiError
from polder.api.meta import ref_of
from polder.api.podfacts import ControlledPod
from polder.base.ref import Ref
from polder.client.client import Client
from polder.client.informer import Informer
from polder.controllers.jobs_making import owner_of
from polder.controllers.podcontrol import PodControl

_LET_GO = {"$deleteFromPrimitiveList/finalizers": [TRACKING]}


def is_tracked(pod: ControlledPod) -> bool:
    """Whether the pod is held until it has been counted."""
    return TRACKING in (pod.metadata.finalizers or ())


class TrackedPods(PodControl):
    """Pods of Jobs. A pod that was let go counts as held until the cache shows otherwise: else it were counted twice."""

    def __init__(self, client: Client, pods: Informer[ControlledPod]) -> None:
        super().__init__(client, pods)
        self._let_go: dict[Ref, set[str]] = {}

    def is_shown(self, owner: Ref) -> bool:
        """Whether the cache shows what was written for the owner."""
        if not super().is_shown(owner):
            return False
        for uid in self._let_go.get(owner, ()):
            if any(is_tracked(pod) for pod in self._pods.by_index("uid", uid)):
                return False
        self._let_go.pop(owner, None)
        return True

    def forget(self, owner: Ref) -> None:
        """The owner is gone."""
        super().forget(owner)
        self._let_go.pop(owner, None)

    async def take(self, at: Ref, job: Job, pod: ControlledPod) -> None:
        """Makes a pod the Job's, held until it is counted. Raises ApiError."""
        owners = [*(pod.metadata.owner_references or ()), owner_of(job)]
        held = list(dict.fromkeys([*(pod.metadata.finalizers or ()), TRACKING]))
        meta = {"uid": pod.metadata.uid, "resourceVersion": pod.metadata.resource_version, "finalizers": held}
        await self._patch(at, pod, {**meta, "ownerReferences": msgspec.to_builtins(owners)})

    async def give_back(self, at: Ref, job: Job, pod: ControlledPod) -> None:
        """Makes a pod the Job's no more. Raises ApiError."""
        owners = [o for o in pod.metadata.owner_references or () if o.uid != job.metadata.uid]
        held = [name for name in pod.metadata.finalizers or () if name != TRACKING]
        meta = {"uid": pod.metadata.uid, "resourceVersion": pod.metadata.resource_version, "finalizers": held or None}
        await self._patch(at, pod, {**meta, "ownerReferences": msgspec.to_builtins(owners) or None})

    async def let_go(self, at: Ref, pod: ControlledPod) -> None:
        """Holds a pod no more; one that is gone is fine. Raises ApiError."""
        if not is_tracked(pod):
            return
        patch = {"metadata": {"uid": pod.metadata.uid, **_LET_GO}}
        self._let_go.setdefault(at, set()).add(pod.metadata.uid)
        try:
            await self._client.patch(ControlledPod, ref_of(pod), patch, how="strategic")
        except ApiError as error:
            if not (error.is_not_found or error.is_conflict):
                self._let_go[at].discard(pod.metadata.uid)
                raise
