"""A node cut off for a minute and back, a node killed, containerd killed: Deployments' pods are moved or kept, and no
StatefulSet's identity runs twice. A node without its server runs what its own files say.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from polder.main.hostnet import cluster_of
from polder.main.up import agent_daemon, server_daemon
from tests.e2e.conftest import new_cluster
from tests.e2e.harness import Cluster, eventually, pod, run

pytestmark = pytest.mark.e2e
PATIENCE = {"nodeGrace": 14, "nodeMonitor": 1, "evictedNodesPerSecond": 10}
"""Agents renew their leases every ten seconds."""
STAYS = 4
"""Seconds that a pod bears a node that does not answer."""
AWAY = 60.0


@pytest.fixture(scope="module")
def lost() -> Iterator[Cluster]:
    """Two nodes under a server that loses patience sooner."""
    made = new_cluster("n", 181 + os.getpid() % 50)
    try:
        made.up()
        path = made.state / "server" / "server.yaml"
        path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "controllers": PATIENCE}))
        daemon = server_daemon(cluster_of(made.state))
        before = made.pid("server")
        os.kill(before, signal.SIGTERM)
        eventually("the server ends", lambda: daemon.running() is None)
        daemon.ensure()
        eventually("the server answers", lambda: made.get("root", "nodes")["items"])
        yield made
    finally:
        for name in ("server", "nodes/node-1", "nodes/node-2"):
            log = made.state / name / "log"
            if log.exists():
                lines = [line for line in log.read_text(errors="replace").splitlines() if "polder.audit" not in line]
                print(f"--- the last lines of {log}", *lines[-15:], sep="\n")
        made.down()
        shutil.rmtree(made.state)


@pytest.fixture
def tenant(lost: Cluster) -> Iterator[str]:
    name = f"lost{time.monotonic_ns() % 100000}"
    lost.make_tenant(name)
    keys = ("not-ready", "unreachable")
    bears = [{"key": f"node.kubernetes.io/{key}", "operator": "Exists", "effect": "NoExecute",
              "tolerationSeconds": STAYS} for key in keys]  # fmt: skip
    lost.apply(name, workload("Deployment", "web", 4, bears), workload("StatefulSet", "db", 4, bears))
    eventually("all pods run", lambda: len(ready(lost, name)) == 8, within=120)
    yield name
    lost.delete_tenant(name)


def workload(kind: str, name: str, replicas: int, bears: list[dict[str, Any]]) -> dict[str, Any]:
    template = pod(name, tolerations=bears)
    parallel = {"podManagementPolicy": "Parallel", "serviceName": name} if kind == "StatefulSet" else {}
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": {
            **parallel,
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": template["spec"]},
        },
    }


def ready(cluster: Cluster, tenant: str, app: str = "") -> dict[str, str]:
    """Pods that are ready and stay, with their nodes."""
    found = {}
    for item in cluster.get(tenant, "pods", *(["-l", f"app={app}"] if app else []))["items"]:
        said = {c["type"]: c["status"] for c in item["status"].get("conditions", ())}
        if said.get("Ready") == "True" and "deletionTimestamp" not in item["metadata"]:
            found[item["metadata"]["name"]] = item["spec"]["nodeName"]
    return found


def uids(cluster: Cluster, tenant: str) -> dict[str, str]:
    items = cluster.get(tenant, "pods", "-l", "app=db")["items"]
    return {item["metadata"]["name"]: item["metadata"]["uid"] for item in items}


def running(cluster: Cluster, node: str) -> Counter[str]:
    """By pod name, how many containers of the StatefulSet run on a node, as its containerd says."""
    base = ["ctr", "--address", str(cluster.state / "nodes" / node / "containerd" / "sock"), "-n", "k8s.io"]
    tasks = run(*base, "task", "ls", check=False).stdout.splitlines()[1:]
    alive = {line.split()[0] for line in tasks if line.endswith("RUNNING")}
    found: Counter[str] = Counter()
    for number in range(4):
        chosen = f'labels."io.kubernetes.pod.name"==db-{number},labels."io.kubernetes.container.name"==main'
        ids = run(*base, "container", "ls", "-q", chosen, check=False).stdout.split()
        found[f"db-{number}"] += len(alive & set(ids))
    return found


def never_twice(cluster: Cluster) -> None:
    both = running(cluster, "node-1") + running(cluster, "node-2")
    assert max(both.values(), default=0) <= 1, f"an identity runs twice: {both}"


def link(cluster: Cluster, node: str, state: str) -> None:
    netns = cluster.state / "nodes" / node / "net"
    run("nsenter", f"--net={netns}", "ip", "link", "set", "uplink", state)


def readiness(cluster: Cluster, node: str) -> str:
    said = cluster.get("root", "node", node)["status"]["conditions"]
    return str(next(c["status"] for c in said if c["type"] == "Ready"))


def main_containers(cluster: Cluster, tenant: str) -> dict[str, tuple[str, str, int]]:
    """By pod name: its UID, its container, and how often that was started again."""
    found = {}
    for item in cluster.get(tenant, "pods")["items"]:
        one = item["status"]["containerStatuses"][0]
        found[item["metadata"]["name"]] = (item["metadata"]["uid"], one["containerID"], one["restartCount"])
    return found


def containerd_pid(cluster: Cluster, node: str) -> int:
    return int(json.loads((cluster.state / "nodes" / node / "containerd" / "pid").read_text())["pid"])


def test_containerd_killed_under_sets_keeps_their_pods(lost: Cluster) -> None:
    name = f"kept{time.monotonic_ns() % 100000}"
    lost.make_tenant(name)
    lost.apply(name, workload("Deployment", "web", 4, []), workload("StatefulSet", "db", 4, []))
    eventually("all pods run", lambda: len(ready(lost, name)) == 8, within=120)
    before = main_containers(lost, name)
    for node in ("node-1", "node-2"):
        pid = containerd_pid(lost, node)
        os.kill(pid, signal.SIGKILL)

        def again(node: str = node, pid: int = pid) -> bool:
            never_twice(lost)
            return containerd_pid(lost, node) != pid

        eventually("containerd is started again", again, within=120)

    def works() -> bool:
        never_twice(lost)
        said = [lost.kubectl(name, "exec", one, "--", "echo", "here").stdout.strip() for one in before]
        return said == ["here"] * 8

    eventually("commands run in every pod", works, within=120)
    eventually("all are ready", lambda: len(ready(lost, name)) == 8, within=120)
    assert main_containers(lost, name) == before, "the same pods, the same containers, none started again"
    lost.delete_tenant(name)


def with_static_pods(cluster: Cluster, node: str, folder: Path) -> None:
    """The node's agent, started again with a folder of manifests."""
    path = cluster.state / "nodes" / node / "agent.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "staticPods": str(folder)}))
    restart_agent(cluster, node)


