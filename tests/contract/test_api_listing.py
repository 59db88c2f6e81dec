"""Long lists: written while they are read, in every form, whole, selected and limited; and what continues a lost one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

MAPS = "/api/v1/namespaces/default/configmaps"
COUNT = 1203
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
META = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"


@pytest.fixture
async def maps(admin: Any) -> list[str]:
    """Many small objects, every third with a label."""
    names = [f"m-{n:04}" for n in range(COUNT)]

    async def make(name: str, labels: dict[str, str]) -> None:
        assert (await admin.post(MAPS, {"metadata": {"name": name, "labels": labels}})).status == 201

    for start in range(0, COUNT, 100):
        part = list(enumerate(names))[start : start + 100]
        await asyncio.gather(*(make(name, {"third": "yes"} if n % 3 == 0 else {}) for n, name in part))
    return ["kube-root-ca.crt", *names]


async def test_a_long_list_in_every_form(admin: Any, maps: list[str]) -> None:
    found = (await admin.get(MAPS)).json
    assert (found["kind"], [o["metadata"]["name"] for o in found["items"]]) == ("ConfigMapList", maps)
    assert int(found["metadata"]["resourceVersion"]) > COUNT
    table = (await admin.get(MAPS, Accept=TABLE)).json
    assert (table["kind"], [r["cells"][0] for r in table["rows"]]) == ("Table", maps)
    assert table["columnDefinitions"][0]["name"] == "Name"
    meta = (await admin.get(MAPS, Accept=META)).json
    assert [o["metadata"]["name"] for o in meta["items"]] == maps
    assert meta["items"][0]["kind"] == "PartialObjectMetadata"
    assert (await admin.get(MAPS, Accept="application/yaml")).status == 413


async def test_selected_and_limited(admin: Any, maps: list[str]) -> None:
    third = [name for n, name in enumerate(maps[1:]) if n % 3 == 0]
    found = (await admin.get(f"{MAPS}?labelSelector=third")).json
    assert [o["metadata"]["name"] for o in found["items"]] == third
    seen, token, pages = [], "", 0
    while pages == 0 or token:
        page = (await admin.get(f"{MAPS}?limit=700&continue={token}")).json
        seen += [o["metadata"]["name"] for o in page["items"]]
        token, pages = page["metadata"].get("continue", ""), pages + 1
        assert page["metadata"].get("remainingItemCount", 0) == len(maps) - len(seen)
    assert (seen, pages) == (maps, 2)
    exact = (await admin.get(f"{MAPS}?labelSelector=third&limit={len(third)}")).json
    assert (len(exact["items"]), exact["metadata"].get("continue")) == (len(third), None)
    less = (await admin.get(f"{MAPS}?labelSelector=third&limit={len(third) - 1}")).json
    rest = (await admin.get(f"{MAPS}?labelSelector=third&limit=9&continue={less['metadata']['continue']}")).json
    assert [o["metadata"]["name"] for o in rest["items"]] == third[-1:]


async def test_a_list_whose_revision_is_forgotten_goes_on_with_the_present(admin: Any, running: Any) -> None:
    for name in "abcd":
        await admin.post(MAPS, {"metadata": {"name": name}})
    first = (await admin.get(f"{MAPS}?limit=2")).json
    await admin.post(MAPS, {"metadata": {"name": "bb"}})
    await running.store.compact(await running.store.revision())
    lost = await admin.get(f"{MAPS}?limit=2&continue={first['metadata']['continue']}")
    assert (lost.status, lost.json["reason"]) == (410, "Expired")
    after = (await admin.get(f"{MAPS}?limit=2&continue={lost.json['metadata']['continue']}")).json
    assert [o["metadata"]["name"] for o in after["items"]] == ["bb", "c"]
    assert after["metadata"]["resourceVersion"] != first["metadata"]["resourceVersion"]
    assert after["metadata"]["remainingItemCount"] == 2
