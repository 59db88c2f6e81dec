"""create, update, patch, delete: what the server sets, keeps, refuses."""

from __future__ import annotations

import asyncio
from typing import Any

MAPS = "/api/v1/namespaces/default/configmaps"
PODS = "/api/v1/namespaces/default/pods"
SPEC = {"containers": [{"name": "c", "image": "i:1"}]}


def pod(name: str = "p", **more: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, **more.pop("meta", {})}, "spec": {**SPEC, **more}}


async def made(api: Any, path: str, obj: Any) -> Any:
    found = await api.post(path, obj)
    assert found.status == 201, found.body
    return found.json


async def bound(api: Any, name: str = "p") -> Any:
    await made(api, PODS, pod(name))
    done = await api.post(
        f"{PODS}/{name}/binding", {"metadata": {"name": name}, "target": {"kind": "Node", "name": "n"}}
    )
    assert (done.status, done.json["status"]) == (201, "Success")
    return (await api.get(f"{PODS}/{name}")).json


async def test_names_and_kinds_must_agree(admin: Any) -> None:
    assert (await admin.post(MAPS, {"kind": "Secret", "metadata": {"name": "x"}})).status == 400
    assert (await admin.post(MAPS, {"apiVersion": "v2", "metadata": {"name": "x"}})).status == 400
    assert (await admin.post(MAPS, {"metadata": {"name": "x", "namespace": "other"}})).status == 400
    assert (await admin.post(MAPS, {"metadata": {"name": "x", "resourceVersion": "1"}})).status == 400
    nameless = await admin.post(MAPS, {"metadata": {}})
    assert (nameless.status, nameless.json["reason"]) == (422, "Invalid")
    bad = await admin.post(MAPS, {"metadata": {"name": "No_Good"}})
    assert bad.status == 422 and bad.json["details"]["causes"][0]["field"] == "metadata.name"
    for wrong in (
        {"labels": {"a": 1}},
        {"name": 7},
        {"finalizers": "x"},
        {"annotations": []},
        {"ownerReferences": [1]},
    ):
        assert (await admin.post(MAPS, {"metadata": {"name": "x", **wrong}})).status in {400, 422}, wrong
    assert (await admin.post(MAPS, {"metadata": "x"})).status == 400
    await made(admin, MAPS, {"metadata": {"name": "x"}})
    assert (await admin.put(f"{MAPS}/x", {"metadata": {"name": "y"}})).status == 400
    assert (await admin.put(f"{MAPS}/none", {"metadata": {"name": "none"}})).status == 404
    lost = await admin.post("/api/v1/namespaces/none/configmaps", {"metadata": {"name": "x"}})
    assert (lost.status, lost.json["message"]) == (404, 'namespaces "none" not found')


async def test_the_servers_fields_stay_the_servers(admin: Any) -> None:
    first = await made(
        admin, PODS, pod(meta={"uid": "mine", "creationTimestamp": "2001-01-01T00:00:00Z", "generation": 9})
    )
    meta = first["metadata"]
    assert meta["uid"] != "mine" and meta["creationTimestamp"] > "2020" and meta["generation"] == 1
    sent = {
        **first,
        "metadata": {**meta, "creationTimestamp": None, "labels": {"a": "b"}},
        "status": {"phase": "Running"},
    }
    second = (await admin.put(f"{PODS}/p", sent)).json
    assert second["metadata"]["creationTimestamp"] == meta["creationTimestamp"]
    assert second["status"]["phase"] == "Pending" and second["metadata"]["generation"] == 1
    third = (
        await admin.patch(f"{PODS}/p", {"spec": {"containers": [{**first["spec"]["containers"][0], "image": "i:2"}]}})
    ).json
    assert third["metadata"]["generation"] == 2
    other = {**third, "metadata": {**third["metadata"], "uid": "00000000-0000-0000-0000-000000000000"}}
    assert (await admin.put(f"{PODS}/p", other)).status == 409


