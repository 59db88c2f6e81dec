"""What to do next for one pod: pure, from the pod, the runtime's view, what probes say and the waits that are due."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from polder.api.core import Pod
from polder.api.podspec import Container
from polder.node.pods.configs import IMAGE_ANNOTATION
from polder.node.pods.restarts import after_kill, is_sidecar, restarts, restarts_init
from polder.node.pods.view import View
from polder.node.probes.verdict import Probed
from polder.system.cri_types import ContainerInfo, ContainerState

Wait = Callable[[Container, ContainerInfo], float]
"""Seconds that a container which ended must still wait before it starts again."""
NOTHING: Mapping[str, Probed] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Stop:
    """A running container to be stopped, so that it starts again: why, and the seconds that it has, if not the pod's."""

    info: ContainerInfo
    why: str
    grace: int | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """The next steps, in the order of the fields.

    ``finished``: every container ended and none will start again; what still runs (sidecars) is to end, and the sandbox.
    ``wake``: look again after so many seconds.
    """

    finished: bool = False
    stop_containers: tuple[Stop, ...] = ()
    stop_sandboxes: tuple[str, ...] = ()
    remove_sandboxes: tuple[str, ...] = ()
    remove_containers: tuple[str, ...] = ()
    new_sandbox: int | None = None
    start: tuple[Container, ...] = ()
    delayed: tuple[str, ...] = ()
    wake: float | None = None


def is_finished(pod: Pod, view: View) -> bool:
    """Whether every container has ended for good, or an init container failed for good. Sidecars do not count."""
    for container in pod.spec.init_containers or []:
        last = view.latest(container.name)
        failed = last is not None and last.state == ContainerState.EXITED and last.exit_code != 0
        if last is not None and failed and not is_sidecar(container) and not initialized(pod, view, last.sandbox):
            return not restarts_init(pod, container, last.exit_code)
    return bool(pod.spec.containers) and all(_over(pod, view, container) for container in pod.spec.containers)


def initialized(pod: Pod, view: View, sandbox: str) -> bool:
    """Whether the init containers of a sandbox have done their part: a container was started after them."""
    return any(view.latest(c.name, sandbox) is not None for c in pod.spec.containers)


def make_plan(pod: Pod, view: View, wait: Wait, probed: Mapping[str, Probed] = NOTHING) -> Plan:
    """What is to be done now for a pod that should run. ``probed``: what probes say, by container id."""
    finished = is_finished(pod, view)
    current = view.sandbox
    dead = view.sandboxes[1:] if current is not None and (current.ready or finished) else view.sandboxes
    ready = tuple(s.id for s in view.sandboxes if s.ready)
    if finished:
        return Plan(finished=True, stop_sandboxes=ready, remove_sandboxes=tuple(s.id for s in dead))
    if current is None or not current.ready:
        attempt = 0 if current is None else current.metadata.attempt + 1
        return Plan(
            # Its containers' records hold restart counts and last states, so only older sandboxes are removed.
            stop_sandboxes=tuple(s.id for s in view.sandboxes),
            remove_sandboxes=tuple(s.id for s in view.sandboxes[1:]),
            remove_containers=_leftovers(view),
            new_sandbox=attempt,
            start=tuple(
                pod.spec.init_containers[:1]
                if pod.spec.init_containers
                else [c for c in pod.spec.containers if not _over(pod, view, c)]
            ),
        )
    starts = _Starts(pod, view, current.id, wait, probed)
    starts.consider()
    return Plan(
        stop_containers=_to_stop(pod, view, probed),
        stop_sandboxes=tuple(s.id for s in dead if s.ready),
        # An older sandbox stays while it holds the only record of a container's restarts.
        remove_sandboxes=tuple(s.id for s in dead if not _only_record(pod, view, s.id)),
        remove_containers=_leftovers(view),
        start=tuple(starts.start),
        delayed=tuple(starts.delayed),
        wake=starts.wake,
    )


def _over(pod: Pod, view: View, container: Container) -> bool:
    """Whether a container ended for good, in whatever sandbox."""
    last = view.latest(container.name)
    return last is not None and last.state == ContainerState.EXITED and not restarts(pod, container, last.exit_code)


def _every(pod: Pod) -> Sequence[Container]:
    return [*pod.spec.containers, *(pod.spec.init_containers or []), *(pod.spec.ephemeral_containers or [])]


