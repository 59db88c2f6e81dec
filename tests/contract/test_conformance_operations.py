"""The life that upstream's specs lead every API through ("should support … API operations"), in root and in a tenant.

Each kind is made, found by every way of asking, followed, patched and put, has its status written apart, and goes: one
object first, then the rest as a collection. Transcribes test/e2e/{apimachinery,apps,auth,network,node,storage,dra}.
"""

from __future__ import annotations

import asyncio
import copy
import json
from typing import Any

import pytest

from polder.api.kinds import Kind
from tests.contract.conftest import Api
from tests.contract.customkit import answers
from tests.contract.test_api_kinds import FIXTURES, STORED, collection, sound

MARK = "conformance"
KINDS = [kind for kind in STORED if kind.group != "polder.dev" and kind.resource != "namespaces"]
GROUPS = sorted({kind.group for kind in KINDS})
APART = {
    "apiservices", "customresourcedefinitions", "flowschemas", "prioritylevelconfigurations", "resourceclaims",
    "servicecidrs", "validatingadmissionpolicies", "volumeattachments",
}  # fmt: skip
"""Kinds whose metadata a write of the status leaves alone; all others take labels and annotations with it."""


def numbered(kind: Kind, number: int) -> dict[str, Any]:
    """One of several objects of a kind, marked so that they are found again."""
    obj = copy.deepcopy(sound(kind))
    name = f"x-{number}"
    if kind.plural == "ipaddresses":
        name = f"192.0.2.{7 + number}"
    elif kind.plural == "apiservices":
        name, obj["spec"]["version"] = f"v{number + 1}.things.example.com", f"v{number + 1}"
    elif kind.plural == "customresourcedefinitions":
        name = f"things{number}.example.com"
        obj["spec"]["names"] = {"plural": f"things{number}", "kind": f"Thing{number}"}
    elif kind.plural == "servicecidrs":
        obj["spec"]["cidrs"] = [f"192.0.{number}.0/24"]
    obj["metadata"] = {"name": name, "labels": {MARK: kind.plural}}
    return obj


def everywhere(kind: Kind, marked: str = "") -> str:
    """The collection over all namespaces, of the marked objects."""
    return f"{kind.path}/{kind.plural}?labelSelector={MARK}%3D{marked or kind.plural}"


def names(answer: Any) -> set[str]:
    return {item["metadata"]["name"] for item in answer.json["items"]}


async def make(api: Api, kind: Kind) -> list[str]:
    """Three objects; the paths where they are."""
    found = []
    for number in range(3):
        obj = numbered(kind, number)
        made = await api.post(collection(kind), obj)
        assert made.status == 201, (kind, made.body)
        assert made.json["metadata"]["creationTimestamp"], kind
        found.append(f"{collection(kind)}/{obj['metadata']['name']}")
    again = await api.post(collection(kind), numbered(kind, 0))
    assert (again.status, again.json["reason"]) in {(409, "AlreadyExists"), (422, "Invalid")}, (kind, again.body)
    return found


async def follow(api: Api, kind: Kind, at: str) -> None:
    """A patch and an update arrive at a watcher as they were answered."""
    start = (await api.get(everywhere(kind))).json["metadata"]["resourceVersion"]
    query = f"{everywhere(kind)}&watch=1&timeoutSeconds=20&resourceVersion={start}"
    async with api.watch(query) as stream:
        patched = await api.patch(at, {"metadata": {"annotations": {"patched": "true"}}})
        assert (patched.status, patched.json["metadata"]["annotations"]["patched"]) == (200, "true"), (
            kind,
            patched.body,
        )
        wanted = (await api.get(at)).json
        wanted["metadata"]["annotations"]["updated"] = "true"
        put = await api.put(at, wanted)
        assert put.status == 200, (kind, put.body)
        stale = await api.put(at, {**wanted, "metadata": {**wanted["metadata"], "annotations": {"stale": "true"}}})
        assert (stale.status, stale.json["reason"]) == (409, "Conflict"), (kind, stale.body)
        async with asyncio.timeout(10):
            seen = [json.loads(await stream.content.readline()) for _ in range(2)]
    assert [event["type"] for event in seen] == ["MODIFIED", "MODIFIED"], kind
    assert [event["object"] for event in seen] == [patched.json, put.json], kind


