"""What to do next for one pod: pure, from the pod, the runtime's view and the waits that are due."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from polder.api.core import Pod
from polder.api.podspec import Container
from polder.node.pods.configs import IMAGE_ANNOTATION
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

    ``finished``: every container ended and none will start again. ``wake``: look again after so many seconds.
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


def restarts(pod: Pod, exit_code: int, *, init: bool) -> bool:
    """Whether a container that ended starts again under the pod's restart policy."""
    policy = pod.spec.restart_policy
    if init:
        return exit_code != 0 and policy != "Never"
    return policy == "Always" or (policy == "OnFailure" and exit_code != 0)


def is_finished(pod: Pod, view: View) -> bool:
    """Whether every container has ended for good, or an init container failed for good."""
    for container in pod.spec.init_containers or []:
        last = view.latest(container.name)
        if last is not None and last.state == ContainerState.EXITED and last.exit_code != 0:
            return not restarts(pod, last.exit_code, init=True)
    ended = [view.latest(c.name) for c in pod.spec.containers]
    return bool(ended) and all(
        last is not None and last.state == ContainerState.EXITED and not restarts(pod, last.exit_code, init=False)
        for last in ended
    )


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
            start=tuple(pod.spec.init_containers[:1] if pod.spec.init_containers else pod.spec.containers),
        )
    start, delayed, wake = _to_start(pod, view, current.id, wait)
    return Plan(
        stop_containers=_to_stop(pod, view, probed),
        stop_sandboxes=tuple(s.id for s in dead if s.ready),
        # An older sandbox stays while it holds the only record of a container's restarts.
        remove_sandboxes=tuple(s.id for s in dead if not _only_record(pod, view, s.id)),
        remove_containers=_leftovers(view),
        start=start,
        delayed=delayed,
        wake=wake,
    )


def _only_record(pod: Pod, view: View, sandbox: str) -> bool:
    names = [c.name for c in [*pod.spec.containers, *(pod.spec.init_containers or [])]]
    latest = [view.latest(name) for name in names]
    return any(found is not None and found.sandbox == sandbox for found in latest)


def _to_start(
    pod: Pod, view: View, sandbox: str, wait: Wait
) -> tuple[tuple[Container, ...], tuple[str, ...], float | None]:
    for container in pod.spec.init_containers or []:
        last = view.latest(container.name, sandbox)
        if last is None:
            return (container,), (), None
        if last.state != ContainerState.EXITED:
            return (), (), None
        if last.exit_code != 0:
            left = wait(container, last)
            return ((), (container.name,), left) if left > 0 else ((container,), (), None)
    start, delayed, wake = [], [], None
    for container in pod.spec.containers:
        last = view.latest(container.name, sandbox)
        if last is None:
            start.append(container)
        elif last.state == ContainerState.EXITED and restarts(pod, last.exit_code, init=False):
            left = wait(container, last)
            if left > 0:
                delayed.append(container.name)
                wake = left if wake is None else min(wake, left)
            else:
                start.append(container)
    return tuple(start), tuple(delayed), wake


def _to_stop(pod: Pod, view: View, probed: Mapping[str, Probed]) -> tuple[Stop, ...]:
    """Containers that the runtime lost sight of, that failed a probe, or whose image was changed: stopped, they count as ended
    and start again under the pod's policy.
    """
    images = {c.name: c.image for c in pod.spec.containers}
    found = []
    for info in view.running():
        made_from = info.annotations.get(IMAGE_ANNOTATION)
        changed = made_from is not None and info.name in images and made_from != images[info.name]
        said = probed.get(info.id)
        if said is not None and said.failed:
            found.append(Stop(info, f"{said.failed}, will be restarted", said.grace))
        elif changed:
            found.append(Stop(info, f"Container {info.name} definition changed, will be restarted"))
        elif info.state == ContainerState.UNKNOWN:
            found.append(Stop(info, f"Container {info.name} is in an unknown state, will be restarted"))
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
