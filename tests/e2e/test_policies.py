"""A NetworkPolicy as a person has it: applied with kubectl, felt by a client, explained by ``polder trace``, counted."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.e2e.harness import Cluster, eventually, pod
from tests.e2e.test_services import SERVICE, answers, deployment

pytestmark = pytest.mark.e2e


def policy(name: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": name}, "spec": spec}


def trace(cluster: Cluster, question: str) -> tuple[bool, str]:
    """Whether it is allowed, and what is said of the receiver's end."""
    done = cluster.polder("trace", *question.split(), "-o", "json", check=False)
    assert done.stdout, done.stderr
    found = json.loads(done.stdout)
    assert done.returncode == int(not all(one["allowed"] for one in found))
    return done.returncode == 0, found[0]["decisions"][-1]["reason"]


def test_a_policy_counts_is_explained_and_stays_in_its_tenant(cluster: Cluster) -> None:
    for tenant in ("fenced", "open"):
        cluster.make_tenant(tenant)
        cluster.apply(
            tenant, deployment(tenant, 2), SERVICE, pod("client", node="node-1"), pod("friend", node="node-2")
        )
    for tenant in ("fenced", "open"):
        eventually(
            "they run", lambda tenant=tenant: all(cluster.pod_running(tenant, one) for one in ("client", "friend")), 60
        )
        eventually(f"{tenant} answers", lambda tenant=tenant: len(answers(cluster, tenant)) == 2, 60)
    cluster.kubectl("fenced", "label", "pod", "friend", "role=friend")
    peers = [{"podSelector": {"matchLabels": {"role": "friend"}}}]
    web = {"podSelector": {"matchLabels": {"app": "web"}}}
    cluster.apply("fenced", policy("friends", **web, ingress=[{"from": peers, "ports": [{"port": "http"}]}]))
    eventually("it counts", lambda: answers(cluster, "fenced", 2) == {"nobody"})
    assert len(answers(cluster, "open")) == 2, "the other tenant has no policy"
    fetch = "timeout 2 wget -q -O - http://10.96.0.90/"
    assert "fenced" in cluster.exec("fenced", "friend", "sh", "-c", fetch)
    reason = "isolated by NetworkPolicy default/friends, no rule of which accepts it"
    assert trace(cluster, "fenced/default/client → web:80") == (False, reason)
    assert trace(cluster, "fenced/default/friend -> web:80") == (
        True,
        "ingress rule 1 of NetworkPolicy default/friends accepts it",
    )
    assert trace(cluster, "open/default/client to web:80") == (True, "no policy decides, so it is free")
    shown = json.loads(cluster.polder("inspect", "tenant", "fenced", "-o", "json").stdout)
    assert any("ingress NetworkPolicy default/friends" in node["drops"] for node in shown)
    assert [node["differences"] for node in shown] == ["", ""]
    cluster.kubectl("fenced", "label", "pod", "client", "role=friend")
    eventually("its label counts", lambda: len(answers(cluster, "fenced")) == 2)
    for tenant in ("fenced", "open"):
        cluster.delete_tenant(tenant)
