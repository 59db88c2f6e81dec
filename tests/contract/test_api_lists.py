"""Lists: pages, revisions, selectors, forms."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

MAPS = "/api/v1/namespaces/default/configmaps"


async def make(api: Any, count: int, **labels: str) -> list[str]:
    names = [f"m{number:03}" for number in range(count)]
    for name in names:
        meta = {"name": name, "labels": labels}
        assert (await api.post(MAPS, {"metadata": meta, "data": {"n": name}})).status == 201
    return names


async def test_pages_are_of_one_revision(admin: Any) -> None:
    names = await make(admin, 10)
    first = (await admin.get(f"{MAPS}?limit=4")).json
    assert first["metadata"]["remainingItemCount"] == 7
    await admin.delete(f"{MAPS}/m009")
    await admin.post(MAPS, {"metadata": {"name": "m005x"}})
    seen, page = list(first["items"]), first
    while page["metadata"].get("continue"):
        page = (await admin.get(f"{MAPS}?limit=4&continue={page['metadata']['continue']}")).json
        seen += page["items"]
        assert page["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    assert [o["metadata"]["name"] for o in seen] == ["kube-root-ca.crt", *names]


async def test_a_continue_token_too_old_is_expired(admin: Any, running: Any) -> None:
    await make(admin, 3)
    token = (await admin.get(f"{MAPS}?limit=1")).json["metadata"]["continue"]
    await make_more(admin)
    await running.store.compact(await running.store.revision())
    gone = await admin.get(f"{MAPS}?limit=1&continue={token}")
    assert (gone.status, gone.json["reason"]) == (410, "Expired")


async def make_more(api: Any) -> None:
    await api.post(MAPS, {"metadata": {"name": "later"}})


async def test_tokens_stay_inside_their_tenant(admin: Any, running: Any) -> None:
    for name in ("acme", "globex"):
        await admin.post("/apis/polder.dev/v1alpha1/tenants", {"metadata": {"name": name}})
    acme = await running.tenant_admin("acme")
    token = (await acme.get("/api/v1/configmaps?limit=1")).json["metadata"]["continue"]
    inside = json.loads(base64.urlsafe_b64decode(token + "=="))
    assert "acme" not in json.dumps(inside)
    forged = base64.urlsafe_b64encode(json.dumps({**inside, "tenant": "globex", "name": ""}).encode()).decode()
    found = await acme.get(f"/api/v1/configmaps?continue={forged}")
    assert {o["metadata"]["namespace"] for o in found.json["items"]} <= {"default", "kube-public", "kube-system"}
    other = await (await running.tenant_admin("globex")).get("/api/v1/configmaps")
    assert not {o["metadata"]["uid"] for o in found.json["items"]} & {o["metadata"]["uid"] for o in other.json["items"]}
    assert (await acme.get("/api/v1/configmaps?continue=nonsense")).status == 400


async def test_resource_versions(admin: Any) -> None:
    await make(admin, 2)
    before = (await admin.get(MAPS)).json["metadata"]["resourceVersion"]
    await make_more(admin)
    now = (await admin.get(MAPS)).json["metadata"]["resourceVersion"]
    assert int(now) > int(before)
    exact = (await admin.get(f"{MAPS}?resourceVersion={before}&resourceVersionMatch=Exact")).json
    assert len(exact["items"]) == 3 and exact["metadata"]["resourceVersion"] == before
    newer = (await admin.get(f"{MAPS}?resourceVersion={before}&resourceVersionMatch=NotOlderThan")).json
    assert len(newer["items"]) == 4
    assert len((await admin.get(f"{MAPS}?resourceVersion=0")).json["items"]) == 4
    future = await admin.get(f"{MAPS}?resourceVersion=99999")
    assert future.status == 504 and future.json["details"]["causes"][0]["reason"] == "ResourceVersionTooLarge"
    assert (await admin.get(f"{MAPS}?resourceVersionMatch=Exact")).status == 422
    assert (await admin.get(f"{MAPS}?resourceVersion=x")).status == 400


async def test_selectors(admin: Any) -> None:
    await make(admin, 3, color="red")
    await admin.post(MAPS, {"metadata": {"name": "blue", "labels": {"color": "blue"}}})

    async def names(query: str) -> list[str]:
        found = await admin.get(f"{MAPS}?{query}")
        assert found.status == 200, found.body
        return [o["metadata"]["name"] for o in found.json["items"]]

    assert await names("labelSelector=color%3Dblue") == ["blue"]
    assert await names("labelSelector=color+in+(red)&limit=2") == ["m000", "m001"]
    assert await names("labelSelector=!color") == ["kube-root-ca.crt"]
    assert await names("fieldSelector=metadata.name%3Dm001") == ["m001"]
    assert await names("fieldSelector=metadata.name!%3Dblue,metadata.namespace%3Ddefault&labelSelector=color") == [
        "m000",
        "m001",
        "m002",
    ]
    assert (await admin.get(f"{MAPS}?fieldSelector=data.n%3Dx")).status == 400
    assert (await admin.get(f"{MAPS}?labelSelector=a%3Db%3Dc")).status == 400


async def test_selected_pages_continue(admin: Any) -> None:
    await make(admin, 7, color="red")
    seen: list[str] = []
    token = ""
    while True:
        page = (await admin.get(f"{MAPS}?labelSelector=color%3Dred&limit=3&continue={token}")).json
        assert "remainingItemCount" not in page["metadata"]
        seen += [o["metadata"]["name"] for o in page["items"]]
        token = page["metadata"].get("continue", "")
        if not token:
            break
    assert seen == [f"m{number:03}" for number in range(7)]


async def test_forms(admin: Any) -> None:
    await make(admin, 1)
    table = await admin.get(MAPS, Accept="application/json;as=Table;v=v1;g=meta.k8s.io,application/json")
    assert table.json["kind"] == "Table" and table.json["apiVersion"] == "meta.k8s.io/v1"
    assert [c["name"] for c in table.json["columnDefinitions"]] == ["Name", "Data", "Age"]
    assert table.json["rows"][1]["cells"][:2] == ["m000", 1]
    assert table.json["rows"][1]["object"]["kind"] == "PartialObjectMetadata"
    whole = await admin.get(f"{MAPS}?includeObject=Object", Accept="application/json;as=Table;v=v1;g=meta.k8s.io")
    assert whole.json["rows"][1]["object"]["data"] == {"n": "m000"}
    meta = await admin.get(f"{MAPS}/m000", Accept="application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io")
    assert meta.json["kind"] == "PartialObjectMetadata" and "data" not in meta.json
    listed = await admin.get(MAPS, Accept="application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io")
    assert listed.json["kind"] == "PartialObjectMetadataList" and "data" not in listed.json["items"][1]
    text = await admin.get(f"{MAPS}/m000", Accept="application/yaml")
    assert text.headers["Content-Type"] == "application/yaml" and b"n: m000" in text.body
    proto = await admin.get(f"{MAPS}/m000", Accept="application/vnd.kubernetes.protobuf,application/json")
    assert proto.json["data"] == {"n": "m000"}
    refused = await admin.get(MAPS, Accept="application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io")
    assert (refused.status, refused.json["reason"]) == (406, "NotAcceptable")


async def test_every_tenant_at_once(admin: Any, running: Any) -> None:
    for name in ("acme", "globex"):
        assert (await admin.post("/apis/polder.dev/v1alpha1/tenants", {"metadata": {"name": name}})).status == 201
        made = await admin.at(name).post(MAPS, {"metadata": {"name": "same", "annotations": {"x": "y"}}})
        assert made.status == 201
    found = (await admin.at("*").get("/api/v1/configmaps?fieldSelector=metadata.name%3Dsame")).json["items"]
    assert [o["metadata"]["annotations"] for o in found] == [
        {"polder.dev/tenant": "acme", "x": "y"},
        {"polder.dev/tenant": "globex", "x": "y"},
    ]
    plain = (await admin.at("*").get("/api/v1/namespaces")).json["items"]
    assert {o["metadata"]["annotations"]["polder.dev/tenant"] for o in plain} == {"root", "acme", "globex"}
    shown = await admin.at("*").get("/api/v1/namespaces", Accept="application/json;as=Table;v=v1;g=meta.k8s.io")
    assert shown.json["columnDefinitions"][0]["name"] == "Tenant"
    refused = await admin.at("acme").post(
        MAPS, {"metadata": {"name": "z", "annotations": {"polder.dev/tenant": "globex"}}}
    )
    assert refused.status == 422 and "metadata.annotations" in refused.json["message"]
    pages = []
    token = ""
    while token or not pages:
        page = (await admin.at("*").get(f"/api/v1/namespaces?limit=2&continue={token}")).json
        pages.append(page)
        token = page["metadata"].get("continue", "")
    assert sum(len(p["items"]) for p in pages) == len(plain)
    acme = await running.tenant_admin("acme")
    assert (await acme.at("*").get("/api/v1/namespaces")).status == 403


async def test_concurrent_creates_get_distinct_revisions(admin: Any) -> None:
    made = await asyncio.gather(*(admin.post(MAPS, {"metadata": {"generateName": "g-"}}) for _ in range(30)))
    assert {m.status for m in made} == {201}
    assert len({m.json["metadata"]["resourceVersion"] for m in made}) == 30
    assert len({m.json["metadata"]["name"] for m in made}) == 30
