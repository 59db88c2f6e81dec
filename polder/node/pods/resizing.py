"""Keeps a pod's requests and limits: grants those that the node has room for, puts them into effect in the running
containers, and says how far that is (KEP-1287, KEP-5419).

What was granted is a file in the pod's directory once a resize was granted, else what its containers were made with. What is
in effect is read from the control groups, so an agent that was killed goes on where it was.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from polder.api.core import Pod, PodCondition, PodStatus
from polder.api.podspec import Container, Resources
from polder.base.clock import stamp
from polder.node.eviction.ranking import is_exempt
from polder.node.pods import sizes
from polder.node.pods.configs import RESOURCES_ANNOTATION
from polder.node.pods.context import Context
from polder.node.pods.groups import share_classes, without_swap
from polder.node.pods.hostports import NODE_PORTS, TAKEN, ports_of
from polder.node.pods.plan import Stop
from polder.node.pods.ports import NORMAL, WARNING
from polder.node.pods.resources import (
    REQUESTS,
    RESIZABLE,
    container_resources,
    pod_amounts,
    pod_limits,
    qos_class,
)
from polder.node.pods.restarts import is_sidecar
from polder.node.pods.sizes import DEFERRED, ERROR, IN_PROGRESS, INFEASIBLE, PENDING, Sizes
from polder.node.pods.view import View
from polder.system.cgroups import Limits, Standing
from polder.system.cri_types import ContainerInfo, RuntimeFailureError
from polder.system.cri_types import Resources as Effect

log = logging.getLogger(__name__)

FILE = "sizes.json"
OVER = frozenset({"Succeeded", "Failed"})
MEMORY_TAINT = "node.kubernetes.io/memory-pressure"
RETRY = 5.0
"""Seconds until the next try to put a resize into effect that the kernel or the runtime refused."""


@dataclass(frozen=True, slots=True)
class _Update:
    """A running container whose group does not have what was granted."""

    info: ContainerInfo
    container: Container
    effect: Effect


class Resizing:
    """One pod's. ``wake`` has the worker look again."""

    def __init__(self, ctx: Context, uid: str, wake: Callable[[], None]) -> None:
        self._ctx = ctx
        self._uid = uid
        self._wake = wake
        self._granted: Sizes | None = None
        self._actual: Sizes = Sizes({})
        self._done: dict[str, Effect] = {}
        self._looked = False
        self._generation = 0
        self._restarting: set[str] = set()
        self._conditions: dict[str, PodCondition] = {}
        self.refused: tuple[str, str] | None = None
        """Why the node has no room for a pod that is new here: reason and message."""

    def granted(self, pod: Pod, view: View) -> Pod:
        """The pod with the requests and limits that it was granted."""
        asked = sizes.sizes_of(pod)
        self._generation = pod.metadata.generation
        if self._granted is None:
            self._admit(pod, view, asked)
        assert self._granted is not None
        if self._granted == asked or self._granted.same(asked):
            self._granted = asked
            self._conditions.pop(PENDING, None)
        else:
            self._decide(pod, asked)
        return sizes.with_sizes(pod, self._granted)

    def _admit(self, pod: Pod, view: View, asked: Sizes) -> None:
        """The first look: what runs already has its place; what is new must find room."""
        self._granted = self._recall(view, asked)
        self._actual = self._granted
        wanted = pod_amounts(sizes.with_sizes(pod, self._granted), REQUESTS)
        room = self._ctx.room
        over = pod.status.phase in OVER or pod.metadata.deletion_timestamp is not None
        new = not over and not view.containers and not view.sandboxes
        if new and (why := self._closed(pod)):
            self.refused = "Evicted", f"Pod was rejected: {why}"
            return
        lack = room.shortage(self._uid, wanted) if new else None
        if lack is not None:
            self.refused = f"OutOf{lack.resource}", f"Pod was rejected: {lack}"
            return
        runs = bool(view.containers or view.sandboxes)
        if pod.status.phase in OVER:
            return
        if not self._ctx.host_ports.take(self._uid, ports_of(pod), sure=runs):
            self.refused = NODE_PORTS, TAKEN
            return
        room.give(self._uid, wanted, qos_class(pod))

    def _closed(self, pod: Pod) -> str:
        """Why the node takes no new pods of this kind now. The platform's critical ones it takes always."""
        if is_exempt(pod):
            return ""
        bears = any(
            t.key in ("", MEMORY_TAINT) and t.effect in ("", "NoSchedule") and (t.key or t.operator == "Exists")
            for t in pod.spec.tolerations or []
        )
        return self._ctx.room.closed(qos_class(pod), tolerant=bears)

    @property
    def _file(self) -> Path:
        return self._ctx.places.pod(self._uid) / FILE

    def _recall(self, view: View, asked: Sizes) -> Sizes:
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=Sizes)
        except FileNotFoundError:
            pass
        except (OSError, msgspec.MsgspecError) as error:
            log.warning("what was granted to pod %s is not known: %s", self._uid, error)
        made = {info.name: info.annotations.get(RESOURCES_ANNOTATION) for info in reversed(view.containers)}
        found = {name: _unpacked(made[name], held) for name, held in asked.containers.items() if made.get(name)}
        return Sizes({**asked.containers, **found}, asked.pod)

    # --- what is granted ---

    def _decide(self, pod: Pod, asked: Sizes) -> None:
        assert self._granted is not None
        wanted = pod_amounts(pod, REQUESTS)
        now = pod_amounts(sizes.with_sizes(pod, self._granted), REQUESTS)
        lack = self._ctx.room.shortage(self._uid, wanted, now)
        if lack is None:
            self._grant(pod, asked, wanted)
            return
        reason = DEFERRED if lack.ever else INFEASIBLE
        old = self._conditions.get(PENDING)
        self._condition(PENDING, reason, str(lack), pod.metadata.generation)
        if lack.ever:
            self._ctx.room.wait(self._uid, self._wake)
        if old is None or (old.reason, old.observed_generation) != (reason, pod.metadata.generation):
            words = f"Pod resize {reason}: {sizes.summary(pod, str(lack))}"
            self._ctx.recorder.event(pod, WARNING, f"Resize{reason}", words)

    def _grant(self, pod: Pod, asked: Sizes, wanted: dict[str, int]) -> None:
        self._keep(asked)
        self._restarting.clear()
        self._granted, self._looked = asked, False
        self._ctx.room.give(self._uid, wanted, qos_class(pod))
        self._conditions = {}
        self._condition(IN_PROGRESS, "", "", pod.metadata.generation)
        self._ctx.recorder.event(pod, NORMAL, "ResizeStarted", f"Pod resize started: {sizes.summary(pod)}")

    def _keep(self, granted: Sizes) -> None:
        new = self._file.with_suffix(".new")
        new.parent.mkdir(parents=True, exist_ok=True, mode=0o711)
        new.write_bytes(msgspec.json.encode(granted))
        new.replace(self._file)

    def _condition(self, kind: str, reason: str, message: str, generation: int) -> None:
        old, now = self._conditions.get(kind), stamp(self._ctx.clock.now())
        self._conditions[kind] = PodCondition(
            type=kind,
            status="True",
            observed_generation=generation,
            reason=reason,
            message=message,
            last_transition_time=now if old is None or old.reason != reason else old.last_transition_time,
        )

    # --- what is in effect ---

    def stops(self, pod: Pod, view: View) -> tuple[Stop, ...]:
        """Containers that must start again to have what was granted."""
        found = []
        for info, container in _running(pod, view):
            text = info.annotations.get(RESOURCES_ANNOTATION)
            if text and sizes.needs_restart(container, _amounts(text)):
                found.append(Stop(info, f"Container {container.name} resize requires restart"))
                self._restarting.add(container.name)
            else:
                self._restarting.discard(container.name)
        return tuple(found)

    async def actuate(self, pod: Pod, view: View) -> float | None:
        """Puts what was granted into effect; seconds until the next try, None where nothing is left to do."""
        assert self._granted is not None
        running = _running(pod, view)
        if self._looked and IN_PROGRESS not in self._conditions:
            return None
        updates = await asyncio.to_thread(self._updates, pod, running)
        try:
            await self._apply(pod, updates)
        except (OSError, RuntimeFailureError) as error:
            seen = self._conditions.get(IN_PROGRESS)
            generation = seen.observed_generation if seen is not None else pod.metadata.generation
            if seen is None or seen.message != str(error):
                words = f"Pod resize error: {sizes.summary(pod, str(error))}"
                self._ctx.recorder.event(pod, WARNING, "ResizeError", words)
            self._condition(IN_PROGRESS, ERROR, str(error), generation)
            return RETRY
        if self._restarting:
            return RETRY
        self._looked, self._actual = True, self._granted
        if self._conditions.pop(IN_PROGRESS, None) is not None:
            self._ctx.recorder.event(pod, NORMAL, "ResizeCompleted", f"Pod resize completed: {sizes.summary(pod)}")
        return None

    def _updates(self, pod: Pod, running: list[tuple[ContainerInfo, Container]]) -> list[_Update]:
        found = []
        top = self._ctx.places.pod_cgroup(pod)
        self._done = {info.id: self._done[info.id] for info, _ in running if info.id in self._done}
        for info, container in running:
            effect = without_swap(self._ctx, container_resources(pod, container, self._ctx.machine.memory))
            now = self._ctx.cgroups.standing(f"{top}/{info.id}")
            if now is not None and self._done.get(info.id) != effect and not _has(now, effect):
                found.append(_Update(info, container, effect))
        return found

    async def _apply(self, pod: Pod, updates: list[_Update]) -> None:
        """What grows, grows from the outside in; what shrinks, from the inside out. Raises OSError, RuntimeFailureError."""
        group, wanted, cgroups = self._ctx.places.pod_cgroup(pod), pod_limits(pod), self._ctx.cgroups
        now = await asyncio.to_thread(cgroups.standing, group)
        if now is None:
            return
        await asyncio.to_thread(cgroups.ensure, group, _larger(now, wanted))
        for update in sorted(updates, key=lambda one: one.effect.memory):
            await self._ctx.cri.update_container(update.info.id, update.effect)
            self._done[update.info.id] = update.effect
        await asyncio.to_thread(cgroups.ensure, group, wanted)
        await asyncio.to_thread(share_classes, self._ctx)

    # --- what is shown ---

    def shown(self, status: PodStatus, pod: Pod) -> PodStatus:
        """The status with what was granted and what is in effect."""
        if self._granted is None:
            return status
        # What came since the last look has not been decided about, though the pod as it now is was at hand.
        status = msgspec.structs.replace(status, observed_generation=self._generation)
        conditions = [] if status.phase in OVER else list(self._conditions.values())
        return sizes.shown(status, sizes.with_sizes(pod, self._granted), self._actual, conditions)

    def free(self) -> None:
        """The pod uses nothing of the node any more."""
        self._ctx.room.free(self._uid)
        self._ctx.host_ports.free(self._uid)