def restart_agent(cluster: Cluster, node: str) -> None:
    daemon = agent_daemon(next(one for one in cluster_of(cluster.state).all_nodes() if one.name == node))
    os.kill(cluster.pid(node), signal.SIGKILL)
    eventually("the agent is gone", lambda: daemon.running() is None)
    daemon.ensure()


def alive_of(cluster: Cluster, node: str, pod_name: str) -> set[str]:
    """Containers of a pod that run, as the node's containerd says."""
    base = ["ctr", "--address", str(cluster.state / "nodes" / node / "containerd" / "sock"), "-n", "k8s.io"]
    chosen = f'labels."io.kubernetes.pod.name"=={pod_name},labels."io.kubernetes.container.name"==main'
    ids = set(run(*base, "container", "ls", "-q", chosen, check=False).stdout.split())
    tasks = run(*base, "task", "ls", check=False).stdout.splitlines()[1:]
    return ids & {line.split()[0] for line in tasks if line.endswith("RUNNING")}


def test_a_static_pod_needs_no_server_and_its_mirror_only_shows_it(lost: Cluster) -> None:
    folder, name = lost.state / "manifests", "edge-node-1"
    folder.mkdir()
    file = folder / "edge.yaml"

    def says(word: str) -> None:
        made = pod("edge", hostNetwork=True, command=f"echo {word}; sleep 1d")
        file.write_text(yaml.safe_dump(made))

    def mirror() -> str:
        """The UID of a mirror that is ready; empty for none."""
        found = [one for one in lost.get("root", "pods")["items"] if one["metadata"]["name"] == name]
        return str(found[0]["metadata"]["uid"]) if found and name in ready(lost, "root") else ""

    says("first")
    with_static_pods(lost, "node-1", folder)
    eventually("its mirror is ready", mirror, within=120)
    assert lost.kubectl("root", "logs", name).stdout == "first\n"
    eventually("a command runs", lambda: lost.kubectl("root", "exec", name, "--", "echo", "hi").stdout == "hi\n")
    shown, container = mirror(), alive_of(lost, "node-1", name)
    lost.kubectl("root", "delete", "pod", name, "--wait=false")
    eventually("another mirror is ready", lambda: mirror() not in {"", shown}, within=120)
    assert alive_of(lost, "node-1", name) == container, "the pod did not notice"
    daemon = server_daemon(cluster_of(lost.state))
    os.kill(lost.pid("server"), signal.SIGKILL)
    try:
        eventually("the server is gone", lambda: daemon.running() is None)
        says("second")
        restart_agent(lost, "node-1")

        def another() -> bool:
            now = alive_of(lost, "node-1", name)
            return len(now) == 1 and now != container

        eventually("the changed pod runs in the place of the one before", another, within=120)
    finally:
        daemon.ensure()
    eventually("the server answers", lambda: lost.get("root", "nodes")["items"], within=120)
    second = lambda: bool(mirror()) and lost.kubectl("root", "logs", name).stdout == "second\n"  # noqa: E731
    eventually("the mirror shows it", second, within=120)
    file.unlink()
    gone = lambda: not alive_of(lost, "node-1", name) and not lost.get("root", "pods")["items"]  # noqa: E731
    eventually("pod and mirror are gone", gone, within=120)
    eventually("the node is ready", lambda: readiness(lost, "node-1") == "True", within=120)


