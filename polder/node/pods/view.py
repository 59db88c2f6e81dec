"""What the runtime has of one pod."""

from __future__ import annotations

from dataclasses import dataclass

from polder.system.cri_types import ContainerInfo, ContainerState, SandboxInfo


@dataclass(frozen=True, slots=True)
class View:
    """Sandboxes and containers of one pod, the newest first."""

    sandboxes: tuple[SandboxInfo, ...] = ()
    containers: tuple[ContainerInfo, ...] = ()
    addresses: tuple[str, ...] = ()

    @property
    def sandbox(self) -> SandboxInfo | None:
        """The newest sandbox, ready or not."""
        return self.sandboxes[0] if self.sandboxes else None

    def latest(self, name: str, sandbox: str = "") -> ContainerInfo | None:
        """The newest container of this name that was started once, in one sandbox or in any.

        One that was made and never started (the agent died in between) counts for nothing: it is replaced.
        """
        for found in self.containers:
            if found.name == name and sandbox in {"", found.sandbox} and found.state != ContainerState.CREATED:
                return found
        return None

    def previous(self, name: str) -> ContainerInfo | None:
        """The one before ``latest``, if it is still there."""
        started = [c for c in self.containers if c.name == name and c.state != ContainerState.CREATED]
        return started[1] if len(started) > 1 else None

    def next_attempt(self, name: str) -> int:
        """The attempt number of the next container of this name: one more than any started one has."""
        last = self.latest(name)
        return 0 if last is None else last.attempt + 1

    def running(self) -> tuple[ContainerInfo, ...]:
        """What may still run."""
        return tuple(c for c in self.containers if c.state in {ContainerState.RUNNING, ContainerState.UNKNOWN})


def make_view(sandboxes: list[SandboxInfo], containers: list[ContainerInfo], addresses: tuple[str, ...] = ()) -> View:
    """Sorts what was listed."""
    return View(
        tuple(sorted(sandboxes, key=lambda s: (s.metadata.attempt, s.created), reverse=True)),
        tuple(sorted(containers, key=lambda c: (c.attempt, c.created), reverse=True)),
        addresses,
    )
