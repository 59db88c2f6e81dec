"""Probes, hooks, sidecars and ephemeral containers on a real containerd."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from polder.api.core import ContainerStatus, Pod
from polder.api.meta import ref_of
from polder.system.cri_types import ContainerState
from tests.system.pods_kit import NodeKit, make_pod, node_kit


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node() -> AsyncIterator[NodeKit]:
    async with node_kit() as kit:
        yield kit


pytestmark = [pytest.mark.system, pytest.mark.asyncio(loop_scope="module")]
ENDS = "trap 'exit 0' TERM; "


def box(name: str, script: str, **other: Any) -> dict[str, Any]:
    command = ["sh", "-c", script]
    return {"name": name, "image": "toolbox", "imagePullPolicy": "IfNotPresent", "command": command, **other}


def status_of(pod: Pod | None, name: str) -> ContainerStatus:
    assert pod is not None
    every = [*(pod.status.container_statuses or []), *(pod.status.init_container_statuses or [])]
    return next(s for s in [*every, *(pod.status.ephemeral_container_statuses or [])] if s.name == name)


def condition(pod: Pod | None, name: str) -> str:
    return next((c.status for c in (pod.status.conditions if pod else None) or [] if c.type == name), "")


def is_ready(pod: Pod | None) -> bool:
    return condition(pod, "Ready") == "True"


def is_gone(pod: Pod | None) -> bool:
    return pod is None


def logged(node: NodeKit, pod: Pod, container: str = "main") -> str:
    folder = node.ctx.places.log_directory(pod) / container
    return "".join(path.read_text() for path in sorted(folder.glob("*.log")))


async def test_probes_of_every_kind_reach_the_pod_in_its_own_network(node: NodeKit) -> None:
    """Two pods with a server at loopback alone: nobody outside of the pod reaches that."""
    script = ENDS + "mkdir /www; echo fine > /www/healthz; httpd -f -p 127.0.0.1:80 -h /www & sleep 1000 & wait"
    each = {"periodSeconds": 1, "failureThreshold": 2}
    probes = {
        "startupProbe": {"tcpSocket": {"port": "web", "host": "127.0.0.1"}, **each, "failureThreshold": 20},
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": 80, "host": "localhost", "scheme": "HTTP"}, **each},
        "livenessProbe": {"exec": {"command": ["test", "-d", "/www"]}, **each},
    }
    ports = [{"name": "web", "containerPort": 80}]
    pods = [node.cluster.apply(make_pod(f"probed{n}", script, container={**probes, "ports": ports})) for n in (1, 2)]
    for pod in pods:
        seen = await node.cluster.until(pod, is_ready)
        assert status_of(seen, "main").started
    uid = pods[0].metadata.uid
    info = next(c for c in await node.ctx.cri.list_containers(uid) if c.state == ContainerState.RUNNING)
    await node.ctx.cri.exec_sync(info.id, ["rm", "/www/healthz"], 5)
    unready = await node.cluster.until(pods[0], lambda p: not is_ready(p))
    assert status_of(unready, "main").restart_count == 0 and is_ready(node.cluster.get(ref_of(pods[1])))
    assert ("Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 404") in {
        (reason, words) for _, reason, words in node.cluster.events
    }
    await node.ctx.cri.exec_sync(info.id, ["mv", "/www", "/gone"], 5)
    again = await node.cluster.until(pods[0], lambda p: status_of(p, "main").restart_count == 1 and is_ready(p))
    assert status_of(again, "main").last_state is not None
    told = {(reason, part) for name, reason, part in node.cluster.parts if name == pods[0].metadata.name}
    for reason in ("Pulled", "Created", "Started", "Unhealthy", "Killing"):
        assert (reason, "spec.containers{main}") in told and (reason, "") not in told
    for pod in pods:
        node.cluster.delete(pod)
    for pod in pods:
        await node.cluster.until(pod, is_gone)


async def test_a_new_agent_takes_up_what_is_ready_and_restarts_nothing(node: NodeKit) -> None:
    probe = {"exec": {"command": ["true"]}, "periodSeconds": 1}
    script = ENDS + "echo began; sleep 1000 & wait"
    pod = node.cluster.apply(make_pod("kept", script, container={"readinessProbe": probe, "livenessProbe": probe}))
    before = status_of(await node.cluster.until(pod, is_ready), "main")
    await node.stop_pods()
    node.cluster.statuses.clear()
    node.ctx = replace(node.ctx, since=time.time())
    node.start_pods()
    await asyncio.sleep(2.5)
    assert all(condition(Pod(status=status), "Ready") == "True" for status in node.cluster.statuses)
    after = status_of(node.cluster.get(ref_of(pod)), "main")
    assert (after.container_id, after.restart_count, after.ready) == (before.container_id, 0, True)
    node.cluster.delete(pod)
    await node.cluster.until(pod, is_gone)


async def test_hooks_run_after_the_start_and_before_the_signal(node: NodeKit) -> None:
    trap = "trap 'echo signal >> /shared/log; exit 0' TERM; "
    shared = {"volumeMounts": [{"name": "v", "mountPath": "/shared"}]}
    hooks = {
        "postStart": {"exec": {"command": ["sh", "-c", "echo started >> /shared/log"]}},
        "preStop": {"exec": {"command": ["sh", "-c", "sleep 1; echo stopping >> /shared/log"]}},
    }
    watcher = box("watcher", "trap 'sleep 3; cat /shared/log; exit 0' TERM; sleep 1000 & wait", **shared)
    main = box("main", trap + "sleep 1000 & wait", lifecycle=hooks, **shared)
    spec = {
        "containers": [main, watcher],
        "volumes": [{"name": "v", "emptyDir": {}}],
        "terminationGracePeriodSeconds": 20,
    }
    pod = node.cluster.apply(make_pod("hooked", "", **spec))
    await node.cluster.until(pod, is_ready)
    said: list[str] = []
    node.cluster.delete(pod, grace=20)
    while node.cluster.get(ref_of(pod)) is not None:
        said.append(logged(node, pod, "watcher"))
        await asyncio.sleep(0.02)
    words = [line.split(" ", 3)[3] for line in max(said, key=len).splitlines()]
    assert words == ["started", "stopping", "signal"]


async def test_a_container_whose_hook_fails_starts_again(node: NodeKit) -> None:
    hook = {"postStart": {"exec": {"command": ["sh", "-c", "echo secret; exit 1"]}}}
    pod = node.cluster.apply(make_pod("unhooked", ENDS + "sleep 1000 & wait", container={"lifecycle": hook}))
    await node.cluster.until(pod, lambda p: p is not None and "FailedPostStartHook" in node.cluster.reasons(pod))
    await node.cluster.until(
        pod, lambda p: bool(p and p.status.container_statuses) and status_of(p, "main").restart_count > 0
    )
    assert not any("secret" in words for name, _, words in node.cluster.events if name == "unhooked")
    node.cluster.delete(pod)
    await node.cluster.until(pod, is_gone)


async def test_sidecars_start_first_and_end_last(node: NodeKit) -> None:
    script = "trap 'echo {0} ends >> /shared/log; exit 0' TERM; echo {0} began >> /shared/log; sleep 1000 & wait"
    shared = {"volumeMounts": [{"name": "v", "mountPath": "/shared"}]}
    side = [box(n, script.format(n), restartPolicy="Always", **shared) for n in ("one", "two")]
    main = box("main", "cat /shared/log; echo main ran >> /shared/log", **shared)
    last = box(
        "zero", "trap 'sleep 1; cat /shared/log; exit 0' TERM; sleep 1000 & wait", restartPolicy="Always", **shared
    )
    spec = {"containers": [main], "initContainers": [last, *side], "restartPolicy": "Never"}
    pod = node.cluster.apply(
        make_pod("sidecars", "", volumes=[{"name": "v", "emptyDir": {}}], terminationGracePeriodSeconds=20, **spec)
    )
    await node.cluster.until(pod, lambda p: p is not None and p.status.phase == "Succeeded")
    assert [line.split(" ", 3)[3] for line in logged(node, pod).splitlines()] == ["one began", "two began"]
    told = [line.split(" ", 3)[3] for line in logged(node, pod, "zero").splitlines()]
    assert told == ["one began", "two began", "main ran", "two ends", "one ends"]
    node.cluster.delete(pod)
    await node.cluster.until(pod, is_gone)


async def test_an_ephemeral_container_sees_its_targets_processes(node: NodeKit) -> None:
    pod = node.cluster.apply(make_pod("looked-into", ENDS + "sleep 12345 & wait"))
    running = await node.cluster.until(pod, is_ready)
    assert running is not None
    added = box("debug", "ps | grep -c '[1]2345'", targetContainerName="main")
    spec = msgspec.to_builtins(running.spec)
    whole = msgspec.convert({**spec, "ephemeralContainers": [added]}, type(running.spec))
    node.cluster.apply(msgspec.structs.replace(running, spec=whole))

    def ended(p: Pod | None) -> bool:
        found = (p.status.ephemeral_container_statuses if p else None) or []
        return bool(found and found[0].state and found[0].state.terminated)

    seen = await node.cluster.until(pod, ended)
    state = status_of(seen, "debug").state
    assert state is not None and state.terminated is not None and state.terminated.exit_code == 0
    assert logged(node, pod, "debug").splitlines()[0].endswith(" 2") and is_ready(seen)
    assert status_of(seen, "main").restart_count == 0
    node.cluster.delete(pod)
    await node.cluster.until(pod, is_gone)
