"""ClusterNetworkPolicy as upstream's definition serves it, defaults of namespaces, and what nodes may see and say of policies."""

from __future__ import annotations

import asyncio
import copy
from typing import Any

import pytest

from polder.api.meta import Raw
from tests.contract.conftest import Answer, Api, Kubectl, Running
from tests.contract.test_api_nodes import PODS, TENANTS, bind

CLUSTER = "/apis/policy.networking.k8s.io/v1alpha2/clusternetworkpolicies"
NETWORK = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies"
PORTS = "/apis/polder.dev/v1alpha1/namespaces/default/ports"
GOOD: Raw = {
    "apiVersion": "policy.networking.k8s.io/v1alpha2",
    "kind": "ClusterNetworkPolicy",
    "metadata": {"name": "good"},
    "spec": {
        "tier": "Admin",
        "priority": 7,
        "subject": {"pods": {"namespaceSelector": {"matchLabels": {"a": "b"}}, "podSelector": {}}},
        "ingress": [{"name": "in", "action": "Deny", "from": [{"namespaces": {}}], "protocols": [{"tcp": {}}]}],
        "egress": [
            {"action": "Accept", "to": [{"networks": ["10.0.0.0/8", "fd00::/8"]}]},
            {
                "action": "Pass",
                "to": [{"namespaces": {}}],
                "protocols": [
                    {"udp": {"destinationPort": {"number": 53}}},
                    {"sctp": {"destinationPort": {"range": {"start": 1, "end": 9}}}},
                    {"destinationNamedPort": "web"},
                ],
            },
        ],
    },
}


async def applied(api: Api, path: str, body: Raw) -> Answer:
    """Server-side apply, with force."""
    whole = f"{path}?fieldManager=us&force=true"
    return await api.call("PATCH", whole, body, Content_Type="application/apply-patch+yaml")


async def test_a_cluster_network_policy_is_served_in_each_tenant_for_itself(either: Api, admin: Api) -> None:
    made = await either.post(CLUSTER, GOOD)
    assert made.status == 201, made.body
    assert made.json["spec"] == GOOD["spec"]
    assert made.json["metadata"]["generation"] == 1
    changed = await either.patch(f"{CLUSTER}/good", {"spec": {"priority": 8}})
    assert changed.json["metadata"]["generation"] == 2
    condition = {
        "type": "Accepted",
        "status": "True",
        "reason": "R",
        "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    status = await either.patch(f"{CLUSTER}/good/status", {"status": {"conditions": [condition]}})
    assert status.json["status"]["conditions"] == [condition]
    assert status.json["metadata"]["generation"] == 2
    await admin.post(TENANTS, {"metadata": {"name": "other"}})
    assert (await admin.at("other").get(CLUSTER)).json["items"] == []
    assert (await either.delete(f"{CLUSTER}/good")).status == 200


BAD = {
    "spec.tier": lambda spec: spec.update(tier="Middle"),
    "spec.priority": lambda spec: spec.update(priority=1001),
    "spec.subject": lambda spec: spec.update(subject={}),
    "spec.subject ": lambda spec: spec["subject"].update(namespaces={}),
    "spec.ingress[0].action": lambda spec: spec["ingress"][0].update(action="Allow"),
    "spec.ingress[0].from": lambda spec: spec["ingress"][0].update({"from": []}),
    "spec.ingress[0].from[0].networks": lambda spec: spec["ingress"][0].update(
        {"from": [{"networks": ["10.0.0.0/8"]}]}
    ),
    "spec.ingress[0].name": lambda spec: spec["ingress"][0].update(name="x" * 101),
    "spec.ingress[0].protocols": lambda spec: spec["ingress"][0].update(protocols=[{"udp": {}}] * 26),
    "spec.ingress": lambda spec: spec.update(ingress=spec["ingress"] * 26),
    "spec.egress[0].to[0]": lambda spec: spec["egress"][0].update(to=[{"nodes": {}}]),
    "spec.egress[0].to[0].networks[0]": lambda spec: spec["egress"][0].update(to=[{"networks": ["10.0.0.1/8"]}]),
    "spec.egress[1].protocols[0]": lambda spec: spec["egress"][1]["protocols"][0].update(tcp={}),
    "spec.egress[1].protocols[1].sctp.destinationPort.range": lambda spec: spec["egress"][1]["protocols"][1]["sctp"][
        "destinationPort"
    ]["range"].update(end=1),
    "spec.egress[1]": lambda spec: spec["egress"][1].update(to=[{"networks": ["10.0.0.0/8"]}]),
}


@pytest.mark.parametrize("field", BAD)
async def test_what_upstreams_definition_refuses_is_refused(admin: Api, field: str) -> None:
    body = copy.deepcopy(GOOD)
    BAD[field](body["spec"])
    answer = await admin.post(CLUSTER, body)
    assert answer.status == 422, answer.body
    assert field.strip() in [cause["field"] for cause in answer.json["details"]["causes"]]


async def test_no_way_of_writing_gives_a_policy_a_tier_that_is_none(either: Api) -> None:
    await either.post(CLUSTER, GOOD)
    path, bad = f"{CLUSTER}/good", {"spec": {"tier": "Middle"}}
    whole = copy.deepcopy((await either.get(path)).json)
    whole["spec"]["tier"] = "Middle"
    answers = [
        await either.patch(path, bad),
        await either.put(path, whole),
        await applied(either, path, {**GOOD, "spec": {**GOOD["spec"], **bad["spec"]}}),
    ]
    for answer in answers:
        assert answer.status == 422, answer.body
        assert 'spec.tier: Unsupported value: "Middle": supported values: "Admin", "Baseline"' in answer.json["message"]
    await either.put(f"{path}/status", whole)
    assert (await either.get(path)).json["spec"]["tier"] == "Admin"


async def test_kubectl_shows_tier_and_priority(kubectl: Kubectl) -> None:
    await kubectl.apply(GOOD)
    lines = (await kubectl("get", "cnp")).splitlines()
    assert lines[0].split()[:3] == ["NAME", "TIER", "PRIORITY"]
    assert lines[1].split()[:3] == ["good", "Admin", "7"]


async def test_a_namespaces_default_is_one_of_few_words(admin: Api) -> None:
    def space(name: str, wish: str) -> Raw:
        return {"metadata": {"name": name, "annotations": {"polder.dev/default-policy": wish}}}

    for wish in ("allow", "deny", "deny-ingress", "namespace"):
        assert (await admin.post("/api/v1/namespaces", space(f"n-{wish}", wish))).status == 201
    assert (await admin.post("/api/v1/namespaces", space("bad", "maybe"))).status == 422
    path = "/api/v1/namespaces/kube-system"
    assert (await admin.patch(path, space("kube-system", "deny"))).status == 200
    assert (await admin.patch(path, space("kube-system", "namespace"))).status == 422


async def test_no_way_of_writing_gives_a_namespace_a_default_that_is_no_word(either: Api) -> None:
    path = "/api/v1/namespaces/open"
    assert (await either.post("/api/v1/namespaces", {"metadata": {"name": "open"}})).status == 201
    whole = copy.deepcopy((await either.get(path)).json)
    whole["metadata"]["annotations"] = {"polder.dev/default-policy": "maybe"}
    notes = {"metadata": {"annotations": whole["metadata"]["annotations"]}}
    named = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "open", **notes["metadata"]}}
    for answer in (
        await either.patch(path, notes),
        await either.put(path, whole),
        await either.put(f"{path}/status", whole),
        await either.put(f"{path}/finalize", whole),
        await applied(either, path, named),
    ):
        said = (await either.get(path)).json["metadata"].get("annotations") or {}
        assert "polder.dev/default-policy" not in said, answer.body
    refused = await either.patch(path, notes)
    assert refused.status == 422
    assert "metadata.annotations[polder.dev/default-policy]: Unsupported value" in refused.json["message"]


