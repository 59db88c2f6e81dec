"""Stopping containers: hooks, turns and the grace that they share."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest

from polder.base.clock import SystemClock
from polder.node.pods.stopping import SHORTEST, Grace, Stopping, order
from polder.node.probes.attempt import Target
from polder.node.probes.outcome import SUCCESS, AttemptError, Outcome, failure
from polder.node.probes.reach import Place
from polder.system.cri_types import RuntimeFailureError
from tests.unit.node.podkit import container, pod

HOOKED = {"name": "a", "lifecycle": {"preStop": {"exec": {"command": ["bye"]}}}}
SPEC: dict[str, Any] = {
    "containers": [HOOKED, {"name": "b"}],
    "initContainers": [
        {"name": "s", "restartPolicy": "Always"},
        {"name": "i"},
        {"name": "t", "restartPolicy": "Always"},
    ],
}


class Kit:
    """Notes what is done. Containers end after ``lasts`` seconds, or when their seconds are over."""

    def __init__(self, hook: Outcome | Exception = SUCCESS, hook_lasts: float = 0.0, **lasts: float) -> None:
        self.did: list[tuple[str, str | int]] = []
        self.events: list[tuple[str, str]] = []
        self.hook_outcome, self.hook_lasts, self.lasts = hook, hook_lasts, lasts
        recorder = SimpleNamespace(event=lambda pod, kind, reason, words, part: self.events.append((reason, part)))
        self.ctx: Any = SimpleNamespace(cri=self, recorder=recorder, means=self)

    async def stop_container(self, key: str, seconds: int) -> None:
        self.did.append((key, seconds))
        await asyncio.sleep(min(self.lasts.get(key, 0.0), seconds))
        self.did.append((key, "ended"))

    async def hook(self, target: Target, hook: object, seconds: float) -> Outcome:
        self.did.append((target.id, "hook"))
        await asyncio.sleep(self.hook_lasts)
        if isinstance(self.hook_outcome, Exception):
            raise self.hook_outcome
        self.did.append((target.id, "hooked"))
        return self.hook_outcome

    def stopping(self, seconds: float) -> Stopping:
        one = pod(SPEC)
        targets = {"a0": Target("a0", one.spec.containers[0], "10.0.0.1", Place(None))}
        return Stopping(self.ctx, one, targets, Grace(SystemClock(), seconds))


async def test_the_hook_comes_before_the_signal() -> None:
    kit = Kit()
    await kit.stopping(30).one(container("a"), "why")
    assert kit.did == [("a0", "hook"), ("a0", "hooked"), ("a0", 30), ("a0", "ended")]
    assert kit.events == [("Killing", "spec.containers{a}")]


@pytest.mark.parametrize("bad", [failure("secret"), AttemptError("no such port")])
async def test_a_hook_that_fails_is_told_and_holds_nothing_up(bad: Outcome | Exception) -> None:
    kit = Kit(bad)
    await kit.stopping(30).one(container("a"), "why")
    assert kit.did[-2:] == [("a0", 30), ("a0", "ended")]
    assert kit.events == [("Killing", "spec.containers{a}"), ("FailedPreStopHook", "spec.containers{a}")]


async def test_a_hook_has_no_more_than_the_grace_and_the_container_its_least() -> None:
    kit = Kit(hook_lasts=60)
    await kit.stopping(0.1).one(container("a"), "why")
    assert kit.did == [("a0", "hook"), ("a0", SHORTEST), ("a0", "ended")]
    at_once = Kit()
    await at_once.stopping(0).one(container("a"), "why")
    assert at_once.did[0] == ("a0", SHORTEST), "no grace, no hook"


async def test_a_hook_is_not_run_twice() -> None:
    kit = Kit()
    stopping = kit.stopping(30)
    await stopping.one(container("a"), "why")
    await stopping.one(container("a"), "why")
    assert [what for _, what in kit.did].count("hook") == 1


async def test_sidecars_end_last_and_in_reverse() -> None:
    kit = Kit(a0=0.1, b0=0.05, t0=0.05)
    await kit.stopping(30).all([container(name) for name in "asbit"])
    signals = [key for key, what in kit.did if isinstance(what, int)]
    assert set(signals[:3]) == {"a0", "b0", "i0"} and signals[3:] == ["t0", "s0"]
    done = [key for key, what in kit.did if what == "ended"]
    assert done.index("a0") < kit.did.index(("t0", "ended")) and done[-2:] == ["t0", "s0"]


async def test_sidecars_wait_no_longer_than_the_grace() -> None:
    kit = Kit(b0=60)
    stopping = kit.stopping(0.2)
    task = asyncio.create_task(stopping.all([container("b"), container("s")]))
    await asyncio.sleep(0.5)
    assert ("s0", "ended") in kit.did and ("b0", "ended") not in kit.did
    await task


async def test_a_grace_that_gets_shorter_counts_from_then_on() -> None:
    kit = Kit(hook_lasts=60, b0=60)
    stopping = kit.stopping(60)
    task = asyncio.create_task(stopping.all([container("a"), container("b")]))
    await asyncio.sleep(0.05)
    assert kit.did == [("a0", "hook"), ("b0", 60)]
    began = time.monotonic()
    stopping.grace.shorten(0.0)
    stopping.grace.shorten(50)
    await task
    assert time.monotonic() - began < 4
    assert ("a0", SHORTEST) in kit.did and ("b0", SHORTEST) in kit.did


async def test_a_runtime_that_fails_is_not_taken_for_an_end() -> None:
    kit = Kit()

    async def broken(key: str, seconds: int) -> None:
        raise RuntimeFailureError("away", away=True)

    kit.stop_container = broken  # type: ignore[method-assign]
    with pytest.raises(RuntimeFailureError):
        await kit.stopping(5).all([container("a"), container("s")])


def test_order() -> None:
    running = [container(name) for name in "asit"]
    assert order(pod(SPEC), running) == {"s0": ["a0", "t0"], "t0": ["a0"]}
    assert order(None, running) == {}
