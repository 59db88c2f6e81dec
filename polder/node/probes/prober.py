"""The probes of a pod's containers: a task for each probe of each container that runs."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from polder.api.core import Pod
from polder.api.lifecycle import Probe
from polder.api.podspec import Container
from polder.base.clock import Clock
from polder.base.errors import PolderError
from polder.node.pods.ports import WARNING, Recorder, part_of
from polder.node.probes.attempt import Means, Target
from polder.node.probes.outcome import AttemptError, Result
from polder.node.probes.verdict import Kind, Probed, Tally, first_after

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Running:
    """A container that runs: where it is asked, when it started (seconds since the epoch), and whether the API has it as started
    and as ready, which an agent that starts takes up.
    """

    target: Target
    began: float
    was_started: bool = False
    was_ready: bool = False


@dataclass(slots=True)
class _Probing:
    """One container instance under probes."""

    running: Running
    says: Probed
    started: asyncio.Event = field(default_factory=asyncio.Event)
    tasks: dict[Kind, asyncio.Task[None]] = field(default_factory=dict)


class Prober:
    """One pod's probes. ``changed`` is called when what they say changes. ``since``: when the agent started (seconds since the
    epoch); the first attempts for containers that are older are spread over their periods.
    """

    def __init__(
        self, means: Means, recorder: Recorder, clock: Clock, changed: Callable[[], None], since: float
    ) -> None:
        self._means = means
        self._recorder = recorder
        self._clock = clock
        self._changed = changed
        self._since = since
        self._pod: Pod | None = None
        self._held: dict[str, _Probing] = {}

    def follow(self, pod: Pod, running: Mapping[str, Running], *, ending: bool) -> None:
        """Probes these containers, by id, and no others. Of a pod that ends only readiness is still asked for."""
        self._pod = pod
        for gone in self._held.keys() - running.keys():
            self._drop(self._held.pop(gone))
        for key, one in running.items():
            if key not in self._held and _probes(one.target.container):
                self._begin(key, one)
        if ending:
            for held in self._held.values():
                for kind in (Kind.STARTUP, Kind.LIVENESS):
                    task = held.tasks.pop(kind, None)
                    if task is not None:
                        task.cancel()

    def says(self) -> dict[str, Probed]:
        """By container id; a container without probes is not there."""
        return {key: held.says for key, held in self._held.items()}

    async def close(self) -> None:
        """Ends all probes."""
        tasks = [task for held in self._held.values() for task in held.tasks.values()]
        for held in self._held.values():
            self._drop(held)
        self._held.clear()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _drop(self, held: _Probing) -> None:
        for task in held.tasks.values():
            task.cancel()

    def _begin(self, key: str, one: Running) -> None:
        specs = _probes(one.target.container)
        started = Kind.STARTUP not in specs or one.was_started
        ready = started and (Kind.READINESS not in specs or one.was_ready)
        held = self._held[key] = _Probing(one, Probed(started, ready))
        if started:
            held.started.set()
        for kind, spec in specs.items():
            if kind is not Kind.STARTUP or not started:
                held.tasks[kind] = asyncio.create_task(self._run(held, kind, spec), name=f"{kind.value} {key}")

    async def _run(self, held: _Probing, kind: Kind, spec: Probe) -> None:
        specs = _probes(held.running.target.container)
        period = float(max(1, spec.period_seconds))
        earliest = self._clock.monotonic()
        if held.running.began < self._since:
            # From when the agent sees the container, not from its start-up's end: what waits for that is spread already.
            earliest += random.random() * period  # noqa: S311  spreading, not a secret
        if kind is not Kind.STARTUP:
            await held.started.wait()
        age = max(0.0, self._clock.now().timestamp() - held.running.began)
        delay = first_after(kind, spec, age, started_by_probe=Kind.STARTUP in specs)
        due = max(earliest, self._clock.monotonic() + delay)
        tally = Tally(spec)
        while True:
            await asyncio.sleep(max(0.0, due - self._clock.monotonic()))
            good = await self._attempt(held.running.target, kind, spec)
            found = None if good is None else tally.note(good)
            if found is not None and self._settle(held, kind, spec, found):
                return
            # A tick that passed during a long attempt is made up for once, not one by one.
            due = max(due + period, self._clock.monotonic())

    def _settle(self, held: _Probing, kind: Kind, spec: Probe, good: bool) -> bool:
        """Notes what a probe says now. Answers whether it has nothing more to say about this container."""
        old = held.says
        if kind is Kind.READINESS:
            held.says = Probed(old.started, good, old.failed, old.grace)
        elif not good:
            why = f"failed {kind.value.lower()} probe"
            held.says = Probed(old.started, False, why, spec.termination_grace_period_seconds)
        elif kind is Kind.STARTUP:
            ready = Kind.READINESS not in _probes(held.running.target.container)
            held.says = Probed(True, ready, old.failed, old.grace)
            held.started.set()
        if held.says != old:
            self._changed()
        return kind is Kind.STARTUP or (kind is Kind.LIVENESS and not good)

    async def _attempt(self, target: Target, kind: Kind, spec: Probe) -> bool | None:
        """One attempt; None where it could not be made and counts as nothing."""
        try:
            outcome = await self._means.probe(target, spec)
        except AttemptError as error:
            self._say(target, "Unhealthy", f"{kind.value} probe errored and resulted in unknown state: {error}")
            return None
        except (PolderError, OSError, ValueError) as error:
            log.warning("%s probe of container %s: %s", kind.value, target.id, error)
            return None
        if outcome.result is Result.FAILURE:
            self._say(target, "Unhealthy", f"{kind.value} probe failed: {outcome.output}")
        elif outcome.result is Result.WARNING:
            self._say(target, "ProbeWarning", f"{kind.value} probe warning: {outcome.output}")
        return outcome.good

    def _say(self, target: Target, reason: str, message: str) -> None:
        if self._pod is not None:
            part = part_of(self._pod, target.container.name)
            self._recorder.event(self._pod, WARNING, reason, message, part)


def _probes(container: Container) -> dict[Kind, Probe]:
    given = {
        Kind.STARTUP: container.startup_probe,
        Kind.LIVENESS: container.liveness_probe,
        Kind.READINESS: container.readiness_probe,
    }
    return {kind: spec for kind, spec in given.items() if spec is not None}