def test_a_node_cut_off_for_a_minute_and_back(lost: Cluster, tenant: str) -> None:
    before, stateful = uids(lost, tenant), ready(lost, tenant, "db")
    there = {name for name, node in stateful.items() if node == "node-2"}
    assert there, "both nodes have pods"
    link(lost, "node-2", "down")
    begun = time.monotonic()
    try:
        eventually("the node is unknown", lambda: readiness(lost, "node-2") == "Unknown", within=120)
        eventually(
            "the Deployment's pods are moved",
            lambda: list(ready(lost, tenant, "web").values()) == ["node-1"] * 4,
            within=30,
        )
        eventually("what is on the node is not ready", lambda: set(ready(lost, tenant, "db")) == set(stateful) - there)
        while time.monotonic() - begun < AWAY:
            assert uids(lost, tenant) == before, "a pod of an identity that may still run was replaced"
            never_twice(lost)
            time.sleep(3)
        assert {name for name, count in running(lost, "node-2").items() if count} == there, "they ran on meanwhile"
    finally:
        link(lost, "node-2", "up")
    eventually("the node is back", lambda: readiness(lost, "node-2") == "True", within=120)

    def whole() -> bool:
        never_twice(lost)
        return len(ready(lost, tenant, "db")) == 4 and len(ready(lost, tenant, "web")) == 4

    eventually("all pods are ready", whole, within=120)
    after = uids(lost, tenant)
    assert {name for name in after if after[name] != before[name]} == there, (
        "those that were to go went, the others stayed"
    )
    eventually("its taints are gone", lambda: not lost.get("root", "node", "node-2")["spec"].get("taints"))
    eventually("nothing is left of the moved", lambda: len(lost.get(tenant, "pods")["items"]) == 8, within=120)


