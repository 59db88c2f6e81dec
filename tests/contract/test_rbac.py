"""Roles and bindings of tenants: what they grant, what nobody can grant himself, and how they are asked about.

After what upstream's test/e2e/auth and its integration tests of RBAC check, in our own words.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.contract.conftest import Api, Kubectl, Running

RBAC = "/apis/rbac.authorization.k8s.io/v1"
ROLES = f"{RBAC}/namespaces/default/roles"
BINDINGS = f"{RBAC}/namespaces/default/rolebindings"
SAR = "/apis/authorization.k8s.io/v1"
PODS = "/api/v1/namespaces/default/pods"
MAPS = "/api/v1/namespaces/default/configmaps"
ACCOUNT = {"kind": "ServiceAccount", "name": "default", "namespace": "default"}


@pytest.fixture
async def acme(admin: Api, running: Running) -> Api:
    for name in ("acme", "globex"):
        assert (await admin.post("/apis/polder.dev/v1alpha1/tenants", {"metadata": {"name": name}})).status == 201
    return await running.tenant_admin("acme")


async def account(running: Running, tenant_admin: Api, namespace: str = "default", name: str = "default") -> Api:
    """A client that holds the token of a tenant's service account."""
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"
    answer = await tenant_admin.post(path, {"spec": {}})
    assert answer.status == 201, answer.body
    return running.client(token=answer.json["status"]["token"])


def binding(name: str, role: str, subject: Any, kind: str = "Role") -> Any:
    ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role}
    return {"metadata": {"name": name}, "roleRef": ref, "subjects": [subject]}


def rule(verbs: str, resources: str, group: str = "", names: str = "") -> Any:
    found = {"verbs": verbs.split(), "apiGroups": [group], "resources": resources.split()}
    return {**found, **({"resourceNames": names.split()} if names else {})}


async def test_an_account_may_what_is_granted_at_once_and_no_longer(acme: Api, running: Running) -> None:
    pod = await account(running, acme)
    refused = await pod.get(MAPS)
    assert refused.status == 403
    assert refused.json["message"] == (
        'configmaps is forbidden: User "system:serviceaccount:default:default" cannot list resource "configmaps" in API '
        'group "" in the namespace "default"'
    )
    assert (
        await acme.post(ROLES, {"metadata": {"name": "r"}, "rules": [rule("get list", "configmaps")]})
    ).status == 201
    assert (await acme.post(BINDINGS, binding("b", "r", ACCOUNT))).status == 201
    assert (await pod.get(MAPS)).status == 200
    assert (await pod.get(f"{MAPS}/kube-root-ca.crt")).status == 200
    assert (await pod.post(MAPS, {"metadata": {"name": "x"}})).status == 403
    assert (await pod.get("/api/v1/configmaps")).status == 403, "a role is of its namespace"
    assert (await pod.get("/api/v1/namespaces/kube-system/configmaps")).status == 403
    assert (await pod.at("globex").get(MAPS)).status == 403
    assert (await acme.patch(f"{ROLES}/r", {"rules": [rule("list", "configmaps")]})).status == 200
    assert (await pod.get(f"{MAPS}/kube-root-ca.crt")).status == 403
    assert (await acme.delete(f"{BINDINGS}/b")).status == 200
    assert (await pod.get(MAPS)).status == 403


async def test_names_subresources_and_wildcards(acme: Api, running: Running) -> None:
    pod = await account(running, acme)
    rules = [
        rule("get", "configmaps", names="one"),
        rule("get", "pods/log"),
        rule("*", "*/status", "apps"),
        {"verbs": ["get"], "nonResourceURLs": ["/apis/x*"]},
    ]
    assert (await acme.post(f"{RBAC}/clusterroles", {"metadata": {"name": "mine"}, "rules": rules})).status == 201
    made = await acme.post(f"{RBAC}/clusterrolebindings", binding("b", "mine", ACCOUNT, "ClusterRole"))
    assert made.status == 201
    for path, status in (
        (f"{MAPS}/one", 404), (f"{MAPS}/two", 403), (MAPS, 403), (f"{PODS}/p/log", 404), (f"{PODS}/p", 403),
        ("/apis/apps/v1/namespaces/default/deployments/d/status", 404),
        ("/apis/apps/v1/namespaces/default/deployments/d", 403),
    ):  # fmt: skip
        assert (await pod.get(path)).status == status, path


