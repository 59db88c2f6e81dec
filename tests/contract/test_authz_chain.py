"""Members of tenants, the other authorizers of the chain, and the frame that none of them can widen."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from polder.apiserver.abac import Abac, AbacError, parse_abac
from polder.apiserver.asked_selectors import with_selectors
from polder.apiserver.asker import Asker
from polder.apiserver.authz_build import AuthzSettings, authorization
from polder.apiserver.authz_modes import AlwaysAllow, AlwaysDeny, RbacMode
from polder.apiserver.authz_webhook import Webhook, WebhookSettings
from polder.apiserver.noderules import NodeRules
from polder.apiserver.types import Identity, RequestInfo, Role
from polder.base.ids import TenantName
from polder.system.pki import ensure_pki
from tests.contract.conftest import Api, Kubectl, Running

TENANTS = "/apis/polder.dev/v1alpha1/tenants"
PODS = "/api/v1/namespaces/default/pods"
MAPS = "/api/v1/namespaces/default/configmaps"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
ACME, GLOBEX, ROOT = TenantName("acme"), TenantName("globex"), TenantName("root")


@dataclass
class Clock:
    at: float = 0.0

    def monotonic(self) -> float:
        return self.at


@pytest.fixture
async def tenants(admin: Api) -> None:
    for name in ("acme", "globex"):
        assert (await admin.post(TENANTS, {"metadata": {"name": name}})).status == 201


def person(running: Running, name: str, *groups: str) -> Identity:
    del running
    return Identity(name, Role.USER, ROOT, (*groups, "system:authenticated"))


def ask(tenant: str, verb: str, resource: str, group: str = "", namespace: str = "default") -> RequestInfo:
    return RequestInfo(TenantName(tenant), verb, "", group, "v1", resource, namespace=namespace)


async def decide(running: Running, who: Identity, what: RequestInfo) -> bool:
    return (await running.identity.parts.authorizer.decide(who, what)).allowed


async def members(admin: Api, tenant: str, *found: Any) -> Any:
    return await admin.patch(f"{TENANTS}/{tenant}", {"spec": {"members": list(found)}})


async def test_members_have_rights_at_once(admin: Api, running: Running, tenants: None) -> None:
    jane, ops = person(running, "jane"), person(running, "joe", "ops")
    for who in (jane, ops):
        assert not await decide(running, who, ask("acme", "get", "pods"))
    view = {"kind": "User", "name": "jane", "role": "view"}
    edit = {"kind": "Group", "name": "ops", "role": "edit"}
    assert (await members(admin, "acme", view, edit)).status == 200
    assert await decide(running, jane, ask("acme", "list", "pods"))
    assert await decide(running, jane, ask("acme", "list", "pods", namespace="kube-system"))
    assert not await decide(running, jane, ask("acme", "create", "pods"))
    assert not await decide(running, jane, ask("acme", "get", "secrets"))
    assert await decide(running, ops, ask("acme", "create", "deployments", "apps"))
    assert not await decide(running, ops, ask("acme", "create", "roles", "rbac.authorization.k8s.io"))
    assert not await decide(running, jane, ask("globex", "list", "pods"))
    assert (await members(admin, "acme", {**view, "role": "admin"}, view)).status == 200
    assert await decide(running, jane, ask("acme", "delete", "clusterroles", "rbac.authorization.k8s.io", ""))
    assert not await decide(running, jane, ask("acme", "create", "ports", "polder.dev"))
    assert not await decide(running, ops, ask("acme", "list", "pods"))
    assert (await members(admin, "acme")).status == 200
    assert not await decide(running, jane, ask("acme", "list", "pods"))


async def test_one_person_in_two_tenants_and_an_account_of_another(admin: Api, running: Running, tenants: None) -> None:
    acme = await running.tenant_admin("acme")
    token = (await acme.post("/api/v1/namespaces/default/serviceaccounts/default/token", {"spec": {}})).json
    pod = running.client(token=token["status"]["token"])
    account = {"kind": "ServiceAccount", "name": "default", "namespace": "default", "role": "edit"}
    jane = {"kind": "User", "name": "jane", "role": "view"}
    await members(admin, "acme", jane, account)
    await members(admin, "globex", jane, {**account, "tenant": "acme"})
    for tenant in ("acme", "globex"):
        assert await decide(running, person(running, "jane"), ask(tenant, "list", "pods"))
        assert (await pod.at(tenant).post(MAPS, {"metadata": {"name": "made"}})).status == 201
    globex = await running.tenant_admin("globex")
    token = (await globex.post("/api/v1/namespaces/default/serviceaccounts/default/token", {"spec": {}})).json
    namesake = running.client(token=token["status"]["token"])
    assert (await namesake.get(MAPS)).status == 403, "the account of this tenant is another one"
    assert (await namesake.at("acme").get(MAPS)).status == 403
    ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}
    subject = {"kind": "ServiceAccount", "name": "default", "namespace": "default"}
    await globex.post(f"{RBAC}/clusterrolebindings", {"metadata": {"name": "b"}, "roleRef": ref, "subjects": [subject]})
    assert (await namesake.get("/api/v1/secrets")).status == 200
    assert (await pod.at("globex").get("/api/v1/secrets")).status == 200, "edit reads Secrets"
    assert (await pod.at("globex").get(f"{RBAC}/clusterroles")).status == 403, "its namesake's binding is not for it"


async def test_names_that_mean_somebody_else_do_not_cross(admin: Api, running: Running, tenants: None) -> None:
    await members(admin, "acme", {"kind": "User", "name": "jane", "role": "view"})
    acme = await running.tenant_admin("acme")
    ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}
    for number, subject in enumerate((
        {"kind": "Group", "name": "system:masters"}, {"kind": "Group", "name": "system:nodes"},
        {"kind": "User", "name": "system:kube-scheduler"}, {"kind": "User", "name": "stranger"},
    )):  # fmt: skip
        body = {"metadata": {"name": f"b{number}"}, "roleRef": ref, "subjects": [subject]}
        assert (await acme.post(f"{RBAC}/clusterrolebindings", body)).status == 201
    for who in (
        person(running, "jane", "system:masters", "system:nodes"), person(running, "stranger"),
        person(running, "system:kube-scheduler"),
    ):  # fmt: skip
        assert not await decide(running, who, ask("acme", "get", "secrets"))
    body = {"metadata": {"name": "more"}, "roleRef": ref, "subjects": [{"kind": "User", "name": "jane"}]}
    assert (await acme.post(f"{RBAC}/clusterrolebindings", body)).status == 201
    assert await decide(running, person(running, "jane"), ask("acme", "get", "secrets")), "a member has its name there"


async def test_members_that_cannot_be(admin: Api, tenants: None) -> None:
    for member, where in (
        ({"kind": "Robot", "name": "x", "role": "view"}, "spec.members[0].kind"),
        ({"kind": "User", "name": "x", "role": "owner"}, "spec.members[0].role"),
        ({"kind": "User", "name": "system:admin", "role": "view"}, "spec.members[0].name"),
        ({"kind": "Group", "name": "system:authenticated", "role": "view"}, "spec.members[0].name"),
        ({"kind": "ServiceAccount", "name": "x", "role": "view"}, "spec.members[0].namespace"),
        ({"kind": "User", "name": "x", "role": "view", "tenant": "globex"}, "spec.members[0].tenant"),
    ):
        refused = await members(admin, "acme", member)
        assert refused.status == 422 and where in refused.json["message"], refused.body


async def test_a_member_with_kubectl(
    admin: Api, running: Running, tenants: None, kubectl_paths: dict[str, str], tmp_path: Path
) -> None:
    await members(admin, "acme", {"kind": "User", "name": "jane", "role": "edit"})
    kubectl = Kubectl(kubectl_paths["path"], tmp_path, running.kubeconfig(running.admin_leaf(), "acme"))
    done = await kubectl.run("auth", "can-i", "create", "pods", "--as", "jane")
    assert done.out.strip() == "yes"
    done = await kubectl.run("auth", "can-i", "create", "clusterroles", "--as", "jane")
    assert done.out.strip() == "no"


POLICY = {"apiVersion": "abac.authorization.kubernetes.io/v1beta1", "kind": "Policy"}


def line(**spec: Any) -> str:
    return json.dumps({**POLICY, "spec": spec})


def test_abac_lines() -> None:
    assert len(parse_abac(f"# a comment\n\n{line(user='alice', resource='pods', namespace='*', apiGroup='*')}\n")) == 1
    for text, problem in (
        ('{"user": "alice"}', "line 1"),
        (line(user="x") + "\n" + json.dumps({**POLICY, "kind": "Rule"}), "line 2: it is abac"),
        (line(username="x"), "username"),
        ("{", "line 1"),
    ):
        with pytest.raises(AbacError, match=problem):
            parse_abac(text)


async def test_abac_decides_in_its_tenant_and_opens_the_door(running: Running, tenants: None, tmp_path: Path) -> None:
    path = tmp_path / "policy.jsonl"
    path.write_text("\n".join((
        line(user="alice", resource="*", namespace="*", apiGroup="*"),
        line(group="readers", resource="pods", namespace="default", apiGroup="", readonly=True, tenant="acme"),
        line(user="bob", nonResourcePath="/apis*", tenant="*"),
    )))  # fmt: skip
    abac = Abac(path)
    abac.load()
    authorizer = chain(running, abac)
    alice, bob, reader = (person(running, n, *g) for n, g in (("alice", ()), ("bob", ()), ("r", ("readers",))))

    async def may(who: Identity, what: RequestInfo) -> bool:
        return (await authorizer.decide(who, what)).allowed

    assert await may(alice, ask("root", "delete", "secrets"))
    assert not await may(alice, ask("acme", "get", "pods")), "a line without a tenant is about root"
    assert not await may(alice, ask("root", "create", "ports", "polder.dev")), "the frame stands around it"
    assert await may(reader, ask("acme", "watch", "pods"))
    for what in (ask("acme", "create", "pods"), ask("acme", "list", "pods", namespace="kube-system"),
                 ask("acme", "list", "secrets"), ask("globex", "list", "pods"), ask("root", "list", "pods")):  # fmt: skip
        assert not await may(reader, what)
    for tenant in ("root", "acme", "globex", "none"):
        assert await may(bob, RequestInfo(TenantName(tenant), "get", "/apis/apps"))
        assert not await may(bob, RequestInfo(TenantName(tenant), "get", "/metrics"))
    own = Identity("r", Role.USER, GLOBEX, ("readers",))
    assert not await may(own, ask("acme", "list", "pods")), "a tenant's user goes through no door"
    rules, _ = await authorizer.rules(reader, "acme", "default")
    assert [(r.verbs, r.resources) for r in rules] == [(("get", "list", "watch"), ("pods",))]
    path.write_text(line(user="bob", resource="pods", namespace="*", apiGroup=""))
    abac.reload()
    assert await may(bob, ask("root", "get", "pods")) and not await may(alice, ask("root", "get", "pods"))
    path.write_text("{nonsense")
    abac.reload()
    assert await may(bob, ask("root", "get", "pods")), "a bad file changes nothing"


def _ready(mode: Any, rbac: Any) -> Any:
    del rbac
    return mode


def chain(running: Running, *modes: Any, rbac: bool = False) -> Any:
    identity = running.identity
    files = [mode for mode in modes if isinstance(mode, Abac)]
    made = [partial(_ready, mode) for mode in modes]
    settings = AuthzSettings((*([RbacMode] if rbac else []), *made), True, files)
    return authorization(settings, running.store, NodeRules(running.store, identity.share), identity.tenants).authorizer


async def test_always(running: Running, tenants: None) -> None:
    jane = Identity("jane", Role.USER, ACME, ("system:authenticated",))
    assert (await chain(running, AlwaysAllow()).decide(jane, ask("acme", "get", "secrets"))).allowed
    for what in (ask("globex", "get", "pods"), ask("acme", "create", "ports", "polder.dev"), ask("*", "list", "pods")):
        assert not (await chain(running, AlwaysAllow()).decide(jane, what)).allowed
    assert not (await chain(running, AlwaysDeny()).decide(jane, ask("acme", "get", "pods"))).allowed
    apis = RequestInfo(ACME, "get", "/apis")
    assert (await chain(running, AlwaysDeny(), rbac=True).decide(jane, apis)).allowed, "asked after those before it"


@dataclass
class Hook:
    """A service that answers as it is told."""

    url: str = ""
    asked: list[Any] = field(default_factory=list)
    answer: Any = None
    status: int = 200

    async def serve(self, request: web.Request) -> web.Response:
        self.asked.append(await request.json())
        return web.json_response({"status": self.answer}, status=self.status)


@pytest.fixture
async def hook(tmp_path: Path) -> AsyncIterator[tuple[Hook, ssl.SSLContext]]:
    pki = ensure_pki(tmp_path / "hook-pki")
    pki.issue_serving(["localhost"], ["127.0.0.1"]).write(tmp_path / "h.crt", tmp_path / "h.key")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "h.crt", tmp_path / "h.key")
    made = Hook()
    app = web.Application()
    app.router.add_post("/authorize", made.serve)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    port = runner.addresses[0][1]
    made.url = f"https://127.0.0.1:{port}/authorize"
    yield made, ssl.create_default_context(cafile=str(pki.serving_ca))
    await runner.cleanup()


async def test_a_webhook_is_asked_and_remembered(running: Running, tenants: None, hook: Any) -> None:
    service, trust = hook
    clock = Clock()
    webhook = Webhook(WebhookSettings(service.url, trust, allowed_for=60, refused_for=10), clock)  # type: ignore[arg-type]
    authorizer = chain(running, webhook, AlwaysDeny())
    jane = Identity("jane", Role.USER, ACME, ("devs",), uid="7", extra={"k": ("v",)})
    service.answer = {"allowed": True, "reason": "because"}
    decision = await authorizer.decide(jane, ask("acme", "list", "pods"))
    assert (decision.allowed, decision.reason) == (True, "because")
    (said,) = service.asked
    assert (said["apiVersion"], said["kind"]) == ("authorization.k8s.io/v1", "SubjectAccessReview")
    assert said["spec"] == {
        "user": "jane", "groups": ["devs"], "uid": "7", "extra": {"k": ["v"], "polder.dev/tenant": ["acme"]},
        "resourceAttributes": {"namespace": "default", "verb": "list", "version": "v1", "resource": "pods"},
    }  # fmt: skip
    service.answer = {"allowed": False}
    assert (await authorizer.decide(jane, ask("acme", "list", "pods"))).allowed and len(service.asked) == 1
    clock.at = 61
    assert not (await authorizer.decide(jane, ask("acme", "list", "pods"))).allowed
    service.answer = {"allowed": False, "denied": True, "reason": "never"}
    assert not (await authorizer.decide(jane, ask("acme", "list", "pods"))).denied, "still remembered"
    clock.at = 72
    assert (await authorizer.decide(jane, ask("acme", "list", "pods"))).denied
    await authorizer.decide(jane, ask("globex", "list", "pods"))
    await authorizer.decide(jane, ask("acme", "create", "ports", "polder.dev"))
    assert len(service.asked) == 3, "the frame decides before it is asked"
    await webhook.close()


async def test_a_webhook_is_told_the_selectors(running: Running, tenants: None, hook: Any) -> None:
    service, trust = hook
    webhook = Webhook(WebhookSettings(service.url, trust), Clock())  # type: ignore[arg-type]
    service.answer = {"allowed": True}
    asker = Asker(Identity("jane", Role.USER, ACME), ACME, "jane", (), ())
    query = {"fieldSelector": "spec.nodeName=n1,metadata.name!=x", "labelSelector": "a in (1,2),!b"}
    await webhook.decide(asker, with_selectors(ask("acme", "list", "pods"), query))
    await webhook.decide(asker, with_selectors(ask("acme", "list", "pods"), {"labelSelector": "a in (1"}))
    await webhook.decide(asker, with_selectors(ask("acme", "get", "pods"), query))
    first, *others = [said["spec"]["resourceAttributes"] for said in service.asked]
    assert first["fieldSelector"] == {"requirements": [
        {"key": "spec.nodeName", "operator": "In", "values": ["n1"]},
        {"key": "metadata.name", "operator": "NotIn", "values": ["x"]},
    ]}  # fmt: skip
    assert first["labelSelector"] == {"requirements": [
        {"key": "a", "operator": "In", "values": ["1", "2"]}, {"key": "b", "operator": "DoesNotExist", "values": []},
    ]}  # fmt: skip
    for other in others:
        assert not {"fieldSelector", "labelSelector"} & set(other)
    await webhook.close()


@pytest.mark.parametrize("closed", [False, True])
async def test_a_webhook_that_fails(running: Running, tenants: None, hook: Any, closed: bool) -> None:
    service, trust = hook
    webhook = Webhook(WebhookSettings(service.url, trust, timeout=0.5, fail_closed=closed), Clock())  # type: ignore[arg-type]
    asker = Asker(Identity("jane", Role.USER, ACME), ACME, "jane", (), ())
    service.status = 500
    decision = await webhook.decide(asker, ask("acme", "list", "pods"))
    assert (decision.allowed, decision.denied) == (False, closed)
    service.status, service.answer = 200, {"allowed": True, "denied": True}
    assert not (await webhook.decide(asker, ask("acme", "list", "pods"))).allowed
    service.answer = {"allowed": True}
    assert (await webhook.decide(asker, ask("acme", "list", "pods"))).allowed, "a failure is not remembered"
    untrusted = Webhook(WebhookSettings(service.url), Clock())  # type: ignore[arg-type]
    assert not (await untrusted.decide(asker, ask("acme", "get", "pods"))).allowed
    for one in (webhook, untrusted):
        await one.close()
    await asyncio.sleep(0)
