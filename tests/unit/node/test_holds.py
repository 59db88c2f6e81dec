"""A container that does not start is tried again in its time."""

from __future__ import annotations

from datetime import UTC, datetime

from polder.node.pods.holds import Holds
from tests.unit.node.podkit import pod


class HandClock:
    def __init__(self) -> None:
        self.at = 100.0

    def monotonic(self) -> float:
        return self.at

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.at, UTC)


def test_what_comes_back_of_its_own_report_tries_nothing() -> None:
    clock = HandClock()
    holds = Holds(clock)
    assert holds.left(pod(), "a") == 0
    assert holds.fail(pod(), "a", 2.0) == 2.0
    clock.at += 0.5
    assert holds.left(pod(resourceVersion="2"), "a") == 1.5
    assert holds.left(pod(), "b") == 0, "another container waits for nobody"
    clock.at += 2
    assert holds.left(pod(), "a") == 0


def test_what_its_user_changed_is_tried_at_once() -> None:
    holds = Holds(HandClock())
    holds.fail(pod(), "a", 10.0)
    assert holds.left(pod(labels={"x": "y"}), "a") == 0
    assert holds.left(pod({"containers": [{"name": "a", "image": "i:2"}]}), "a") == 0