async def test_groups_of_accounts_and_the_role_that_is_missing(acme: Api, running: Running) -> None:
    pod = await account(running, acme)
    group = {"kind": "Group", "name": "system:serviceaccounts:default"}
    await acme.post(f"{RBAC}/clusterroles", {"metadata": {"name": "later"}, "rules": [rule("list", "pods")]})
    assert (await acme.post(BINDINGS, binding("b", "later", group, "ClusterRole"))).status == 201
    assert (await pod.get(PODS)).status == 200
    await acme.delete(f"{RBAC}/clusterroles/later")
    refused = (await pod.get(PODS)).json["message"]
    assert refused.endswith('in the namespace "default": RBAC: clusterrole.rbac.authorization.k8s.io "later" not found')


async def test_nobody_grants_what_he_has_not(acme: Api, running: Running) -> None:
    pod = await account(running, acme)
    rules = [rule("create update get", "roles rolebindings", "rbac.authorization.k8s.io"), rule("get", "pods")]
    await acme.post(ROLES, {"metadata": {"name": "granter"}, "rules": rules})
    await acme.post(BINDINGS, binding("b", "granter", ACCOUNT))
    refused = await pod.post(ROLES, {"metadata": {"name": "x"}, "rules": [rule("get list", "pods secrets")]})
    assert refused.status == 403
    assert refused.json["message"] == (
        'roles.rbac.authorization.k8s.io "x" is forbidden: user "system:serviceaccount:default:default" '
        '(groups=["system:serviceaccounts" "system:serviceaccounts:default" "system:authenticated"]) is attempting to '
        'grant RBAC permissions not currently held:\n{APIGroups:[""], Resources:["pods"], Verbs:["list"]}\n'
        '{APIGroups:[""], Resources:["secrets"], Verbs:["get" "list"]}'
    )
    assert (await pod.post(ROLES, {"metadata": {"name": "x"}, "rules": [rule("get", "pods")]})).status == 201
    assert (await pod.post(BINDINGS, binding("own", "x", ACCOUNT))).status == 201
    assert (await pod.post(BINDINGS, binding("up", "edit", ACCOUNT, "ClusterRole"))).status == 403
    missing = await pod.post(BINDINGS, binding("up", "none", ACCOUNT, "ClusterRole"))
    assert (missing.status, missing.json["message"]) == (
        404, 'clusterroles.rbac.authorization.k8s.io "none" not found',
    )  # fmt: skip
    more = [*rules, rule("bind", "clusterroles", "rbac.authorization.k8s.io", names="edit"),
            rule("escalate", "roles", "rbac.authorization.k8s.io", names="")]  # fmt: skip
    assert (await acme.patch(f"{ROLES}/granter", {"rules": more})).status == 200
    assert (await pod.post(BINDINGS, binding("up", "edit", ACCOUNT, "ClusterRole"))).status == 201
    assert (await pod.post(BINDINGS, binding("top", "cluster-admin", ACCOUNT, "ClusterRole"))).status == 403
    assert (await pod.post(ROLES, {"metadata": {"name": "y"}, "rules": [rule("*", "*", "*")]})).status == 201