def _only_record(pod: Pod, view: View, sandbox: str) -> bool:
    latest = [view.latest(container.name) for container in _every(pod)]
    return any(found is not None and found.sandbox == sandbox for found in latest)


@dataclass(slots=True)
class _Starts:
    """What starts in the sandbox that runs."""

    pod: Pod
    view: View
    sandbox: str
    wait: Wait
    probed: Mapping[str, Probed]
    start: list[Container] = field(default_factory=list)
    delayed: list[str] = field(default_factory=list)
    wake: float | None = None

    def consider(self) -> None:
        """Ephemeral containers at any time and once, init containers in their order, then the others."""
        for ephemeral in self.pod.spec.ephemeral_containers or []:
            if self.view.latest(ephemeral.name) is None:
                self.start.append(ephemeral)
        if not self._init():
            return
        for container in self.pod.spec.containers:
            last = self.view.latest(container.name, self.sandbox)
            if last is None:
                if not _over(self.pod, self.view, container):
                    self.start.append(container)
            elif last.state == ContainerState.EXITED and restarts(self.pod, container, last.exit_code):
                self._again(container, last)

    def _init(self) -> bool:
        """Starts what is due of the init containers; answers whether they have done their part."""
        init = self.pod.spec.init_containers or []
        done = initialized(self.pod, self.view, self.sandbox)
        began = [number for number, c in enumerate(init) if self.view.latest(c.name, self.sandbox) is not None]
        reached = len(init) if done else max(began, default=-1)
        for container in init[: max(reached, 0)]:
            if is_sidecar(container):
                self._keep(container)
        if done:
            return True
        if reached >= 0 and not self._passed(init[reached]):
            return False
        if reached + 1 < len(init):
            self.start.append(init[reached + 1])
            return False
        return True

    def _keep(self, container: Container) -> None:
        """Has a sidecar run."""
        last = self.view.latest(container.name, self.sandbox)
        if last is None:
            self.start.append(container)
        elif last.state == ContainerState.EXITED:
            self._again(container, last)

    def _passed(self, container: Container) -> bool:
        """Whether the next init container may start after this one, the last that began; starts it again where it failed."""
        last = self.view.latest(container.name, self.sandbox)
        assert last is not None
        if is_sidecar(container):
            if last.state == ContainerState.EXITED:
                self._again(container, last)
                return False
            said = self.probed.get(last.id)
            return said.started if said is not None else container.startup_probe is None
        if last.state != ContainerState.EXITED:
            return False
        if last.exit_code != 0:
            self._again(container, last)
            return False
        return True

    def _again(self, container: Container, last: ContainerInfo) -> None:
        left = self.wait(container, last)
        if left > 0:
            self.delayed.append(container.name)
            self.wake = left if self.wake is None else min(self.wake, left)
        else:
            self.start.append(container)


def _to_stop(pod: Pod, view: View, probed: Mapping[str, Probed]) -> tuple[Stop, ...]:
    """Containers that the runtime lost sight of, that failed a probe, or whose image was changed: stopped, they count as ended
    and start again under the pod's policy.
    """
    specs = {container.name: container for container in _every(pod)}
    found = []
    for info in view.running():
        container = specs.get(info.name)
        if container is None:
            continue
        made_from, said = info.annotations.get(IMAGE_ANNOTATION), probed.get(info.id)
        again = ", will be restarted" if container in pod.spec.containers and after_kill(pod, container) else ""
        what = "Container" if container in pod.spec.containers else "Init container"
        if said is not None and said.failed:
            found.append(Stop(info, f"{what} {info.name} {said.failed}{again}", said.grace))
        elif made_from is not None and made_from != container.image:
            found.append(Stop(info, f"{what} {info.name} definition changed, will be restarted"))
        elif info.state == ContainerState.UNKNOWN:
            found.append(Stop(info, f"{what} is in an unknown state, try killing it before restart"))
    return tuple(found)


def _leftovers(view: View) -> tuple[str, ...]:
    """Containers that were never started, and dead ones beyond the last two of each name."""
    seen: dict[str, int] = {}
    found = []
    for container in view.containers:
        if container.state == ContainerState.CREATED:
            found.append(container.id)
            continue
        seen[container.name] = seen.get(container.name, 0) + 1
        if seen[container.name] > 2 and container.state == ContainerState.EXITED:
            found.append(container.id)
    return tuple(found)
