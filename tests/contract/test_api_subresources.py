"""Subresources of built-in kinds: scale, eviction, ephemeral containers, resize, approval, finalize."""

from __future__ import annotations

from typing import Any

from tests.contract.test_api_apply import DEPLOYMENTS, apply, deployment, managers
from tests.contract.test_api_apply_kinds import CRDS, widget_crd
from tests.contract.test_api_writes import MAPS, PODS, made, pod

BUDGETS = "/apis/policy/v1/namespaces/default/poddisruptionbudgets"
REQUESTS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"


# --- scale ------------------------------------------------------------------------------------------------------------


async def test_a_deployments_scale(admin: Any) -> None:
    found = await made(admin, DEPLOYMENTS, deployment(replicas=2))
    scale = (await admin.get(f"{DEPLOYMENTS}/d/scale")).json
    meta = {k: found["metadata"][k] for k in ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")}
    assert scale == {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": meta,
        "spec": {"replicas": 2},
        "status": {"replicas": 0, "selector": "a=b"},
    }
    more = await admin.put(f"{DEPLOYMENTS}/d/scale?fieldManager=hpa", {**scale, "spec": {"replicas": 5}})
    assert more.status == 200 and more.json["spec"] == {"replicas": 5}
    after = (await admin.get(f"{DEPLOYMENTS}/d")).json
    assert after["spec"]["replicas"] == 5 and after["metadata"]["generation"] == 2
    assert managers(after)["hpa", "Updatescale"] == {"f:spec": {"f:replicas": {}}}
    assert "f:replicas" not in managers(after)["Python", "Update"]["f:spec"], "the scale took it"
    stale = await admin.put(f"{DEPLOYMENTS}/d/scale", {**scale, "spec": {"replicas": 1}})
    assert stale.status == 409
    for kind in ("merge-patch", "strategic-merge-patch"):
        assert (await admin.patch(f"{DEPLOYMENTS}/d/scale", {"spec": {"replicas": 7}}, kind)).json["spec"] == {
            "replicas": 7
        }
    refused = await admin.patch(f"{DEPLOYMENTS}/d/scale", {"spec": {"replicas": -1}})
    assert refused.status == 422 and refused.json["message"].startswith('Scale.autoscaling "d" is invalid')
    assert (await admin.get(f"{DEPLOYMENTS}/none/scale")).status == 404
    assert (await admin.get(f"{MAPS}/kube-root-ca.crt/scale")).status == 404
    assert (await admin.post(f"{DEPLOYMENTS}/d/scale", scale)).status == 405


async def test_scales_are_applied(admin: Any) -> None:
    await apply(admin, f"{DEPLOYMENTS}/d", deployment(replicas=1), "gitops")
    wanted = {"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "d"}, "spec": {"replicas": 4}}
    clash = await apply(admin, f"{DEPLOYMENTS}/d/scale", wanted, "scaler")
    assert clash.status == 409 and clash.json["message"].endswith('conflict with "gitops": .spec.replicas')
    forced = await apply(admin, f"{DEPLOYMENTS}/d/scale", wanted, "scaler", "&force=true")
    assert forced.status == 200 and forced.json["spec"]["replicas"] == 4
    owned = managers((await admin.get(f"{DEPLOYMENTS}/d")).json)
    assert owned["scaler", "Applyscale"] == {"f:spec": {"f:replicas": {}}}
    assert "f:replicas" not in owned["gitops", "Apply"]["f:spec"]
    back = await apply(admin, f"{DEPLOYMENTS}/d", deployment(replicas=1), "gitops")
    assert 'conflict with "scaler" with subresource "scale": .spec.replicas' in back.json["message"]
    same = await apply(admin, f"{DEPLOYMENTS}/d", deployment(), "gitops")
    assert same.json["spec"]["replicas"] == 4


async def test_a_custom_kinds_scale(admin: Any) -> None:
    crd = widget_crd()
    version = crd["spec"]["versions"][0]
    parts = version["schema"]["openAPIV3Schema"]["properties"]
    parts["spec"]["properties"]["count"] = {"type": "integer"}
    parts["status"]["properties"] = {"now": {"type": "integer"}, "labels": {"type": "string"}}
    version["subresources"]["scale"] = {
        "specReplicasPath": ".spec.count", "statusReplicasPath": ".status.now", "labelSelectorPath": ".status.labels"
    }  # fmt: skip
    await made(admin, CRDS, crd)
    path = "/apis/test.io/v1/namespaces/default/gadgets"
    await made(admin, path, {"metadata": {"name": "g"}, "spec": {"count": 3}})
    await admin.patch(f"{path}/g/status", {"status": {"now": 2, "labels": "x=y"}})
    found = await admin.patch(f"{path}/g/scale", {"spec": {"replicas": 9}})
    assert found.json["spec"] == {"replicas": 9} and found.json["status"] == {"replicas": 2, "selector": "x=y"}
    assert (await admin.get(f"{path}/g")).json["spec"] == {"count": 9}


async def test_kubectl_scales(kubectl: Any) -> None:
    await kubectl.apply(deployment(replicas=1))
    assert await kubectl("scale", "deployment", "d", "--replicas=3") == "deployment.apps/d scaled\n"
    assert (await kubectl.json("get", "deployment", "d"))["spec"]["replicas"] == 3
    refused = await kubectl.refused("scale", "deployment", "d", "--replicas=4", "--current-replicas=1")
    assert "Expected replicas to be 1, was 3" in refused


# --- eviction ---------------------------------------------------------------------------------------------------------


async def running_pod(admin: Any, name: str = "p", *, ready: bool = True) -> Any:
    body = pod(name)
    body["metadata"]["labels"] = {"app": "x"}
    await made(admin, PODS, body)
    await admin.post(f"{PODS}/{name}/binding", {"metadata": {"name": name}, "target": {"kind": "Node", "name": "n"}})
    condition = {"type": "Ready", "status": "True" if ready else "False"}
    found = await admin.patch(f"{PODS}/{name}/status", {"status": {"phase": "Running", "conditions": [condition]}})
    return found.json


async def budget(admin: Any, name: str = "b", **status: Any) -> Any:
    spec = {"minAvailable": 1, "selector": {"matchLabels": {"app": "x"}}}
    await made(admin, BUDGETS, {"metadata": {"name": name}, "spec": spec})
    whole = {"observedGeneration": 1, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1, **status}
    whole.setdefault("disruptionsAllowed", 0)
    return (await admin.patch(f"{BUDGETS}/{name}/status", {"status": whole})).json


def eviction(name: str = "p", **options: Any) -> Any:
    return {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}, "deleteOptions": options}


async def test_an_eviction_without_a_budget_deletes(admin: Any) -> None:
    await running_pod(admin)
    dry = await admin.post(f"{PODS}/p/eviction?dryRun=All", eviction())
    assert dry.status == 201 and "deletionTimestamp" not in (await admin.get(f"{PODS}/p")).json["metadata"]
    done = await admin.post(f"{PODS}/p/eviction", eviction())
    assert done.status == 201 and done.json["status"] == "Success"
    after = (await admin.get(f"{PODS}/p")).json
    assert after["metadata"]["deletionGracePeriodSeconds"] == 30
    assert after["status"]["conditions"][-1]["reason"] == "EvictionByEvictionAPI"
    assert (await admin.post(f"{PODS}/none/eviction", eviction("none"))).status == 404
    assert (await admin.post(f"{PODS}/p/eviction", eviction("q"))).status == 400


async def test_a_budget_holds_evictions_up(admin: Any) -> None:
    await running_pod(admin)
    await budget(admin)
    refused = await admin.post(f"{PODS}/p/eviction", eviction())
    assert (refused.status, refused.json["reason"]) == (429, "TooManyRequests")
    assert refused.json["message"] == "Cannot evict pod as it would violate the pod's disruption budget."
    cause = {
        "reason": "DisruptionBudget",
        "message": "The disruption budget b needs 1 healthy pods and has 1 currently",
    }
    assert refused.json["details"]["causes"] == [cause]
    await admin.patch(f"{BUDGETS}/b/status", {"status": {"disruptionsAllowed": 1, "currentHealthy": 2}})
    assert (await admin.post(f"{PODS}/p/eviction", eviction())).status == 201
    after = (await admin.get(f"{BUDGETS}/b")).json["status"]
    assert after["disruptionsAllowed"] == 0 and list(after["disruptedPods"]) == ["p"]


async def test_a_budget_that_is_not_observed_yet_and_several_budgets(admin: Any) -> None:
    await running_pod(admin)
    await budget(admin, observedGeneration=0, disruptionsAllowed=1)
    busy = await admin.post(f"{PODS}/p/eviction", eviction())
    assert busy.status == 429 and busy.headers["Retry-After"] == "10"
    await budget(admin, "c")
    several = await admin.post(f"{PODS}/p/eviction", eviction())
    assert several.status == 500 and "more than one PodDisruptionBudget" in several.json["message"]


async def test_pods_that_do_not_count_are_evicted_always(admin: Any) -> None:
    await running_pod(admin, "sick", ready=False)
    await budget(admin, currentHealthy=1, desiredHealthy=1)
    assert (await admin.post(f"{PODS}/sick/eviction", eviction("sick"))).status == 201, "enough others are healthy"
    await running_pod(admin, "other", ready=False)
    await admin.patch(f"{BUDGETS}/b/status", {"status": {"currentHealthy": 0}})
    assert (await admin.post(f"{PODS}/other/eviction", eviction("other"))).status == 429
    found = (await admin.get(f"{BUDGETS}/b")).json
    found["spec"]["unhealthyPodEvictionPolicy"] = "AlwaysAllow"
    assert (await admin.put(f"{BUDGETS}/b", found)).status == 200
    assert (await admin.post(f"{PODS}/other/eviction", eviction("other"))).status == 201
    body = pod("waiting")
    body["metadata"]["labels"] = {"app": "x"}
    await made(admin, PODS, body)
    assert (await admin.post(f"{PODS}/waiting/eviction", eviction("waiting"))).status == 201


async def test_an_evictions_delete_options_count(admin: Any) -> None:
    found = await running_pod(admin)
    wrong = eviction(preconditions={"uid": "00000000-0000-0000-0000-000000000000"})
    assert (await admin.post(f"{PODS}/p/eviction", wrong)).status == 409
    stale = eviction(preconditions={"resourceVersion": "1"})
    assert (await admin.post(f"{PODS}/p/eviction", stale)).status == 409
    good = eviction(gracePeriodSeconds=3, preconditions={"uid": found["metadata"]["uid"]})
    assert (await admin.post(f"{PODS}/p/eviction", good)).status == 201
    assert (await admin.get(f"{PODS}/p")).json["metadata"]["deletionGracePeriodSeconds"] == 3


# --- parts of a pod ---------------------------------------------------------------------------------------------------


async def test_ephemeral_containers_are_added_and_stay(admin: Any) -> None:
    await made(admin, PODS, pod())
    debugger = {"name": "debug", "image": "busybox", "targetContainerName": "c"}
    change = {"metadata": {"labels": {"no": "no"}}, "spec": {"ephemeralContainers": [debugger]}}
    added = await admin.patch(f"{PODS}/p/ephemeralcontainers", change, "strategic-merge-patch")
    assert added.status == 200, added.json
    found = added.json["spec"]["ephemeralContainers"]
    assert found[0]["name"] == "debug" and found[0]["imagePullPolicy"] == "Always"
    assert "labels" not in added.json["metadata"] and added.json["metadata"]["generation"] == 2
    assert (await admin.get(f"{PODS}/p/ephemeralcontainers")).json == added.json
    gone = {**added.json, "spec": {**added.json["spec"], "ephemeralContainers": []}}
    refused = await admin.put(f"{PODS}/p/ephemeralcontainers", gone)
    assert (
        refused.status == 422 and 'existing ephemeral containers "debug" may not be removed' in refused.json["message"]
    )
    for wrong, said in (
        ({"name": "e", "image": "i", "ports": [{"containerPort": 1}]}, "cannot be set for an Ephemeral Container"),
        ({"name": "c", "image": "i"}, "Duplicate value"),
        ({"name": "e", "image": "i", "targetContainerName": "zz"}, "Not found"),
        ({"name": "e"}, "image: Required value"),
    ):
        body = {"spec": {"ephemeralContainers": [debugger, wrong]}}
        answer = await admin.patch(f"{PODS}/p/ephemeralcontainers", body, "strategic-merge-patch")
        assert answer.status == 422 and said in answer.json["message"], answer.json
    other = {"spec": {"ephemeralContainers": [{"name": "other", "image": "i"}]}}
    assert (await admin.patch(f"{PODS}/p", other, "strategic-merge-patch")).status == 422, "not through the pod itself"
    new = pod("q")
    new["spec"]["ephemeralContainers"] = [{"name": "e", "image": "i"}]
    refused = await admin.post(PODS, new)
    assert refused.status == 422 and "spec.ephemeralContainers" in refused.json["message"]
    assert (await admin.delete(f"{PODS}/p/ephemeralcontainers")).status == 405


async def test_a_pod_is_resized(admin: Any) -> None:
    body = pod()
    body["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "1", "memory": "1Gi"}}
    await made(admin, PODS, body)

    def to(**requests: str) -> Any:
        return {"spec": {"containers": [{"name": "c", "image": "other", "resources": {"requests": requests}}]}}

    done = await admin.patch(f"{PODS}/p/resize", to(cpu="2"), "strategic-merge-patch")
    assert done.status == 200, done.json
    container = done.json["spec"]["containers"][0]
    assert container["resources"]["requests"] == {"cpu": "2", "memory": "1Gi"} and container["image"] != "other"
    best = await admin.patch(f"{PODS}/p/resize", to(cpu="0", memory="0"), "strategic-merge-patch")
    assert best.status == 422 and "Pod QOS Class may not change" in best.json["message"]
    less = {"spec": {"containers": [{**container, "resources": {"requests": {"cpu": "2"}}}]}}
    removed = await admin.patch(f"{PODS}/p/resize", less)
    assert removed.status == 422 and "resource requests cannot be removed" in removed.json["message"]
    disk = await admin.patch(f"{PODS}/p/resize", to(**{"ephemeral-storage": "1Gi"}), "strategic-merge-patch")
    assert disk.status == 422 and "only cpu and memory resources are mutable" in disk.json["message"]


# --- others -----------------------------------------------------------------------------------------------------------


async def test_finalize_writes_a_namespaces_finalizers_alone(admin: Any) -> None:
    await made(admin, "/api/v1/namespaces", {"metadata": {"name": "ns", "labels": {"a": "b"}}})
    sent = {"metadata": {"name": "ns"}, "spec": {"finalizers": ["kubernetes", "x.io/y"]}}
    found = await admin.put("/api/v1/namespaces/ns/finalize", sent)
    assert found.json["spec"]["finalizers"] == ["kubernetes", "x.io/y"] and found.json["metadata"]["labels"]["a"] == "b"
    assert (await admin.get("/api/v1/namespaces/ns/finalize")).status == 405


async def test_requests_are_approved_once(admin: Any, running: Any) -> None:
    spec = {"request": "LS0t", "signerName": "test.io/x", "usages": ["client auth"]}
    created = await admin.post(REQUESTS, {"metadata": {"name": "r"}, "spec": spec})
    if created.status == 422:  # the request itself is checked: one that parses
        import base64

        from tests.contract.csr import request_pem

        spec["request"] = base64.b64encode(request_pem()).decode()
        created = await admin.post(REQUESTS, {"metadata": {"name": "r"}, "spec": spec})
    assert created.status == 201, created.json
    yes = {"type": "Approved", "status": "True", "reason": "r", "message": "m"}
    change = {"metadata": {"annotations": {"a": "b"}}, "status": {"conditions": [yes], "certificate": "LS0t"}}
    found = (await admin.patch(f"{REQUESTS}/r/approval", change)).json
    assert found["status"]["conditions"][0]["lastUpdateTime"] and "certificate" not in found["status"]
    assert found["metadata"]["annotations"] == {"a": "b"}
    no = {**yes, "type": "Denied"}
    both = await admin.patch(f"{REQUESTS}/r/approval", {"status": {"conditions": [yes, no]}})
    assert both.status == 422 and "mutually exclusive" in both.json["message"]
    away = await admin.patch(f"{REQUESTS}/r/approval", {"status": {"conditions": []}})
    assert away.status == 422 and 'may not remove a condition of type "Approved"' in away.json["message"]
    by_status = await admin.patch(f"{REQUESTS}/r/status", {"status": {"certificate": None, "conditions": []}})
    assert by_status.status == 200 and by_status.json["status"]["conditions"][0]["type"] == "Approved"
    undecided = await admin.patch(f"{REQUESTS}/r/status", {"status": {"conditions": [yes, {**yes, "type": "Denied"}]}})
    assert undecided.status == 422


async def test_what_needs_a_node_says_so(admin: Any) -> None:
    await made(admin, PODS, pod())
    unplaced = "pod p does not have a host assigned"
    whys = {"exec": unplaced, "attach": unplaced, "portforward": unplaced, "proxy": "address not allowed"}
    for name, why in whys.items():
        answer = await admin.post(f"{PODS}/p/{name}", {})
        assert (answer.status, answer.json["message"]) == (400, why)
    assert (await admin.get(f"{PODS}/p/nonsense")).status == 404


async def test_a_scale_as_a_table(admin: Any) -> None:
    await admin.post(DEPLOYMENTS, deployment("t", replicas=3))
    accept = "application/json;as=Table;v=v1;g=meta.k8s.io"
    shown = (await admin.get(f"{DEPLOYMENTS}/t/scale", Accept=accept)).json
    assert [column["name"] for column in shown["columnDefinitions"]] == ["Name", "Desired", "Available", "Age"]
    assert shown["rows"][0]["cells"][:3] == ["t", 3, 0] and shown["metadata"]["resourceVersion"]
    assert shown["rows"][0]["object"]["metadata"]["name"] == "t"
    named = (await admin.get(f"{DEPLOYMENTS}/t/scale", Accept=accept.replace("Table", "PartialObjectMetadata"))).json
    assert named["kind"] == "PartialObjectMetadata" and named["metadata"]["name"] == "t"
