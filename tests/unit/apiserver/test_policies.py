"""What is kept of roles and bindings: right whatever is written meanwhile, bounded, and nothing for who is not asked about."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from polder.api.rbac import Attributes, identity_keys
from polder.apiserver import rbac as module
from polder.apiserver.builtin import BINDINGS, CLUSTER_BINDINGS, CLUSTER_ROLES, ROLES, TOMBSTONE
from polder.apiserver.objects import encode
from polder.apiserver.rbac import Policies, Rbac
from polder.store.memory import MemoryStore
from polder.store.protocol import Delete, Key, Page, Prefix, Put
from tests.turns import counted_turns

LIST = Attributes("list", "", "pods")
JANE = identity_keys("jane", ("devs", "system:authenticated"))


class SlowStore(MemoryStore):
    """Its lists let others run before they answer, as a store in a thread does."""

    lists = 0

    async def list(
        self, prefix: Prefix, *, limit: int = 0, after: Key | None = None, revision: int | None = None
    ) -> Page:
        page = await super().list(prefix, limit=limit, after=after, revision=revision)
        self.lists += 1
        for _ in range(3):
            await asyncio.sleep(0)
        return page


def role(tenant: str, namespace: str, name: str, *verbs: str) -> Put:
    rules = [{"verbs": list(verbs), "apiGroups": [""], "resources": ["pods"]}]
    resource = ROLES if namespace else CLUSTER_ROLES
    obj = {"apiVersion": "v1", "kind": "X", "metadata": {"name": name}, "rules": rules}
    return Put(Key(resource, tenant, namespace, name), encode(obj))


def binding(tenant: str, namespace: str, name: str, ref: str, user: str = "jane", kind: str = "Role") -> Put:
    obj = {
        "apiVersion": "v1", "kind": "X", "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": ref},
        "subjects": [{"kind": "User", "name": user}],
    }  # fmt: skip
    return Put(Key(BINDINGS if namespace else CLUSTER_BINDINGS, tenant, namespace, name), encode(obj))


@pytest.fixture
async def store() -> AsyncIterator[SlowStore]:
    made = SlowStore()
    yield made
    await made.close()


@pytest.fixture
async def policies(store: SlowStore) -> AsyncIterator[Policies]:
    made = Policies(store)
    task = asyncio.create_task(made.run())
    await asyncio.sleep(0)
    yield made
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def commit(store: SlowStore, policies: Policies, *ops: Any) -> None:
    """As the API server commits."""
    policies.wrote([op.key for op in ops], await store.commit(ops))


async def may(policies: Policies, tenant: str = "acme", namespace: str = "ns", keys: Sequence[str] = JANE) -> bool:
    return (await Rbac(policies).decide(tenant, namespace, keys, LIST)).allowed


async def test_a_write_counts_from_its_answer_on(store: SlowStore, policies: Policies) -> None:
    await commit(store, policies, role("acme", "ns", "r", "list"))
    for number in range(20):
        await commit(store, policies, binding("acme", "ns", "b", "r"))
        assert await may(policies), number
        await commit(store, policies, Delete(Key(BINDINGS, "acme", "ns", "b")))
        assert not await may(policies), number
    assert store.lists <= 4, "read once, then followed"


@pytest.mark.parametrize("turns", range(12))
async def test_what_is_written_while_it_is_read_is_not_lost(store: SlowStore, policies: Policies, turns: int) -> None:
    await commit(store, policies, role("acme", "ns", "r", "list"), binding("acme", "ns", "b", "r"))
    asking = asyncio.create_task(may(policies))
    for _ in range(turns):
        await asyncio.sleep(0)
    await commit(store, policies, Delete(Key(BINDINGS, "acme", "ns", "b")))
    await asking
    assert not await may(policies)


async def test_what_is_kept_equals_what_is_stored(store: SlowStore, policies: Policies) -> None:
    chance = random.Random(7)
    kept = Rbac(policies)
    for step in range(300):
        namespace = chance.choice(["", "ns", "ms"])
        name = chance.choice(["x", "y", "view", "system:discovery"])
        what = chance.choice([role, binding])
        made = (
            role("acme", namespace, name, chance.choice(["list", "get"])) if what is role
            else binding("acme", namespace, name, chance.choice(["x", "y", "view"]), chance.choice(["jane", "joe"]),
                         chance.choice(["Role", "ClusterRole"]) if namespace else "ClusterRole")
        )  # fmt: skip
        standing = await store.get(made.key)
        op = Put(made.key, TOMBSTONE) if chance.random() < 0.1 else made
        if standing is not None and chance.random() < 0.3:
            op = Delete(made.key)  # type: ignore[assignment]
        await commit(store, policies, op)
        if step % 3 == 0:
            fresh = Rbac(Policies(store))  # follows nothing, so it reads
            for place in ("", "ns", "ms"):
                for keys in (JANE, identity_keys("joe", ())):
                    one = await kept.decide("acme", place, keys, LIST)
                    assert one.allowed == (await fresh.decide("acme", place, keys, LIST)).allowed, step


async def test_a_watch_that_lags_is_not_waited_for_for_ever(
    store: SlowStore, policies: Policies, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PATIENCE", 0.05)
    await commit(store, policies, role("acme", "ns", "r", "list"), binding("acme", "ns", "b", "r"))
    assert await may(policies)
    policies.wrote([Key(BINDINGS, "acme", "ns", "b")], 10**6)
    assert await may(policies), "it is read anew"
    assert await may(policies)


async def test_it_is_bounded(store: SlowStore, policies: Policies, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SHARDS", 16)
    for number in range(100):
        await may(policies, f"t{number}")
    assert len(policies._shards) <= 16
    monkeypatch.setattr(module, "_BYTES", 2000)
    for number in range(20):
        await commit(store, policies, *(role(f"t{number}", "ns", f"r{n}", "list") for n in range(5)))
        await may(policies, f"t{number}")
    assert policies._bytes <= 2000
    assert policies._bytes == sum(shard.size for shard in policies._shards.values())


async def test_others_get_their_turn_while_many_bindings_are_read(store: SlowStore, policies: Policies) -> None:
    await store.commit([binding("acme", "ns", f"b{n}", f"r{n}") for n in range(3000)])
    async with counted_turns() as turns:
        assert not await may(policies)
    assert turns.taken > 3000 / module._SLICE
