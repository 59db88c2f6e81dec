"""One pod's worker: looks at what the API wants and what the runtime has, does the next steps, reports, waits."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from typing import Any

import msgspec

from polder.api.core import Pod, PodStatus
from polder.api.podspec import Container, EphemeralContainer
from polder.base.errors import PermanentError, PolderError, RetryableError
from polder.loop.wait import wait_set
from polder.node.pods import ending, plan, starting
from polder.node.pods.context import Context
from polder.node.pods.delays import Delays
from polder.node.pods.holds import Holds
from polder.node.pods.judging import deadline_left, judge
from polder.node.pods.mounts import make_volumes, refresh_volumes
from polder.node.pods.observe import Observer
from polder.node.pods.ports import WARNING
from polder.node.pods.reporter import Reporter
from polder.node.pods.resizing import Resizing, earliest
from polder.node.pods.restarts import is_sidecar
from polder.node.pods.sizes import disrupted
from polder.node.pods.starting import Sandbox, Start, StartError
from polder.node.pods.status import OWN, TERMINAL, Facts, Verdict, build_status
from polder.node.pods.stopping import Grace, Stopping
from polder.node.pods.targets import place_of, running_of, targets_of
from polder.node.pods.view import View
from polder.node.probes.prober import Prober
from polder.node.volumes.mounting import Mounted
from polder.system.cri_types import RuntimeFailureError

log = logging.getLogger(__name__)

RESYNC = 60.0
"""Seconds after which a pod is looked at though nothing was heard of it."""
HASTE = 1
"""Seconds that a pod has to end when the node is short of something."""
FIRST_RETRY, LONGEST_RETRY = 1.0, 60.0


class PodWorker:
    """Runs one pod, named by its UID, from first sight until nothing of it is left on the node."""

    def __init__(self, ctx: Context, uid: str, pod: Pod | None) -> None:
        self._ctx = ctx
        self._uid = uid
        # As last seen in the API; kept when it is gone, for its last grace and events.
        self._pod = pod
        self._gone = pod is None
        self._wake = asyncio.Event()
        self._ends = asyncio.Event()
        self._observer = Observer(ctx.cri, uid)
        self._reporter = Reporter(ctx.cluster)
        self._delays = Delays(ctx)
        self._holds = Holds(ctx.clock)
        self._prober = Prober(ctx.means, ctx.recorder, ctx.clock, self._wake.set, ctx.since)
        self._verdict: Verdict | None = None
        self._evicted = False
        self._grace: Grace | None = None
        self._hooked: set[str] = set()
        self._failures = 0
        self._status: PodStatus | None = None
        self._resizing = Resizing(ctx, uid, self._wake.set)
        self._note_end()

    def see(self, pod: Pod | None) -> None:
        """The pod as it now is in the API; None: it is gone."""
        self._gone = pod is None
        self._pod = pod if pod is not None else self._pod
        if pod is not None:
            self._reporter.shown(pod.status)
        self._note_end()
        self._wake.set()

    @property
    def pod(self) -> Pod | None:
        """The pod as last seen in the API; None for an orphan."""
        return self._pod

    def wake(self) -> None:
        """Something in the runtime changed."""
        self._wake.set()

    def evict(self, message: str) -> bool:
        """Ends the pod for good: the node is short of something. Whether that is news."""
        pod = self._pod
        if self._verdict is not None or self._ends.is_set() or pod is None or pod.status.phase in TERMINAL:
            return False
        self._verdict, self._evicted = Verdict("Evicted", message), True
        self._ctx.recorder.event(pod, WARNING, "Evicted", message)
        self._wake.set()
        return True

    def _note_end(self) -> None:
        if self._gone or (self._pod is not None and self._pod.metadata.deletion_timestamp is not None):
            self._ends.set()

    async def run(self) -> None:
        """Until the pod has left the node."""
        try:
            while True:
                self._wake.clear()
                delay = await self._turn()
                if delay is None:
                    return
                await wait_set(self._wake, delay)
        finally:
            self._resizing.free()
            await self._prober.close()
            await self._reporter.close()

    async def _turn(self) -> float | None:
        """One look; seconds until the next, None when all is done."""
        try:
            if self._ends.is_set():
                await self._end()
                return None
            delay = await self._sync()
            self._failures = 0
            return 0.0 if self._ends.is_set() else delay
        except _EndedError:
            return 0.0
        except RuntimeFailureError as error:
            log.info("pod %s: %s", self._uid, error)
            return 1.0 if error.away else self._retry()
        except (PolderError, OSError) as error:
            log.warning("pod %s: %s", self._uid, error)
            return self._retry()

    def _retry(self) -> float:
        self._failures += 1
        return min(FIRST_RETRY * (1 << min(self._failures - 1, 8)), LONGEST_RETRY)

    async def _sync(self) -> float:
        """A pod that should run, or has ended and stays as a record."""
        pod = self._pod
        assert pod is not None
        view = await self._look(pod)
        pod = self._resizing.granted(pod, view)
        await self._judge(pod)
        if self._verdict is not None or pod.status.phase in TERMINAL:
            return await self._rest(pod, view)
        todo = plan.make_plan(pod, view, self._delays.left, self._prober.says())
        if todo.finished:
            return await self._finish(pod, view, todo)
        if stops := (*todo.stop_containers, *self._resizing.stops(pod, view)):
            await self._stop_some(pod, view, stops)
            return 0.0
        todo = replace(todo, wake=earliest(todo.wake, await self._resizing.actuate(pod, view)))
        await self._clear_away(todo)
        self._delays.tell(pod, view, todo.delayed)
        if not todo.start:
            self._report(pod, view)
            await refresh_volumes(self._ctx, pod)
            return self._next_look(pod, todo)
        if todo.new_sandbox is not None:
            self._report(pod, view)
        try:
            volumes = await self._prepare(pod, todo)
            sandbox = await self._sandbox(pod, view, todo)
            delay = await self._start(pod, sandbox, todo.start, volumes)
        finally:
            view = await self._look(pod)
            self._report(pod, view)
        if delay is None and (len(view.running()) < len(todo.start) or any(is_sidecar(c) for c in todo.start)):
            return 0.0  # something ended already, could not start, or the next one's turn has come
        return delay if delay is not None else self._next_look(pod, todo)

    def _next_look(self, pod: Pod, todo: plan.Plan) -> float:
        known = (RESYNC, todo.wake, self._ctx.volumes.refresh_after(pod), deadline_left(self._ctx, pod))
        return max(0.01, min(float(seconds) for seconds in known if seconds is not None))

    # --- what ends a pod by the node's own judgement ---

    async def _judge(self, pod: Pod) -> None:
        if self._verdict is not None:
            return
        found = await judge(self._ctx, pod, self._resizing.refused)
        if self._verdict is None and found is not None:  # it may have been evicted meanwhile
            self._verdict = found
            self._ctx.recorder.event(pod, WARNING, self._verdict.reason, self._verdict.message)

    async def _rest(self, pod: Pod, view: View) -> float:
        """A pod that ended for good: nothing runs; its containers stay as records until it is deleted."""
        seconds = HASTE if self._evicted else pod.spec.termination_grace_period_seconds
        await self._stop_all(pod, view, Grace(self._ctx.clock, seconds))
        self._resizing.free()
        for sandbox in view.sandboxes:
            if sandbox.ready:
                await self._ctx.cri.stop_sandbox(sandbox.id)
        if self._verdict is not None:
            self._report(pod, await self._look(pod))
        return RESYNC

    async def _finish(self, pod: Pod, view: View, todo: plan.Plan) -> float:
        """Every container has ended for good: sidecars end too, then the sandbox."""
        await self._stop_all(pod, view, Grace(self._ctx.clock, pod.spec.termination_grace_period_seconds))
        await self._clear_away(todo)
        self._resizing.free()
        self._report(pod, await self._look(pod))
        return RESYNC

    async def _look(self, pod: Pod, *, ending: bool = False) -> View:
        """What the runtime has; exactly those containers are probed that run."""
        view = await self._observer.observe()
        targets = await targets_of(self._ctx, self._observer, pod, view)
        self._prober.follow(pod, running_of(pod, view, targets), ending=ending)
        return view

    # --- stopping ---

    async def _stop_some(self, pod: Pod, view: View, stops: tuple[plan.Stop, ...]) -> None:
        """Stops containers that are to start again."""
        targets = await targets_of(self._ctx, self._observer, pod, view)
        for stop in stops:
            seconds = pod.spec.termination_grace_period_seconds if stop.grace is None else stop.grace
            stopping = Stopping(self._ctx, pod, targets, Grace(self._ctx.clock, seconds), self._hooked)
            await self._while_reporting(stopping.one(stop.info, stop.why), replaced=stop.info.id)

    async def _stop_all(self, pod: Pod, view: View, grace: Grace) -> None:
        """Stops everything that runs of a pod that is not being deleted."""
        if view.running():
            targets = await targets_of(self._ctx, self._observer, pod, view)
            stopping = Stopping(self._ctx, pod, targets, grace, self._hooked)
            await self._while_reporting(stopping.all(view.running()))

    async def _while_reporting(
        self, work: Coroutine[Any, Any, None], shorten: Callable[[], None] | None = None, replaced: str = ""
    ) -> None:
        """Does what takes long, and shows meanwhile what becomes of the pod. Given up when the pod is to end, unless this is its
        end: then ``shorten`` is called at each change. Of a container that starts again at once (``replaced``) the moment in
        between is not shown, as upstream.
        """
        task = asyncio.create_task(work)
        try:
            while not task.done():
                self._wake.clear()
                wake = asyncio.create_task(self._wake.wait())
                await asyncio.wait({task, wake}, return_when=asyncio.FIRST_COMPLETED)
                wake.cancel()
                if task.done():
                    break
                if shorten is not None:
                    shorten()
                elif self._ends.is_set():
                    raise _EndedError(f"pod {self._uid} is to end")
                if self._pod is not None:
                    view = await self._look(self._pod, ending=shorten is not None)
                    if not replaced or any(info.id == replaced for info in view.running()):
                        self._report(self._pod, view)
            task.result()
        finally:
            task.cancel()
            await asyncio.wait({task})

    # --- steps ---

    async def _clear_away(self, todo: plan.Plan) -> None:
        for sandbox in todo.stop_sandboxes:
            await self._ctx.cri.stop_sandbox(sandbox)
        for container in todo.remove_containers:
            await self._ctx.cri.remove_container(container)
        for sandbox in todo.remove_sandboxes:
            await self._ctx.cri.remove_sandbox(sandbox)

    async def _prepare(self, pod: Pod, todo: plan.Plan) -> Mapping[str, Mounted]:
        """The pod's volumes, and at the same time the network of a sandbox that is to be made."""
        network = self._network(pod) if todo.new_sandbox is not None and not pod.spec.host_network else asyncio.sleep(0)
        volumes, failed = await asyncio.gather(make_volumes(self._ctx, pod), network, return_exceptions=True)
        if isinstance(volumes, BaseException):
            raise volumes
        if failed is not None:
            raise failed
        return volumes

    async def _network(self, pod: Pod) -> None:
        try:
            await self._unless_ended(self._ctx.prepare(pod))
        except (RetryableError, PermanentError) as error:
            self._ctx.recorder.event(pod, WARNING, "NetworkNotReady", f"network is not ready: {error}")
            raise

    async def _sandbox(self, pod: Pod, view: View, todo: plan.Plan) -> Sandbox:
        if todo.new_sandbox is None:
            assert view.sandbox is not None
            return Sandbox(view.sandbox.id, view.sandbox.metadata.attempt, view.addresses)
        return await starting.start_sandbox(self._ctx, pod, todo.new_sandbox)

    async def _start(
        self, pod: Pod, sandbox: Sandbox, containers: tuple[Container, ...], volumes: Mapping[str, Mounted]
    ) -> float | None:
        """Starts containers; one that fails does not hold up the others. Answers seconds until the next try."""
        retry: float | None = None
        view, place = await asyncio.gather(
            self._observer.observe(), place_of(self._ctx, self._observer, pod, sandbox.id)
        )
        for container in containers:
            if (left := self._holds.left(pod, container.name)) > 0:
                retry = earliest(retry, left)
                continue
            attempt = view.next_attempt(container.name)
            start = Start(pod, container, attempt, sandbox, volumes, place, _target(view, container))
            try:
                await self._unless_ended(starting.start_container(self._ctx, start))
            except StartError as error:
                self._delays.hold(container.name, error.reason, str(error))
                retry = earliest(retry, self._holds.fail(pod, container.name, error.after))
            else:
                self._delays.began(container.name, attempt)
        return retry

    async def _unless_ended(self, step: Coroutine[Any, Any, None]) -> None:
        """A step that may take long, given up when the pod is to end."""
        task = asyncio.create_task(step)
        ends = asyncio.create_task(self._ends.wait())
        try:
            await asyncio.wait({task, ends}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise _EndedError(f"pod {self._uid} is to end")
            task.result()
        finally:
            ends.cancel()
            if not task.done():  # the worker itself was told to end
                task.cancel()
                await asyncio.wait({task})

    # --- the end ---

    async def _end(self) -> None:
        ctx, pod, view = self._ctx, self._pod, await self._observer.observe()
        if self._grace is None:
            self._grace = Grace(ctx.clock, ending.grace_of(pod, view))
        grace, targets = self._grace, {} if pod is None else await targets_of(ctx, self._observer, pod, view)
        stopping = Stopping(ctx, pod, targets, grace, self._hooked)
        await self._while_reporting(
            stopping.all(view.running()), lambda: grace.shorten(ending.grace_of(self._pod, view))
        )
        view = await self._observer.observe()
        if self._pod is not None and view.containers:
            self._report(self._pod, view, ended=True)
        await ending.remove_sandboxes(ctx, view)
        await ending.clean_up(ctx, self._uid)
        if self._pod is not None and not self._gone:
            await self._reporter.flush()
            await ctx.cluster.forget(self._pod)

    def _report(self, pod: Pod, view: View, *, ended: bool = False) -> None:
        if self._gone:
            return
        base = self._with_own_status(self._pod if self._pod is not None else pod)
        facts = Facts(
            view,
            self._ctx.clock.now(),
            self._ctx.machine.host_ip,
            self._delays.waiting,
            self._observer.messages,
            None if view.running() else self._verdict,
            self._prober.says(),
            ended,
        )
        self._status = self._resizing.shown(build_status(base, facts), base)
        if self._evicted and self._verdict is not None:
            self._status = disrupted(self._status, self._verdict.message, self._ctx.clock.now())
        self._reporter.report(base, self._status)

    def _with_own_status(self, pod: Pod) -> Pod:
        """The pod with the status that we last built, which the informer may not show yet; times hang on it."""
        if self._status is None:
            return pod
        own = [c for c in self._status.conditions or [] if c.type in OWN]
        others = [c for c in pod.status.conditions or [] if c.type not in OWN]
        return msgspec.structs.replace(pod, status=msgspec.structs.replace(self._status, conditions=[*others, *own]))


def _target(view: View, container: Container) -> str:
    """The container whose processes an ephemeral one sees, by id; empty for none."""
    name = container.target_container_name if isinstance(container, EphemeralContainer) else ""
    return next((info.id for info in view.running() if name and info.name == name), "")


class _EndedError(PolderError):
    """A step was given up because the pod is to end."""