async def test_a_binding_keeps_its_role_and_only_its_upkeep_needs_no_rights(acme: Api, running: Running) -> None:
    pod = await account(running, acme)
    await acme.post(ROLES, {"metadata": {"name": "r"}, "rules": [rule("get", "secrets")]})
    await acme.post(BINDINGS, binding("b", "r", {"kind": "User", "name": "jane"}))
    await acme.post(ROLES, {"metadata": {"name": "w"},
                            "rules": [rule("patch update", "roles rolebindings", "rbac.authorization.k8s.io")]})  # fmt: skip
    await acme.post(BINDINGS, binding("w", "w", ACCOUNT))
    changed = await acme.patch(f"{BINDINGS}/b", {"roleRef": {"name": "other"}})
    assert changed.status == 422 and "roleRef: Invalid value" in changed.json["message"]
    assert changed.json["message"].endswith("cannot change roleRef")
    assert (await pod.patch(f"{BINDINGS}/b", {"metadata": {"finalizers": ["example.com/x"]}})).status == 200
    assert (await pod.patch(f"{BINDINGS}/b", {"metadata": {"labels": {"a": "b"}}})).status == 403
    assert (await pod.patch(f"{ROLES}/r", {"metadata": {"finalizers": ["example.com/x"]}})).status == 200
    assert (await pod.patch(f"{ROLES}/r", {"metadata": {"labels": {"a": "b"}}})).status == 403


async def test_an_aggregated_role_needs_everything(acme: Api, running: Running) -> None:
    pod = await account(running, acme)
    await acme.post(f"{RBAC}/clusterroles", {"metadata": {"name": "w"},
                    "rules": [rule("create", "clusterroles", "rbac.authorization.k8s.io")]})  # fmt: skip
    await acme.post(f"{RBAC}/clusterrolebindings", binding("w", "w", ACCOUNT, "ClusterRole"))
    selector = {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]}
    refused = await pod.post(f"{RBAC}/clusterroles", {"metadata": {"name": "x"}, "aggregationRule": selector})
    assert refused.status == 403
    assert refused.json["message"].endswith("must have cluster-admin privileges to use the aggregationRule")
    made = await acme.post(f"{RBAC}/clusterroles", {"metadata": {"name": "x"}, "aggregationRule": selector})
    assert made.status == 201


async def test_a_tenants_cluster_admin_still_writes_nothing_of_polders(acme: Api, running: Running) -> None:
    await acme.post(f"{RBAC}/clusterrolebindings", binding("top", "cluster-admin", ACCOUNT, "ClusterRole"))
    for client in (await account(running, acme), acme):
        assert (await client.get("/api/v1/secrets")).status == 200
        for path in ("/apis/polder.dev/v1alpha1/namespaces/default/ports",
                     "/apis/polder.dev/v1alpha1/namespaces/default/addresses",
                     "/apis/polder.dev/v1alpha1/namespaces/default/routers",
                     f"{PODS}/x/binding", "/apis/polder.dev/v1alpha1/tenants"):  # fmt: skip
            assert (await client.post(path, {"metadata": {"name": "x"}})).status == 403, path
        network = "/apis/polder.dev/v1alpha1/namespaces/kube-system/networks/default/status"
        assert (await client.patch(network, {"status": {"vni": 1}})).status == 403
        for path in ("/metrics", "/polder/v1/stream", "/debug/pprof"):
            assert (await client.get(path)).status == 403
        for other in ("globex", "root", "*", "none"):
            assert (await client.at(other).get(PODS)).status == 403


async def test_root_is_a_cluster_like_others(admin: Api, running: Running) -> None:
    token = (await admin.post("/api/v1/namespaces/default/serviceaccounts/default/token", {"spec": {}})).json
    pod = running.client(token=token["status"]["token"])
    assert (await pod.get(PODS)).status == 403
    await admin.post(f"{RBAC}/clusterrolebindings", binding("top", "cluster-admin", ACCOUNT, "ClusterRole"))
    assert (await pod.get(PODS)).status == 200
    assert (await pod.post(f"{PODS}/x/binding", {"target": {"name": "n"}})).status == 403
    assert (await pod.at("*").get("/api/v1/pods")).status == 403


