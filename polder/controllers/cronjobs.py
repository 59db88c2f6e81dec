"""CronJobs: a Job at each time of the schedule. Follows upstream's cronjob controller.

A run's Job has the same name whoever makes it, and the status that says that it was made is written before anything else is
done with it: a controller that ends between the two makes no run twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

import msgspec
import orjson

from polder.api.batch import CronJob, CronJobStatus, Job, KnownJob
from polder.api.errors import ApiError
from polder.api.meta import ref_of
from polder.base.clock import Clock
from polder.base.ref import Ref
from polder.client.client import Client
from polder.client.events import Recorder
from polder.client.informer import Informer
from polder.controllers import cronjobs_pure as pure
from polder.controllers.cronjobs_pure import Told
from polder.controllers.disruption import controller_of
from polder.controllers.podcontrol import is_ending
from polder.controllers.reading import find


class CronJobController:
    """Reconciles a CronJob; key: its reference."""

    def __init__(
        self, client: Client, jobs: Informer[KnownJob], clock: Clock, recorder: Recorder | None = None
    ) -> None:
        self._client = client
        self._recorder = recorder
        self._jobs = jobs
        self._clock = clock

    async def reconcile(self, ref: Ref) -> float | None:
        """One pass. The seconds until the next run, None if none will come. Raises ApiError."""
        cron = await find(self._client, CronJob, ref)
        if cron is None:
            return None
        jobs = self._jobs.by_index("owner", cron.metadata.uid)
        settled = pure.settle(cron, jobs)
        status, told = settled.status, list(settled.told)
        for listed in settled.unseen:
            at = Ref(ref.tenant, ref.namespace, listed.name)
            found = await find(self._client, Job, at)
            if found is None or found.metadata.uid != listed.uid:
                status = pure.without(status, listed.uid)
                told.append(Told("Normal", "MissingJob", f"Active job went missing: {listed.name}"))
        cron = await self._write(cron, status)
        self._tell(cron, told)
        if cron.metadata.deletion_timestamp is not None:
            return None
        await self._shorten(cron, jobs)
        decision = pure.decide(cron, self._clock.now())
        self._tell(cron, decision.told)
        if decision.run is None:
            return decision.wait
        if decision.replace:
            cron = await self._replace(cron)
        job = await self._start(cron, pure.job_of(cron, decision.run))
        if job is not None:
            await self._write(cron, pure.with_run(cron.status, job, decision.run))
        return decision.wait

    def _tell(self, cron: CronJob, told: Sequence[Told]) -> None:
        if self._recorder is not None:
            for event in told:
                self._recorder.event(cron, *event)

    async def _shorten(self, cron: CronJob, jobs: Sequence[KnownJob]) -> None:
        """Deletes what the history does not keep."""
        for job in pure.surplus(cron, jobs):
            await self._delete(cron, job)

    async def _replace(self, cron: CronJob) -> CronJob:
        """Deletes what is still running. Raises ApiError."""
        status = cron.status
        for listed in cron.status.active or ():
            at = Ref(ref_of(cron).tenant, cron.metadata.namespace, listed.name)
            found = await find(self._client, Job, at)
            if found is not None and found.metadata.uid == listed.uid:
                await self._delete(cron, found)
            status = pure.without(status, listed.uid)
        return await self._write(cron, status)

    async def _delete(self, cron: CronJob, job: Job | KnownJob) -> None:
        try:
            await self._client.delete(Job, ref_of(job), uid=job.metadata.uid, propagation="Background")
        except ApiError as error:
            if error.is_not_found or error.is_conflict:
                return
            self._tell(cron, [Told("Warning", "FailedDelete", f"Deleted job: {error}")])
            raise
        self._tell(cron, [Told("Normal", "SuccessfulDelete", f"Deleted job {job.metadata.name}")])

    async def _start(self, cron: CronJob, body: dict[str, object]) -> Job | None:
        """The run's Job, made now or before; None if somebody else's has its name. Raises ApiError."""
        at = ref_of(cron)
        path = f"/tenants/{quote(at.tenant)}/apis/batch/v1/namespaces/{quote(at.namespace)}/jobs"
        try:
            made = msgspec.json.decode(await self._client.raw("POST", path, orjson.dumps(body)), type=Job)
        except ApiError as error:
            if error.is_already_exists:
                return await self._made_before(cron, str(body["metadata"]["name"]))  # type: ignore[index]
            if is_ending(error):
                return None
            self._tell(cron, [Told("Warning", "FailedCreate", f"Error creating job: {error}")])
            raise
        self._tell(cron, [Told("Normal", "SuccessfulCreate", f"Created job {made.metadata.name}")])
        return made

    async def _made_before(self, cron: CronJob, name: str) -> Job | None:
        at = ref_of(cron)
        found = await find(self._client, Job, Ref(at.tenant, at.namespace, name))
        owner = controller_of(found) if found is not None else None
        return found if owner is not None and owner.uid == cron.metadata.uid else None

    async def _write(self, cron: CronJob, status: CronJobStatus) -> CronJob:
        """The CronJob with the status, written if it changes. Raises ApiError, also if somebody else wrote meanwhile."""
        if status == cron.status:
            return cron
        meta = {"uid": cron.metadata.uid, "resourceVersion": cron.metadata.resource_version}
        none = dict.fromkeys(("active", "lastScheduleTime", "lastSuccessfulTime"))
        patch = {"metadata": meta, "status": {**none, **msgspec.to_builtins(status)}}
        return await self._client.patch(CronJob, ref_of(cron), patch, subresource="status")
