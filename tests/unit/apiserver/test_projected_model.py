"""The projections as a store: list and watch agree, chunks make the whole, and expectations hold, whatever is written."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from polder.apiserver.builtin import BINDINGS, CLUSTER_ROLES, FLOW_SCHEMAS, PRIORITY_CLASSES, ROLES
from polder.apiserver.objects import encode
from polder.apiserver.projection import NODES, Projected
from polder.apiserver.tenancy import tenant_key
from polder.base.ids import TenantName
from polder.store.memory import MemoryStore
from polder.store.protocol import ChangeType, ConflictError, Delete, Entry, Key, Prefix, Put

RESOURCES = (CLUSTER_ROLES, NODES, PRIORITY_CLASSES, ROLES, FLOW_SCHEMAS)
NAMES = ("aa", "n1", "view", "exempt", "system:discovery", "system-node-critical", "zz")
MARK = "rbac.authorization.k8s.io/aggregate-to-view"


@pytest.fixture
async def store() -> AsyncIterator[MemoryStore]:
    made = MemoryStore()
    tenant = {"apiVersion": "polder.dev/v1alpha1", "kind": "Tenant", "spec": {}}
    first = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default", "uid": "r"}}
    ops = [Put(Key("namespaces", "root", "", "default"), encode(first))]
    ops += [
        Put(tenant_key(TenantName(name)), encode({**tenant, "metadata": {"name": name, "uid": name}}))
        for name in ("acme", "globex")
    ]
    await made.commit(ops)
    yield made
    await made.close()


def obj(resource: str, name: str, chance: random.Random) -> bytes:
    meta: Any = {"name": name, "uid": str(chance.random()), "labels": {"v": str(chance.randrange(9))}}
    if resource == CLUSTER_ROLES and chance.random() < 0.3:
        meta["labels"][MARK] = "true"
    body: Any = {"kind": "Node", "spec": {"taints": [{"key": str(chance.randrange(9))}]}} if resource == NODES else {}
    if resource == CLUSTER_ROLES:
        body = {"rules": [{"verbs": ["get"], "apiGroups": [""], "resources": [name]}]}
    return encode({"apiVersion": "v1", "kind": "X", "metadata": meta, **body})


async def shown(projected: Projected, prefix: Prefix) -> dict[Key, bytes]:
    return {e.key: e.value for e in (await projected.list(prefix)).entries}


async def wrote(projected: Projected, chance: random.Random) -> None:
    """One write as the API server makes it: on what it has just read."""
    resource, tenant = chance.choice(RESOURCES), chance.choice(["acme", "acme", "globex", "root"])
    namespace = "kube-system" if resource == ROLES else ""
    key = Key(resource, tenant, namespace, chance.choice(NAMES))
    current = await projected.get(key)
    if current is None:
        await projected.commit([Put(key, obj(resource, key.name, chance), 0)])
    elif chance.random() < 0.4 and not (resource == NODES and tenant != "root"):
        try:
            await projected.commit([Delete(key, current.revision)])
        except ConflictError:
            assert tenant != "root", "root's object shows here, and admission refuses this"
    else:
        await projected.commit([Put(key, obj(resource, key.name, chance), current.revision)])


@pytest.mark.parametrize("seed", range(4))
async def test_a_list_and_its_watch_are_the_state(store: MemoryStore, seed: int) -> None:
    chance, projected = random.Random(seed), Projected(store)
    prefixes = [Prefix(r, t) for r in RESOURCES for t in ("acme", "root")] + [Prefix(ROLES, "acme", "kube-system")]
    prefixes += [Prefix(r) for r in RESOURCES]
    for _ in range(20):
        await wrote(projected, chance)
    views = [await shown(projected, prefix) for prefix in prefixes]
    start = await projected.revision()
    seen = [start] * len(prefixes)

    async def follow(number: int) -> None:
        async for batch in projected.watch(prefixes[number], start):
            for change in batch.changes:
                assert change.revision <= batch.revision
                if change.type is ChangeType.DELETE:
                    del views[number][change.key]
                else:
                    assert (change.previous is not None) == (change.key in views[number]), change
                    views[number][change.key] = change.value
            seen[number] = batch.revision

    watching = [asyncio.create_task(follow(n)) for n in range(len(prefixes))]
    for _ in range(150):
        await wrote(projected, chance)
        await asyncio.sleep(0)
    await asyncio.sleep(0.05)
    for task in watching:
        assert not task.done() or task.exception() is None, task.exception()
        task.cancel()
    for prefix, view in zip(prefixes, views, strict=True):
        assert view == await shown(projected, prefix), prefix


@pytest.mark.parametrize("seed", range(4))
async def test_chunks_make_the_whole_at_their_revision(store: MemoryStore, seed: int) -> None:
    chance, projected = random.Random(seed), Projected(store)
    for _ in range(60):
        await wrote(projected, chance)
    for resource in RESOURCES:
        for tenant in ("acme", "root"):
            prefix = Prefix(resource, tenant)
            whole = list((await projected.list(prefix)).entries)
            for limit in (1, 2, 3, 7):
                found: list[Entry] = []
                page = await projected.list(prefix, limit=limit)
                found += page.entries
                revision, total = page.revision, len(page.entries) + page.remaining
                while page.after is not None:
                    await wrote(projected, chance)
                    assert len(page.entries) == limit
                    page = await projected.list(prefix, limit=limit, after=page.after, revision=revision)
                    found += page.entries
                assert [e.key for e in found] == [e.key for e in sorted(found, key=lambda e: e.key)]
                assert len({e.key for e in found}) == len(found)
                if limit == 1:
                    assert {e.key: e.revision for e in found} == {e.key: e.revision for e in whole}
                assert total <= len(found) + 1 or resource in {CLUSTER_ROLES, NODES, PRIORITY_CLASSES, ROLES}
                whole = list((await projected.list(prefix)).entries)


async def test_expectations_hold_for_what_is_no_row(store: MemoryStore) -> None:
    projected = Projected(store)
    key = Key(CLUSTER_ROLES, "acme", "", "view")
    entry = await projected.get(key)
    assert entry is not None
    for wrong in (0, entry.revision + 1):
        with pytest.raises(ConflictError) as caught:
            await projected.commit([Put(key, b"{}", wrong)])
        assert caught.value.current == entry
    await projected.commit([Delete(key, entry.revision)])
    with pytest.raises(ConflictError):
        await projected.commit([Delete(key)])
    with pytest.raises(ConflictError):
        await projected.commit([Put(key, b"{}", entry.revision)])
    assert await projected.get(key) is None
    value = encode({"apiVersion": "v1", "kind": "ClusterRole", "metadata": {"name": "view"}})
    revision = await projected.commit([Put(key, value, 0)])
    assert await projected.get(key) == Entry(key, value, revision)
    assert not await store.by_term("x")


async def test_what_is_gathered_is_the_rules_of_what_is_marked(store: MemoryStore) -> None:
    projected = Projected(store)

    async def resources(name: str) -> set[str]:
        entry = await projected.get(Key(CLUSTER_ROLES, "acme", "", name))
        assert entry is not None
        return {r for rule in orjson.loads(entry.value)["rules"] for r in rule.get("resources", ())}

    body = {"rules": [{"verbs": ["get"], "apiGroups": ["x"], "resources": ["mine"]}]}
    meta = {"name": "mine", "labels": {MARK: "true"}}
    made = Put(
        Key(CLUSTER_ROLES, "acme", "", "mine"), encode({"apiVersion": "v1", "kind": "X", "metadata": meta, **body})
    )
    assert "mine" not in await resources("admin")
    await projected.commit([made])
    for name in ("view", "edit", "admin"):
        assert "mine" in await resources(name), "view is marked for edit, edit for admin"
    gone = await projected.get(Key(CLUSTER_ROLES, "acme", "", "system:aggregate-to-view"))
    assert gone is not None and "configmaps" in await resources("view")
    await projected.commit([Delete(gone.key, gone.revision)])
    assert "configmaps" not in await resources("view") and "mine" in await resources("view")
    assert not (await store.list(Prefix(BINDINGS))).entries