async def test_many_bindings_are_asked_in_turn(acme: Api, running: Running) -> None:
    pod = await account(running, acme)
    for number in range(40):
        await acme.post(BINDINGS, binding(f"b{number}", f"none{number}", ACCOUNT))
    refused = (await pod.get(PODS)).json["message"]
    assert refused.count("not found") == 5
    await acme.post(BINDINGS, binding("last", "view", ACCOUNT, "ClusterRole"))
    assert (await pod.get(PODS)).status == 200


async def review(client: Api, kind: str, spec: Any, namespace: str = "") -> Any:
    place = f"/namespaces/{namespace}" if namespace else ""
    answer = await client.post(
        f"{SAR}{place}/{kind.lower()}s", {"apiVersion": "authorization.k8s.io/v1", "kind": kind, "spec": spec}
    )
    assert answer.status == 201, answer.body
    return answer.json["status"]


async def test_subject_access_reviews(acme: Api, running: Running) -> None:
    pods = {"verb": "list", "resource": "pods", "namespace": "default"}
    jane: Any = {"user": "jane", "resourceAttributes": pods}
    assert await review(acme, "SubjectAccessReview", jane) == {"allowed": False}
    await acme.post(BINDINGS, binding("b", "view", {"kind": "User", "name": "jane"}, "ClusterRole"))
    said = {"allowed": True, "reason": 'RBAC: allowed by RoleBinding "b/default" of ClusterRole "view" to User "jane"'}
    assert await review(acme, "SubjectAccessReview", jane) == said
    assert await review(acme, "LocalSubjectAccessReview", jane, "default") == said
    elsewhere = {**jane, "resourceAttributes": {**pods, "namespace": "kube-system"}}
    assert not (await review(acme, "SubjectAccessReview", elsewhere))["allowed"]
    admin = {
        "user": "x",
        "groups": ["system:masters"],
        "resourceAttributes": {"verb": "*", "resource": "*", "group": "*"},
    }
    assert (await review(acme, "SubjectAccessReview", admin))["allowed"]
    ports = {**admin, "resourceAttributes": {"verb": "create", "resource": "ports", "group": "polder.dev"}}
    denied = await review(acme, "SubjectAccessReview", ports)
    assert (denied["allowed"], denied["denied"]) == (False, True)
    path = {
        "user": "jane",
        "groups": ["system:authenticated"],
        "nonResourceAttributes": {"verb": "get", "path": "/apis"},
    }
    assert (await review(acme, "SubjectAccessReview", path))["allowed"]
    for spec, message in (
        ({"resourceAttributes": pods}, "at least one of user or group must be specified"),
        ({"user": "x"}, "exactly one of nonResourceAttributes or resourceAttributes must be specified"),
        ({**jane, "nonResourceAttributes": {}}, "cannot be specified in combination with resourceAttributes"),
    ):
        refused = await acme.post(f"{SAR}/subjectaccessreviews", {"spec": spec})
        assert refused.status == 422 and message in refused.json["message"]
    other = await acme.post(f"{SAR}/namespaces/kube-system/localsubjectaccessreviews", {"spec": jane})
    assert other.status == 422 and "must match metadata.namespace" in other.json["message"]


async def test_selectors_in_reviews(acme: Api) -> None:
    pods = {"verb": "list", "resource": "pods", "namespace": "default"}
    for selector, error in (
        ({"rawSelector": "a=b,!c"}, ""),
        ({"requirements": [{"key": "a", "operator": "In", "values": ["b"]}]}, ""),
        ({"rawSelector": "a in (b"}, "spec.resourceAttributes.labelSelector ignored due to parse error"),
        ({"requirements": [{"key": "a", "operator": "Near"}, {"key": "b", "operator": "Exists"}]},
         "spec.resourceAttributes.labelSelector partially ignored due to parse error"),
    ):  # fmt: skip
        spec = {"resourceAttributes": {**pods, "labelSelector": selector}}
        said = await review(acme, "SelfSubjectAccessReview", spec)
        assert said["allowed"] and said.get("evaluationError", "") == error
    both = {"resourceAttributes": {**pods, "fieldSelector": {"rawSelector": "a=b", "requirements": [{"key": "a"}]}}}
    assert (await acme.post(f"{SAR}/selfsubjectaccessreviews", {"spec": both})).status == 422


