"""Pods on a real containerd: started, restarted, ended, adopted, never beyond their rights."""

from __future__ import annotations

import asyncio
import base64
import os
import re
import signal
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from polder.api.core import ConfigMap, ContainerStatus, Pod, Secret
from polder.base.ids import TenantName
from polder.base.ref import Ref
from polder.system import process
from polder.system.cri_types import ContainerState
from polder.system.mounts import observe_mounts
from tests.system.pods_kit import NodeKit, eventually, make_pod, meta_only, node_kit


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node() -> AsyncIterator[NodeKit]:
    async with node_kit() as kit:
        yield kit


pytestmark = [pytest.mark.system, pytest.mark.asyncio(loop_scope="module")]


def main_of(pod: Pod | None) -> ContainerStatus:
    assert pod is not None
    assert pod.status.container_statuses, pod.status
    return pod.status.container_statuses[0]


def phase(*wanted: str):  # type: ignore[no-untyped-def]
    return lambda pod: pod is not None and pod.status.phase in wanted


def log_of(node: NodeKit, pod: Pod, container: str = "main", attempt: int = 0) -> str:
    raw = (node.ctx.places.log_directory(pod) / container / f"{attempt}.log").read_text()
    return "\n".join(line.split(" ", 3)[3] for line in raw.splitlines())


def pod_groups(node: NodeKit) -> set[str]:
    """The control groups of pods, of every class."""
    found = {name for group in node.ctx.places.classes for name in node.ctx.cgroups.children(group)}
    return found - {"burstable", "besteffort"}


def assert_nothing_left(node: NodeKit) -> None:
    paths = node.paths
    assert os.listdir(node.ctx.places.pods) == []
    assert os.listdir(paths.netns) == []
    assert process.find_by_argument("containerd-shim", str(paths.base)) == []
    assert pod_groups(node) == set()
    assert [m for m in observe_mounts() if node.base in m.target.parents] == []


async def no_sandbox(node: NodeKit, pod: Pod) -> bool:
    return not await node.ctx.cri.list_sandboxes(pod.metadata.uid)


async def says(node: NodeKit, pod: Pod, lines: int) -> None:
    path = node.ctx.places.log_directory(pod) / "main" / "0.log"

    async def enough() -> bool:
        return path.exists() and len(path.read_text().splitlines()) >= lines

    await eventually(enough)


async def remove(node: NodeKit, *pods: Pod) -> None:
    for pod in pods:
        node.cluster.delete(pod)
    for pod in pods:
        await node.cluster.until(pod, lambda p: p is None)


async def test_a_pod_runs_and_leaves_nothing_behind(node: NodeKit) -> None:
    began = time.monotonic()
    pod = node.cluster.apply(make_pod("web", "trap 'exit 0' TERM; sleep 1000 & wait"))
    running = await node.cluster.until(pod, phase("Running"))
    assert running is not None
    print(f"bound to Running: {time.monotonic() - began:.3f} s")
    assert re.fullmatch(r"10\.77\.0\.\d+", running.status.pod_ip)
    assert {c.type: c.status for c in running.status.conditions or []} == dict.fromkeys(
        ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"), "True"
    )
    assert node.cluster.reasons(pod) == ["Pulled", "Created", "Started"]
    await remove(node, pod)
    assert "Killing" in node.cluster.reasons(pod)
    uid = pod.metadata.uid
    assert await node.ctx.cri.list_sandboxes(uid) == []
    assert await node.ctx.cri.list_containers(uid) == []
    assert not node.ctx.places.pod(uid).exists()
    assert not node.ctx.places.log_directory(pod).exists()
    assert f"pod{uid}" not in pod_groups(node)
    assert [m for m in observe_mounts() if uid in str(m.target)] == []


