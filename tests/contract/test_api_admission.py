"""What admission completes and refuses: accounts and tokens of pods, networks, services, definitions, tenants."""

from __future__ import annotations

import asyncio
from typing import Any

PODS = "/api/v1/namespaces/default/pods"
NETS = "/apis/polder.dev/v1alpha1/namespaces/default/networks"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
TENANTS = "/apis/polder.dev/v1alpha1/tenants"
TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount"


def pod(name: str = "p", annotations: Any = None, **more: Any) -> dict[str, Any]:
    spec = {"containers": [{"name": "c", "image": "i:1"}], **more}
    return {"metadata": {"name": name, "annotations": annotations or {}}, "spec": spec}


def field_of(answer: Any) -> str:
    assert answer.status == 422, answer.body
    return answer.json["details"]["causes"][0]["field"]


async def test_tolerations_come_back_when_a_client_writes_its_own_over_them(admin: Any) -> None:
    path = "/api/v1/namespaces/default/pods"
    body = {"metadata": {"name": "tolerant"}, "spec": {"containers": [{"name": "c", "image": "x"}]}}
    made = (await admin.post(path, body)).json
    own = {"key": "own", "operator": "Exists", "effect": "NoSchedule"}
    put = await admin.put(f"{path}/tolerant", {**made, "spec": {**made["spec"], "tolerations": [own]}})
    assert put.status == 200, put.body
    assert put.json["spec"]["tolerations"] == [own, *made["spec"]["tolerations"]]


async def test_accounts_and_tokens(admin: Any) -> None:
    found = (await admin.post(PODS, pod())).json["spec"]
    assert found["serviceAccountName"] == "default"
    (volume,) = found["volumes"]
    assert volume["name"].startswith("kube-api-access-") and len(volume["projected"]["sources"]) == 3
    assert found["containers"][0]["volumeMounts"] == [
        {"name": volume["name"], "mountPath": TOKEN, "readOnly": True},
    ]
    assert [t["key"].rpartition("/")[2] for t in found["tolerations"]] == ["not-ready", "unreachable"]
    bare = (await admin.post(PODS, pod("q", automountServiceAccountToken=False))).json["spec"]
    assert "volumes" not in bare
    refused = await admin.post(PODS, pod("r", serviceAccountName="ghost"))
    assert refused.status == 403 and 'serviceaccount "ghost" not found' in refused.json["message"]
    await admin.post(
        "/api/v1/namespaces/default/serviceaccounts",
        {"metadata": {"name": "quiet"}, "automountServiceAccountToken": False},
    )
    quiet = (await admin.post(PODS, pod("s", serviceAccountName="quiet"))).json["spec"]
    assert "volumes" not in quiet and quiet["serviceAccount"] == "quiet"


async def test_networks_do_not_overlap(admin: Any) -> None:
    made = await admin.post(NETS, {"metadata": {"name": "a"}, "spec": {"cidr": "10.5.0.0/16"}})
    assert made.status == 201, made.body
    for cidr in ("10.5.3.0/24", "10.0.0.0/8", "10.97.0.0/24", "10.1.0.0/16"):
        refused = await admin.post(NETS, {"metadata": {"name": "b"}, "spec": {"cidr": cidr}})
        assert field_of(refused) == "spec.cidr", cidr
    assert field_of(await admin.post(NETS, {"metadata": {"name": "b"}, "spec": {"cidr": "nonsense"}})) == "spec.cidr"
    isolated = await admin.post(NETS, {"metadata": {"name": "b"}, "spec": {"cidr": "10.5.3.0/24", "router": ""}})
    assert isolated.status == 201, isolated.body
    both = [{"metadata": {"name": f"n{n}"}, "spec": {"cidr": "10.66.0.0/16"}} for n in range(8)]
    done = await asyncio.gather(*(admin.post(NETS, one) for one in both))
    assert sorted(d.status for d in done) == [201] + [422] * 7