async def test_an_update_that_changes_nothing_is_no_event(admin: Any) -> None:
    first = await made(admin, MAPS, {"metadata": {"name": "x"}, "data": {"a": "b"}})
    same = (await admin.put(f"{MAPS}/x", first)).json
    assert same["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    unconditional = {"metadata": {"name": "x"}, "data": {"a": "c"}}
    assert (await admin.put(f"{MAPS}/x", unconditional)).status == 200


async def test_only_the_status_subresource_writes_status(admin: Any) -> None:
    await made(admin, PODS, pod())
    sent = {"metadata": {"labels": {"a": "b"}}, "spec": {"nodeName": "n"}, "status": {"phase": "Running"}}
    after = (await admin.patch(f"{PODS}/p/status", sent)).json
    assert after["status"]["phase"] == "Running" and "nodeName" not in after["spec"]
    assert after["metadata"]["labels"] == {"a": "b"} and after["metadata"]["generation"] == 1
    assert (await admin.get(f"{PODS}/p/status")).json == after
    assert (await admin.post(f"{PODS}/p/status", {})).status == 405
    assert (await admin.get(f"{MAPS}/kube-root-ca.crt/status")).status == 404


async def test_binding_happens_once(admin: Any) -> None:
    found = await bound(admin)
    assert found["spec"]["nodeName"] == "n"
    assert found["status"]["conditions"][0]["type"] == "PodScheduled"
    target = {"target": {"kind": "Node", "name": "other"}}
    again = await admin.post(f"{PODS}/p/binding", {"metadata": {"name": "p"}, **target})
    assert (again.status, again.json["reason"]) == (409, "Conflict")
    await made(admin, PODS, pod("q"))
    wrong = {"metadata": {"name": "q", "uid": "0"}, **target}
    assert (await admin.post(f"{PODS}/q/binding", wrong)).status == 409
    assert (
        await admin.post(f"{PODS}/q/binding", {"metadata": {"name": "q"}, "target": {"kind": "Node"}})
    ).status == 422
    old = "/api/v1/namespaces/default/bindings"
    assert (await admin.post(old, {"metadata": {"name": "q"}, **target})).status == 201
    assert (await admin.get(f"{PODS}/q")).json["spec"]["nodeName"] == "other"


async def test_patches_run_again_when_they_lose_a_race(admin: Any) -> None:
    await made(admin, MAPS, {"metadata": {"name": "x"}})
    done = await asyncio.gather(*(admin.patch(f"{MAPS}/x", {"data": {f"k{n}": "v"}}) for n in range(25)))
    assert {d.status for d in done} == {200}
    assert len((await admin.get(f"{MAPS}/x")).json["data"]) == 25
    stale = {"metadata": {"resourceVersion": "1"}, "data": {"z": "z"}}
    assert (await admin.patch(f"{MAPS}/x", stale)).status == 409


async def test_patch_media_types(admin: Any) -> None:
    await made(admin, MAPS, {"metadata": {"name": "x"}, "data": {"a": "b"}})
    cbor = await admin.call("PATCH", f"{MAPS}/x?fieldManager=k", b"{}", Content_Type="application/apply-patch+cbor")
    assert cbor.status == 415 and "application/apply-patch+yaml" in cbor.json["message"]
    assert (await admin.patch(f"{MAPS}/x", [], "something")).status == 415
    test = [{"op": "test", "path": "/data/a", "value": "no"}]
    assert (await admin.patch(f"{MAPS}/x", test, "json-patch")).status == 422
    assert (await admin.patch(f"{MAPS}/x", {"metadata": {"name": "y"}})).status == 400
    assert (await admin.patch(f"{MAPS}/none", {})).status == 404
    assert (await admin.call("PATCH", f"{MAPS}/x", b"{", Content_Type="application/merge-patch+json")).status == 400


async def test_field_validation(admin: Any) -> None:
    odd = {"metadata": {"name": "x"}, "dada": 1}
    strict = await admin.post(f"{MAPS}?fieldValidation=Strict", odd)
    assert strict.status == 400 and 'unknown field "dada"' in strict.json["message"]
    warned = await admin.post(f"{MAPS}?fieldValidation=Warn", odd)
    assert warned.status == 201 and warned.headers["Warning"] == '299 - "unknown field \\"dada\\""'
    assert "dada" not in warned.json
    quiet = await admin.post(f"{MAPS}?fieldValidation=Ignore", {**odd, "metadata": {"name": "y"}})
    assert quiet.status == 201 and "Warning" not in quiet.headers
    assert (await admin.post(f"{MAPS}?fieldValidation=x", odd)).status == 422
    assert (await admin.post(MAPS, {"metadata": {"name": "z"}, "data": ["a"]})).status == 400


async def test_keys_that_stand_twice_are_named(admin: Any) -> None:
    twice = b'{"metadata": {"name": "x"}, "dada": 1, "data": {"a": "1", "a": "2"}, "data": {"b": "1", "b": "2"}}'
    strict = await admin.post(f"{MAPS}?fieldValidation=Strict", twice)
    said = 'strict decoding error: unknown field "dada", duplicate field "data", duplicate field "data.b"'
    assert strict.status == 400 and strict.json["message"].endswith(said)
    warned = await admin.post(MAPS, twice)
    assert warned.json["data"] == {"b": "2"} and len(warned.headers.getall("Warning")) == 3
    text = b"metadata:\n  name: y\ndata:\n  a: '1'\n  a: '2'\n"
    as_yaml = await admin.call("POST", f"{MAPS}?fieldValidation=Strict", text, Content_Type="application/yaml")
    assert 'yaml: unmarshal errors:\n  line 5: key "a" already set in map' in as_yaml.json["message"]
    loose = await admin.call("POST", f"{MAPS}?fieldValidation=Ignore", text, Content_Type="application/yaml")
    assert loose.status == 201 and loose.json["data"] == {"a": "2"}
    patch = b'{"data": {"c": "1", "c": "2"}}'
    refused = await admin.call(
        "PATCH", f"{MAPS}/x?fieldValidation=Strict", patch, Content_Type="application/merge-patch+json"
    )
    assert refused.status == 422 and refused.json["message"].endswith('strict decoding error: duplicate field "data.c"')
    config = b"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: z\ndata:\n  a: '1'\n  a: '2'\n"
    path = f"{MAPS}/z?fieldManager=m&fieldValidation=Strict"
    applied = await admin.call("PATCH", path, config, Content_Type="application/apply-patch+yaml")
    assert applied.status == 400 and 'line 7: key "a" already set in map' in applied.json["message"]


async def test_dry_runs_change_nothing(admin: Any, running: Any) -> None:
    await made(admin, MAPS, {"metadata": {"name": "x"}})
    before = await running.store.revision()
    assert (await admin.post(f"{MAPS}?dryRun=All", {"metadata": {"name": "y"}})).status == 201
    assert (await admin.patch(f"{MAPS}/x?dryRun=All", {"data": {"a": "b"}})).json["data"] == {"a": "b"}
    assert (await admin.delete(f"{MAPS}/x?dryRun=All")).status == 200
    assert (await admin.post(f"{MAPS}?dryRun=Some", {"metadata": {"name": "y"}})).status == 422
    assert await running.store.revision() == before


async def test_a_node_writes_a_pods_status_and_nothing_else(admin: Any, running: Any) -> None:
    await bound(admin)
    sent = {"metadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}}, "status": {"phase": "Running"}}
    found = await running.node("n").patch(f"{PODS}/p/status", sent)
    assert found.status == 200 and found.json["status"]["phase"] == "Running"
    assert not {"labels", "annotations"} & set(found.json["metadata"])


async def test_an_owner_that_is_named_twice_counts_once(admin: Any) -> None:
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "o", "uid": "u-1"}
    found = await admin.post(MAPS, {"metadata": {"name": "x", "ownerReferences": [owner, owner]}})
    assert found.json["metadata"]["ownerReferences"] == [owner]
    assert "duplicate UID(s) observed: [u-1]" in found.headers["Warning"]


async def test_jobs_leave_their_pods_behind_unless_told_otherwise(admin: Any) -> None:
    path = "/apis/batch/v1/namespaces/default/jobs"
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}
    for name in ("a", "b"):
        await made(admin, path, {"metadata": {"name": name}, "spec": {"template": template}})
    kept = await admin.delete(f"{path}/a")
    assert kept.json["metadata"]["finalizers"] == ["orphan"] and "preserved by default" in kept.headers["Warning"]
    gone = await admin.delete(f"{path}/b?propagationPolicy=Background")
    assert gone.json["status"] == "Success" and "Warning" not in gone.headers


