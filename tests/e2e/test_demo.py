"""`make demo`: every row as expected, and again when it is repeated."""

from __future__ import annotations

import json

import pytest

from tests.e2e.harness import Cluster

pytestmark = pytest.mark.e2e


def test_the_demo_shows_what_it_promises(cluster: Cluster) -> None:
    document = json.loads(cluster.polder("demo", "-o", "json").stdout)
    wrong = [row for row in document["rows"] if not row["ok"]]
    assert wrong == []
    kinds = {row["what"] for row in document["rows"]}
    assert kinds == {"pod", "service", "host", "egress", "api", "in-cluster api"}
    assert {row["seen"] for row in document["rows"] if row["what"] == "pod"} == {"reach", "no reach"}


def test_both_tenants_have_the_same_names_and_addresses(cluster: Cluster) -> None:
    cluster.polder("demo", "-o", "json")

    def addresses(tenant: str) -> dict[str, tuple[str, str]]:
        items = cluster.get(tenant, "pods")["items"]
        return {
            item["metadata"]["name"]: (item["status"]["podIP"], item["spec"]["nodeName"])
            for item in items
            if not item["metadata"]["name"].startswith("only-")
        }

    assert (
        addresses("acme") == addresses("globex") == {"web": ("10.0.0.10", "node-1"), "client": ("10.0.0.20", "node-2")}
    )


def test_the_platform_sees_both_at_once(cluster: Cluster) -> None:
    cluster.polder("demo", "-o", "json")
    pods = json.loads(cluster.kubectl("root", "get", "--raw", "/tenants/*/api/v1/pods").stdout)["items"]
    tenants = {p["metadata"]["annotations"]["polder.dev/tenant"] for p in pods}
    assert {"acme", "globex"} <= tenants
    denied = cluster.kubectl("acme", "get", "--raw", "/tenants/*/api/v1/pods", check=False)
    assert denied.returncode != 0


def test_inspect_finds_no_difference(cluster: Cluster) -> None:
    cluster.polder("demo", "-o", "json")
    shown = json.loads(cluster.polder("inspect", "tenant", "acme", "-o", "json").stdout)
    assert {n["node"] for n in shown} == {"node-1", "node-2"}
    for node in shown:
        assert "10.0.0.10" in node["topology"]
        assert "10.0.0.10" in node["desired"]
        assert node["differences"] == ""
    one = json.loads(cluster.polder("inspect", "tenant", "acme", "--node", "node-2", "-o", "json").stdout)
    assert [n["node"] for n in one] == ["node-2"]
    assert cluster.polder("inspect", "tenant", "nobody", check=False).returncode == 1


def test_status_lists_what_runs(cluster: Cluster) -> None:
    shown = json.loads(cluster.polder("status", "-o", "json").stdout)
    assert {p["name"]: p["state"] for p in shown["processes"]} == {
        "server": "running",
        "node-1": "running",
        "node-2": "running",
    }
    assert {n["name"]: n["state"] for n in shown["nodes"]} == {"node-1": "Ready", "node-2": "Ready"}