def end_all_of(cluster: Cluster, node: str) -> None:
    """A machine that loses its power: agent, containerd, and all that it ran."""
    folder = cluster.state / "nodes" / node
    base = ["ctr", "--address", str(folder / "containerd" / "sock"), "-n", "k8s.io"]
    tasks = [line.split()[1] for line in run(*base, "task", "ls").stdout.splitlines()[1:]]
    containerd = yaml.safe_load((folder / "containerd" / "pid").read_text())["pid"]
    mine = {pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if str(folder) in _argv(pid)}
    for pid in (cluster.pid(node), containerd, *sorted(mine), *map(int, tasks)):
        subprocess.run(["kill", "-9", str(pid)], check=False, capture_output=True)


def _argv(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def test_a_node_killed_and_declared_out_of_service(lost: Cluster, tenant: str) -> None:
    before, stateful = uids(lost, tenant), ready(lost, tenant, "db")
    there = {name for name, node in stateful.items() if node == "node-2"}
    assert there, "both nodes have pods"
    end_all_of(lost, "node-2")
    eventually("the node is unknown", lambda: readiness(lost, "node-2") == "Unknown", within=120)
    moved = ["node-1"] * 4
    eventually(
        "the Deployment's pods are moved", lambda: list(ready(lost, tenant, "web").values()) == moved, within=120
    )
    time.sleep(2 * STAYS)
    assert uids(lost, tenant) == before, "nobody knows yet that nothing runs there"
    lost.kubectl("root", "taint", "node", "node-2", "node.kubernetes.io/out-of-service=gone:NoExecute")
    eventually("all identities run", lambda: list(ready(lost, tenant, "db").values()) == moved, within=120)
    after = uids(lost, tenant)
    assert {name for name in after if after[name] != before[name]} == there
    lost.up()
    eventually("the node is back", lambda: readiness(lost, "node-2") == "True", within=120)
    lost.kubectl("root", "taint", "node", "node-2", "node.kubernetes.io/out-of-service-")
    never_twice(lost)
    eventually("nothing runs there", lambda: not any(running(lost, "node-2").values()), within=120)


def test_the_server_killed_while_sets_grow_makes_nothing_twice(lost: Cluster, tenant: str) -> None:
    daemon = server_daemon(cluster_of(lost.state))
    template = pod("each")["spec"]
    each = {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "each"},
        "spec": {
            "selector": {"matchLabels": {"app": "each"}},
            "template": {"metadata": {"labels": {"app": "each"}}, "spec": template},
        },
    }
    lost.apply(tenant, each)
    lost.kubectl(tenant, "scale", "deployment/web", "statefulset/db", "--replicas=10")
    for pause in (0.05, 0.3, 0.8):
        time.sleep(pause)
        os.kill(lost.pid("server"), signal.SIGKILL)
        eventually("the server is gone", lambda: daemon.running() is None)
        daemon.ensure()
        eventually("the server answers", lambda: lost.get("root", "nodes")["items"])
    counts = {"web": 10, "db": 10, "each": 2}
    eventually("all pods run", lambda: {app: len(ready(lost, tenant, app)) for app in counts} == counts, within=120)
    time.sleep(3)
    items = lost.get(tenant, "pods")["items"]
    assert Counter(item["metadata"]["labels"]["app"] for item in items) == counts, (
        "not one too many, not for a moment more"
    )
    assert len({item["metadata"]["name"] for item in items}) == len(items)
    each_on = Counter(item["spec"]["nodeName"] for item in items if item["metadata"]["labels"]["app"] == "each")
    assert each_on == {"node-1": 1, "node-2": 1}
    revisions = Counter(
        item["metadata"]["ownerReferences"][0]["kind"] for item in lost.get(tenant, "controllerrevisions")["items"]
    )
    assert revisions == {"StatefulSet": 1, "DaemonSet": 1}
