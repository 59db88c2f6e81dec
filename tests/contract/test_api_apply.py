"""Server-side apply and managedFields over HTTP, and with kubectl."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from tests.contract.test_api_writes import MAPS, PODS, made, pod

DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"


async def apply(api: Any, path: str, config: Any, manager: str = "me", query: str = "") -> Any:
    body = json.dumps(config).encode() if not isinstance(config, bytes) else config
    path = f"{path}?fieldManager={manager}{query}"
    return await api.call("PATCH", path, body, Content_Type="application/apply-patch+yaml")


def config_map(name: str = "x", **data: str) -> Any:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def deployment(name: str = "d", **spec: Any) -> Any:
    template = {
        "metadata": {"labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}]}]},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template, **spec},
    }


def managers(obj: Any) -> dict[tuple[str, str], Any]:
    return {
        (entry["manager"], entry["operation"] + entry.get("subresource", "")): entry["fieldsV1"]
        for entry in obj["metadata"].get("managedFields", [])
    }


async def test_a_create_owns_what_it_sent_and_what_was_defaulted(admin: Any) -> None:
    """The set is upstream's for the same deployment, to the field."""
    found = await made(admin, DEPLOYMENTS + "?fieldManager=kubectl-create", deployment())
    entry = found["metadata"]["managedFields"][0]
    assert entry["time"] == found["metadata"]["creationTimestamp"] and entry["fieldsType"] == "FieldsV1"
    assert entry["apiVersion"] == "apps/v1"
    whole = {".": {}, "f:containerPort": {}, "f:protocol": {}}
    container = {
        ".": {}, "f:image": {}, "f:imagePullPolicy": {}, "f:name": {}, "f:resources": {},
        "f:terminationMessagePath": {}, "f:terminationMessagePolicy": {},
        "f:ports": {".": {}, 'k:{"containerPort":80,"protocol":"TCP"}': whole},
    }  # fmt: skip
    assert managers(found) == {
        ("kubectl-create", "Update"): {
            "f:spec": {
                "f:progressDeadlineSeconds": {},
                "f:replicas": {},
                "f:revisionHistoryLimit": {},
                "f:selector": {},
                "f:strategy": {
                    "f:rollingUpdate": {".": {}, "f:maxSurge": {}, "f:maxUnavailable": {}},
                    "f:type": {},
                },
                "f:template": {
                    "f:metadata": {"f:labels": {".": {}, "f:a": {}}},
                    "f:spec": {
                        "f:containers": {'k:{"name":"c"}': container},
                        "f:dnsPolicy": {},
                        "f:restartPolicy": {},
                        "f:schedulerName": {},
                        "f:securityContext": {},
                        "f:terminationGracePeriodSeconds": {},
                    },
                },
            }
        }
    }


async def test_apply_creates_then_changes(admin: Any) -> None:
    path = f"{MAPS}/x"
    first = await apply(admin, path, config_map(a="1"))
    assert first.status == 201 and first.json["data"] == {"a": "1"}
    assert managers(first.json) == {("me", "Apply"): {"f:data": {"f:a": {}}}}
    text = b"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: x\ndata: {a: '1'}\n"
    same = await apply(admin, path, text)
    assert same.status == 200 and same.json == first.json
    second = await apply(admin, path, config_map(b="2"))
    assert second.json["data"] == {"b": "2"}, "what the applier does not want any more goes"
    dry = await apply(admin, path, config_map(), query="&dryRun=All")
    assert "data" not in dry.json and (await admin.get(path)).json["data"] == {"b": "2"}


async def test_a_conflict_names_manager_and_field(admin: Any) -> None:
    found = await made(admin, MAPS + "?fieldManager=creator", config_map(a="1", b="1", c="1"))
    at = found["metadata"]["creationTimestamp"]
    refused = await apply(admin, f"{MAPS}/x", config_map(a="2"))
    words = f'conflict with "creator" using v1 at {at}'
    assert (refused.status, refused.json["reason"]) == (409, "Conflict")
    assert refused.json["message"] == f"Apply failed with 1 conflict: {words}: .data.a"
    assert refused.json["details"]["causes"] == [
        {"reason": "FieldManagerConflict", "message": words, "field": ".data.a"}
    ]
    several = await apply(admin, f"{MAPS}/x", config_map(a="2", b="2", c="1"))
    said = f'Apply failed with 2 conflicts: conflicts with "creator" using v1 at {at}:\n- .data.a\n- .data.b'
    assert several.json["message"] == said
    shared = await apply(admin, f"{MAPS}/x", config_map(c="1"))
    assert shared.status == 200, "an equal value is shared"
    forced = await apply(admin, f"{MAPS}/x", config_map(a="2"), query="&force=true")
    assert forced.json["data"] == {"a": "2", "b": "1", "c": "1"}
    owned = managers(forced.json)
    assert owned["me", "Apply"] == {"f:data": {"f:a": {}}}
    assert owned["creator", "Update"] == {"f:data": {".": {}, "f:b": {}, "f:c": {}}}


