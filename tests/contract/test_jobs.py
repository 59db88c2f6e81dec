"""Jobs over a real server under the whole of the controllers; a stand-in ends pods as a node would."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.contract.conftest import Api
from tests.contract.controlled import SETTINGS, WallClock, controlled, until

NS = "/api/v1/namespaces/default"
JOBS = "/apis/batch/v1/namespaces/default/jobs"
INDEX = "batch.kubernetes.io/job-completion-index"
Fate = Callable[[dict[str, Any]], dict[str, Any] | None]
"""The status that a pod gets, None: it stays as it is."""


@pytest.fixture
def clock() -> WallClock:
    return WallClock()


@pytest.fixture
async def api(running: Any, admin: Api, clock: WallClock) -> AsyncIterator[Api]:
    async with controlled(running, replace(SETTINGS, clock=clock, clock_period=0.1)):
        yield admin.at("acme")


@pytest.fixture
async def fate(api: Api) -> AsyncIterator[list[Fate]]:
    """What happens to pods that have not ended, as long as the list has somebody who says so."""
    fates: list[Fate] = []

    async def work() -> None:
        while True:
            for pod in await pods(api) if fates else ():
                if pod["status"].get("phase") in ("Succeeded", "Failed"):
                    continue
                status = fates[-1](pod)
                if status is not None:
                    await api.patch(f"{NS}/pods/{pod['metadata']['name']}/status", {"status": status})
            await asyncio.sleep(0.03)

    task = asyncio.create_task(work())
    yield fates
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def ended(code: int = 0) -> dict[str, Any]:
    state = {
        "terminated": {"exitCode": code, "finishedAt": "2026-01-01T00:00:00Z", "startedAt": "2026-01-01T00:00:00Z"}
    }
    said = {"name": "c", "state": state, "image": "one", "imageID": "", "ready": False, "restartCount": 0}
    return {"phase": "Failed" if code else "Succeeded", "containerStatuses": [said]}


async def pods(api: Api) -> list[Any]:
    return (await api.get(f"{NS}/pods")).json["items"]  # type: ignore[no-any-return]


def job(name: str, **spec: Any) -> dict[str, Any]:
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "one"}]}}
    return {"metadata": {"name": name}, "spec": {"template": template, **spec}}


async def made(api: Api, name: str, **spec: Any) -> None:
    answer = await api.post(JOBS, job(name, **spec))
    assert answer.status == 201, answer.json


async def status(api: Api, name: str) -> Any:
    return (await api.get(f"{JOBS}/{name}")).json.get("status") or {}


async def ends(api: Api, name: str, kind: str, reason: str) -> Any:
    async def check() -> Any:
        found = await status(api, name)
        true = {c["type"]: c["reason"] for c in found.get("conditions") or () if c["status"] == "True"}
        return true.get(kind) == reason and found

    found = await until(check)
    assert not (found.get("uncountedTerminatedPods") or {})
    return found


async def test_a_job_runs_its_pods_to_their_end(api: Api, fate: list[Fate]):
    fate.append(lambda _: ended())
    await made(api, "sum", completions=5, parallelism=2)
    found = await ends(api, "sum", "Complete", "CompletionsReached")
    assert (found["succeeded"], found.get("failed"), found.get("active")) == (5, None, None)
    assert found["completionTime"] >= found["startTime"]
    known = await pods(api)
    assert len(known) == 5
    assert not any(pod["metadata"].get("finalizers") for pod in known)


async def test_an_indexed_job_has_each_index_once(api: Api, fate: list[Fate]):
    fate.append(lambda _: ended())
    await made(api, "each", completions=4, parallelism=4, completionMode="Indexed")
    found = await ends(api, "each", "Complete", "CompletionsReached")
    assert (found["succeeded"], found["completedIndexes"]) == (4, "0-3")
    assert sorted(pod["metadata"]["labels"][INDEX] for pod in await pods(api)) == list("0123")
    assert sorted(pod["spec"]["hostname"] for pod in await pods(api)) == [f"each-{n}" for n in range(4)]


async def test_failures_end_a_job_at_its_limit(api: Api, fate: list[Fate], clock: WallClock):
    fate.append(lambda _: ended(1))
    await made(api, "bad", backoffLimit=1)
    await asyncio.sleep(0.5)
    clock.ahead += 60
    found = await ends(api, "bad", "Failed", "BackoffLimitExceeded")
    assert (found["failed"], len(await pods(api))) == (2, 2)


async def test_each_index_has_a_limit_of_its_own(api: Api, fate: list[Fate]):
    fate.append(lambda pod: ended(int(pod["metadata"]["labels"][INDEX] == "1")))
    await made(api, "some", completions=3, parallelism=3, completionMode="Indexed", backoffLimitPerIndex=1)
    found = await ends(api, "some", "Failed", "FailedIndexes")
    assert (found["failed"], found["failedIndexes"], found["completedIndexes"]) == (2, "1", "0,2")


async def test_a_policy_says_what_a_failure_means(api: Api, fate: list[Fate]):
    fate.append(lambda _: ended(42))
    on_code = {"containerName": "c", "operator": "In", "values": [42]}
    rules = [{"action": "FailJob", "onExitCodes": on_code}]
    await made(api, "policed", completions=4, parallelism=2, podFailurePolicy={"rules": rules})
    found = await ends(api, "policed", "Failed", "PodFailurePolicy")
    assert [c["type"] for c in found["conditions"]] == ["FailureTarget", "Failed"]
    assert "failed with exit code 42 matching FailJob rule at index 0" in found["conditions"][0]["message"]


async def test_some_indexes_may_suffice(api: Api, fate: list[Fate]):
    fate.append(lambda pod: ended() if pod["metadata"]["labels"][INDEX] == "0" else None)
    rules = [{"succeededIndexes": "0"}]
    await made(api, "first", completions=3, parallelism=3, completionMode="Indexed", successPolicy={"rules": rules})
    found = await ends(api, "first", "Complete", "SuccessPolicy")
    assert (found["completedIndexes"], found.get("failed")) == ("0", None)


async def test_a_suspended_job_has_no_pods_and_goes_on(api: Api, fate: list[Fate]):
    await made(api, "rest", suspend=True, parallelism=2, completions=2)

    async def suspended(word: str) -> Any:
        found = await status(api, "rest")
        return any(c["type"] == "Suspended" and c["status"] == word for c in found.get("conditions") or ())

    await until(lambda: suspended("True"))
    assert not await pods(api)
    await api.patch(f"{JOBS}/rest", {"spec": {"suspend": False}})
    await until(lambda: suspended("False"))

    async def count(number: int) -> bool:
        return len(await pods(api)) == number

    await until(lambda: count(2))
    await api.patch(f"{JOBS}/rest", {"spec": {"suspend": True}})
    await until(lambda: count(0))
    assert (await status(api, "rest")).get("failed") is None
    await api.patch(f"{JOBS}/rest", {"spec": {"suspend": False}})
    fate.append(lambda _: ended())
    await ends(api, "rest", "Complete", "CompletionsReached")


async def test_a_deadline_and_the_time_after_the_end(api: Api, clock: WallClock):
    await made(api, "late", activeDeadlineSeconds=600, ttlSecondsAfterFinished=600)

    async def started() -> Any:
        return (await status(api, "late")).get("active") == 1

    await until(started)
    clock.ahead += 601
    await ends(api, "late", "Failed", "DeadlineExceeded")
    clock.ahead += 601

    async def gone() -> bool:
        return (await api.get(f"{JOBS}/late")).status == 404 and not await pods(api)

    await until(gone)


async def test_pods_are_taken_and_let_go_by_their_labels(api: Api):
    await made(api, "own", parallelism=1)

    async def one() -> Any:
        found = [p for p in await pods(api) if p["metadata"].get("ownerReferences")]
        return found[0] if len(found) == 1 else None

    pod = await until(one)
    name = pod["metadata"]["name"]
    await api.patch(f"{NS}/pods/{name}", {"metadata": {"ownerReferences": None}})

    async def owned() -> Any:
        found = (await api.get(f"{NS}/pods/{name}")).json["metadata"]
        return found.get("ownerReferences") and found.get("finalizers")

    await until(owned)
    await api.patch(f"{NS}/pods/{name}", {"metadata": {"labels": None}})

    async def free() -> Any:
        found = (await api.get(f"{NS}/pods/{name}")).json["metadata"]
        return not found.get("ownerReferences") and not found.get("finalizers")

    await until(free)


async def test_nobody_holds_the_pods_of_a_job_that_is_gone(api: Api):
    await made(api, "brief", parallelism=3, completions=3)

    async def three() -> bool:
        return len(await pods(api)) == 3

    await until(three)
    await api.delete(f"{JOBS}/brief?propagationPolicy=Background")

    async def none() -> bool:
        return not await pods(api)

    await until(none)


async def test_somebody_else_s_job_is_left_alone(api: Api):
    await made(api, "theirs", managedBy="example.com/other")
    await made(api, "ours")

    async def one() -> Any:
        return (await status(api, "ours")).get("active") == 1

    await until(one)
    assert not await status(api, "theirs")
    assert all(p["metadata"]["generateName"] == "ours-" for p in await pods(api))