async def test_no_tenant_takes_the_addresses_of_the_routers(admin: Any, running: Any) -> None:
    assert (await admin.post(TENANTS, {"metadata": {"name": "acme"}})).status == 201
    acme = await running.tenant_admin("acme")
    refused = await acme.post(NETS, {"metadata": {"name": "b"}, "spec": {"cidr": "100.64.0.0/16"}})
    assert field_of(refused) == "spec.cidr" and "must not overlap 100.64.0.0/10" in refused.json["message"]


async def test_tenants_networks_overlap_freely(admin: Any) -> None:
    for name in ("acme", "globex"):
        assert (await admin.post(TENANTS, {"metadata": {"name": name}})).status == 201
        made = await admin.at(name).post(NETS, {"metadata": {"name": "a"}, "spec": {"cidr": "192.168.0.0/24"}})
        assert made.status == 201, made.body


async def test_pods_name_networks_that_exist(admin: Any) -> None:
    await admin.post(NETS, {"metadata": {"name": "a"}, "spec": {"cidr": "10.5.0.0/24"}})
    network, address = "polder.dev/network", "polder.dev/address"
    right = await admin.post(PODS, pod("ok", {network: "default/a", address: "10.5.0.9"}))
    assert right.status == 201, right.body
    wrong = [
        ({network: "default/none"}, network),
        ({network: "nonsense"}, network),
        ({network: "default/a", address: "10.6.0.9"}, address),
        ({network: "default/a", address: "10.5.0.0"}, address),
        ({network: "default/a", address: "10.5.0.1"}, address),
        ({network: "default/a", address: "x"}, address),
        ({address: "10.5.0.9"}, address),
    ]
    for chosen, named in wrong:
        refused = await admin.post(PODS, pod("no", chosen))
        assert named in field_of(refused), (chosen, refused.json)
    ns = await admin.post("/api/v1/namespaces", {"metadata": {"name": "x", "annotations": {network: "default/none"}}})
    assert network in field_of(ns)


async def test_node_ports_that_nothing_outside_reaches_are_made_with_a_warning(admin: Any) -> None:
    path = "/api/v1/namespaces/default/services"
    ports = [{"port": 80}]
    assert (await admin.post(TENANTS, {"metadata": {"name": "warned"}})).status == 201
    tenants = (admin.at("warned"), True), (admin, False)
    for api, is_warned in tenants:
        made = await api.post(path, {"metadata": {"name": "n"}, "spec": {"ports": ports, "type": "NodePort"}})
        assert made.status == 201 and ("its own pods only" in made.headers.get("Warning", "")) is is_warned
    for number, spec in enumerate(({}, {"clusterIP": "10.97.0.9"}, {"type": "NodePort"}, {"type": "LoadBalancer"})):
        made = await admin.post(path, {"metadata": {"name": f"s{number}"}, "spec": {"ports": ports, **spec}})
        assert made.status == 201 and made.json["spec"]["clusterIP"].startswith("10.97."), made.json
        assert "Warning" not in made.headers
    headless = {"metadata": {"name": "s"}, "spec": {"ports": ports, "clusterIP": "None"}}
    plain = await admin.post(path, headless)
    assert plain.status == 201 and "Warning" not in plain.headers
    label = {"metadata": {"labels": {"a": "b"}}}
    kept = await admin.patch(f"{path}/kubernetes", label)
    assert kept.status == 200, kept.body


async def test_what_pods_may_not_ask_for(admin: Any) -> None:
    await admin.post(TENANTS, {"metadata": {"name": "acme"}})
    acme = admin.at("acme")
    host = {"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}
    privileged = {"containers": [{"name": "c", "image": "i", "securityContext": {"privileged": True}}]}
    for more in (host, privileged, {"hostNetwork": True}, {"hostPID": True}):
        refused = await acme.post(PODS, pod("no", **more))
        assert refused.status == 422, (more, refused.body)
        assert (await admin.post(PODS, pod(f"yes-{len(str(more))}", **more))).status == 201, more


async def test_tenants_do_not_choose_nodes(admin: Any, running: Any) -> None:
    await admin.post(TENANTS, {"metadata": {"name": "acme"}})
    acme = await running.tenant_admin("acme")
    assert field_of(await acme.post(PODS, pod(nodeName="n1"))) == "spec.nodeName"
    assert (await acme.post(PODS, pod())).status == 201
    binding = {"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n1"}}
    assert (await acme.post(f"{PODS}/p/binding", binding)).status == 403
    assert (await acme.post("/api/v1/namespaces/default/bindings", binding)).status == 403
    assert (await acme.patch(f"{PODS}/p", {"spec": {"nodeName": "n1"}})).status == 422
    assert (await admin.at("acme").post(PODS, pod("q", nodeName="n1"))).status == 201