async def test_deleting_a_collection_by_pages(admin: Any) -> None:
    for number in range(5):
        await made(admin, MAPS, {"metadata": {"name": f"m{number}", "labels": {"a": "b"}}})
    some = await admin.delete(f"{MAPS}?labelSelector=a%3Db&limit=2")
    assert len(some.json["items"]) == 2
    assert len((await admin.get(f"{MAPS}?labelSelector=a%3Db")).json["items"]) == 3
    services = "/api/v1/namespaces/default/services"
    await made(admin, services, {"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}})
    gone = await admin.delete(services)
    assert gone.status == 200 and [o["metadata"]["name"] for o in gone.json["items"]] == ["s"]
    assert (await admin.get(f"{services}/kubernetes")).status == 200
    uid = {"preconditions": {"uid": "0"}}
    assert (await admin.delete(MAPS, uid)).status == 409


async def test_finalizers_hold_an_object(admin: Any) -> None:
    first = await made(admin, MAPS, {"metadata": {"name": "x", "finalizers": ["a.b/c"]}})
    held = (await admin.delete(f"{MAPS}/x")).json
    assert held["metadata"]["deletionTimestamp"] and held["metadata"]["uid"] == first["metadata"]["uid"]
    again = (await admin.delete(f"{MAPS}/x")).json
    assert again["metadata"]["resourceVersion"] == held["metadata"]["resourceVersion"]
    more = await admin.patch(f"{MAPS}/x", {"metadata": {"finalizers": ["a.b/c", "d.e/f"]}})
    assert more.status == 422
    assert (await admin.patch(f"{MAPS}/x", {"metadata": {"finalizers": None}})).status == 200
    assert (await admin.get(f"{MAPS}/x")).status == 404


async def test_propagation_becomes_a_finalizer(admin: Any) -> None:
    for policy, finalizer in (("Foreground", "foregroundDeletion"), ("Orphan", "orphan")):
        await made(admin, MAPS, {"metadata": {"name": policy.lower()}})
        held = (await admin.delete(f"{MAPS}/{policy.lower()}", {"propagationPolicy": policy})).json
        assert held["metadata"]["finalizers"] == [finalizer]
    await made(admin, MAPS, {"metadata": {"name": "x"}})
    assert (await admin.delete(f"{MAPS}/x", {"propagationPolicy": "Sideways"})).status == 422
    assert (await admin.delete(f"{MAPS}/x?propagationPolicy=Background")).json["status"] == "Success"


async def test_preconditions(admin: Any) -> None:
    first = await made(admin, MAPS, {"metadata": {"name": "x"}})
    for wrong in ({"uid": "0"}, {"resourceVersion": "1"}):
        refused = await admin.delete(f"{MAPS}/x", {"preconditions": wrong})
        assert (refused.status, refused.json["reason"]) == (409, "Conflict")
    right = {"uid": first["metadata"]["uid"], "resourceVersion": first["metadata"]["resourceVersion"]}
    assert (await admin.delete(f"{MAPS}/x", {"preconditions": right})).status == 200


async def test_pods_end_gracefully_on_their_node(admin: Any) -> None:
    await made(admin, PODS, pod("loose"))
    assert (await admin.delete(f"{PODS}/loose")).json["metadata"]["name"] == "loose"
    assert (await admin.get(f"{PODS}/loose")).status == 404
    await bound(admin)
    leaving = (await admin.delete(f"{PODS}/p")).json["metadata"]
    assert leaving["deletionGracePeriodSeconds"] == 30 and leaving["deletionTimestamp"]
    sooner = (await admin.delete(f"{PODS}/p", {"gracePeriodSeconds": 5})).json["metadata"]
    assert sooner["deletionGracePeriodSeconds"] == 5 and sooner["deletionTimestamp"] < leaving["deletionTimestamp"]
    later = (await admin.delete(f"{PODS}/p", {"gracePeriodSeconds": 60})).json["metadata"]
    assert later["deletionGracePeriodSeconds"] == 5
    assert (await admin.delete(f"{PODS}/p", {"gracePeriodSeconds": 0})).status == 200
    assert (await admin.get(f"{PODS}/p")).status == 404
    await bound(admin, "done")
    await admin.patch(f"{PODS}/done/status", {"status": {"phase": "Succeeded"}})
    await admin.delete(f"{PODS}/done")
    assert (await admin.get(f"{PODS}/done")).status == 404


async def test_collections_go_at_once(admin: Any) -> None:
    for name in ("a", "b", "c"):
        await made(admin, MAPS, {"metadata": {"name": name, "labels": {"go": "yes"}}})
    await made(admin, MAPS, {"metadata": {"name": "stay"}})
    gone = await admin.delete(f"{MAPS}?labelSelector=go%3Dyes")
    assert len(gone.json["items"]) == 3
    assert [o["metadata"]["name"] for o in (await admin.get(MAPS)).json["items"]] == ["kube-root-ca.crt", "stay"]


async def test_namespaces_live_and_end(admin: Any) -> None:
    blue = await made(admin, "/api/v1/namespaces", {"metadata": {"name": "blue"}})
    assert blue["spec"] == {"finalizers": ["kubernetes"]} and blue["status"] == {"phase": "Active"}
    assert blue["metadata"]["labels"] == {"kubernetes.io/metadata.name": "blue"}
    assert (await admin.get("/api/v1/namespaces/blue/serviceaccounts/default")).status == 200
    assert (await admin.get("/api/v1/namespaces/blue/configmaps/kube-root-ca.crt")).status == 200
    ending = (await admin.delete("/api/v1/namespaces/blue")).json
    assert ending["status"]["phase"] == "Terminating"
    late = await admin.post("/api/v1/namespaces/blue/configmaps", {"metadata": {"name": "late"}})
    assert late.status == 403 and late.json["details"]["causes"][0]["reason"] == "NamespaceTerminating"
    done = await admin.put("/api/v1/namespaces/blue/finalize", {**ending, "spec": {"finalizers": []}})
    assert done.status == 200, done.body
    assert (await admin.get("/api/v1/namespaces/blue")).status == 404
    for name in ("default", "kube-system"):
        assert (await admin.delete(f"/api/v1/namespaces/{name}")).status == 403


async def test_generated_names(admin: Any) -> None:
    found = await made(admin, MAPS, {"metadata": {"generateName": "x" * 80}})
    assert len(found["metadata"]["name"]) == 63
    assert (await admin.post(MAPS, {"metadata": {"generateName": "Bad_"}})).status == 422


async def test_the_finalizers_of_a_namespaces_spec_are_written_by_finalize_alone(admin: Any, running: Any) -> None:
    await admin.post("/apis/polder.dev/v1alpha1/tenants", {"metadata": {"name": "acme"}})
    mine = await running.tenant_admin("acme")
    assert (await mine.post("/api/v1/namespaces", {"metadata": {"name": "shop"}})).status == 201
    for wanted in ([], ["example.com/hold"]):
        found = await mine.patch("/api/v1/namespaces/shop", {"spec": {"finalizers": wanted or None}})
        assert (found.status, found.json["spec"]) == (200, {"finalizers": ["kubernetes"]})


async def test_an_object_does_not_grow_for_ever(admin: Any) -> None:
    """Each patch is within the limit of a body; together they made one object of 35 MB, which every list then carried."""
    await made(admin, PODS, pod())
    for field, status in (("message", 200), ("reason", 413)):
        patch = {"status": {field: "x" * 1_000_000}}
        answer = await admin.patch(f"{PODS}/p/status", patch)
        assert answer.status == status, answer.body[:200]
    assert "limit of an object is 1572864 bytes" in answer.json["message"]
    shorter = {"status": {"message": "x"}}
    assert (await admin.patch(f"{PODS}/p/status", shorter)).status == 200


async def test_a_zero_that_says_nothing_is_no_change(admin: Any) -> None:
    """Clients in Go leave such fields out, others send them: neither finds a pod changed that is not."""
    path = "/api/v1/namespaces/default/pods"
    bare = {"containers": [{"name": "c", "image": "x", "ports": [{"containerPort": 80}]}]}
    said = {"hostNetwork": False, "subdomain": "", "containers": [
        {"name": "c", "image": "x", "tty": False, "ports": [{"containerPort": 80, "hostPort": 0}]}]}  # fmt: skip
    for first, second, name in ((bare, said, "a"), (said, bare, "b")):
        made = await admin.post(path, {"metadata": {"name": name}, "spec": first})
        assert made.status == 201, made.body
        spec = {**made.json["spec"], **second}
        spec["containers"] = [{**made.json["spec"]["containers"][0], **second["containers"][0]}]
        put = await admin.put(f"{path}/{name}", {**made.json, "spec": spec})
        assert put.status == 200, put.body
        assert put.json["spec"] == made.json["spec"] and "hostNetwork" not in put.json["spec"]
