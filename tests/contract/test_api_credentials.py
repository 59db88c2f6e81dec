"""Who asks, over real TLS: impersonation, reviews, tokens; with kubectl where people use it."""

from __future__ import annotations

import base64
import json

import aiohttp
import pytest

from polder.base.ids import ROOT, TenantName
from polder.system.pki import Leaf, new_request

PODS = "/api/v1/namespaces/default/pods"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
REVIEW = "/apis/authentication.k8s.io/v1/tokenreviews"
SELF = "/apis/authentication.k8s.io/v1/selfsubjectreviews"


async def make_tenant(admin, name):
    body = {"apiVersion": "polder.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": name}}
    assert (await admin.post("/apis/polder.dev/v1alpha1/tenants", body)).status == 201


@pytest.fixture
async def acme(running, admin):
    for name in ("acme", "globex"):
        await make_tenant(admin, name)
    return await running.tenant_admin("acme")


async def user(running, tenant, name, *groups, usages=("client auth",)):
    """A client with a certificate of a user of a tenant."""
    record = await running.identity.tenants.get(TenantName(tenant))
    request = new_request(name, groups)
    pem = running.pki.sign_tenant_client(request.certificate, record.name, record.uid, usages)
    return running.client(Leaf(pem, request.key))


async def test_what_a_certificate_is_for_is_kept(running, admin, acme):
    for usages in (["client auth"], ["digital signature", "key encipherment", "client auth"], []):
        assert (await whoami(await user(running, "acme", "alice", usages=usages)))["username"] == "alice"
    for usages in (["server auth"], ["key encipherment", "server auth"]):
        with pytest.raises(aiohttp.ClientError):
            await whoami(await user(running, "acme", "alice", usages=usages))


async def whoami(api, **headers):
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    answer = await api.post(SELF, body, **headers)
    assert answer.status == 201, answer.body
    return answer.json["status"]["userInfo"]


async def allow(api, name, rules, subject):
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": name},
        "rules": rules,
    }
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": subject}],
    }  # fmt: skip
    for path, body in ((f"{RBAC}/clusterroles", role), (f"{RBAC}/clusterrolebindings", binding)):
        answer = await api.post(path, body)
        assert answer.status == 201, answer.body


async def test_who_somebody_is(running, admin, acme):
    assert (await whoami(admin))["username"] == "admin"
    alice = await user(running, "acme", "alice", "dev")
    found = await whoami(alice)
    assert found["username"] == "alice"
    assert found["groups"] == ["dev", "system:authenticated"]
    denied = await alice.get(PODS)
    assert denied.status == 403
    message = 'pods is forbidden: User "alice" cannot list resource "pods" in API group "" in the namespace "default"'
    assert denied.json["message"] == message
    assert (await alice.at("globex").get(PODS)).status == 403


async def test_an_administrator_asks_in_anothers_name(admin, acme):
    found = await whoami(acme, Impersonate_User="alice", Impersonate_Group="dev", Impersonate_Uid="7",
                         **{"Impersonate-Extra-Acme.com%2fteam": "Red"})  # fmt: skip
    assert found == {
        "username": "alice", "uid": "7", "groups": ["dev", "system:authenticated"], "extra": {"acme.com/team": ["Red"]},
    }  # fmt: skip
    assert (await acme.get(PODS, Impersonate_User="alice")).status == 403
    assert (await acme.get(PODS, Impersonate_User="alice", Impersonate_Group="system:masters")).status == 200
    account = await whoami(acme, Impersonate_User="system:serviceaccount:default:default")
    assert account["groups"] == ["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"]
    nobody = await acme.get(PODS, Impersonate_User="system:anonymous")
    assert (nobody.status, 'User "system:anonymous" cannot list' in nobody.json["message"]) == (403, True)
    assert (await acme.get(PODS, Impersonate_Group="dev")).status == 400


