"""CronJobs over a real server: runs, what is forbidden and replaced, the history; and a controller that ends at any write."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from polder.api.batch import CronJob, Job, KnownJob
from polder.base.ref import Ref
from polder.client.informer import Informer
from polder.controllers.cronjobs import CronJobController
from tests.contract.conftest import Api
from tests.contract.controlled import ACME, SETTINGS, CutError, WallClock, add_tenant, client_of, controlled, until

NS = "/apis/batch/v1/namespaces/default"
TEMPLATE = {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "one"}]}}


def cron(name: str, schedule: str = "* * * * *", **spec: Any) -> dict[str, Any]:
    wanted = {"schedule": schedule, "jobTemplate": {"spec": {"template": TEMPLATE}}, **spec}
    return {"metadata": {"name": name}, "spec": wanted}


@pytest.fixture
async def clock() -> WallClock:
    return WallClock()


@pytest.fixture
async def api(running: Any, admin: Api, clock: WallClock) -> AsyncIterator[Api]:
    async with controlled(running, replace(SETTINGS, clock=clock, clock_period=0.05)):
        yield admin.at("acme")


async def jobs(api: Api) -> list[Any]:
    return (await api.get(f"{NS}/jobs")).json["items"]  # type: ignore[no-any-return]


async def named(api: Api, count: int) -> set[str]:
    async def check() -> Any:
        found = {job["metadata"]["name"] for job in await jobs(api)}
        return found if len(found) == count else None

    return await until(check)  # type: ignore[no-any-return]


async def status(api: Api, name: str) -> Any:
    return (await api.get(f"{NS}/cronjobs/{name}")).json.get("status") or {}


async def test_a_run_at_each_time_when_the_clock_moves_on(api: Api, clock: WallClock):
    await api.post(f"{NS}/cronjobs", cron("often", concurrencyPolicy="Allow"))
    clock.ahead += 60
    first = await named(api, 1)
    clock.ahead += 60
    both = await named(api, 2)
    assert first < both

    async def listed() -> Any:
        found = await status(api, "often")
        return len(found.get("active") or ()) == 2 and found

    found = await until(listed)
    made = {job["metadata"]["name"]: job for job in await jobs(api)}
    latest = max(made.values(), key=lambda job: str(job["metadata"]["name"]))
    told = latest["metadata"]["annotations"]["batch.kubernetes.io/cronjob-scheduled-timestamp"]
    assert told == found["lastScheduleTime"]
    assert latest["metadata"]["ownerReferences"][0]["name"] == "often"


async def test_what_is_suspended_or_forbidden_makes_no_run(api: Api, clock: WallClock):
    await api.post(f"{NS}/cronjobs", cron("still", suspend=True))
    await api.post(f"{NS}/cronjobs", cron("once", concurrencyPolicy="Forbid"))
    clock.ahead += 60
    first = await named(api, 1)
    clock.ahead += 120
    await asyncio.sleep(0.5)
    assert await named(api, 1) == first
    assert next(iter(first)).startswith("once-")
    await api.patch(f"{NS}/cronjobs/still", {"spec": {"suspend": False}})
    await named(api, 2)


async def test_a_run_replaces_the_one_before(api: Api, clock: WallClock):
    await api.post(f"{NS}/cronjobs", cron("swap", concurrencyPolicy="Replace"))
    clock.ahead += 60
    first = await named(api, 1)
    clock.ahead += 60

    async def swapped() -> Any:
        found = {job["metadata"]["name"] for job in await jobs(api)}
        return len(found) == 1 and found != first

    await until(swapped)


async def test_the_history_keeps_what_it_says(api: Api, clock: WallClock):
    await api.post(f"{NS}/cronjobs", cron("kept", successfulJobsHistoryLimit=1))
    for number in range(1, 4):
        clock.ahead += 60
        made = {job["metadata"]["name"] for job in await jobs(api)}

        async def fresh(made: set[str] = made) -> Any:
            return {job["metadata"]["name"] for job in await jobs(api)} - made

        new = (await until(fresh)).pop()
        now = datetime.now(UTC) + timedelta(seconds=number)
        met = {"lastTransitionTime": now.isoformat(timespec="seconds").replace("+00:00", "Z"), "status": "True"}
        done = [{"type": "SuccessCriteriaMet", **met}, {"type": "Complete", **met}]
        at = {"startTime": met["lastTransitionTime"], "completionTime": met["lastTransitionTime"]}
        answer = await api.patch(f"{NS}/jobs/{new}/status", {"status": {"conditions": done, **at}})
        assert answer.status == 200, answer.json
    assert await named(api, 1) == {new}
    found = await status(api, "kept")
    assert "active" not in found
    assert found["lastSuccessfulTime"] == at["completionTime"]


async def test_a_controller_that_ends_at_any_write_makes_no_run_twice(running: Any):
    """Cut before and after each write; then the history deletes what the run left, and another controller goes on."""
    client, clock = client_of(running), WallClock()
    await add_tenant(client, ACME)
    jobs = Informer(client, KnownJob, ACME)
    jobs.add_index("owner", lambda job: [o.uid for o in job.metadata.owner_references or ()])
    following = asyncio.create_task(jobs.run())
    await jobs.wait_synced()
    for number, after in itertools.product(range(1, 5), (False, True)):
        name = f"cut{number}{'a' if after else 'b'}"
        body = {"apiVersion": "batch/v1", "kind": "CronJob", **cron(name, "@hourly", successfulJobsHistoryLimit=0)}
        path = f"/tenants/acme{NS}/cronjobs"

        await client.raw("POST", path, json.dumps(body).encode())
        clock.ahead += 3600
        at = Ref(ACME, "default", name)
        client.cut(number, after=after)
        with contextlib.suppress(CutError):
            await CronJobController(client, jobs, clock).reconcile(at)
        client.cut(None)
        made = [job for job in (await client.list(Job, ACME)).items if job.metadata.name.startswith(name)]
        stamp = {"lastTransitionTime": "2026-01-01T00:00:00Z", "status": "True"}
        ended = [{"type": "SuccessCriteriaMet", **stamp}, {"type": "Complete", **stamp}]
        for job in made:
            said = {
                "conditions": ended,
                "startTime": stamp["lastTransitionTime"],
                "completionTime": "2026-01-02T00:00:00Z",
            }
            await client.patch(Job, Ref(ACME, "default", job.metadata.name), {"status": said}, subresource="status")

        async def shown(name: str = name, ended: bool = bool(made)) -> bool:
            found = [job for job in jobs.values() if job.metadata.name.startswith(name)]
            return not ended or any(job.status.completion_time for job in found)

        await until(shown)
        posted: list[str] = []

        async def note(method: str, path: str, posted: list[str] = posted) -> None:
            if method == "POST":
                posted.append(path)

        client.before = note
        for _ in range(3):
            await CronJobController(client, jobs, clock).reconcile(at)
            await asyncio.sleep(0.05)
        client.before = None
        assert len(posted) == (0 if made else 1), name
        assert (await client.get(CronJob, at)).status.last_schedule_time is not None
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    await client.close()