async def test_what_one_may_oneself(acme: Api, running: Running) -> None:
    pod = await account(running, acme)
    secrets = {"resourceAttributes": {"verb": "get", "resource": "secrets", "namespace": "default"}}
    assert not (await review(pod, "SelfSubjectAccessReview", secrets))["allowed"]
    assert (await pod.post(f"{SAR}/subjectaccessreviews", {"spec": {"user": "x", **secrets}})).status == 403
    await acme.post(ROLES, {"metadata": {"name": "r"}, "rules": [rule("get", "secrets", names="s")]})
    await acme.post(BINDINGS, binding("b", "r", ACCOUNT))
    rules = await review(pod, "SelfSubjectRulesReview", {"namespace": "default"})
    assert {"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["s"]} in rules[
        "resourceRules"
    ]
    assert rules["incomplete"] is False
    assert any("/healthz" in r["nonResourceURLs"] for r in rules["nonResourceRules"])
    everything = await review(acme, "SelfSubjectRulesReview", {"namespace": "default"})
    assert everything["resourceRules"] == [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]
    assert (await pod.post(f"{SAR}/selfsubjectrulesreviews", {"spec": {}})).status == 400


async def test_kubectl_auth(acme: Api, running: Running, kubectl_paths: dict[str, str], tmp_path: Any) -> None:
    kubectl = Kubectl(kubectl_paths["path"], tmp_path, running.kubeconfig(await running.tenant_leaf("acme"), "acme"))
    assert (await kubectl("auth", "can-i", "create", "deployments.apps")).strip() == "yes"
    done = await kubectl.run("auth", "can-i", "list", "secrets", "--as", "system:serviceaccount:default:default")
    assert done.out.strip() == "no"
    listed = await kubectl("auth", "can-i", "--list", "--as", "system:serviceaccount:default:default")
    assert "selfsubjectaccessreviews.authorization.k8s.io" in listed and "secrets" not in listed
    await kubectl("create", "role", "r", "--verb=get,list", "--resource=secrets")
    await kubectl("create", "rolebinding", "b", "--role=r", "--serviceaccount=default:default")
    done = await kubectl.run("auth", "can-i", "list", "secrets", "--as", "system:serviceaccount:default:default")
    assert done.out.strip() == "yes"
    assert "cluster-admin" in await kubectl("get", "clusterroles")
    described = await kubectl("describe", "clusterrole", "admin")
    assert "deployments.apps" in described


async def test_a_role_that_multiplies_is_refused_at_once(acme: Api, running: Running) -> None:
    """Twenty kilobytes say a milliard grants; nobody compares them."""
    group = "rbac.authorization.k8s.io"
    assert (
        await acme.post(ROLES, {"metadata": {"name": "r"}, "rules": [rule("create", "roles", group)]})
    ).status == 201
    assert (await acme.post(BINDINGS, binding("b", "r", ACCOUNT))).status == 201
    pod, many = await account(running, acme), [f"x{number}" for number in range(1000)]
    wide = {"verbs": many, "apiGroups": many, "resources": many}
    async with asyncio.timeout(5):
        refused = await pod.post(ROLES, {"metadata": {"name": "wide"}, "rules": [wide]})
    assert refused.status == 403
    assert "only who may escalate can give" in refused.json["message"]
    assert (await acme.post(ROLES, {"metadata": {"name": "wide"}, "rules": [wide]})).status == 201
