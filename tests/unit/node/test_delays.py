"""Containers that wait: back-off, and what is told of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from polder.base.clock import SystemClock
from polder.node.pods.configs import IMAGE_ANNOTATION
from polder.node.pods.delays import Delays
from polder.node.pods.ports import part_of
from tests.unit.node.podkit import container, pod, view


def kit() -> tuple[Delays, list[tuple[str, str]]]:
    said: list[tuple[str, str]] = []
    recorder = SimpleNamespace(event=lambda pod, kind, reason, words, part: said.append((words, part)))
    ctx: Any = SimpleNamespace(clock=SystemClock(), recorder=recorder)
    return Delays(ctx), said


def test_who_ends_again_and_again_waits_and_is_told_of_once() -> None:
    delays, said = kit()
    spec, now = pod(), int(SystemClock().now().timestamp() * 1e9)
    last = container("a", 3, code=1, started=now, finished=now)
    assert 39 < delays.left(spec.spec.containers[0], last) <= 40
    for _ in range(2):
        delays.tell(spec, view(last), ["a"])
    assert delays.waiting["a"].reason == "CrashLoopBackOff"
    assert delays.waiting["a"].message == "back-off 40s restarting failed container=a pod=p_ns(u-1)"
    assert said == [("Back-off restarting failed container a in pod p_ns(u-1)", "spec.containers{a}")]
    delays.tell(spec, view(container("a", 4)), [])
    assert delays.waiting == {}


def test_another_image_waits_for_nothing() -> None:
    delays, _ = kit()
    spec, now = pod(), int(SystemClock().now().timestamp() * 1e9)
    failed = container("a", 3, code=1, started=now, finished=now, annotations={IMAGE_ANNOTATION: "i:0"})
    assert delays.left(spec.spec.containers[0], failed) == 0
    same = container("a", 3, code=1, started=now, finished=now, annotations={IMAGE_ANNOTATION: "i:1"})
    assert delays.left(spec.spec.containers[0], same) > 0


@pytest.mark.parametrize(
    ("name", "part"),
    [("a", "spec.containers{a}"), ("i", "spec.initContainers{i}"), ("e", "spec.ephemeralContainers{e}"), ("x", "")],
)
def test_a_container_is_named_as_a_part_of_its_pod(name: str, part: str) -> None:
    others = {"initContainers": [{"name": "i"}], "ephemeralContainers": [{"name": "e"}]}
    assert part_of(pod(others), name) == part