async def test_exit_codes_and_reasons(node: NodeKit) -> None:
    good = node.cluster.apply(make_pod("good", "echo done > /dev/termination-log", restartPolicy="Never"))
    bad = node.cluster.apply(make_pod("bad", "exit 7", restartPolicy="Never"))
    none = make_pod("none", "", restartPolicy="Never", container={"command": ["/no/such/program"]})
    node.cluster.apply(none)
    ended = main_of(await node.cluster.until(good, phase("Succeeded"))).state
    assert ended is not None and ended.terminated is not None
    assert (ended.terminated.exit_code, ended.terminated.reason, ended.terminated.message) == (0, "Completed", "done\n")
    failed = main_of(await node.cluster.until(bad, phase("Failed"))).state
    assert failed is not None and failed.terminated is not None
    assert (failed.terminated.exit_code, failed.terminated.reason) == (7, "Error")
    cannot = main_of(await node.cluster.until(none, phase("Failed"))).state
    assert cannot is not None and cannot.terminated is not None
    assert (cannot.terminated.exit_code, cannot.terminated.reason) == (128, "StartError")
    assert "no such file" in cannot.terminated.message
    await remove(node, good, bad, none)


async def test_out_of_memory_is_named(node: NodeKit) -> None:
    script = "head -c 200000000 /dev/zero | tail -c 100000000 > /dev/null"
    pod = make_pod(
        "hungry",
        f"exec sh -c '{script}'",
        restartPolicy="Never",
        container={"resources": {"limits": {"memory": "16Mi"}}},
    )
    node.cluster.apply(pod)
    state = main_of(await node.cluster.until(pod, phase("Failed", "Succeeded"))).state
    assert state is not None and state.terminated is not None
    assert state.terminated.reason == "OOMKilled"
    await remove(node, pod)


async def test_crash_loop_backs_off(node: NodeKit) -> None:
    pod = node.cluster.apply(make_pod("crash", "exit 3"))

    def looping(p: Pod | None) -> bool:
        waiting = main_of(p).state and main_of(p).state.waiting  # type: ignore[union-attr]
        return bool(waiting and waiting.reason == "CrashLoopBackOff")

    seen = main_of(await node.cluster.until(pod, lambda p: bool(p and p.status.container_statuses and looping(p))))
    assert seen.restart_count == 1, "the first restart is at once, the second waits"
    assert seen.last_state is not None and seen.last_state.terminated is not None
    assert seen.last_state.terminated.exit_code == 3
    assert seen.state is not None and seen.state.waiting is not None
    assert "back-off 10s restarting failed container=main" in seen.state.waiting.message
    assert "BackOff" in node.cluster.reasons(pod)
    await remove(node, pod)


async def test_init_containers_run_in_order_and_volumes_are_shared(node: NodeKit) -> None:
    mount = [{"name": "scratch", "mountPath": "/data"}, {"name": "memory", "mountPath": "/mem"}]
    init = [
        {"name": n, "image": "toolbox", "imagePullPolicy": "IfNotPresent", "volumeMounts": mount}
        | {"command": ["sh", "-c", f"echo {n} >> /data/order"]}
        for n in ("first", "second")
    ]
    pod = make_pod(
        "init",
        "cat /data/order; df /mem | tail -1; sleep 1000",
        initContainers=init,
        volumes=[
            {"name": "scratch", "emptyDir": {}},
            {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        ],
        container={"volumeMounts": mount},
    )
    node.cluster.apply(pod)
    running = await node.cluster.until(pod, phase("Running"))
    assert running is not None
    assert [s.ready for s in running.status.init_container_statuses or []] == [True, True]
    await says(node, pod, 3)
    lines = log_of(node, pod).splitlines()
    assert lines[:2] == ["first", "second"]
    assert lines[2].split()[:2] == ["tmpfs", "1024"]
    await remove(node, pod)


async def test_environment_files_and_identity(node: NodeKit) -> None:
    ref = Ref(TenantName("acme"), "default", "cm")
    node.cluster.maps[ref] = ConfigMap(metadata=meta_only("cm"), data={"key": "value", "other": "file text"})
    secret = base64.b64encode(b"hush").decode()
    node.cluster.secrets[Ref(TenantName("acme"), "default", "s")] = Secret(metadata=meta_only("s"), data={"pw": secret})
    env = [
        {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "KEY", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "key"}}},
        {"name": "PW", "valueFrom": {"secretKeyRef": {"name": "s", "key": "pw"}}},
        {"name": "BOTH", "value": "$(POD)-$(KEY)-$(NONE)-$$(POD)"},
    ]
    volumes = [
        {"name": "cm", "configMap": {"name": "cm", "items": [{"key": "other", "path": "sub/file"}]}},
        {"name": "sec", "secret": {"secretName": "s", "defaultMode": 0o400}},
        {"name": "tok", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}},
    ]
    script = (
        "echo $BOTH $PW $KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT; echo $IP; hostname; cat /cm/sub/file; echo;"
        "stat -Lc %a /sec/pw; cat /tok/token; echo; grep -c $IP /etc/hosts; echo $0 $1; cat /etc/resolv.conf; sleep 1000"
    )
    container = {
        "env": env,
        "command": ["sh", "-c", script, "$(POD)"],
        "args": ["$(KEY)"],
        "volumeMounts": [{"name": n, "mountPath": f"/{n}"} for n in ("cm", "sec", "tok")],
    }
    pod = node.cluster.apply(make_pod("env", "", volumes=volumes, container=container))
    running = await node.cluster.until(pod, phase("Running"))
    assert running is not None
    await says(node, pod, 11)
    assert log_of(node, pod).splitlines()[:8] == [
        "env-value-$(NONE)-$(POD) hush 10.96.0.1:443",
        running.status.pod_ip,
        "env",
        "file text",
        "400",
        f"token-of-{pod.metadata.uid}",
        "1",
        "env value",
    ]
    assert "search default.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.96.0.10" in log_of(
        node, pod
    )
    tmpfs = [m.target.name for m in observe_mounts() if m.kind == "tmpfs" and pod.metadata.uid in str(m.target)]
    assert sorted(tmpfs) == ["sec", "tok"], "secrets and tokens never reach the disk"
    await remove(node, pod)