async def test_a_tenant_is_whole_at_once(admin: Any, running: Any) -> None:
    assert (await admin.post(TENANTS, {"metadata": {"name": "acme"}})).status == 201
    acme = await running.tenant_admin("acme")
    found = (await acme.get("/api/v1/namespaces")).json["items"]
    assert {o["metadata"]["name"] for o in found} >= {"default", "kube-system"}
    assert (await acme.get("/api/v1/namespaces/default/services/kubernetes")).json["spec"]["clusterIP"] == "10.96.0.1"
    assert (await acme.get("/apis/polder.dev/v1alpha1/namespaces/kube-system/networks/default")).status == 200
    none = await acme.post(TENANTS, {"metadata": {"name": "inner"}})
    assert none.status == 403 and "this kind is written by the platform only" in none.json["message"]
    assert (await acme.get(TENANTS)).status == 404
    listed = (await acme.get("/apis/polder.dev/v1alpha1")).json["resources"]
    assert "tenants" not in {r["name"] for r in listed}
    again = await admin.post(TENANTS, {"metadata": {"name": "acme"}})
    assert (again.status, again.json["reason"]) == (409, "AlreadyExists")
    for bad in ("root", "*", "A"):
        assert (await admin.post(TENANTS, {"metadata": {"name": bad}})).status == 422, bad
    assert (await admin.at("nobody").get("/api/v1/namespaces")).status == 404


async def test_tenants_cannot_tell_each_other_from_nobody(admin: Any, running: Any) -> None:
    for name in ("acme", "globex"):
        await admin.post(TENANTS, {"metadata": {"name": name}})
    acme = await running.tenant_admin("acme")
    for path in ("/api/v1/namespaces", "/api/v1/namespaces/default/pods/x", "/apis", "/openapi/v2", "/nonsense"):
        theirs, nobodys = await acme.at("globex").get(path), await acme.at("nobody").get(path)
        assert theirs.status == nobodys.status == 403
        assert theirs.body.replace(b"globex", b"nobody") == nobodys.body


async def test_a_terminating_tenant_takes_nothing_new(admin: Any) -> None:
    await admin.post(TENANTS, {"metadata": {"name": "acme", "finalizers": ["polder.dev/tenant"]}})
    await admin.delete(f"{TENANTS}/acme")
    refused = await admin.at("acme").post(PODS, pod())
    assert refused.status == 403 and "terminat" in refused.json["message"]
    assert (await admin.at("acme").delete("/api/v1/namespaces/default")).status == 200


def definition(kind: str, plural: str, **spec: Any) -> dict[str, Any]:
    schema = {"type": "object", "properties": {"spec": {"type": "object", "properties": spec}}}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    older = {**version, "name": "v1beta1", "storage": False}
    names = {"plural": plural, "singular": kind.lower(), "kind": kind}
    body = {"group": "example.com", "scope": "Namespaced", "names": names, "versions": [version, older]}
    return {"metadata": {"name": f"{plural}.example.com"}, "spec": body}


async def test_definitions_of_one_name_differ_between_tenants(admin: Any) -> None:
    wanted = {"acme": "integer", "globex": "string"}
    for name, kind in wanted.items():
        await admin.post(TENANTS, {"metadata": {"name": name}})
        made = await admin.at(name).post(CRDS, definition("Widget", "widgets", size={"type": kind}))
        assert made.status == 201, made.body
        assert {c["type"]: c["status"] for c in made.json["status"]["conditions"]} == {
            "NamesAccepted": "True",
            "Established": "True",
        }
    path = "/apis/example.com/v1/namespaces/default/widgets"
    number, text = ({"metadata": {"name": "w"}, "spec": {"size": size}} for size in (1, "1"))
    assert (await admin.at("acme").post(path, number)).status == 201
    assert (await admin.at("acme").post(path, {**text, "metadata": {"name": "v"}})).status == 422
    assert (await admin.at("globex").post(path, text)).status == 201
    assert (await admin.get(path)).status == 404
    older = (await admin.at("acme").get("/apis/example.com/v1beta1/namespaces/default/widgets/w")).json
    assert older["apiVersion"] == "example.com/v1beta1" and older["spec"] == {"size": 1}
    groups = {g["name"] for g in (await admin.at("acme").get("/apis")).json["groups"]}
    assert "example.com" in groups
    assert "example.com" not in {g["name"] for g in (await admin.get("/apis")).json["groups"]}


