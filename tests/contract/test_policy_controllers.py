"""Budgets, roles, tokens and certificates under the whole of the controllers."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509

from polder.system.pki import new_request
from tests.contract.conftest import Api
from tests.contract.controlled import ACME, controlled, until
from tests.contract.test_endpoints import add_pod, set_ready

NS = "/api/v1/namespaces/default"
POLICY = "/apis/policy/v1/namespaces/default/poddisruptionbudgets"
CSRS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
ROLES = "/apis/rbac.authorization.k8s.io/v1/clusterroles"


@pytest.fixture
async def api(running: Any, admin: Api) -> AsyncIterator[Api]:
    async with controlled(running, pki=running.pki):
        yield admin.at("acme")


async def field(api: Api, path: str, *names: str) -> Any:
    found: Any = (await api.get(path)).json
    for name in names:
        found = (found or {}).get(name)
    return found


async def test_a_budget_counts_what_may_go(api: Api) -> None:
    body = {"metadata": {"name": "b"}, "spec": {"minAvailable": 2, "selector": {"matchLabels": {"app": "shop"}}}}
    assert (await api.post(POLICY, body)).status == 201
    for number in range(3):
        await add_pod(api, f"p{number}", f"10.0.0.{number + 1}")

    async def three() -> Any:
        return await field(api, f"{POLICY}/b", "status", "disruptionsAllowed") == 1

    await until(three)
    status = await field(api, f"{POLICY}/b", "status")
    assert (status["expectedPods"], status["currentHealthy"], status["desiredHealthy"]) == (3, 3, 2)
    assert status["conditions"][0]["reason"] == "SufficientPods"
    await set_ready(api, "p0", False)

    async def none() -> Any:
        status = await field(api, f"{POLICY}/b", "status")
        return (status["disruptionsAllowed"], status["conditions"][0]["reason"]) == (0, "InsufficientPods")

    await until(none)
    await api.patch(f"{POLICY}/b", {"spec": {"minAvailable": None, "maxUnavailable": "50%"}})

    async def unmanaged() -> Any:
        return await field(api, f"{POLICY}/b", "status", "expectedPods") == 0

    await until(unmanaged)  # pods without a controller that is scaled are not counted by per cent


async def test_a_role_gathers_the_rules_that_its_selectors_choose(api: Api) -> None:
    rule = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}
    whole = {"metadata": {"name": "whole"}, "rules": [],
             "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"part": "yes"}}]}}  # fmt: skip
    assert (await api.post(ROLES, whole)).status == 201
    part = {"metadata": {"name": "part", "labels": {"part": "yes"}}, "rules": [rule]}
    assert (await api.post(ROLES, part)).status == 201

    async def gathered() -> Any:
        return await field(api, f"{ROLES}/whole", "rules") == [rule]

    await until(gathered)
    assert (await api.delete(f"{ROLES}/part")).status == 200

    async def empty() -> Any:
        return not await field(api, f"{ROLES}/whole", "rules")

    await until(empty)


async def test_a_secret_that_names_an_account_gets_its_token_and_goes_with_it(running: Any, api: Api) -> None:
    await api.post(f"{NS}/serviceaccounts", {"metadata": {"name": "robot"}})
    secret = {
        "metadata": {"name": "key", "annotations": {"kubernetes.io/service-account.name": "robot"}},
        "type": "kubernetes.io/service-account-token",
    }
    assert (await api.post(f"{NS}/secrets", secret)).status == 201

    async def filled() -> Any:
        return (await field(api, f"{NS}/secrets/key", "data") or {}).get("token")

    token = base64.b64decode(await until(filled)).decode()
    found = (await api.get(f"{NS}/secrets/key")).json
    assert base64.b64decode(found["data"]["ca.crt"]) == b"CA"
    assert base64.b64decode(found["data"]["namespace"]) == b"default"
    account = (await api.get(f"{NS}/serviceaccounts/robot")).json
    assert found["metadata"]["annotations"]["kubernetes.io/service-account.uid"] == account["metadata"]["uid"]
    robot = running.client(token=token)
    me = await robot.post(
        "/tenants/acme/apis/authentication.k8s.io/v1/selfsubjectreviews",
        {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"},
    )
    assert me.json["status"]["userInfo"]["username"] == "system:serviceaccount:default:robot", me.json
    nobody = {**secret, "metadata": {"name": "x", "annotations": {"kubernetes.io/service-account.name": "nobody"}}}
    assert (await api.post(f"{NS}/secrets", nobody)).status == 201
    assert (await api.delete(f"{NS}/serviceaccounts/robot")).status == 200

    async def gone() -> Any:
        return [(await api.get(f"{NS}/secrets/{name}")).status for name in ("key", "x")] == [404, 404]

    await until(gone)
    stranger = await running.admin().post("/tenants/acme/polder/v1/account-token?namespace=default", {})
    assert stranger.status in (403, 404)


async def test_bootstrap_tokens_sign_and_end(running: Any, api: Api) -> None:
    root = running.admin()

    def token(identifier: str, until_: datetime) -> dict[str, Any]:
        data = {"token-id": identifier, "token-secret": "0123456789abcdef", "usage-bootstrap-signing": "true",
                "expiration": until_.isoformat(timespec="seconds")}  # fmt: skip
        return {"metadata": {"name": f"bootstrap-token-{identifier}"}, "stringData": data,
                "type": "bootstrap.kubernetes.io/token"}  # fmt: skip

    now = datetime.now(UTC)
    secrets = "/api/v1/namespaces/kube-system/secrets"
    assert (await root.post(secrets, token("aaaaaa", now + timedelta(hours=1)))).status == 201
    assert (await root.post(secrets, token("bbbbbb", now + timedelta(seconds=2)))).status == 201
    infos = "/api/v1/namespaces/kube-public/configmaps"
    assert (await root.post(infos, {"metadata": {"name": "cluster-info"}, "data": {"kubeconfig": "X"}})).status == 201

    async def signed() -> Any:
        return (await field(root, f"{infos}/cluster-info", "data")).get("jws-kubeconfig-aaaaaa")

    head, body, mark = (await until(signed)).split(".")
    assert (body, json.loads(base64.urlsafe_b64decode(head + "==="))) == ("", {"alg": "HS256", "kid": "aaaaaa"})
    content = base64.urlsafe_b64encode(b"X").rstrip(b"=")
    wanted = hmac.new(b"aaaaaa.0123456789abcdef", head.encode() + b"." + content, hashlib.sha256).digest()
    assert base64.urlsafe_b64decode(mark + "===") == wanted

    async def ended() -> Any:
        data = await field(root, f"{infos}/cluster-info", "data")
        return (await root.get(f"{secrets}/bootstrap-token-bbbbbb")).status == 404 and set(data) == {
            "kubeconfig", "jws-kubeconfig-aaaaaa",
        }  # fmt: skip

    await until(ended)


def csr(name: str, common: str, *groups: str, signer: str = "kube-apiserver-client", **spec: Any) -> dict[str, Any]:
    pem = new_request(common, groups).certificate
    usages = spec.pop("usages", ["digital signature", "client auth"])
    wanted = {"request": base64.b64encode(pem).decode(), "signerName": f"kubernetes.io/{signer}", "usages": usages}
    return {"metadata": {"name": name}, "spec": {**wanted, **spec}}


async def decide(api: Api, name: str, kind: str = "Approved") -> Any:
    said = {"type": kind, "status": "True", "reason": "Test", "message": "m"}
    answer = await api.patch(f"{CSRS}/{name}/approval", {"status": {"conditions": [said]}})
    assert answer.status == 200, answer.json
    return answer


async def certificate(api: Api, name: str) -> x509.Certificate:
    async def issued() -> Any:
        return await field(api, f"{CSRS}/{name}", "status", "certificate")

    return x509.load_pem_x509_certificate(base64.b64decode(await until(issued)))


async def test_a_tenant_s_request_gives_a_certificate_of_that_tenant_only(running: Any, api: Api) -> None:
    asked = csr("ann", "ann", "devs", expirationSeconds=3600)
    asked["spec"] |= {"username": "somebody-else", "groups": ["system:masters"]}
    tenant = await running.tenant_admin("acme")
    made = await tenant.post(f"/tenants/acme{CSRS}", asked)
    assert made.status == 201, made.json
    assert made.json["spec"]["username"] == "admin" and "system:masters" not in made.json["spec"].get("groups", [])
    await decide(api, "ann")
    leaf = await certificate(api, "ann")
    record = await running.identity.tenants.get(ACME)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [f"urn:polder:tenant:acme:{record.uid}"]
    assert leaf.not_valid_after_utc - datetime.now(UTC) < timedelta(hours=2)
    refused = await api.post(CSRS, csr("root", "eve", "system:masters"))
    assert refused.status == 403 and "system:masters group is not allowed" in refused.json["message"]
    for name, body in {
        "node": csr("node", "system:node:n1", "system:nodes", signer="kube-apiserver-client-kubelet"),
        "serving": csr("serving", "system:node:n1", "system:nodes", signer="kubelet-serving",
                       usages=["digital signature", "server auth"]),
        "odd": csr("odd", "ann", usages=["client auth", "server auth"]),
        "platform": csr("platform", "ann", "polder:platform-admins"),
    }.items():  # fmt: skip
        answer = await api.post(CSRS, body)
        assert answer.status == 201, answer.json
        await decide(api, name)

        async def failed(name: str = name) -> Any:
            status = await field(api, f"{CSRS}/{name}", "status")
            return any(c["type"] == "Failed" for c in status["conditions"]) and not status.get("certificate")

        await until(failed)
    await api.post(CSRS, csr("other", "ann", signer="kube-apiserver-client", usages=["client auth"]))
    await decide(api, "other", "Denied")
    await asyncio.sleep(0.2)
    assert not await field(api, f"{CSRS}/other", "status", "certificate")


async def test_only_who_may_decide_decides(running: Any, api: Api) -> None:
    assert (await api.post(CSRS, csr("ann", "ann"))).status == 201
    await api.post(f"{NS}/serviceaccounts", {"metadata": {"name": "robot"}})
    role = {"metadata": {"name": "csr"}, "rules": [
        {"apiGroups": ["certificates.k8s.io"], "resources": ["certificatesigningrequests/approval",
         "certificatesigningrequests"], "verbs": ["*"]}]}  # fmt: skip
    await api.post(ROLES, role)
    binding = {"metadata": {"name": "csr"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
               "name": "csr"}, "subjects": [{"kind": "ServiceAccount", "name": "robot", "namespace": "default"}]}  # fmt: skip
    await api.post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding)
    asked = {"spec": {"expirationSeconds": 3600}}
    token = (await api.post(f"{NS}/serviceaccounts/robot/token", asked)).json["status"]["token"]
    robot = running.client(token=token).at("acme")
    said = {"status": {"conditions": [{"type": "Approved", "status": "True", "reason": "r", "message": "m"}]}}
    refused = await robot.patch(f"{CSRS}/ann/approval", said)
    assert refused.status == 403 and "not permitted to approve" in refused.json["message"], refused.json
    signers = {"apiGroups": ["certificates.k8s.io"], "resources": ["signers"], "verbs": ["approve"],
               "resourceNames": ["kubernetes.io/*"]}  # fmt: skip
    assert (await api.patch(f"{ROLES}/csr", {"rules": [*role["rules"], signers]})).status == 200

    async def allowed() -> Any:
        return (await robot.patch(f"{CSRS}/ann/approval", said)).status == 200

    await until(allowed)
    await certificate(api, "ann")


async def test_a_tenant_s_status_shows_what_it_uses(running: Any, api: Api) -> None:
    tenant, admin = "/apis/polder.dev/v1alpha1/tenants/acme", running.admin()
    await api.post(f"{NS}/secrets", {"metadata": {"name": "one"}})
    await admin.patch(tenant, {"spec": {"quota": {"hard": {"secrets": "3", "pods": "1"}}}})

    async def shown() -> Any:
        return await field(admin, tenant, "status", "quota")

    assert await until(shown) == {"hard": {"pods": "1", "secrets": "3"}, "used": {"pods": "0", "secrets": "1"}}
    await admin.patch(tenant, {"spec": {"quota": None}})

    async def gone() -> Any:
        return not await field(admin, tenant, "status", "quota")

    await until(gone)


async def test_the_status_of_a_quota_is_put_right(api: Api) -> None:
    quotas = f"{NS}/resourcequotas"
    body = {"metadata": {"name": "q"}, "spec": {"hard": {"cpu": "1", "configmaps": "5"}}}
    assert (await api.post(quotas, body)).status == 201

    async def counted() -> Any:
        return await field(api, f"{quotas}/q", "status") == {
            "hard": {"cpu": "1", "configmaps": "5"}, "used": {"cpu": "0", "configmaps": "1"},
        }  # fmt: skip

    await until(counted)
    changed = await api.patch(f"{quotas}/q/status", {"status": {"hard": {"cpu": "2"}}})
    assert changed.json["status"]["hard"]["cpu"] == "2"
    await until(counted)


async def test_a_namespace_waits_for_what_other_servers_of_the_tenant_may_hold(api: Api) -> None:
    service = {"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": "v1.far.dev"}, "spec": {
        "group": "far.dev", "version": "v1", "groupPriorityMinimum": 10, "versionPriority": 10,
        "insecureSkipTLSVerify": True, "service": {"name": "nowhere", "namespace": "default"}}}  # fmt: skip
    services = "/apis/apiregistration.k8s.io/v1/apiservices"
    assert (await api.post(services, service)).status == 201
    await api.post("/api/v1/namespaces", {"metadata": {"name": "mall"}})
    await api.post("/api/v1/namespaces/mall/configmaps", {"metadata": {"name": "one"}})
    await api.delete("/api/v1/namespaces/mall")

    async def failing() -> Any:
        found = await field(api, "/api/v1/namespaces/mall", "status", "conditions")
        return [c for c in found or () if (c["type"], c["status"]) == ("NamespaceDeletionDiscoveryFailure", "True")]

    (condition,) = await until(failing)
    assert condition["message"] == "Discovery failed for some groups, 1 failing: far.dev/v1"
    assert (await api.get("/api/v1/namespaces/mall/configmaps/one")).status == 404
    assert (await api.delete(f"{services}/v1.far.dev")).status == 200

    async def gone() -> Any:
        return (await api.get("/api/v1/namespaces/mall")).status == 404

    await until(gone)
