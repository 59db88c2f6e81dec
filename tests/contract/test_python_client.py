"""The Python client's ordinary operations, by the platform and by a tenant's administrator: typed, dynamic, watched, applied."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client, config, dynamic, utils, watch
from kubernetes.client.exceptions import ApiException

LABELS = {"app": "py"}
POD = {"containers": [{"name": "c", "image": "toolbox"}]}
CRD = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "things.py.example"},
    "spec": {
        "group": "py.example",
        "scope": "Namespaced",
        "names": {"plural": "things", "kind": "Thing", "shortNames": ["th"]},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}


def deployment(replicas: int = 2) -> dict[str, Any]:
    template = {"metadata": {"labels": LABELS}, "spec": POD}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "py"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": LABELS}, "template": template},
    }


def typed(api: client.ApiClient) -> None:
    core, apps = client.CoreV1Api(api), client.AppsV1Api(api)
    assert client.VersionApi(api).get_code().major == "1"
    pod = core.create_namespaced_pod("default", {"metadata": {"name": "p"}, "spec": POD})
    assert (pod.spec.restart_policy, pod.spec.service_account_name) == ("Always", "default")
    service = {"metadata": {"name": "s"}, "spec": {"selector": LABELS, "ports": [{"port": 80}]}}
    assert core.create_namespaced_service("default", service).spec.cluster_ip
    made = apps.create_namespaced_deployment("default", deployment())
    assert made.spec.strategy.type == "RollingUpdate"
    scale = apps.patch_namespaced_deployment_scale("py", "default", {"spec": {"replicas": 4}})
    assert scale.spec.replicas == 4
    made.spec.replicas = 1
    with pytest.raises(ApiException) as lost:
        apps.replace_namespaced_deployment("py", "default", made)
    assert lost.value.status == 409
    fresh = apps.read_namespaced_deployment("py", "default")
    fresh.metadata.annotations = {"note": "x"}
    assert apps.replace_namespaced_deployment("py", "default", fresh).metadata.annotations == {"note": "x"}
    selected = apps.list_deployment_for_all_namespaces(label_selector="app!=py", field_selector="metadata.name=py")
    assert [d.metadata.name for d in selected.items] == ["py"]
    review = {"spec": {"resourceAttributes": {"verb": "*", "resource": "*", "group": "*"}}}
    assert client.AuthorizationV1Api(api).create_self_subject_access_review(review).status.allowed
    core.delete_namespaced_service("s", "default")
    apps.delete_namespaced_deployment("py", "default", propagation_policy="Background")


def watched(api: client.ApiClient) -> None:
    core = client.CoreV1Api(api)
    found = core.list_namespaced_config_map("default")
    for value in "12":
        body = {"metadata": {"name": "w"}, "data": {"k": value}}
        core.create_namespaced_config_map("default", body) if value == "1" else core.patch_namespaced_config_map(
            "w", "default", body
        )
    core.delete_namespaced_config_map("w", "default")
    events = watch.Watch().stream(
        core.list_namespaced_config_map, "default", resource_version=found.metadata.resource_version, timeout_seconds=2
    )
    assert [(e["type"], e["object"].data["k"]) for e in events] == [("ADDED", "1"), ("MODIFIED", "2"), ("DELETED", "2")]


def dynamically(api: client.ApiClient, cache: Path) -> None:
    """Discovery, custom kinds, server-side apply with a conflict, and utilities."""
    utils.create_from_dict(api, CRD)
    dyn = dynamic.DynamicClient(api, cache_file=str(cache))
    things = dyn.resources.get(api_version="py.example/v1", kind="Thing")
    body = {"apiVersion": "py.example/v1", "kind": "Thing", "metadata": {"name": "t"}, "spec": {"size": 3}}
    assert things.create(body=body, namespace="default").spec.size == 3
    things.status.patch(
        body={"status": {"ready": True}}, name="t", namespace="default", content_type="application/merge-patch+json"
    )
    assert things.get(name="t", namespace="default").status.ready is True
    deployments = dyn.resources.get(api_version="apps/v1", kind="Deployment")
    first = {**deployment(2), "metadata": {"name": "applied"}}
    deployments.server_side_apply(body=first, name="applied", namespace="default", field_manager="one")
    second = {**deployment(7), "metadata": {"name": "applied"}}
    with pytest.raises(ApiException) as conflict:
        deployments.server_side_apply(body=second, name="applied", namespace="default", field_manager="two")
    assert conflict.value.status == 409
    forced = deployments.server_side_apply(
        body=second, name="applied", namespace="default", field_manager="two", force_conflicts=True
    )
    assert forced.spec.replicas == 7
    things.delete(name="t", namespace="default")


async def test_in_root_and_in_a_tenant(running: Any, admin: Any, tmp_path: Path) -> None:
    await admin.post("/apis/polder.dev/v1alpha1/tenants", {"metadata": {"name": "acme"}})
    for leaf in (running.admin_leaf(), await running.tenant_leaf("acme")):
        path = running.kubeconfig(leaf)
        api = await asyncio.to_thread(config.new_client_from_config, str(path))
        try:
            await asyncio.to_thread(typed, api)
            await asyncio.to_thread(watched, api)
            await asyncio.to_thread(dynamically, api, path.parent / "discovery")
        finally:
            await asyncio.to_thread(api.close)