async def test_nobody_leaves_a_tenant_in_anothers_name(running, admin, acme):
    """Names of the platform's own parts are names like others inside a tenant."""
    for name, group in (("system:polder:controllers", "polder:components"), ("admin", "polder:platform-admins"),
                        ("admin", "Polder:tenant-admins")):  # fmt: skip
        answer = await acme.get(PODS, Impersonate_User=name, Impersonate_Group=group)
        assert answer.status == 403
        assert "the group is the platform's own" in answer.json["message"]
    for name, group in (
        ("system:node:n1", "system:nodes"),
        ("system:polder:scheduler", "x"),
        ("admin", "system:masters"),
    ):
        for path in (
            "/tenants/globex" + PODS,
            "/tenants/*/api/v1/pods",
            f"/tenants/{ROOT}/api/v1/nodes",
            "/tenants/nobody" + PODS,
        ):
            answer = await acme.get(path, Impersonate_User=name, Impersonate_Group=group)
            assert answer.status == 403
        assert (await acme.post("/apis/polder.dev/v1alpha1/namespaces/kube-system/ports", {}, Impersonate_User=name,
                                Impersonate_Group=group)).status == 403  # fmt: skip
    as_node = {"Impersonate_User": "system:node:n1", "Impersonate_Group": "system:nodes"}
    for path in ("/polder/v1/stream", "/polder/v1/certificates", "/api/v1/namespaces/default/pods/x"):
        assert (await acme.get(path, **as_node)).status == 403, "a node's name makes no node of a tenant's user"
    assert (await admin.get("/api/v1/nodes/n1", **as_node)).status == 404, "in root it is as upstream"
    inside = await admin.at("acme").get(
        "/api/v1/namespaces", Impersonate_User="ann", Impersonate_Group="system:masters"
    )
    assert inside.status == 200
    assert (await admin.get("/tenants/*/api/v1/pods", Impersonate_User="ann")).status == 403


async def test_impersonation_needs_the_right_to_it(running, acme):
    alice = await user(running, "acme", "alice")
    refused = await alice.get(PODS, Impersonate_User="bob")
    assert refused.status == 403
    assert 'cannot impersonate-on:user-info:list resource "pods"' in refused.json["message"]
    await allow(acme, "as-bob", [{"apiGroups": [""], "resources": ["users"], "verbs": ["impersonate"],
                                  "resourceNames": ["bob"]}], "alice")  # fmt: skip
    assert (await whoami(alice, Impersonate_User="bob"))["username"] == "bob"
    for more in ({"Impersonate_User": "ben"}, {"Impersonate_User": "bob", "Impersonate_Group": "dev"},
                 {"Impersonate_User": "bob", "Impersonate_Uid": "1"},
                 {"Impersonate_User": "bob", "Impersonate-Extra-a.b%2fc": "d"},
                 {"Impersonate_User": "system:serviceaccount:default:default"}):  # fmt: skip
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        assert (await alice.post(SELF, body, **more)).status == 403


