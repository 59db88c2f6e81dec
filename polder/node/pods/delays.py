"""Why containers of one pod wait: the back-off of those that end again and again, and what is told of them."""

from __future__ import annotations

from collections.abc import Iterable

from polder.api.core import ContainerStateWaiting, Pod
from polder.api.podspec import Container
from polder.node.pods.backoff import Backoff
from polder.node.pods.configs import IMAGE_ANNOTATION
from polder.node.pods.context import Context
from polder.node.pods.ports import WARNING, part_of
from polder.node.pods.view import View
from polder.system.cri_types import ContainerInfo


class Delays:
    """``waiting``: what is told of each container that waits, by name."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._restarts = Backoff()
        self.waiting: dict[str, ContainerStateWaiting] = {}

    def left(self, container: Container, last: ContainerInfo) -> float:
        """Seconds that a container which ended still waits; none after its image was changed: what failed was another one."""
        if last.annotations.get(IMAGE_ANNOTATION, container.image) != container.image:
            self._restarts.clear(container.name)
            return 0.0
        self._restarts.seed(container.name, last.attempt, last.started / 1e9)
        return self._restarts.remaining(container.name, self._ctx.clock.now().timestamp(), last.finished / 1e9)

    def tell(self, pod: Pod, view: View, delayed: Iterable[str]) -> None:
        """Notes who waits now, in upstream's words, and an event for each that is new."""
        for info in view.running():
            self.waiting.pop(info.name, None)
        for name in delayed:
            delay, meta = self._restarts.delay(name), pod.metadata
            place = f"{meta.name}_{meta.namespace}({meta.uid})"
            words = f"back-off {_duration(delay)} restarting failed container={name} pod={place}"
            waiting = ContainerStateWaiting(reason="CrashLoopBackOff", message=words)
            if self.waiting.get(name) != waiting:
                self.waiting[name] = waiting
                message = f"Back-off restarting failed container {name} in pod {place}"
                self._ctx.recorder.event(pod, WARNING, "BackOff", message, part_of(pod, name))

    def hold(self, name: str, reason: str, message: str) -> None:
        """A container that could not be made waits for its next try."""
        self.waiting[name] = ContainerStateWaiting(reason=reason, message=message)

    def began(self, name: str, attempt: int) -> None:
        """A container was started; not for the first time, if ``attempt`` says so."""
        self.waiting.pop(name, None)
        if attempt > 0:
            self._restarts.raise_(name, self._ctx.clock.now().timestamp())


def _duration(seconds: float) -> str:
    whole = int(seconds)
    return f"{whole // 60}m{whole % 60}s" if whole >= 60 else f"{whole}s"
