"""get, list, create, update, delete over HTTPS."""

from __future__ import annotations

from typing import Any

MAP = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "one"}, "data": {"a": "b"}}
MAPS = "/api/v1/namespaces/default/configmaps"


async def test_create_get_update_delete(admin: Any) -> None:
    made = await admin.post(MAPS, MAP)
    assert made.status == 201, made.body
    meta = made.json["metadata"]
    assert meta["uid"] and meta["resourceVersion"] and meta["creationTimestamp"] and meta["namespace"] == "default"
    assert made.headers["Content-Type"] == "application/json"
    found = await admin.get(f"{MAPS}/one")
    assert found.json == made.json
    changed = await admin.put(f"{MAPS}/one", {**found.json, "data": {"a": "c"}})
    assert changed.json["data"] == {"a": "c"}
    assert int(changed.json["metadata"]["resourceVersion"]) > int(meta["resourceVersion"])
    stale = await admin.put(f"{MAPS}/one", {**found.json, "data": {"a": "d"}})
    assert (stale.status, stale.json["reason"]) == (409, "Conflict")
    gone = await admin.delete(f"{MAPS}/one")
    assert (gone.status, gone.json["status"], gone.json["details"]["uid"]) == (200, "Success", meta["uid"])
    assert (await admin.get(f"{MAPS}/one")).status == 404


async def test_the_first_path_names_the_others(either: Any, admin: Any) -> None:
    found = (await either.get("/")).json["paths"]
    assert {"/api/v1", "/apis/apps", "/apis/apps/v1", "/openapi/v3", "/healthz"} <= set(found)
    assert ("/metrics" in found) is (either is admin)
    for path in found:
        assert (await either.get(path)).status == 200, path
    assert (await either.get("/nothing")).status == (404 if either is admin else 403)