def earliest(one: float | None, other: float | None) -> float | None:
    """The shorter of two waits, None being none."""
    return one if other is None else other if one is None else min(one, other)


def _running(pod: Pod, view: View) -> list[tuple[ContainerInfo, Container]]:
    sidecars = [container for container in pod.spec.init_containers or [] if is_sidecar(container)]
    specs = {container.name: container for container in [*sidecars, *pod.spec.containers]}
    return [(info, specs[info.name]) for info in view.running() if info.name in specs]


def _has(now: Standing, effect: Effect) -> bool:
    page = 4096  # version 1 rounds limits of memory down to pages
    return (now.cpu_shares, now.cpu_quota, now.memory // page) == (
        effect.cpu_shares,
        effect.cpu_quota,
        effect.memory // page,
    )


def _larger(now: Standing, wanted: Limits) -> Limits:
    """At each limit the larger one, so that containers can grow before others have shrunk."""
    quota = None if wanted.cpu_quota is None or not now.cpu_quota else max(wanted.cpu_quota, now.cpu_quota)
    memory = None if wanted.memory is None or not now.memory else max(wanted.memory, now.memory)
    return replace(wanted, cpu_quota=quota, memory=memory)


def _amounts(text: str) -> Mapping[str, dict[str, int]]:
    return msgspec.json.decode(text.encode(), type=dict[str, dict[str, int]])


def _unpacked(text: str | None, asked: Resources) -> Resources:
    """The resources that a container was made with; what no resize changes is as the spec says."""
    made = _amounts(text or "{}")

    def side(name: str, given: dict[str, str | int | float] | None) -> dict[str, str | int | float] | None:
        rest = {key: value for key, value in (given or {}).items() if key not in RESIZABLE}
        return {**sizes.written(made.get(name, {})), **rest} or None

    return Resources(requests=side("requests", asked.requests), limits=side("limits", asked.limits))