async def test_constrained_impersonation_is_for_one_kind_of_request(running, acme):
    """KEP-5284: a service account's name, for reading pods only."""
    carol = await user(running, "acme", "carol")
    await allow(acme, "reader", [
        {"apiGroups": ["authentication.k8s.io"], "resources": ["serviceaccounts"], "verbs": ["impersonate:serviceaccount"],
         "resourceNames": ["default"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["impersonate-on:serviceaccount:list"]},
    ], "carol")  # fmt: skip
    await allow(acme, "pods", [{"apiGroups": [""], "resources": ["pods"], "verbs": ["*"]}],
                "system:serviceaccount:default:default")  # fmt: skip
    name = "system:serviceaccount:default:default"
    assert (await carol.get(PODS, Impersonate_User=name)).status == 200
    assert (await carol.get(f"{PODS}/web", Impersonate_User=name)).status == 403
    assert (await carol.get(PODS, Impersonate_User=name, Impersonate_Group="dev")).status == 403
    assert (await carol.get(PODS, Impersonate_User="system:serviceaccount:default:other")).status == 403


async def test_a_token_is_reviewed_in_its_own_tenant_only(running, admin, acme):
    async def review(api, token, **spec):
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token, **spec}}
        answer = await api.post(REVIEW, body)
        assert answer.status == 201, answer.body
        return answer.json["status"]

    async def token(api, **spec):
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        answer = await api.post("/api/v1/namespaces/default/serviceaccounts/default/token", body)
        assert answer.status == 201, answer.body
        return answer.json["status"]["token"]

    own, foreign = await token(acme), await token(await running.tenant_admin("globex"))
    good = await review(acme, own)
    assert good["authenticated"] is True
    assert good["user"]["username"] == "system:serviceaccount:default:default"
    assert good["audiences"] == ["https://kubernetes.default.svc"]
    nothing = {"user": {}, "error": "invalid bearer token"}
    for api, shown in (
        (acme, foreign),
        (acme, "nonsense"),
        (acme, await token(admin)),
        (admin, own),
        (acme, own[:-6] + "AAAAAA"),
    ):
        assert await review(api, shown) == nothing
    vault = await token(acme, audiences=["vault", "other"])
    assert await review(acme, vault) == nothing
    assert (await review(acme, vault, audiences=["vault", "x"]))["audiences"] == ["vault"]
    empty = await acme.post(REVIEW, {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {}})
    assert (empty.status, empty.json["message"]) == (400, "token is required for TokenReview in authentication")


async def test_a_person_of_two_tenants_has_no_home_and_what_is_no_members_is_told_nothing(running, admin, acme):
    bob = await user(running, ROOT, "bob")
    for name, role in (("acme", "view"), ("globex", "admin")):
        members = {"spec": {"members": [{"kind": "User", "name": "bob", "role": role}]}}
        answer = await admin.patch(f"/apis/polder.dev/v1alpha1/tenants/{name}", members)
        assert answer.status == 200, answer.body
    assert (await bob.at("acme").get(PODS)).status == 200
    assert (await bob.at("acme").delete(f"{PODS}/x")).status == 403
    assert (await bob.at("globex").delete(f"{PODS}/x")).status == 404
    eve = await user(running, ROOT, "eve")
    for path in (PODS, "/apis/example.com/v1/things", "/version", "/api", "/nonsense"):
        answers = [await eve.at(name).get(path) for name in ("acme", "nobody")]
        assert answers[0].status == answers[1].status == 403
        assert answers[0].body.replace(b"acme", b"") == answers[1].body.replace(b"nobody", b"")
    answer = await admin.patch("/apis/polder.dev/v1alpha1/tenants/acme", {"spec": {"members": None}})
    assert answer.status == 200
    assert (await bob.at("acme").get(PODS)).status == 403, "at once"


async def test_kubectl_knows_who_it_is_and_asks_as_another(running, acme, kubectl_paths, tmp_path):
    from .conftest import Kubectl

    leaf = await running.tenant_leaf("acme")
    kubectl = Kubectl(kubectl_paths["path"], tmp_path, running.kubeconfig(leaf))
    token = await kubectl.run("create", "token", "default")
    if token.code == 0:
        claims = json.loads(base64.urlsafe_b64decode(token.out.split(".")[1] + "=="))
        assert claims["sub"] == "system:serviceaccount:default:default"
    refused = await kubectl.refused("get", "pods", "--as=alice")
    assert 'User "alice" cannot list resource "pods"' in refused
    await kubectl("get", "pods", "--as=alice", "--as-group=system:masters")
    known = await kubectl.run("auth", "whoami", "-o", "json")
    if "unknown command" not in known.err:
        assert json.loads(known.out)["status"]["userInfo"]["username"] == "admin"


async def test_a_request_whose_parts_are_no_objects_is_refused(admin) -> None:
    token = "/api/v1/namespaces/default/serviceaccounts/default/token"
    for body in ({"spec": "x"}, {"spec": [1]}, {"spec": {"boundObjectRef": "x"}}):
        assert (await admin.post(token, body)).status == 400
    assert (await admin.post(REVIEW, {"spec": 7})).status == 400
