"""A Job's controller that ends before and after each of its writes: no pod is made or counted twice."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from polder.api.batch import Job, ending_of
from polder.api.errors import ApiError
from polder.api.podfacts import ControlledPod
from polder.base.clock import SystemClock
from polder.base.ref import Ref
from polder.client.client import Client
from polder.client.informer import Informer
from polder.controllers.jobs import JobController
from tests.contract.conftest import Api
from tests.contract.controlled import ACME, CutError, CuttableClient, add_tenant, client_of
from tests.contract.test_jobs import ended, job

NS = "/api/v1/namespaces/default"
LONG_ENOUGH = 60
"""More writes than a run of the Job needs."""


@asynccontextmanager
async def process(client: Client) -> AsyncIterator[JobController]:
    """A controller as it starts: it lists, then works."""
    pods = Informer(client, ControlledPod, ACME)
    pods.add_index("namespace", lambda pod: [Ref(ACME, pod.metadata.namespace, "")])
    pods.add_index("uid", lambda pod: [pod.metadata.uid])
    following = asyncio.create_task(pods.run())
    await pods.wait_synced()
    yield JobController(client, pods, SystemClock())
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)


async def run(client: CuttableClient, api: Api, at: Ref) -> None:
    """Has the controller and a node work until the Job has ended. The first pod fails."""
    async with process(client) as controller:
        while ending_of(await client.get(Job, at)) is None:
            try:
                await controller.reconcile(at)
            except ApiError as error:
                if not error.is_conflict:
                    raise
            for pod in (await api.get(f"{NS}/pods")).json["items"]:
                mine = (pod["metadata"].get("ownerReferences") or [{}])[0].get("name") == at.name
                if mine and pod["status"].get("phase") not in ("Succeeded", "Failed"):
                    known = [
                        p for p in (await api.get(f"{NS}/pods")).json["items"] if p["status"].get("phase") == "Failed"
                    ]
                    first = not any(p["metadata"]["generateName"] == f"{at.name}-" for p in known)
                    await api.patch(f"{NS}/pods/{pod['metadata']['name']}/status", {"status": ended(int(first))})
            await asyncio.sleep(0.02)


async def test_no_pod_is_made_or_counted_twice(running: Any, admin: Api):
    client, api = client_of(running), admin.at("acme")
    await add_tenant(client, ACME)
    for number, after in itertools.product(range(1, LONG_ENOUGH), (False, True)):
        name = f"cut{number}{'a' if after else 'b'}"
        body = {"apiVersion": "batch/v1", "kind": "Job", **job(name, completions=2, parallelism=2)}
        await client.raw("POST", "/tenants/acme/apis/batch/v1/namespaces/default/jobs", json.dumps(body).encode())
        at, was_cut = Ref(ACME, "default", name), False
        client.cut(number, after=after)
        try:
            await run(client, api, at)
        except CutError:
            was_cut = True
        client.cut(None)
        await run(client, api, at)
        status = (await client.get(Job, at)).status
        assert (status.succeeded, status.failed) == (2, 1), name
        pods = [p for p in (await api.get(f"{NS}/pods")).json["items"] if p["metadata"]["generateName"] == f"{name}-"]
        assert len(pods) == 3, name
        assert not any(p["metadata"].get("finalizers") for p in pods), name
        for pod in pods:
            await api.delete(f"{NS}/pods/{pod['metadata']['name']}?gracePeriodSeconds=0")
        if not was_cut:
            assert number > 8, "too few writes were cut"
            await client.close()
            return
    raise AssertionError("more writes than expected")
