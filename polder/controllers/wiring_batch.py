"""Which change concerns which CronJob, Job or autoscaler."""

from __future__ import annotations

from polder.api.autoscaling import KnownAutoscaler
from polder.api.batch import OWN_MANAGER, KnownCronJob, KnownJob, ending_of
from polder.api.labelselector import matcher_of
from polder.api.meta import ref_of
from polder.api.podfacts import ControlledPod
from polder.base.clock import Clock
from polder.base.ref import Ref
from polder.controllers.caches import Caches, namespace_of
from polder.controllers.disruption import controller_of
from polder.controllers.jobs_after import expires, is_left, labels_of
from polder.controllers.jobs_pods import is_tracked
from polder.controllers.runners import Runners

GATHER = 0.1
"""Seconds in which changes of a Job's pods are gathered to one look."""
JUMP = 1.0
"""Seconds that the wall clock may drift from the monotonic one before every schedule is looked at anew."""


class BatchWiring:
    """Turns changes of caches, and jumps of the clock, into keys of queues."""

    def __init__(self, caches: Caches, runners: Runners, clock: Clock) -> None:
        self._caches = caches
        self._runners = runners
        self._clock = clock
        self._offset = self._drift()

    def attach(self) -> None:
        """Hears every change from here on, and of every object that is known already."""
        self._caches.cron_jobs.on_change(self._cron_job)
        self._caches.jobs.on_change(self._job)
        self._caches.pods.on_change(self._pod)
        self._caches.autoscalers.on_change(self._autoscaler)

    def _drift(self) -> float:
        return self._clock.now().timestamp() - self._clock.monotonic()

    def check_clock(self) -> None:
        """Waits are on the monotonic clock: when the wall clock was put right, they are computed anew."""
        offset = self._drift()
        if abs(offset - self._offset) > JUMP:
            self._offset = offset
            for cron in self._caches.cron_jobs.values():
                self._runners.cron_jobs.add(ref_of(cron))
            for job in self._caches.jobs.values():
                self._look(ref_of(job), job)

    def _cron_job(self, ref: Ref, _old: KnownCronJob | None, new: KnownCronJob | None) -> None:
        if new is not None:
            self._runners.cron_jobs.add(ref)

    def _autoscaler(self, ref: Ref, old: KnownAutoscaler | None, new: KnownAutoscaler | None) -> None:
        if old is None or new is None or old.spec != new.spec or old.metadata.uid != new.metadata.uid:
            self._runners.autoscalers.add(ref)

    def _job(self, ref: Ref, old: KnownJob | None, new: KnownJob | None) -> None:
        owners = {owner.uid: owner for job in (old, new) if job and (owner := controller_of(job))}
        for owner in owners.values():
            if owner.kind == "CronJob":
                self._runners.cron_jobs.add(Ref(ref.tenant, ref.namespace, owner.name))
        if new is not None:
            self._look(ref, new)
        if old is not None and ending_of(old) is None:
            self._runners.jobs.add(ref)
        if new is None or ending_of(new) is not None:
            for pod in self._caches.pods_in(Ref(ref.tenant, ref.namespace, "")) if old is not None else ():
                if is_left(pod, new):
                    self._runners.job_pods.add(ref_of(pod))

    def _look(self, ref: Ref, job: KnownJob) -> None:
        """What time alone makes worth a look."""
        at = expires(job)
        if at is not None:
            self._runners.job_expiry.add_after(ref, (at - self._clock.now()).total_seconds())
        elif ending_of(job) is None:
            self._runners.jobs.add(ref)

    def _pod(self, ref: Ref, old: ControlledPod | None, new: ControlledPod | None) -> None:
        owners = {owner.uid: owner for pod in (old, new) if pod and (owner := controller_of(pod))}
        for owner in owners.values():
            if owner.kind == "Job" and owner.api_version == "batch/v1":
                self._runners.jobs.add_after(Ref(ref.tenant, ref.namespace, owner.name), GATHER)
        if new is None:
            return
        holder = controller_of(new)
        if is_tracked(new):
            job = self._caches.jobs.get(Ref(ref.tenant, ref.namespace, holder.name)) if holder is not None else None
            if is_left(new, job):
                self._runners.job_pods.add_after(ref, GATHER)
        if holder is None:
            self._orphan(new)

    def _orphan(self, pod: ControlledPod) -> None:
        """A pod that nobody owns may be some Job's."""
        for job in self._caches.jobs.by_index("namespace", namespace_of(pod)):
            fits = matcher_of(labels_of(job)).matches_labels(pod.metadata.labels or {})
            if fits and ending_of(job) is None and job.spec.managed_by == OWN_MANAGER:
                self._runners.jobs.add(ref_of(job))
