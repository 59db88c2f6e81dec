"""Built-in admission plug-ins over the API, and the list by which they are on or off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from polder.api.errors import ApiError
from polder.api.kinds import built_in
from polder.apiserver.admission import AdmissionContext
from polder.apiserver.admission_names import DEFAULT, check_names
from polder.apiserver.admission_plugins import (
    AlwaysPullImages,
    DenyExecOnPrivileged,
    DenyServiceExternalIPs,
    SecurityContextDeny,
)
from polder.apiserver.admit import standard_chain
from polder.apiserver.catalog import Resource
from polder.apiserver.types import Identity, Role
from polder.base.clock import SystemClock
from polder.base.errors import PermanentError
from polder.base.ids import ROOT
from polder.main.config import ServerConfig, load
from tests.contract.conftest import Api, Running

PODS = "/api/v1/namespaces/guarded/pods"


def pod(name: str = "p", **spec: Any) -> Any:
    body = {"containers": [{"name": "c", "image": "toolbox"}], **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": body}


async def guarded(api: Api, **labels: str) -> None:
    named = {f"pod-security.kubernetes.io/{key.replace('_', '-')}": value for key, value in labels.items()}
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "guarded", "labels": named}}
    made = await api.post("/api/v1/namespaces", space)
    assert made.status == 201, made.body


async def test_pods_must_meet_what_their_namespace_enforces(admin: Api) -> None:
    await guarded(admin, enforce="restricted", warn="restricted")
    refused = await admin.post(PODS, pod())
    assert refused.status == 403
    assert refused.json["message"] == (
        'pods "p" is forbidden: violates PodSecurity "restricted:latest": allowPrivilegeEscalation != false (container "c" '
        'must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container "c" must set '
        'securityContext.capabilities.drop=["ALL"]), runAsNonRoot != true (pod or container "c" must set '
        'securityContext.runAsNonRoot=true), seccompProfile (pod or container "c" must set '
        'securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")'
    )


async def test_warned_levels_let_pass_and_what_makes_pods_is_warned_of(admin: Api) -> None:
    await guarded(admin, warn="baseline", enforce="privileged")
    made = await admin.post(PODS, pod(volumes=[{"name": "v", "hostPath": {"path": "/tmp"}}]))
    assert made.status == 201, made.body
    assert 'would violate PodSecurity \\"baseline:latest\\": hostPath volumes' in made.headers["Warning"]
    labels = {"app": "d"}
    template = {"metadata": {"labels": labels}, "spec": pod(hostPID=True)["spec"]}
    deployment = {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
        "spec": {"selector": {"matchLabels": labels}, "template": template},
    }  # fmt: skip
    made = await admin.post("/apis/apps/v1/namespaces/guarded/deployments", deployment)
    assert made.status == 201, made.body
    assert "host namespaces (hostPID=true)" in made.headers["Warning"]


async def test_a_namespace_that_becomes_stricter_warns_of_its_pods(admin: Api) -> None:
    await guarded(admin)
    for name in ("a", "b"):
        assert (await admin.post(PODS, pod(name))).status == 201
    strict = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
    changed = await admin.patch("/api/v1/namespaces/guarded", strict)
    warnings = changed.headers.getall("Warning")
    assert 'violate the new PodSecurity enforce level \\"restricted:latest\\"' in warnings[0]
    assert "a (and 1 other pod): allowPrivilegeEscalation" in warnings[1]
    bad = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "severe"}}}
    refused = await admin.patch("/api/v1/namespaces/guarded", bad)
    assert refused.status == 422
    assert "must be one of privileged, baseline, restricted" in refused.json["message"]
    relabelled = await admin.patch(f"{PODS}/a", {"metadata": {"labels": {"x": "y"}}})
    assert relabelled.status == 200, "a pod that stands there can still be labelled"


async def test_claims_and_ingresses_get_the_newest_default_class(running: Running, admin: Api) -> None:
    def storage(name: str, default: str) -> Any:
        mark = {"storageclass.kubernetes.io/is-default-class": default}
        return {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "provisioner": "x.example.com/y",
                "metadata": {"name": name, "annotations": mark}}  # fmt: skip

    assert (await admin.delete("/apis/storage.k8s.io/v1/storageclasses/local")).status == 200
    for name, default in (("slow", "true"), ("other", "false")):
        assert (await admin.post("/apis/storage.k8s.io/v1/storageclasses", storage(name, default))).status == 201
    claims = "/api/v1/namespaces/default/persistentvolumeclaims"

    def claim(name: str, **spec: Any) -> Any:
        body = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, **spec}
        return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": body}

    assert (await admin.post(claims, claim("a"))).json["spec"]["storageClassName"] == "slow"
    assert (await admin.post(claims, claim("b", storageClassName="other"))).json["spec"]["storageClassName"] == "other"
    assert (await admin.post(claims, claim("c", storageClassName=""))).json["spec"]["storageClassName"] == ""
    tenant = {"apiVersion": "polder.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": "acme"}}
    assert (await admin.post("/apis/polder.dev/v1alpha1/tenants", tenant)).status == 201
    acme = await running.tenant_admin("acme")
    assert (await acme.post(claims, claim("a"))).json["spec"]["storageClassName"] == "slow", "root's classes are shared"
    assert (await acme.post("/apis/storage.k8s.io/v1/storageclasses", storage("mine", "true"))).status == 201
    assert (await acme.post(claims, claim("d"))).json["spec"]["storageClassName"] in {"mine", "slow"}
    ingress_class = {"apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": {
        "name": "front", "annotations": {"ingressclass.kubernetes.io/is-default-class": "true"}},
        "spec": {"controller": "example.com/front"}}  # fmt: skip
    assert (await admin.post("/apis/networking.k8s.io/v1/ingressclasses", ingress_class)).status == 201
    ingress = {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "i"},
               "spec": {"defaultBackend": {"service": {"name": "s", "port": {"number": 80}}}}}  # fmt: skip
    made = await admin.post("/apis/networking.k8s.io/v1/namespaces/default/ingresses", ingress)
    assert made.json["spec"]["ingressClassName"] == "front"


async def test_overhead_comes_from_the_runtime_class(admin: Api) -> None:
    await guarded(admin)
    refused = await admin.post(PODS, pod(overhead={"cpu": "1"}))
    assert refused.status == 403
    assert "Pod Overhead set without corresponding RuntimeClass" in refused.json["message"]
    refused = await admin.post(PODS, pod(runtimeClassName="none"))
    assert refused.status in {403, 422}, refused.body


def context(body: Any, verb: str = "create", subresource: str = "") -> AdmissionContext:
    who = Identity("u", Role.USER)
    return AdmissionContext(
        who, ROOT, verb, Resource(built_in("v1", "pods")), "default", "p", subresource, body, options={}
    )


async def test_always_pull_images_overrides_what_a_pod_says() -> None:
    body = pod(initContainers=[{"name": "i", "imagePullPolicy": "Never"}])
    await AlwaysPullImages().admit(context(body))
    assert [c["imagePullPolicy"] for c in body["spec"]["initContainers"] + body["spec"]["containers"]] == ["Always"] * 2


@pytest.mark.parametrize(
    "spec",
    [
        {"securityContext": {"fsGroup": 1}},
        {"securityContext": {"runAsUser": 0}},
        {"containers": [{"name": "c", "securityContext": {"seLinuxOptions": {"user": "u"}}}]},
    ],
)
async def test_security_context_deny_refuses_what_raises_rights(spec: Any) -> None:
    with pytest.raises(ApiError, match="is forbidden"):
        await SecurityContextDeny().admit(context(pod(**spec)))
    await SecurityContextDeny().admit(context(pod()))


async def test_external_ips_of_services_may_stay_and_not_come() -> None:
    def asked(old: list[str] | None, new: list[str]) -> AdmissionContext:
        asker, kind = Identity("u", Role.PLATFORM_ADMIN), Resource(built_in("v1", "services"))
        before = None if old is None else {"spec": {"externalIPs": old}}
        verb = "create" if old is None else "update"
        return AdmissionContext(asker, ROOT, verb, kind, "guarded", "s", "", {"spec": {"externalIPs": new}}, before)

    for old, new in ((None, ["192.0.2.1"]), (["192.0.2.1"], ["192.0.2.1", "192.0.2.2"])):
        with pytest.raises(ApiError, match="Use of external IPs is denied"):
            await DenyServiceExternalIPs().admit(asked(old, new))
    for old, new in ((None, []), (["192.0.2.1", "192.0.2.2"], ["192.0.2.2"])):
        await DenyServiceExternalIPs().admit(asked(old, new))


async def test_nobody_gets_into_a_privileged_pod(running: Running, admin: Api) -> None:
    await guarded(admin)
    hook = DenyExecOnPrivileged(running.store)
    bad = {"containers": [{"name": "c", "image": "toolbox", "securityContext": {"privileged": True}}]}
    for name, spec in (("p", bad), ("plain", {})):
        assert (await admin.post(PODS, pod(name, **spec))).status == 201
    for subresource in ("exec", "attach"):
        asked = context(None, "connect", subresource)
        asked.namespace = "guarded"
        with pytest.raises(ApiError, match="cannot exec into or attach to a privileged container"):
            await hook.admit(asked)
        asked.name = "plain"
        await hook.admit(asked)


def test_the_list_of_plugins_is_checked() -> None:
    assert "PodSecurity" in check_names(DEFAULT)
    with pytest.raises(PermanentError, match="'Nonsense' is no admission plug-in"):
        check_names([*DEFAULT, "Nonsense"])
    with pytest.raises(PermanentError, match="NamespaceLifecycle cannot be left out"):
        check_names(["PodSecurity"])


async def test_a_plugin_that_is_not_listed_is_not_there(running: Running) -> None:
    def hooks(*plugins: str) -> set[str]:
        chain = standard_chain(running.store, running.identity.parts, SystemClock(), plugins=plugins)
        return {type(hook).__name__ for hook in (*chain.changing, *chain.checking, *chain.companions)}

    assert {"PodSecurity", "Priorities", "Quotas"} <= hooks(*DEFAULT)
    assert not {"AlwaysPullImages", "SecurityContextDeny", "DenyExecOnPrivileged"} & hooks(*DEFAULT)
    assert {"AlwaysPullImages", "SecurityContextDeny"} <= hooks(*DEFAULT, "AlwaysPullImages", "SecurityContextDeny")
    assert "DenyServiceExternalIPs" in hooks(*DEFAULT, "DenyServiceExternalIPs") - hooks(*DEFAULT)
    bare = hooks("NamespaceLifecycle", "ServiceAccount")
    assert not {"PodSecurity", "Priorities", "Quotas", "LimitDefaults", "DefaultClass"} & bare
    assert {"Lifecycle", "PodAccounts", "TenantQuotas", "ApiServices"} <= bare, "what makes tenants stays"


def test_the_servers_configuration_names_the_plugins(tmp_path: Path) -> None:
    path = tmp_path / "server.yaml"
    path.write_text(
        "apiVersion: config.polder.dev/v1alpha1\nkind: ServerConfig\nlisten: ['127.0.0.1:0']\npki: pki\n"
        "admission: [NamespaceLifecycle, ServiceAccount, AlwaysPullImages]\n"
    )
    assert load(path, ServerConfig).admission == ("NamespaceLifecycle", "ServiceAccount", "AlwaysPullImages")
