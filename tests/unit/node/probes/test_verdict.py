"""What attempts of a probe come to: thresholds, delays, and a prober on a clock that is real and short."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from polder.api.lifecycle import Probe
from polder.api.podspec import Container
from polder.node.probes.attempt import Target
from polder.node.probes.outcome import AttemptError, Outcome, Result
from polder.node.probes.prober import Prober, Running
from polder.node.probes.reach import Place
from polder.node.probes.verdict import Kind, Probed, Tally, first_after
from tests.unit.node.podkit import pod


def test_thresholds_count_attempts_that_end_alike() -> None:
    tally = Tally(Probe(success_threshold=2, failure_threshold=3))
    said = [tally.note(good) for good in (False, False, True, True, True, False, False, False, True)]
    assert said == [None, None, None, True, True, None, None, False, None]


@pytest.mark.parametrize(
    ("kind", "spec", "age", "after"),
    [
        (Kind.READINESS, {}, 0, 0),
        (Kind.READINESS, {"initial_delay_seconds": 7}, 2, 5),
        (Kind.LIVENESS, {"period_seconds": 10}, 0, 10),
        (Kind.LIVENESS, {"period_seconds": 10, "initial_delay_seconds": 15}, 0, 15),
        (Kind.LIVENESS, {"period_seconds": 10}, 60, 0),
        (Kind.STARTUP, {"period_seconds": 10}, 0, 0),
    ],
)
def test_the_first_attempt(kind: Kind, spec: dict[str, Any], age: float, after: float) -> None:
    assert first_after(kind, Probe(**spec), age) == after


def test_liveness_after_a_start_up_probe_waits_no_further_period() -> None:
    assert first_after(Kind.LIVENESS, Probe(), 0, started_by_probe=True) == 0


class Clock:
    """Ten times as fast as the machine's."""

    def __init__(self) -> None:
        self.base = time.monotonic()

    def monotonic(self) -> float:
        return time.monotonic()

    def now(self) -> datetime:
        return datetime.fromtimestamp(1_000_000 + time.monotonic() - self.base, UTC)


class Answers:
    """Gives each probe's attempts what was written for them, the last one again and again."""

    def __init__(self, **given: list[bool | None]) -> None:
        self.given = given
        self.asked: list[str] = []

    async def probe(self, target: Target, spec: Probe) -> Outcome:
        name = (spec.exec.command or [""])[0] if spec.exec else ""
        self.asked.append(name)
        rest = self.given[name]
        good = rest.pop(0) if len(rest) > 1 else rest[0]
        if good is None:
            raise AttemptError("the runtime is away")
        return Outcome(Result.SUCCESS if good else Result.FAILURE, "because")


def running(**probes: dict[str, Any]) -> dict[str, Running]:
    spec = {
        f"{name}Probe": {"exec": {"command": [name]}, "periodSeconds": 1, **other} for name, other in probes.items()
    }
    container = msgspec.convert({"name": "a", "image": "x", **spec}, Container)
    return {"c1": Running(Target("c1", container, "10.0.0.1", Place(Path("/x"))), 999_900.0)}


class Kit:
    def __init__(self, monkeypatch: pytest.MonkeyPatch, **given: list[bool | None]) -> None:
        self.answers, self.events, self.changed = Answers(**given), [], asyncio.Event()
        recorder = SimpleNamespace(
            event=lambda pod, kind, reason, words, part: self.events.append((reason, words, part))
        )
        self.prober = Prober(self.answers, recorder, Clock(), self.changed.set, 0.0)  # type: ignore[arg-type]
        real = asyncio.sleep
        monkeypatch.setattr("polder.node.probes.prober.asyncio.sleep", lambda s: real(min(s, 0.01)))

    async def until(self, said: Probed) -> None:
        async with asyncio.timeout(5):
            while self.prober.says().get("c1") != said:
                await self.changed.wait()
                self.changed.clear()


