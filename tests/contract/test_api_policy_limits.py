"""What a tenant's own admission policies never reach: what only Polder writes."""

from __future__ import annotations

import pytest

from tests.contract.conftest import Api, Running
from tests.contract.test_api_policies import json_patch, mutating

NETWORKS = "/apis/polder.dev/v1alpha1/namespaces/kube-system/networks"
STOLEN = json_patch(
    'has(object.status) ? [JSONPatch{op: "add", path: "/status/vni", value: 4242}]'
    ' : [JSONPatch{op: "add", path: "/status", value: {"vni": 4242}}]'
)


async def policed(admin: Api, running: Running, resource: str) -> Api:
    """A tenant whose policy writes another VXLAN identifier wherever it may."""
    assert (await admin.post("/apis/polder.dev/v1alpha1/tenants", {"metadata": {"name": "acme"}})).status == 201
    tenant = await running.tenant_admin("acme")
    rule = {
        "apiGroups": ["polder.dev"], "apiVersions": ["*"], "resources": [resource], "operations": ["CREATE", "UPDATE"],
    }  # fmt: skip
    await mutating(tenant, STOLEN, matchConstraints={"resourceRules": [rule]}, failurePolicy="Fail")
    return tenant


async def test_a_policy_does_not_change_the_identifier_that_polder_writes(admin: Api, running: Running) -> None:
    await policed(admin, running, "networks/status")
    network = running.component().at("acme")
    said = await network.patch(f"{NETWORKS}/default/status", {"status": {"vni": 77, "gateway": "10.0.0.1"}})
    assert said.status == 200, said.body
    assert said.json["status"]["vni"] == 77


@pytest.mark.parametrize("verb", ["create", "update"])
async def test_nor_does_it_by_a_write_of_the_network_itself(admin: Api, running: Running, verb: str) -> None:
    tenant = await policed(admin, running, "networks")
    network = running.component().at("acme")
    said = await network.patch(f"{NETWORKS}/default/status", {"status": {"vni": 77, "gateway": "10.0.0.1"}})
    assert said.status == 200, said.body
    if verb == "update":
        said = await tenant.patch(f"{NETWORKS}/default", {"metadata": {"labels": {"a": "b"}}})
    else:
        body = {"metadata": {"name": "mine"}, "spec": {"cidr": "10.77.0.0/24"}}
        said = await tenant.post(NETWORKS, body)
    assert said.status in {200, 201}, said.body
    assert (said.json.get("status") or {}).get("vni", 0) == (77 if verb == "update" else 0)


async def test_nor_does_it_choose_the_node_of_a_pod_that_a_controller_makes(admin: Api, running: Running) -> None:
    assert (await admin.post("/apis/polder.dev/v1alpha1/tenants", {"metadata": {"name": "acme"}})).status == 201
    tenant = await running.tenant_admin("acme")
    rule = {"apiGroups": [""], "apiVersions": ["*"], "resources": ["pods"], "operations": ["CREATE"]}
    placed = json_patch('[JSONPatch{op: "add", path: "/spec/nodeName", value: "n1"}]')
    await mutating(tenant, placed, matchConstraints={"resourceRules": [rule]}, failurePolicy="Fail")
    pod = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "toolbox"}]}}
    for who in (tenant, running.component().at("acme")):
        said = await who.post("/api/v1/namespaces/default/pods", pod)
        assert said.status == 422, said.body
        assert "the scheduler chooses the node of a tenant's pod" in said.json["message"]