async def test_what_is_missing_is_said_and_mended(node: NodeKit) -> None:
    mounted = node.cluster.apply(make_pod("late", "sleep 1000", volumes=[{"name": "c", "configMap": {"name": "late"}}]))
    env = [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "late", "key": "a"}}}]
    keyed = node.cluster.apply(make_pod("keyed", "sleep 1000", container={"env": env}))
    image = make_pod("image", "sleep 1000", container={"image": "nowhere.invalid/x:1", "imagePullPolicy": "Never"})
    node.cluster.apply(image)

    def reason(p: Pod | None) -> str:
        statuses = p.status.container_statuses if p else None
        state = statuses[0].state if statuses else None
        return state.waiting.reason if state and state.waiting else ""

    await node.cluster.until(keyed, lambda p: reason(p) == "CreateContainerConfigError")
    await node.cluster.until(image, lambda p: reason(p) == "ErrImageNeverPull")
    await node.cluster.until(mounted, lambda p: "FailedMount" in node.cluster.reasons(mounted))
    ref = Ref(TenantName("acme"), "default", "late")
    node.cluster.maps[ref] = ConfigMap(metadata=meta_only("late"), data={"a": "b"})
    await node.cluster.until(mounted, phase("Running"))
    await node.cluster.until(keyed, phase("Running"))
    await remove(node, mounted, keyed, image)


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ({"hostNetwork": True}, "hostNetwork"),
        ({"hostPID": True}, "hostPID"),
        ({"volumes": [{"name": "h", "hostPath": {"path": "/"}}]}, "hostPath"),
        ({"container": {"securityContext": {"privileged": True}}}, "privileged"),
        ({"container": {"securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}}}}, "SYS_ADMIN"),
    ],
)
async def test_a_tenant_never_gets_the_host(node: NodeKit, spec: dict[str, object], named: str) -> None:
    pod = node.cluster.apply(make_pod("greedy", "sleep 1000", **spec))
    failed = await node.cluster.until(pod, phase("Failed"))
    assert failed is not None
    assert failed.status.reason == "Forbidden"
    assert named in failed.status.message
    assert await node.ctx.cri.list_sandboxes(pod.metadata.uid) == []
    await remove(node, pod)


async def test_containers_are_confined(node: NodeKit) -> None:
    script = (
        "grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status; echo x > /proc/sys/kernel/hostname; echo $?;"
        "cat /proc/kcore | head -c 1 | wc -c; mount -t tmpfs x /tmp; echo $?; id -u; sleep 1000"
    )
    security = {"runAsUser": 1000, "allowPrivilegeEscalation": False}
    pod = node.cluster.apply(make_pod("confined", script, container={"securityContext": security}))
    await node.cluster.until(pod, phase("Running"))
    await says(node, pod, 7)
    said = log_of(node, pod)
    assert "NoNewPrivs:\t1" in said
    assert "Seccomp:\t2" in said
    assert said.splitlines()[-1] == "1000"
    assert "Read-only" in said or "denied" in said
    await remove(node, pod)


async def test_deadline(node: NodeKit) -> None:
    pod = node.cluster.apply(make_pod("slow", "sleep 1000", activeDeadlineSeconds=1))
    failed = await node.cluster.until(pod, phase("Failed"))
    assert failed is not None
    assert failed.status.reason == "DeadlineExceeded"
    assert await node.ctx.cri.list_containers(pod.metadata.uid)
    await remove(node, pod)


async def test_a_shorter_grace_counts_at_once(node: NodeKit) -> None:
    pod = node.cluster.apply(make_pod("stubborn", "trap '' TERM; while true; do sleep 1; done"))
    await node.cluster.until(pod, phase("Running"))
    node.cluster.delete(pod, grace=60)
    await asyncio.sleep(0.5)
    began = time.monotonic()
    node.cluster.delete(pod, grace=1)
    await node.cluster.until(pod, lambda p: p is None)
    assert time.monotonic() - began < 10


async def test_a_successor_of_the_same_name_starts_while_the_first_ends(node: NodeKit) -> None:
    first = node.cluster.apply(make_pod("twin", "sleep 1000"))
    await node.cluster.until(first, phase("Running"))
    node.cluster.drop(first)
    second = node.cluster.apply(make_pod("twin", "sleep 1000"))
    await node.cluster.until(second, phase("Running"))
    await eventually(lambda: no_sandbox(node, first))
    assert (await node.ctx.cri.list_sandboxes(second.metadata.uid))[0].ready
    await remove(node, second)


async def test_pods_are_adopted_and_orphans_ended(node: NodeKit) -> None:
    kept = node.cluster.apply(make_pod("kept", "sleep 1000"))
    gone = node.cluster.apply(make_pod("gone", "sleep 1000"))
    before = main_of(await node.cluster.until(kept, phase("Running"))).container_id
    await node.cluster.until(gone, phase("Running"))
    await node.stop_pods()
    node.cluster.forget_handlers()
    node.cluster.drop(gone)
    started = node.cluster.apply(make_pod("fresh", "sleep 1000"))
    node.start_pods()
    await node.cluster.until(started, phase("Running"))
    await eventually(lambda: no_sandbox(node, gone))
    assert main_of(node.cluster.pods[Ref(TenantName("acme"), "default", "kept")]).container_id == before
    await remove(node, kept, started)


async def test_containerd_killed_while_pods_start(node: NodeKit) -> None:
    old = node.cluster.apply(make_pod("old", "sleep 1000"))
    before = main_of(await node.cluster.until(old, phase("Running")))
    pods = [node.cluster.apply(make_pod(f"k{n}", "sleep 1000")) for n in range(6)]
    await asyncio.sleep(0.4)
    found = node.supervisor.find()
    assert found is not None
    os.kill(found.pid, signal.SIGKILL)
    await process.wait_gone(found)
    await node.supervisor.ensure()
    for pod in pods:
        await node.cluster.until(pod, phase("Running"), 60)
    after = main_of(node.cluster.pods[Ref(TenantName("acme"), "default", "old")])
    assert after.container_id == before.container_id
    assert after.restart_count == 0
    listed = await node.ctx.cri.list_containers(old.metadata.uid)
    assert [c.state for c in listed] == [ContainerState.RUNNING]
    await remove(node, old, *pods)
    assert await node.ctx.cri.list_sandboxes() == []
    tasks = node.paths.state / "io.containerd.runtime.v2.task" / "k8s.io"

    async def forgotten() -> bool:
        return os.listdir(tasks) == []  # containerd tidies what was half made in its own time

    await eventually(forgotten, 60)
    assert_nothing_left(node)
