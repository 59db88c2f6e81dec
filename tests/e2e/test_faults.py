"""kill -9 of each daemon in the middle of 20 pod creations: everything converges and nothing that ran stops."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.harness import Cluster, eventually, pod

pytestmark = pytest.mark.e2e
COUNT = 20
SERVE = "echo up > /tmp/index.html && exec httpd -f -p 80 -h /tmp"


@pytest.fixture
def tenant(cluster: Cluster) -> Iterator[str]:
    name = f"fault{time.monotonic_ns() % 100000}"
    cluster.make_tenant(name)
    yield name
    cluster.up()
    cluster.delete_tenant(name)


def ran(cluster: Cluster, tenant: str) -> dict[str, tuple[str, int]]:
    """Running pods: their container and its restarts."""
    found = {}
    for item in cluster.get(tenant, "pods")["items"]:
        statuses = item["status"].get("containerStatuses", [])
        if item["status"].get("phase") == "Running" and statuses:
            found[item["metadata"]["name"]] = (statuses[0]["containerID"], statuses[0]["restartCount"])
    return found


def serving(cluster: Cluster, tenant: str, node: str, address: str) -> bool:
    """Whether the pod answers inside its tenant's network, asked from the router's namespace of a node."""
    netns = cluster.netns(node, tenant)
    command = ["nsenter", f"--net={netns}", "timeout", "2", "busybox", "wget", "-q", "-O", "-", f"http://{address}/"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() == "up"


def containerd_pid(cluster: Cluster, node: str) -> int:
    return int(json.loads((cluster.state / "nodes" / node / "containerd" / "pid").read_text())["pid"])


def victim(cluster: Cluster, daemon: str) -> int:
    return containerd_pid(cluster, "node-1") if daemon == "containerd" else cluster.pid(daemon)


@pytest.mark.parametrize("daemon", ["server", "node-1", "containerd"])
def test_kill_in_the_middle_of_creations(cluster: Cluster, tenant: str, daemon: str) -> None:
    cluster.apply(tenant, pod("old", node="node-1", address="10.0.9.9", command=SERVE))
    eventually("the old pod runs", lambda: cluster.pod_running(tenant, "old"))
    eventually("the old pod serves", lambda: serving(cluster, tenant, "node-1", "10.0.9.9"))
    before = ran(cluster, tenant)
    cluster.apply(tenant, *(pod(f"new-{n}") for n in range(COUNT)))
    time.sleep(1.0)
    os.kill(victim(cluster, daemon), signal.SIGKILL)
    for _ in range(5):
        assert serving(cluster, tenant, "node-1", "10.0.9.9"), "traffic stopped while the daemon is down"
        time.sleep(0.2)
    cluster.up()
    eventually("all pods run", lambda: len(ran(cluster, tenant)) == COUNT + 1, within=90)
    assert ran(cluster, tenant)["old"] == before["old"]
    addresses = [i["status"]["podIP"] for i in cluster.get(tenant, "pods")["items"]]
    assert len(set(addresses)) == COUNT + 1
    cluster.kubectl(tenant, "delete", "pods", "--all", "--wait", timeout=120)
    no_leak(cluster, tenant)


def no_leak(cluster: Cluster, tenant: str) -> None:
    """No address, port, router namespace or sandbox of the tenant is left."""
    eventually("no port is left", lambda: not cluster.get(tenant, "ports", "-A")["items"], within=60)
    eventually("no address is left", lambda: not cluster.get(tenant, "addresses", "-A")["items"], within=60)
    for node in ("node-1", "node-2"):
        eventually(f"no router is left on {node}", lambda n=node: not Path(cluster.netns(n, tenant)).exists())


def test_twenty_pods_made_and_removed_leave_nothing(cluster: Cluster, tenant: str) -> None:
    cluster.apply(tenant, *(pod(f"p-{n}") for n in range(COUNT)))
    eventually("all pods run", lambda: len(ran(cluster, tenant)) == COUNT, within=90)
    assert {i["spec"]["nodeName"] for i in cluster.get(tenant, "pods")["items"]} == {"node-1", "node-2"}
    cluster.kubectl(tenant, "delete", "pods", "--all", "--wait", timeout=120)
    no_leak(cluster, tenant)