async def test_an_update_takes_what_it_changes(admin: Any) -> None:
    await apply(admin, f"{MAPS}/x", config_map(a="1", b="1"))
    changed = await admin.patch(f"{MAPS}/x?fieldManager=editor", {"data": {"a": "2"}})
    owned = managers(changed.json)
    assert owned == {("me", "Apply"): {"f:data": {"f:b": {}}}, ("editor", "Update"): {"f:data": {"f:a": {}}}}
    before = (await admin.get(f"{MAPS}/x")).json
    again = await admin.patch(f"{MAPS}/x?fieldManager=third", {"data": {"a": "2"}})
    assert again.json == before, "who changes nothing owns nothing and makes no new version"


async def test_a_list_of_named_items_is_merged_by_key(admin: Any) -> None:
    await apply(admin, f"{DEPLOYMENTS}/d", deployment(replicas=1))
    side = deployment()
    del side["spec"]["selector"], side["spec"]["template"]["metadata"]
    side["spec"]["template"]["spec"]["containers"] = [{"name": "side", "image": "s"}]
    both = await apply(admin, f"{DEPLOYMENTS}/d", side, "sidecar")
    names = [c["name"] for c in both.json["spec"]["template"]["spec"]["containers"]]
    assert names == ["c", "side"] and both.json["metadata"]["generation"] == 2
    ports = deployment()
    ports["spec"]["template"]["spec"]["containers"][0]["ports"] = [{"containerPort": 80, "protocol": "UDP"}]
    found = (await apply(admin, f"{DEPLOYMENTS}/d", ports)).json["spec"]["template"]["spec"]["containers"]
    assert found[0]["ports"] == [{"containerPort": 80, "protocol": "UDP"}], "TCP is part of the first port's key"
    side["spec"]["template"]["spec"].pop("containers")
    left = await apply(admin, f"{DEPLOYMENTS}/d", side, "sidecar")
    assert [c["name"] for c in left.json["spec"]["template"]["spec"]["containers"]] == ["c"]
    twice = deployment()
    twice["spec"]["template"]["spec"]["containers"] *= 2
    refused = await apply(admin, f"{DEPLOYMENTS}/d", twice)
    assert refused.status == 400
    assert '.spec.template.spec.containers: duplicate entries for key [name="c"]' in refused.json["message"]


async def test_what_an_apply_must_not_say(admin: Any) -> None:
    path = f"{MAPS}/x"
    nobody = await admin.call("PATCH", path, b"{}", Content_Type="application/apply-patch+yaml")
    assert (
        nobody.status == 422 and "fieldManager: Required value: is required for apply patch" in nobody.json["message"]
    )
    assert (await apply(admin, path, config_map(), "x" * 129)).status == 422
    force = await admin.patch(f"{path}?force=true", {})
    assert force.status == 422 and "may not be specified for non-apply patch" in force.json["message"]
    unknown = await apply(admin, path, {**config_map(), "dada": 1})
    assert unknown.status == 400 and ".dada: field not declared in schema" in unknown.json["message"]
    other = await apply(admin, path, {**config_map(), "kind": "Secret"})
    assert other.status == 400 and "invalid object type" in other.json["message"]
    mistyped = await apply(admin, path, {**config_map(), "data": {"a": 1}})
    assert ".data.a: expected string, got 1" in mistyped.json["message"]
    fields = {**config_map(), "metadata": {"name": "x", "managedFields": []}}
    assert "metadata.managedFields must be nil" in (await apply(admin, path, fields)).json["message"]
    absent = {**config_map(), "metadata": {"name": "x", "uid": "u"}}
    found = await apply(admin, path, absent)
    assert found.status == 409 and "no existing object was found" in found.json["message"]
    assert (await apply(admin, path, config_map("y"))).status == 400
    await apply(admin, path, config_map(a="1"))
    stale = {**config_map(), "metadata": {"name": "x", "resourceVersion": "1"}}
    assert (await apply(admin, path, stale)).status == 409


async def test_managed_fields_can_be_set_and_reset_by_clients(admin: Any) -> None:
    found = (await apply(admin, f"{MAPS}/x", config_map(a="1"))).json
    entry = found["metadata"]["managedFields"][0]
    renamed = {"metadata": {"managedFields": [{**entry, "manager": "you"}]}}
    owned = managers((await admin.patch(f"{MAPS}/x", renamed)).json)
    assert list(owned) == [("you", "Apply")]
    broken = {"metadata": {"managedFields": [{**entry, "operation": "Else"}]}}
    assert managers((await admin.patch(f"{MAPS}/x", broken)).json) == owned, "what makes no sense is left aside"
    for empty in ([], [{}]):
        await apply(admin, f"{MAPS}/x", config_map(a="1"))
        gone = (await admin.patch(f"{MAPS}/x", {"metadata": {"managedFields": empty}})).json
        assert "managedFields" not in gone["metadata"]
    unowned = (await admin.patch(f"{MAPS}/x", {"data": {"b": "2"}})).json
    assert "managedFields" not in unowned["metadata"], "who owns what is unknown until somebody applies"
    begun = managers((await apply(admin, f"{MAPS}/x", config_map(c="3"))).json)
    assert begun["before-first-apply", "Update"] == {"f:data": {".": {}, "f:a": {}, "f:b": {}}}