async def test_a_node_sees_policies_of_tenants_that_are_present_and_lists_one_tenants(
    admin: Api, running: Running
) -> None:
    for name in ("acme", "globex"):
        await admin.post(TENANTS, {"metadata": {"name": name}})
        await admin.at(name).post(CLUSTER, GOOD)
        await admin.at(name).post(NETWORK, {"metadata": {"name": "deny"}, "spec": {"podSelector": {}}})
    await bind(admin, "acme", "here", "n1")
    await asyncio.sleep(0.1)
    node = running.node("n1")
    for path in (CLUSTER, "/apis/networking.k8s.io/v1/networkpolicies"):
        everywhere = (await node.at("*").get(path)).json["items"]
        assert [one["metadata"]["annotations"]["polder.dev/tenant"] for one in everywhere] == ["acme"]
        assert len((await node.at("acme").get(path)).json["items"]) == 1
        assert (await node.at("globex").get(path)).status == 403
    assert (await node.at("acme").get("/api/v1/secrets")).status == 403
    assert (await node.at("acme").delete(f"{CLUSTER}/good")).status == 403
    assert (await node.at("acme").delete(f"{NETWORK}/deny")).status == 403


async def test_a_node_says_of_a_pod_what_it_is(admin: Api, running: Running) -> None:
    """By its labels others' policies let a pod in: a node cannot give one a label that it does not have."""
    await admin.post(TENANTS, {"metadata": {"name": "acme"}})
    await bind(admin, "acme", "here", "n1")
    acme, node = admin.at("acme"), running.node("n1").at("acme")
    await acme.patch(f"{PODS}/here", {"metadata": {"labels": {"role": "db"}}})
    uid = (await acme.get(f"{PODS}/here")).json["metadata"]["uid"]

    def port(**spec: Any) -> Raw:
        own = {"network": "kube-system/default", "node": "n1", "pod": "here", "podUid": uid}
        return {"metadata": {"name": f"{uid}.eth0"}, "spec": {**own, **spec}}

    for wrong in ({"labels": {"role": "web"}}, {"labels": {"role": "db", "more": "x"}}):
        assert (await node.post(PORTS, port(**wrong))).status == 409, wrong
    named = [{"name": "web", "containerPort": 80, "protocol": "TCP"}]
    assert (await node.post(PORTS, port(labels={"role": "db"}, containerPorts=named))).status == 409
    assert (await node.post(PORTS, port(labels={"role": "db"}))).status == 201
    path = f"{PORTS}/{uid}.eth0"
    assert (await node.patch(path, {"spec": {"labels": {"role": "web"}}})).status == 409
    assert (await node.patch(path, {"spec": {"labels": None}})).status == 409
    await acme.patch(f"{PODS}/here", {"metadata": {"labels": {"role": "web"}}})
    assert (await node.patch(path, {"spec": {"labels": {"role": "web"}}})).status == 200
