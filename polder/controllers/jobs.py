"""Jobs: pods run to their end, as many as are wanted, each counted once. Follows upstream's job controller.

Pods are known from the cache, and what was written is waited for there; the Job is read from the server, and its status written
only if nobody wrote it meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field

import msgspec
import orjson

from polder.api.batch import COMPLETE, OWN_MANAGER, SUCCESS_MET, SUSPENDED, Job, JobCondition, JobStatus, ending_of
from polder.api.core import Pod
from polder.api.errors import ApiError
from polder.api.meta import ref_of
from polder.api.podfacts import ControlledPod
from polder.base.clock import Clock, stamp
from polder.base.ref import Ref
from polder.client.client import Client
from polder.client.events import Recorder
from polder.client.informer import Informer
from polder.controllers import jobs_pure as pure
from polder.controllers import jobs_tracking as tracking
from polder.controllers.batch import each
from polder.controllers.endpoints_pure import is_ready
from polder.controllers.jobs_failures import Backoff, Verdict, judge
from polder.controllers.jobs_making import indexed_pod_of, pod_of
from polder.controllers.jobs_pods import TrackedPods, is_tracked
from polder.controllers.jobs_pure import Facts, Work
from polder.controllers.podcontrol import BEHIND, in_batches
from polder.controllers.reading import find

_FIELDS = (
    "conditions", "startTime", "completionTime", "active", "succeeded", "failed", "terminating", "completedIndexes",
    "failedIndexes", "uncountedTerminatedPods", "ready",
)  # fmt: skip
MORE = 0.1
"""Seconds until the next pass of a Job that has more pods to count than one does."""


@dataclass(slots=True)
class _Done:
    """What managing pods came to: the pods that went, how many came, and what was refused."""

    gone: list[ControlledPod] = field(default_factory=list)
    made: int = 0
    problems: list[ApiError] = field(default_factory=list)
    wait: float | None = None


class JobController:
    """Reconciles a Job; key: its reference."""

    def __init__(
        self, client: Client, pods: Informer[ControlledPod], clock: Clock, recorder: Recorder | None = None
    ) -> None:
        self._client = client
        self._recorder = recorder
        self._pods = TrackedPods(client, pods)
        self._clock = clock
        self._backoffs: dict[Ref, Backoff] = {}

    async def reconcile(self, ref: Ref) -> float | None:
        """One pass. The seconds until the next look, None if only a change is worth one. Raises ApiError."""
        job = await find(self._client, Job, ref)
        if job is None or ending_of(job) is not None:
            self._pods.forget(ref)
            self._backoffs.pop(ref, None)
            return None
        if job.spec.managed_by != OWN_MANAGER:
            return None
        claims = pure.claim(job, self._pods.beside(ref))
        if not self._pods.is_shown(ref):
            return BEHIND
        if claims.adopt or claims.release:
            await each([self._pods.take(ref, job, pod) for pod in claims.adopt])
            await each([self._pods.give_back(ref, job, pod) for pod in claims.release])
            return BEHIND
        if job.status.start_time is None and not job.spec.suspend:
            begun = msgspec.structs.replace(job.status, start_time=stamp(self._clock.now()))
            job = await self._write(job, begun)
        verdicts = await self._verdicts(job, claims.own)
        known = (job, claims.own, verdicts, self._backoffs.get(ref, Backoff()), self._clock.now())
        decided = (
            await asyncio.to_thread(pure.decide, *known) if pure.is_large(job, claims.own) else pure.decide(*known)
        )
        return await self._pass(decided)

    async def _verdicts(self, job: Job, pods: Iterable[ControlledPod]) -> dict[str, Verdict]:
        """What the failures mean by the Job's policy, which looks at more of a pod than the cache has. Raises ApiError."""
        policy, found = job.spec.pod_failure_policy, dict[str, Verdict]()

        async def one(pod: ControlledPod) -> None:
            whole = await find(self._client, Pod, ref_of(pod))
            if whole is not None and whole.metadata.uid == pod.metadata.uid:
                found[pod.metadata.uid] = judge(policy, whole)

        if policy is not None:
            await each([one(pod) for pod in pods if is_tracked(pod) and pure.is_failed(job, pod)])
        return found

    async def _pass(self, decided: tuple[Facts, JobCondition | None, Work]) -> float | None:
        facts, finished, work = decided
        job, status = facts.job, facts.job.status
        if finished is not None:
            done = await self._end_pods(facts)
            if done.problems:
                finished = None  # not before every pod was asked to end
        else:
            done = await self._manage(facts, work)
        active = len(facts.active) - len(done.gone) + done.made
        if finished is None and pure.is_complete(facts, active):
            words = "Reached expected number of succeeded pods"
            finished = pure.said(SUCCESS_MET, "CompletionsReached", words, facts.now)
        elif finished is None and job.metadata.deletion_timestamp is None:
            status = self._suspended(job, status)
        ready = facts.ready - sum(is_ready(pod) for pod in done.gone)
        status = msgspec.structs.replace(
            status, active=active, ready=max(0, ready), terminating=facts.terminating + len(done.gone)
        )
        again = await self._track(facts, status, finished)
        if done.problems:
            raise done.problems[0]
        waits = [work.wait, again, pure.time_left(job, facts.now) if finished is None else None]
        return min((max(wait, 0.01) for wait in waits if wait is not None), default=None)

    def _suspended(self, job: Job, status: JobStatus) -> JobStatus:
        """The status with what is to be said of a Job that rests, or goes on: its time begins anew."""
        told = pure.suspension(job, self._clock.now())
        if told is None:
            return status
        going_on = told.status == "False"
        self._note(job, "Normal", "Resumed" if going_on else "Suspended", told.message)
        others = [c for c in status.conditions or () if c.type != SUSPENDED]
        began = stamp(self._clock.now()) if going_on else None
        return msgspec.structs.replace(status, conditions=[*others, told], start_time=began)

    async def _end_pods(self, facts: Facts) -> _Done:
        """Asks what still runs to end; it is held until it is counted."""
        done, at = _Done(), ref_of(facts.job)

        async def one(pod: ControlledPod) -> None:
            await self._pods.delete(at, pod)
            self._deleted(facts.job, pod, done)

        await self._try(facts.job, done, [_of(one, pod) for pod in facts.active])
        return done

    async def _manage(self, facts: Facts, work: Work) -> _Done:
        """Deletes pods, or makes some. Pods that go because they are too many are let go first: they count for nothing."""
        done, at, job = _Done(), ref_of(facts.job), facts.job

        async def end(pod: ControlledPod) -> None:
            await self._pods.let_go(at, pod)
            await self._pods.delete(at, pod)
            self._deleted(job, pod, done)

        async def make(body: bytes) -> None:
            made = await self._pods.create(at, body)
            done.made += 1
            self._note(job, "Normal", "SuccessfulCreate", f"Created pod: {made.metadata.name}")

        if work.delete:
            await self._try(job, done, [_of(end, pod) for pod in work.delete])
            return done
        refused = await in_batches([_of(make, body) for body in _bodies(facts, work)])
        if refused:
            self._note(job, "Warning", "FailedCreate", f"Error creating: {refused[0]}")
        done.problems += refused
        return done

    def _deleted(self, job: Job, pod: ControlledPod, done: _Done) -> None:
        done.gone.append(pod)
        self._note(job, "Normal", "SuccessfulDelete", f"Deleted pod: {pod.metadata.name}")

    async def _try(self, job: Job, done: _Done, steps: Sequence[Callable[[], Awaitable[None]]]) -> None:
        async def one(step: Callable[[], Awaitable[None]]) -> None:
            try:
                await step()
            except ApiError as refused:
                done.problems.append(refused)

        await each([one(step) for step in steps])
        if done.problems:
            self._note(job, "Warning", "FailedDelete", f"Error deleting: {done.problems[0]}")

    async def _track(self, facts: Facts, status: JobStatus, finished: JobCondition | None) -> float | None:
        """Notes in the status which pods ended, lets them go, counts them; and ends the Job when nothing is left."""
        at = ref_of(facts.job)
        large = pure.is_large(facts.job, facts.pods)
        known = (facts, status, finished)
        tracked = await asyncio.to_thread(tracking.track, *known) if large else tracking.track(*known)
        job = await self._write(facts.job, tracked.status)
        self._backoffs[at] = facts.backoff
        held, problems = {pod.metadata.uid for pod in facts.pods if is_tracked(pod)}, list[ApiError]()

        async def one(pod: ControlledPod) -> None:
            try:
                await self._pods.let_go(at, pod)
                held.discard(pod.metadata.uid)
            except ApiError as refused:
                problems.append(refused)

        await each([one(pod) for pod in tracked.let_go])
        final = tracking.counted(job.status, held)
        end = tracking.ended(facts, final, tracked) if not problems else None
        await self._write(job, end or final)
        if end is not None and tracked.final is not None:
            self._tell_end(job, final, tracked.final)
        if problems:
            raise problems[0]
        return MORE if tracked.more else None

    def _tell_end(self, job: Job, status: JobStatus, final: JobCondition) -> None:
        if final.type != COMPLETE:
            self._note(job, "Warning", final.reason, final.message)
            return
        if job.spec.completions is not None and status.succeeded > job.spec.completions:
            words = "Too many succeeded pods running after completion count reached"
            self._note(job, "Warning", "TooManySucceededPods", words)
        self._note(job, "Normal", "Completed", "Job completed")

    def _note(self, job: Job, kind: str, reason: str, message: str) -> None:
        if self._recorder is not None:
            self._recorder.event(job, kind, reason, message)

    async def _write(self, job: Job, status: JobStatus) -> Job:
        """The Job with the status, written if it changes. Raises ApiError, also if somebody else wrote meanwhile."""
        if status == job.status:
            return job
        meta = {"uid": job.metadata.uid, "resourceVersion": job.metadata.resource_version}
        wanted = {**dict.fromkeys(_FIELDS), **msgspec.to_builtins(status)}
        if status.uncounted_terminated_pods is not None:
            noted = msgspec.to_builtins(status.uncounted_terminated_pods)
            wanted["uncountedTerminatedPods"] = {"succeeded": None, "failed": None, **noted}
        wanted["ready"] = status.ready
        wanted["terminating"] = status.terminating
        return await self._client.patch(Job, ref_of(job), {"metadata": meta, "status": wanted}, subresource="status")


def _of(work: Callable[..., Awaitable[None]], *what: object) -> Callable[[], Awaitable[None]]:
    return lambda: work(*what)


def _bodies(facts: Facts, work: Work) -> list[bytes]:
    """The pods to make, as they are sent."""
    if not facts.indexed:
        return [orjson.dumps(pod_of(facts.job))] * work.create
    found = []
    for index in work.indexes:
        before = facts.delayed.get(index)
        verdict = facts.verdict(before) if before is not None else Verdict()
        found.append(orjson.dumps(indexed_pod_of(facts.job, index, before, verdict)))
    return found