async def test_readiness_comes_and_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    kit = Kit(monkeypatch, readiness=[False, True, False, False, False, True])
    kit.prober.follow(pod(), running(readiness={}), ending=False)
    assert kit.prober.says() == {"c1": Probed(ready=False)}
    await kit.until(Probed())
    await kit.until(Probed(ready=False))
    await kit.until(Probed())
    assert kit.events == [("Unhealthy", "Readiness probe failed: because", "spec.containers{a}")] * 4
    await kit.prober.close()


async def test_a_start_up_probe_comes_before_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    kit = Kit(monkeypatch, startup=[False, False, True], readiness=[True], liveness=[True])
    kit.prober.follow(pod(), running(startup={}, readiness={}, liveness={}), ending=False)
    assert kit.prober.says() == {"c1": Probed(started=False, ready=False)}
    await kit.until(Probed())
    assert kit.answers.asked[:3] == ["startup"] * 3
    assert "startup" not in kit.answers.asked[3:]
    await kit.prober.close()


@pytest.mark.parametrize("kind", ["liveness", "startup"])
async def test_a_container_that_fails_is_named_with_the_probes_grace(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    kit = Kit(monkeypatch, **{kind: [None, False]})
    kit.prober.follow(pod(), running(**{kind: {"terminationGracePeriodSeconds": 5}}), ending=False)
    await kit.until(Probed(kind == "liveness", False, f"failed {kind} probe", 5))
    assert len(kit.answers.asked) == 4, "one that could not be made counts as nothing, and a failed probe asks no more"
    assert kit.events[0] == (
        "Unhealthy",
        f"{kind.title()} probe errored and resulted in unknown state: the runtime is away",
        "spec.containers{a}",
    )
    kit.prober.follow(pod(), {}, ending=False)
    assert kit.prober.says() == {}
    await kit.prober.close()


async def test_of_a_pod_that_ends_readiness_alone_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    kit = Kit(monkeypatch, readiness=[True, False], liveness=[False])
    kit.prober.follow(pod(), running(readiness={}, liveness={"initialDelaySeconds": 1}), ending=True)
    await kit.until(Probed(ready=False))
    assert "liveness" not in kit.answers.asked
    await kit.prober.close()


async def test_an_agent_that_starts_takes_up_what_the_api_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    kit = Kit(monkeypatch, readiness=[True], startup=[True])
    held = running(readiness={"initialDelaySeconds": 200}, startup={})
    one = held["c1"]
    kit.prober.follow(pod(), {"c1": Running(one.target, one.began, True, True)}, ending=False)
    assert kit.prober.says() == {"c1": Probed()}
    await kit.prober.close()


@pytest.mark.parametrize("since", [0.0, 2_000_000.0], ids=["a new container", "an agent that began after it"])
async def test_readiness_is_asked_for_at_once_after_start_up(monkeypatch: pytest.MonkeyPatch, since: float) -> None:
    kit, ahead, waits = Kit(monkeypatch, startup=[False, True], readiness=[True]), [0.0], []
    clock = SimpleNamespace(monotonic=lambda: ahead[0], now=lambda: datetime.fromtimestamp(1_000_000 + ahead[0], UTC))
    real, attempt = asyncio.sleep, kit.answers.probe

    async def sleep(seconds: float) -> None:
        task = asyncio.current_task()
        if task is not None and task.get_name() == "Readiness c1" and not waits:
            waits.append(seconds)
        await real(0.001)

    async def probe(target: Target, spec: Probe) -> Outcome:
        ahead[0] += 1000.0
        return await attempt(target, spec)

    monkeypatch.setattr("polder.node.probes.prober.asyncio.sleep", sleep)
    monkeypatch.setattr("polder.node.probes.prober.random.random", lambda: 0.5)
    monkeypatch.setattr(kit.answers, "probe", probe)
    prober = Prober(kit.answers, kit.prober._recorder, clock, kit.changed.set, since)  # type: ignore[arg-type]
    kit.prober = prober
    prober.follow(pod(), running(startup={}, readiness={"periodSeconds": 600}), ending=False)
    await kit.until(Probed())
    assert waits == [0.0]
    await prober.close()
