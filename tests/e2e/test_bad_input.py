"""Bad input: a clear answer that names the field, and nothing changed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.harness import Cluster, eventually, pod

pytestmark = pytest.mark.e2e
TENANT = "clumsy"


@pytest.fixture(scope="module", autouse=True)
def tenant(cluster: Cluster) -> Iterator[None]:
    cluster.make_tenant(TENANT)
    yield
    cluster.delete_tenant(TENANT)


def network(name: str, **spec: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "default"}
    return {"apiVersion": "polder.dev/v1alpha1", "kind": "Network", "metadata": metadata, "spec": spec}


def everything(cluster: Cluster) -> set[str]:
    kinds = "pods,networks,configmaps,ports,addresses,services"
    items = cluster.get(TENANT, kinds, "-A")["items"]
    return {f"{i['kind']}/{i['metadata']['name']}" for i in items}


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ("{not json", "could not find expected|error parsing|error converting|invalid"),
        (json.dumps(network("bad", cidr="10.300.0.0/16")), "spec.cidr"),
        (json.dumps(network("bad", cidr="10.1.0.1/16")), "spec.cidr"),
        (json.dumps(network("overlap", cidr="10.0.4.0/24")), "spec.cidr.*overlap"),
        (json.dumps(network("gateway", cidr="10.7.0.0/24", gateway="10.8.0.1")), "spec.gateway"),
        (json.dumps(network("x" * 300, cidr="10.7.0.0/24")), "metadata.name"),
        (json.dumps(network("six", cidr="fd00::1/64")), "spec.cidr"),
        (json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {}}), "spec.containers"),
        (json.dumps(pod("p", hostNetwork=True)), "spec.hostNetwork"),
        (json.dumps(pod("p", container={"securityContext": {"privileged": True}})), "privileged"),
        (json.dumps(pod("p", volumes=[{"name": "h", "hostPath": {"path": "/"}}])), "hostPath"),
        (json.dumps(pod("p", address="10.9.9.9")), "polder.dev/address"),
        (json.dumps(pod("p", address="10.0.0.1")), "polder.dev/address"),
        (json.dumps(pod("p", address="rubbish")), "polder.dev/address"),
    ],
)
def test_a_bad_object_is_refused_by_field(cluster: Cluster, document: str, words: str) -> None:
    import re

    before = everything(cluster)
    done = cluster.kubectl(TENANT, "create", "-f", "-", stdin=document, check=False)
    assert done.returncode != 0, done.stdout
    assert re.search(words, done.stderr, re.DOTALL), done.stderr
    assert everything(cluster) == before


def test_a_giant_body_is_refused(cluster: Cluster) -> None:
    big = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "big"}, "data": {"k": "x" * (10 << 20)}}
    done = cluster.kubectl(TENANT, "create", "-f", "-", stdin=json.dumps(big), check=False)
    assert done.returncode != 0
    assert "too large" in done.stderr.lower()
    assert "ConfigMap/big" not in everything(cluster)


def test_a_full_network_names_itself(cluster: Cluster) -> None:
    cluster.apply(TENANT, network("tiny", cidr="10.66.0.0/29"))
    eventually("the network is ready", lambda: cluster.get(TENANT, "network", "tiny")["status"].get("vni"))
    pods = []
    for number in range(6):
        made = pod(f"full-{number}")
        made["metadata"]["annotations"]["polder.dev/network"] = "default/tiny"
        pods.append(made)
    cluster.apply(TENANT, *pods)

    def running() -> list[str]:
        items = cluster.get(TENANT, "pods")["items"]
        return [i["metadata"]["name"] for i in items if i["status"].get("phase") == "Running"]

    eventually("five of six run", lambda: len(running()) == 5, within=60)

    def said() -> bool:
        return any(
            "default/tiny" in e["message"] and "full" in e["message"] for e in cluster.get(TENANT, "events")["items"]
        )

    eventually("an event says that the network is full", said)
    cluster.kubectl(TENANT, "delete", "pod", running()[0])
    eventually("the sixth takes the freed address", lambda: len(running()) == 5 and "full" in str(running()), within=60)
    cluster.kubectl(TENANT, "delete", "pods", "--all")
    eventually("addresses are free", lambda: not cluster.get(TENANT, "addresses", "-n", "default")["items"])
    cluster.kubectl(TENANT, "delete", "network", "tiny")


def test_what_exists_elsewhere_looks_as_what_exists_nowhere(cluster: Cluster) -> None:
    cluster.make_tenant("other")
    try:
        for verb in (["get", "--raw"], ["create", "--raw"], ["delete", "--raw"]):
            answers = []
            for name in ("other", "absent"):
                path = f"/tenants/{name}/api/v1/namespaces/default/pods"
                extra = ["-f", "/dev/null"] if verb[0] != "get" else []
                done = cluster.kubectl(TENANT, *verb, path, *extra, check=False)
                assert done.returncode != 0
                answers.append(done.stderr.replace(name, "NAME"))
            assert answers[0] == answers[1]
    finally:
        cluster.delete_tenant("other")