async def test_ten_updaters_are_kept_apart(admin: Any) -> None:
    await made(admin, MAPS + "?fieldManager=first", config_map(a="1"))
    for number in range(14):
        await admin.patch(f"{MAPS}/x?fieldManager=m{number:02}", {"data": {f"k{number:02}": "v"}})
    found = managers((await admin.get(f"{MAPS}/x")).json)
    assert len(found) == 10 and ("ancient-changes", "Update") in found
    assert {key for fields in found.values() for key in fields["f:data"]} >= {f"f:k{n:02}" for n in range(14)}


async def test_status_has_managers_of_its_own(admin: Any) -> None:
    await apply(admin, f"{PODS}/p", {"apiVersion": "v1", "kind": "Pod", **pod()})
    status = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "status": {"message": "well"}}
    found = await apply(admin, f"{PODS}/p/status", status, "kubelet")
    assert found.status == 200 and found.json["status"]["message"] == "well"
    owned = managers(found.json)
    assert owned["kubelet", "Applystatus"] == {"f:status": {"f:message": {}}}
    assert "f:status" not in owned["me", "Apply"], "the main resource does not write the status"
    assert (await apply(admin, f"{PODS}/none/status", {**status, "metadata": {"name": "none"}})).status == 404
    both = {**status, "spec": pod()["spec"]}
    assert (
        "f:spec"
        not in managers((await apply(admin, f"{PODS}/p/status", both, "kubelet")).json)["kubelet", "Applystatus"]
    )


async def test_admission_and_the_server_own_nothing(admin: Any) -> None:
    """A pod's tolerations and account come from admission; only what the client wrote and defaults are the client's."""
    found = await made(admin, PODS + "?fieldManager=c", pod())
    spec = managers(found)["c", "Update"]["f:spec"]
    assert "tolerations" in found["spec"] and "f:tolerations" not in spec
    assert "f:containers" in spec and "f:dnsPolicy" in spec


async def test_applies_run_again_when_they_lose_a_race(admin: Any) -> None:
    done = await asyncio.gather(*(apply(admin, f"{MAPS}/x", config_map(**{f"k{n}": "v"}), f"m{n}") for n in range(12)))
    assert {d.status for d in done} <= {200, 201} and sum(d.status == 201 for d in done) == 1
    assert len((await admin.get(f"{MAPS}/x")).json["data"]) == 12


async def test_an_update_creates_where_the_kind_allows_it(admin: Any) -> None:
    lease = {"metadata": {"name": "l"}, "spec": {"holderIdentity": "a"}}
    path = "/apis/coordination.k8s.io/v1/namespaces/default/leases/l"
    found = await admin.put(path, lease)
    assert found.status == 201 and managers(found.json)
    assert (await admin.put(f"{MAPS}/none", {"metadata": {"name": "none"}})).status == 404
    wrong = await admin.put(path.replace("/l", "/m"), lease)
    assert wrong.status in (400, 404)


async def test_kubectl_applies_on_the_server(kubectl: Any) -> None:
    text = json.dumps(config_map("one", a="1"))
    assert await kubectl("apply", "--server-side", "-f", "-", stdin=text) == "configmap/one serverside-applied\n"
    await kubectl("patch", "configmap", "one", "--type=merge", "-p", '{"data":{"a":"2"}}')
    said = await kubectl.refused("apply", "--server-side", "-f", "-", stdin=text)
    assert "conflict" in said and ".data.a" in said
    forced = await kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=text)
    assert forced == "configmap/one serverside-applied\n"
    again = json.dumps(config_map("one", b="2"))
    await kubectl("apply", "--server-side", "-f", "-", stdin=again)
    assert (await kubectl.json("get", "configmap", "one"))["data"] == {"b": "2"}


async def test_kubectl_goes_from_client_side_to_server_side_apply(kubectl: Any) -> None:
    await kubectl.apply(config_map("one", a="1", b="1"))
    changed = json.dumps(config_map("one", a="2", b="1"))
    assert "serverside-applied" in await kubectl("apply", "--server-side", "-f", "-", stdin=changed)
    found = await kubectl.json("get", "configmap", "one")
    assert found["data"] == {"a": "2", "b": "1"}
    last = found["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"]
    assert json.loads(last)["data"] == {"a": "2", "b": "1"}, "client-side apply may go on from here"
    assert "configured" in await kubectl.apply(config_map("one", a="3"))
    assert (await kubectl.json("get", "configmap", "one"))["data"] == {"a": "3"}


async def test_kubectl_diff_shows_what_an_apply_would_change(kubectl: Any) -> None:
    await kubectl.apply(config_map("one", a="1"))
    done = await kubectl.run("diff", "-f", "-", stdin=json.dumps(config_map("one", a="2")))
    assert done.code == 1 and '+  a: "2"' in done.out, done
    same = await kubectl.run("diff", "-f", "-", stdin=json.dumps(config_map("one", a="1")))
    assert same.code == 0, same