async def test_a_definition_takes_its_objects_along(admin: Any) -> None:
    await admin.post(CRDS, definition("Widget", "widgets"))
    path = "/apis/example.com/v1/namespaces/default/widgets"
    for name, finalizers in (("free", []), ("held", ["x.y/z"])):
        made = await admin.post(path, {"metadata": {"name": name, "finalizers": finalizers}})
        assert made.status == 201, made.body
    await admin.delete(f"{CRDS}/widgets.example.com")
    for _ in range(100):
        left = [o["metadata"]["name"] for o in (await admin.get(path)).json["items"]]
        if left == ["held"]:
            break
        await asyncio.sleep(0.02)
    assert left == ["held"]
    assert (await admin.post(path, {"metadata": {"name": "new"}})).status == 405
    assert (await admin.patch(f"{path}/held", {"metadata": {"finalizers": None}})).status == 200
    for _ in range(100):
        if (await admin.get(f"{CRDS}/widgets.example.com")).status == 404:
            break
        await asyncio.sleep(0.1)
    assert (await admin.get(f"{CRDS}/widgets.example.com")).status == 404
    assert (await admin.get(path)).status == 404


async def test_names_of_definitions_clash_inside_a_tenant(admin: Any) -> None:
    await admin.post(CRDS, definition("Widget", "widgets"))
    clash = await admin.post(CRDS, definition("Widget", "gadgets"))
    assert clash.status == 201
    assert {c["status"] for c in clash.json["status"]["conditions"]} == {"False"}
    assert (await admin.get("/apis/example.com/v1/namespaces/default/gadgets")).status == 404


async def test_custom_resources_need_a_version_for_updates(admin: Any) -> None:
    await admin.post(CRDS, definition("Widget", "widgets", size={"type": "integer", "default": 3}))
    path = "/apis/example.com/v1/namespaces/default/widgets"
    made = (await admin.post(path, {"metadata": {"name": "w"}, "spec": {}, "junk": 1})).json
    assert made["spec"] == {"size": 3} and "junk" not in made and made["metadata"]["generation"] == 1
    refused = await admin.put(f"{path}/w", {"metadata": {"name": "w"}, "spec": {"size": 4}})
    assert field_of(refused) == "metadata.resourceVersion"
    assert (await admin.patch(f"{path}/w", {"spec": {"size": 4}}, "strategic-merge-patch")).status == 415
    done = await admin.patch(f"{path}/w", {"spec": {"size": 4}})
    assert done.json["metadata"]["generation"] == 2


async def test_what_a_tenant_cannot_be_without_goes_only_with_it(admin: Any, running: Any) -> None:
    assert (await admin.post(TENANTS, {"metadata": {"name": "acme"}})).status == 201
    acme = await running.tenant_admin("acme")
    service, network = (
        "/api/v1/namespaces/default/services/kubernetes",
        NETS.replace("default", "kube-system") + "/default",
    )
    slice_ = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes"
    for path in (service, slice_, network):
        refused = await acme.delete(path)
        assert refused.status == 403 and "it goes only with its tenant" in refused.json["message"], path
    ports = {"spec": {"ports": [{"port": 80}]}}
    refused = await acme.patch(service, ports)
    assert refused.status == 403 and "only its metadata may change" in refused.json["message"]
    assert (await acme.patch(service, {"metadata": {"labels": {"a": "b"}}})).status == 200
    assert (await acme.patch(network, {"spec": {"mtu": 1300}})).status == 200
