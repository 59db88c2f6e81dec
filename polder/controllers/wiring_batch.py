"""Which change concerns which CronJob or Job."""

from __future__ import annotations

from polder.api.batch import KnownCronJob, KnownJob
from polder.api.meta import ref_of
from polder.base.clock import Clock
from polder.base.ref import Ref
from polder.controllers.caches import Caches
from polder.controllers.disruption import controller_of
from polder.controllers.runners import Runners

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

    def _drift(self) -> float:
        return self._clock.now().timestamp() - self._clock.monotonic()

    def check_clock(self) -> None:
        """Waits are on the monotonic clock: when the wall clock was put right, they are computed anew."""
        offset = self._drift()
        if abs(offset - self._offset) > JUMP:
            self._offset = offset
            for cron in self._caches.cron_jobs.values():
                self._runners.cron_jobs.add(ref_of(cron))

    def _cron_job(self, ref: Ref, _old: KnownCronJob | None, new: KnownCronJob | None) -> None:
        if new is not None:
            self._runners.cron_jobs.add(ref)

    def _job(self, ref: Ref, old: KnownJob | None, new: KnownJob | None) -> None:
        owners = {owner.uid: owner for job in (old, new) if job and (owner := controller_of(job))}
        for owner in owners.values():
            if owner.kind == "CronJob":
                self._runners.cron_jobs.add(Ref(ref.tenant, ref.namespace, owner.name))
