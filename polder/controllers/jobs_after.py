"""What comes after Jobs: those whose time is over go, and pods that no Job counts any more are let go.

Follows upstream's ttl-after-finished controller, and the job controller's care for orphans.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

from polder.api.batch import OWN_MANAGER, CronJob, Job, KnownJob, ending_of
from polder.api.errors import ApiError
from polder.api.meta import ref_of
from polder.api.podfacts import ControlledPod
from polder.base.clock import Clock
from polder.base.ref import Ref
from polder.client.client import Client
from polder.client.informer import Informer
from polder.controllers.cronjobs_pure import SCHEDULED, job_name, moment
from polder.controllers.disruption import controller_of
from polder.controllers.jobs_pods import TrackedPods, is_tracked
from polder.controllers.reading import find

RETRY = 1.0
"""Seconds after which a Job is looked at again that its CronJob does not know yet."""


def expires(job: Job | KnownJob) -> datetime | None:
    """When a Job that ended goes by itself; None if it does not."""
    ending, ttl = ending_of(job), job.spec.ttl_seconds_after_finished
    ended = moment(ending.last_transition_time) if ending is not None else None
    if ended is None or ttl is None or job.metadata.deletion_timestamp is not None:
        return None
    return ended + timedelta(seconds=ttl)


class JobExpiry:
    """Reconciles a Job that may have had its time; key: its reference."""

    def __init__(self, client: Client, clock: Clock) -> None:
        self._client = client
        self._clock = clock

    async def reconcile(self, ref: Ref) -> float | None:
        """One pass. The seconds until the Job goes, None if it does not. Raises ApiError."""
        job = await find(self._client, Job, ref)
        at = expires(job) if job is not None else None
        if job is None or at is None:
            return None
        left = (at - self._clock.now()).total_seconds()
        if left > 0:
            return left
        if not await self._is_known(job):
            return RETRY
        try:
            await self._client.delete(Job, ref, uid=job.metadata.uid, propagation="Foreground")
        except ApiError as error:
            if not (error.is_not_found or error.is_conflict):
                raise
        return None

    async def _is_known(self, job: Job) -> bool:
        """Whether its CronJob knows that it ran: it would run once more else."""
        owner, run = controller_of(job), moment((job.metadata.annotations or {}).get(SCHEDULED))
        if owner is None or owner.kind != "CronJob" or run is None:
            return True
        at = ref_of(job)
        cron = await find(self._client, CronJob, Ref(at.tenant, at.namespace, owner.name))
        if cron is None or cron.metadata.uid != owner.uid or job.metadata.name != job_name(cron, run):
            return True
        last = moment(cron.status.last_schedule_time)
        return last is not None and last >= run


class JobLeftovers:
    """Reconciles a pod that is held for a Job which may be no more; key: the pod's reference."""

    def __init__(self, client: Client, pods: Informer[ControlledPod]) -> None:
        self._client = client
        self._known = pods
        self._pods = TrackedPods(client, pods)

    async def reconcile(self, ref: Ref) -> None:
        """One pass. Raises ApiError."""
        pod = self._known.get(ref)
        if pod is None or not is_tracked(pod) or await self._is_counted(ref, pod):
            return
        await self._pods.let_go(ref, pod)
        self._pods.forget(ref)

    async def _is_counted(self, ref: Ref, pod: ControlledPod) -> bool:
        """Whether somebody still counts the pod."""
        owner = controller_of(pod)
        if owner is None:
            return False
        if owner.kind != "Job" or owner.api_version != "batch/v1":
            return True
        job = await find(self._client, Job, Ref(ref.tenant, ref.namespace, owner.name))
        if job is None or job.metadata.uid != owner.uid:
            return False
        return ending_of(job) is None or job.spec.managed_by != OWN_MANAGER


def is_left(pod: ControlledPod, job: KnownJob | None) -> bool:
    """Whether a pod may be held for nobody, as far as caches know; ``job`` is the one of its owner's name."""
    owner = controller_of(pod)
    if not is_tracked(pod) or (owner is not None and owner.kind != "Job"):
        return False
    return owner is None or job is None or job.metadata.uid != owner.uid or ending_of(job) is not None


def labels_of(job: KnownJob) -> dict[str, object] | None:
    """A Job's selector, as it is written."""
    return msgspec.to_builtins(job.spec.selector) if job.spec.selector is not None else None
