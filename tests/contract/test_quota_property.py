"""Quotas are exact whatever happens at once: random writes through two servers that share one store."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from polder.api.quantity import parse
from polder.apiserver.quota_recount import Recount, usage_key
from polder.apiserver.server import ApiServer
from polder.apiserver.settings import ServerSettings
from polder.base.clock import SystemClock
from polder.store.protocol import Key
from tests.contract.conftest import Api, Running
from tests.contract.test_quota import pod, quota

TENANTS = "/apis/polder.dev/v1alpha1/tenants"
HARD = {"objects": "60", "objects.bytes": "120Ki", "pods": "14", "requests.cpu": "20", "count/configmaps": "30"}


@pytest.fixture
async def two(running: Running) -> AsyncIterator[list[Api]]:
    """Clients of two servers over one store, as its platform administrator in the tenant."""
    folder = running.folder.parent
    settings = ServerSettings(folder / "s.crt", folder / "s.key", running.pki.clients_ca, port=0, stop_timeout=1.0)
    second = ApiServer(settings, running.store, running.identity.parts, SystemClock())
    await second.start()
    first = running.admin()
    other = Running(second, running.store, running.pki, running.identity, running.folder)
    made = await first.post(TENANTS, {"metadata": {"name": "acme"}, "spec": {"quota": {"hard": HARD}}})
    assert made.status == 201, made.json
    yield [first.at("acme"), Api(other, running.sessions[-1], "/tenants/acme")]
    await second.stop()


class Chaos:
    """One who writes at random, and knows what was answered."""

    def __init__(self, seed: int, apis: list[Api]) -> None:
        self.chance = random.Random(seed)
        self.api = apis[seed % len(apis)]
        self.name = f"w{seed}"
        self.mine: list[str] = []

    async def step(self, number: int) -> int:
        namespace = self.chance.choice(["default", "other"])
        base = f"/api/v1/namespaces/{namespace}"
        name = f"{self.name}-{number}"
        match self.chance.randrange(7):
            case 0 | 1:
                path, body = f"{base}/pods", pod(name, {"cpu": self.chance.choice(["250m", "1", "3"])})
            case 2 | 3:
                text = "x" * self.chance.randrange(6000)
                path, body = f"{base}/configmaps", {"metadata": {"name": name}, "data": {"a": text}}
            case 4 if self.mine:
                target = self.chance.choice(self.mine)
                change: dict[str, Any] = {"data": {"b": "y" * self.chance.randrange(9000)}}
                if "/pods/" in target:
                    target, change = (
                        f"{target}/status",
                        {"status": {"phase": self.chance.choice(["Failed", "Succeeded"])}},
                    )
                return (await self.api.patch(target, change)).status
            case _ if self.mine:
                return (await self.api.delete(self.mine.pop())).status
            case _:
                return 0
        status = (await self.api.post(path, body)).status
        if status == 201:
            self.mine.append(f"{path}/{name}")
        return status


def interleave(running: Running, seed: int) -> None:
    """Lets others go on in the middle of what a store in memory would do at once."""
    chance = random.Random(seed)
    for name in ("get", "list", "commit"):

        def wrapped(real: Any) -> Any:
            async def call(*args: Any, **kwargs: Any) -> Any:
                for _ in range(chance.randrange(4)):
                    await asyncio.sleep(0)
                return await real(*args, **kwargs)

            return call

        setattr(running.store, name, wrapped(getattr(running.store, name)))


@pytest.mark.parametrize("seed", [3, 14, 159])
@pytest.mark.parametrize("limited", [True, False])
async def test_what_is_charged_is_what_is_there(running: Running, two: list[Api], seed: int, limited: bool) -> None:
    api = two[0]
    if not limited:  # else each charge of the tenant would keep the others in line
        assert (await running.admin().patch(f"{TENANTS}/acme", {"spec": {"quota": None}})).status == 200
    interleave(running, seed)
    assert (await api.post("/api/v1/namespaces", {"metadata": {"name": "other"}})).status == 201
    for namespace, hard in (("default", {"pods": "5", "requests.cpu": "9"}), ("other", {"configmaps": "9"})):
        answer = await api.post(f"/api/v1/namespaces/{namespace}/resourcequotas", quota(hard=hard))
        assert answer.status == 201

    async def run(chaos: Chaos) -> set[int]:
        return {await chaos.step(number) for number in range(25)}

    statuses = await asyncio.gather(*(run(Chaos(seed * 10 + n, two)) for n in range(8)))
    assert set().union(*statuses) <= {0, 200, 201, 403}
    recount = Recount(running.store)
    if limited:
        row = orjson.loads((await running.store.get(usage_key("acme"))).value)
        over = {n: v for n, v in row["used"].items() if n != "objects.bytes" and parse(v).value > parse(HARD[n]).value}
        assert not over
        await recount.tenant("acme")
        assert orjson.loads((await running.store.get(usage_key("acme"))).value) == row
    for namespace in ("default", "other"):
        key = Key("resourcequotas", "acme", namespace, "q")
        before = orjson.loads((await running.store.get(key)).value)["status"]
        assert all(parse(v).value <= parse(before["hard"][n]).value for n, v in before["used"].items())
        await recount.quota(key)
        after = orjson.loads((await running.store.get(key)).value)["status"]
        assert {n: parse(v).value for n, v in before["used"].items()} == {
            n: parse(v).value for n, v in after["used"].items()
        }


async def test_built_in_objects_that_a_tenant_changes_or_deletes_are_counted_by_their_rows(
    running: Running, two: list[Api]
) -> None:
    api, roles = two[0], "/apis/rbac.authorization.k8s.io/v1/clusterroles"
    recount = Recount(running.store)

    async def used() -> Any:
        row = orjson.loads((await running.store.get(usage_key("acme"))).value)["used"]
        await recount.tenant("acme")
        assert orjson.loads((await running.store.get(usage_key("acme"))).value)["used"] == row
        return int(row["objects"])

    before = await used()
    assert (await api.patch(f"{roles}/view", {"metadata": {"labels": {"mine": "yes"}}})).status == 200
    assert await used() == before + 1
    assert (await api.delete(f"{roles}/view")).status == 200
    assert await used() == before
    assert (await api.delete(f"{roles}/edit")).status == 200
    assert await used() == before


async def test_nothing_is_made_in_a_namespace_that_goes_meanwhile(running: Running, two: list[Api]) -> None:
    """The commit is refused if the namespace changed since it was looked at, and looks again."""
    api = two[0]
    await api.post("/api/v1/namespaces", {"metadata": {"name": "other"}})
    key = Key("namespaces", "acme", "", "other")
    commit, seen = running.store.commit, []

    async def late(ops: Any) -> int:
        if any(op.key.name == "late" for op in ops) and not seen:
            seen.append(ops)
            assert (await two[1].delete("/api/v1/namespaces/other")).status == 200
        return await commit(ops)

    running.store.commit = late  # type: ignore[method-assign]
    made = await api.post("/api/v1/namespaces/other/configmaps", {"metadata": {"name": "late"}})
    assert made.status == 403 and "is being terminated" in made.json["message"], made.json
    assert seen and (await running.store.get(key)) is not None


async def test_nothing_is_made_in_a_tenant_that_ends_meanwhile(running: Running, two: list[Api]) -> None:
    """What is in no namespace would else stand in the next tenant of that name."""
    root, commit, seen = running.admin(), running.store.commit, []

    async def late(ops: Any) -> int:
        if any(op.key.name == "late" for op in ops) and not seen:
            seen.append(ops)
            assert (await root.patch(f"{TENANTS}/acme", {"metadata": {"finalizers": ["a.dev/held"]}})).status == 200
            assert (await root.delete(f"{TENANTS}/acme")).status == 200
        return await commit(ops)

    running.store.commit = late  # type: ignore[method-assign]
    role = {"metadata": {"name": "late"}, "rules": []}
    made = await two[0].post("/apis/rbac.authorization.k8s.io/v1/clusterroles", role)
    assert made.status == 403 and "the tenant is being terminated" in made.json["message"], made.json
    assert seen
