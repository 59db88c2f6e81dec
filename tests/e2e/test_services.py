"""A Deployment reached by its Service, as on every Kubernetes, in two tenants with the same names."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.e2e.harness import Cluster, eventually, pod

pytestmark = pytest.mark.e2e
SERVE = "mkdir -p /tmp/www && echo $WHO $(hostname) > /tmp/www/index.html && exec httpd -f -p 8080 -h /tmp/www"


def deployment(tenant: str, replicas: int) -> dict[str, Any]:
    container = {
        "name": "main",
        "image": "toolbox",
        "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", SERVE],
        "env": [{"name": "WHO", "value": tenant}],
        "ports": [{"name": "http", "containerPort": 8080}],
    }
    template = {
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 1},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": template},
    }


SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "web"},
    "spec": {
        "clusterIP": "10.96.0.90",
        "selector": {"app": "web"},
        "ports": [{"name": "web", "port": 80, "targetPort": "http"}],
    },
}


def answers(cluster: Cluster, tenant: str, times: int = 12) -> set[str]:
    """Who answers a client at the service's address: tenant and pod."""
    fetch = f"for i in $(seq {times}); do timeout 2 wget -q -O - http://10.96.0.90/ || echo nobody; done"
    return set(cluster.exec(tenant, "client", "sh", "-c", fetch).splitlines())


def test_a_deployment_is_reached_by_its_service(cluster: Cluster) -> None:
    tenants = ("seller", "buyer")
    for tenant in tenants:
        cluster.make_tenant(tenant)
        cluster.apply(tenant, deployment(tenant, 2), SERVICE, pod("client"))
    for tenant in tenants:
        eventually("the client runs", lambda tenant=tenant: cluster.pod_running(tenant, "client"), 60)

        def all_answer(tenant: str = tenant) -> bool:
            names = {p["metadata"]["name"] for p in cluster.get(tenant, "pods", "-l", "app=web")["items"]}
            return len(names) == 2 and answers(cluster, tenant) == {f"{tenant} {name}" for name in names}

        eventually(f"both pods of {tenant} answer", all_answer, 60)
    cluster.kubectl("seller", "scale", "deployment", "web", "--replicas=0")
    eventually("nobody answers", lambda: answers(cluster, "seller", 2) == {"nobody"}, 60)
    assert {line.split()[0] for line in answers(cluster, "buyer")} == {"buyer"}, "the other tenant's of the same name"
    inspected = json.loads(cluster.polder("inspect", "tenant", "buyer", "-o", "json").stdout)
    assert {node["differences"] for node in inspected} == {""}
    for tenant in tenants:
        cluster.delete_tenant(tenant)