async def status_apart(api: Api, kind: Kind, at: str) -> None:
    """The status is read and written through its own path, where the kind has one."""
    if "status" not in kind.subresources:
        assert (await api.get(f"{at}/status")).status == 404, kind
        return
    before = (await api.get(f"{at}/status")).json
    assert before["kind"] == kind.kind
    patched = await api.patch(f"{at}/status", {"metadata": {"annotations": {"statused": "true"}}, "status": {}})
    assert patched.status == 200, (kind, patched.body)
    now = (await api.get(f"{at}/status")).json
    taken = now["metadata"]["annotations"].get("statused") == "true"
    assert taken is (kind.plural not in APART), kind
    put = await api.put(f"{at}/status", now)
    assert put.status == 200, (kind, put.body)
    assert put.json.get("spec") == before.get("spec"), kind


async def end(api: Api, kind: Kind, paths: list[str]) -> None:
    """One object goes alone and is seen to; the others go as a collection."""
    start = (await api.get(everywhere(kind))).json["metadata"]["resourceVersion"]
    query = f"{everywhere(kind)}&watch=1&timeoutSeconds=20&resourceVersion={start}"
    async with api.watch(query) as stream:
        gone = await api.delete(paths[0], {"gracePeriodSeconds": 0, "propagationPolicy": "Background"})
        assert gone.status == 200, (kind, gone.body)
        await absent(api, kind, paths[0])
        async with asyncio.timeout(10):
            while (event := json.loads(await stream.content.readline()))["type"] != "DELETED":
                pass
    assert event["object"]["metadata"]["name"] == paths[0].rpartition("/")[2], kind
    assert len(names(await api.get(everywhere(kind)))) == 2, kind
    query = f"{collection(kind)}?labelSelector={MARK}%3D{kind.plural}"
    cleared = await api.delete(query, {"gracePeriodSeconds": 0, "propagationPolicy": "Background"})
    assert cleared.status == 200, (kind, cleared.body)
    for path in paths:
        await absent(api, kind, path)
    assert names(await api.get(everywhere(kind))) == set(), kind


async def absent(api: Api, kind: Kind, path: str) -> None:
    """Definitions clean up before they go; everything else is gone when the answer says so."""
    if kind.plural == "customresourcedefinitions":
        await answers(api, path, 404)
    found = await api.get(path)
    assert (found.status, found.json["reason"]) == (404, "NotFound"), (kind, path, found.body)


async def lead_through(api: Api, kind: Kind) -> None:
    paths = await make(api, kind)
    made = {path.rpartition("/")[2] for path in paths}
    assert names(await api.get(f"{collection(kind)}?labelSelector={MARK}%3D{kind.plural}")) == made, kind
    assert names(await api.get(everywhere(kind))) == made, kind
    assert names(await api.get(everywhere(kind, "other"))) == set(), kind
    one = paths[1].rpartition("/")[2]
    assert names(await api.get(f"{kind.path}/{kind.plural}?fieldSelector=metadata.name%3D{one}")) >= {one}, kind
    await follow(api, kind, paths[1])
    changed = await api.patch(paths[1], FIXTURES[kind.resource]["change"])
    assert changed.status == 200, (kind, changed.body)
    await status_apart(api, kind, paths[1])
    await end(api, kind, paths)


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group or "core")
async def test_the_life_of_every_kind(either: Api, group: str) -> None:
    """Kinds of a group one after another: some look at each other's objects."""
    for kind in KINDS:
        if kind.group == group:
            await lead_through(either, kind)


async def test_discovery_names_group_version_and_resource(either: Api) -> None:
    """What every one of those specs looks at first: the group, its version, the resource in it, and its parts."""
    listed = {group["name"]: group for group in (await either.get("/apis")).json["groups"]}
    for kind in KINDS:
        if kind.group:
            assert kind.version in [v["version"] for v in listed[kind.group]["versions"]], kind
            alone = (await either.get(f"/apis/{kind.group}")).json
            assert (alone["kind"], alone["versions"]) == ("APIGroup", listed[kind.group]["versions"]), kind
            assert alone["preferredVersion"] in alone["versions"], kind
        resources = {row["name"]: row for row in (await either.get(kind.path)).json["resources"]}
        assert resources[kind.plural]["kind"] == kind.kind
        assert set(resources[kind.plural]["verbs"]) >= {"get", "list", "watch", "create", "update", "patch", "delete"}
        assert {f"{kind.plural}/{sub}" for sub in kind.subresources} <= set(resources), kind
