"""Requests and limits on a real containerd: control groups of every class, resizes in place, what the kernel kills."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from polder.api.core import Pod
from polder.api.meta import ref_of
from polder.api.podspec import Resources
from polder.node.pods.room import Room
from polder.system.accounting import Accounting, observe_hierarchies
from polder.system.cri_types import Resources as Effect
from tests.system.pods_kit import NodeKit, eventually, make_pod, node_kit

MIB = 1 << 20


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node() -> AsyncIterator[NodeKit]:
    async with node_kit() as kit:
        await kit.stop_pods()
        kit.ctx = replace(kit.ctx, room=Room({"cpu": 2000, "memory": 4 << 30}))
        kit.start_pods()
        yield kit


pytestmark = [pytest.mark.system, pytest.mark.asyncio(loop_scope="module")]


def sized(cpu: tuple[str, str] = ("", ""), memory: tuple[str, str] = ("", "")) -> dict[str, Any]:
    """Resources from (request, limit) of each; empty for none."""
    sides = {
        side: {name: pair[at] for name, pair in (("cpu", cpu), ("memory", memory)) if pair[at]}
        for at, side in enumerate(("requests", "limits"))
    }
    return {"resources": {side: found for side, found in sides.items() if found}}


def container_of(node: NodeKit, pod: Pod) -> str:
    found = node.cluster.pods[ref_of(pod)].status.container_statuses
    assert found is not None
    return found[0].container_id.removeprefix("containerd://")


def group_of(node: NodeKit, pod: Pod) -> str:
    return node.ctx.places.pod_cgroup(pod)


def limits_of(node: NodeKit, group: str) -> tuple[int, int, int]:
    found = node.ctx.cgroups.standing(group)
    assert found is not None, group
    return found.cpu_shares, found.cpu_quota, found.memory


def score_of(node: NodeKit, pod: Pod) -> int:
    (process, *_) = node.ctx.cgroups.processes(f"{group_of(node, pod)}/{container_of(node, pod)}")
    return int(Path(f"/proc/{process.pid}/oom_score_adj").read_text())


def own_score() -> int:
    return int(Path("/proc/self/oom_score_adj").read_text())


def is_running(pod: Pod | None) -> bool:
    return (
        pod is not None
        and pod.status.phase == "Running"
        and any(c.type == "Ready" and c.status == "True" for c in pod.status.conditions or [])
    )


_number = itertools.count()


def new(script: str = "sleep 1000", **spec: Any) -> Pod:
    return make_pod(f"p{next(_number)}", script, **spec)


async def start(node: NodeKit, script: str = "sleep 1000", **spec: Any) -> Pod:
    pod = node.cluster.apply(new(script, **spec))
    found = await node.cluster.until(pod, is_running)
    assert found is not None
    return found


async def remove(node: NodeKit, pod: Pod) -> None:
    node.cluster.delete(node.cluster.pods[ref_of(pod)])
    await node.cluster.until(pod, lambda held: held is None)


def resized(node: NodeKit, pod: Pod, resources: dict[str, Any]) -> Pod:
    """As the API server changes a pod through its resize subresource."""
    held = node.cluster.pods[ref_of(pod)]
    main = msgspec.structs.replace(
        held.spec.containers[0], resources=msgspec.convert(resources["resources"], Resources)
    )
    spec = msgspec.structs.replace(held.spec, containers=[main])
    meta = msgspec.structs.replace(held.metadata, generation=held.metadata.generation + 1)
    return node.cluster.apply(msgspec.structs.replace(held, spec=spec, metadata=meta))


def resize_conditions(pod: Pod | None) -> dict[str, str]:
    assert pod is not None
    return {c.type: c.reason for c in pod.status.conditions or [] if c.type.startswith("PodResize")}


def settled(generation: int) -> Any:
    return lambda pod: is_running(pod) and pod.status.observed_generation >= generation and not resize_conditions(pod)


async def test_each_class_has_its_place_and_every_limit_stands_in_the_kernel(node: NodeKit) -> None:
    firm = await start(node, container=sized(("500m", "500m"), ("64Mi", "64Mi")))
    loose = await start(node, container=sized(("100m", "1"), ("32Mi", "")))
    idle = await start(node)
    top, burstable, best_effort = node.ctx.places.classes
    assert [group_of(node, p).rpartition("/")[0] for p in (firm, loose, idle)] == [top, burstable, best_effort]
    assert [p.status.qos_class for p in (firm, loose, idle)] == ["Guaranteed", "Burstable", "BestEffort"]
    assert limits_of(node, group_of(node, firm)) == (512, 50_000, 64 * MIB)
    assert limits_of(node, f"{group_of(node, firm)}/{container_of(node, firm)}") == (512, 50_000, 64 * MIB)
    assert limits_of(node, group_of(node, loose)) == (102, 100_000, 0)
    assert limits_of(node, f"{group_of(node, loose)}/{container_of(node, loose)}") == (102, 100_000, 0)
    assert limits_of(node, group_of(node, idle)) == (2, 0, 0)
    assert limits_of(node, burstable)[0] == 102 and limits_of(node, best_effort)[0] == 2
    scores = [score_of(node, p) for p in (firm, loose, idle)]
    # Where this process may not lower its own score, containerd is told to go no lower either.
    assert scores[0] in {-997, max(-997, own_score())} and scores[1:] == [1000 - 1000 * 32 // 4096, 1000]
    for p in (firm, loose, idle):
        await remove(node, p)
    assert node.ctx.room.burstable_cpu == 0


async def test_the_pod_as_a_whole_has_limits_that_its_containers_share(node: NodeKit) -> None:
    whole = {"requests": {"cpu": "200m", "memory": "64Mi"}, "limits": {"cpu": "400m", "memory": "128Mi"}}
    pod = await start(node, resources=whole, overhead={"cpu": "100m", "memory": "32Mi"})
    assert limits_of(node, group_of(node, pod)) == (307, 50_000, 160 * MIB)
    assert limits_of(node, f"{group_of(node, pod)}/{container_of(node, pod)}") == (409, 40_000, 128 * MIB)
    assert pod.status.qos_class == "Burstable"
    assert pod.status.allocated_resources == {"cpu": "300m", "memory": "96Mi"}
    await remove(node, pod)


async def test_a_resize_reaches_the_running_container_and_comes_back_in_the_status(node: NodeKit) -> None:
    pod = await start(node, container=sized(("100m", "200m"), ("64Mi", "128Mi")))
    before, container = container_of(node, pod), pod.status.container_statuses[0]  # type: ignore[index]
    assert container.allocated_resources == {"cpu": "100m", "memory": "64Mi"}
    larger = resized(node, pod, sized(("300m", "600m"), ("128Mi", "256Mi")))
    done = await node.cluster.until(pod, settled(larger.metadata.generation))
    group = group_of(node, pod)
    assert limits_of(node, group) == limits_of(node, f"{group}/{before}") == (307, 60_000, 256 * MIB)
    assert limits_of(node, node.ctx.places.classes[1])[0] == 307
    assert done is not None and container_of(node, pod) == before, "it was not restarted"
    shown = done.status.container_statuses[0]  # type: ignore[index]
    assert shown.allocated_resources == {"cpu": "300m", "memory": "128Mi"}
    assert shown.resources is not None and shown.resources.limits == {"cpu": "600m", "memory": "256Mi"}
    assert [r for r in node.cluster.reasons(pod) if "Resize" in r] == ["ResizeStarted", "ResizeCompleted"]
    smaller = resized(node, pod, sized(("50m", "100m"), ("32Mi", "64Mi")))
    await node.cluster.until(pod, settled(smaller.metadata.generation))
    assert limits_of(node, group) == limits_of(node, f"{group}/{before}") == (51, 10_000, 64 * MIB)
    await remove(node, pod)


async def test_a_resize_that_needs_a_restart_restarts_once(node: NodeKit) -> None:
    policy = [{"resourceName": "memory", "restartPolicy": "RestartContainer"}]
    pod = await start(node, container={**sized(("100m", "200m"), ("64Mi", "64Mi")), "resizePolicy": policy})
    before = container_of(node, pod)
    in_place = resized(node, pod, sized(("150m", "300m"), ("64Mi", "64Mi")))
    await node.cluster.until(pod, settled(in_place.metadata.generation))
    assert container_of(node, pod) == before, "the policy of memory says nothing of CPU"
    again = resized(node, pod, sized(("150m", "300m"), ("96Mi", "96Mi")))
    done = await node.cluster.until(pod, settled(again.metadata.generation), 40.0)
    assert done is not None and container_of(node, pod) != before
    assert done.status.container_statuses[0].restart_count == 1  # type: ignore[index]
    assert limits_of(node, f"{group_of(node, pod)}/{container_of(node, pod)}") == (153, 30_000, 96 * MIB)
    await remove(node, pod)


async def test_what_the_node_has_no_room_for_waits_or_never_comes(node: NodeKit) -> None:
    other = await start(node, container=sized(("1500m", "1500m"), ("64Mi", "64Mi")))
    pod = await start(node, container=sized(("100m", "100m"), ("64Mi", "64Mi")))
    never = resized(node, pod, sized(("3", "3"), ("64Mi", "64Mi")))
    seen = await node.cluster.until(pod, lambda p: resize_conditions(p) == {"PodResizePending": "Infeasible"})
    assert seen is not None
    (why,) = [c.message for c in seen.status.conditions or [] if c.type == "PodResizePending"]
    assert why == "Node didn't have enough capacity: cpu, requested: 3000, capacity: 2000"
    assert seen.status.container_statuses[0].allocated_resources == {"cpu": "100m", "memory": "64Mi"}  # type: ignore[index]
    later = resized(node, pod, sized(("1", "1"), ("64Mi", "64Mi")))
    assert later.metadata.generation == never.metadata.generation + 1
    await node.cluster.until(pod, lambda p: resize_conditions(p) == {"PodResizePending": "Deferred"})
    assert limits_of(node, f"{group_of(node, pod)}/{container_of(node, pod)}") == (102, 10_000, 64 * MIB)
    await node.stop_pods()  # an agent that starts again still knows what was granted, whatever the spec says by now
    node.start_pods()
    await node.cluster.until(pod, lambda p: resize_conditions(p) == {"PodResizePending": "Deferred"})
    await remove(node, other)
    await node.cluster.until(pod, settled(later.metadata.generation))
    assert limits_of(node, f"{group_of(node, pod)}/{container_of(node, pod)}") == (1024, 100_000, 64 * MIB)
    full = node.cluster.apply(new(container=sized(("1500m", ""))))
    refused = await node.cluster.until(full, lambda p: p is not None and p.status.phase == "Failed")
    assert refused is not None and refused.status.reason == "OutOfcpu"
    assert refused.status.message == (
        "Pod was rejected: Node didn't have enough resource: cpu, requested: 1500, used: 1000, capacity: 2000"
    )
    for held in (pod, full):
        await remove(node, held)


async def test_a_grant_that_an_agent_did_not_live_to_see_in_effect_is_put_there_by_the_next(node: NodeKit) -> None:
    pod = await start(node, container=sized(("100m", "200m"), ("64Mi", "64Mi")))
    await node.stop_pods()
    larger = resized(node, pod, sized(("200m", "400m"), ("128Mi", "128Mi")))
    node.start_pods()
    await node.cluster.until(pod, settled(larger.metadata.generation))
    group = f"{group_of(node, pod)}/{container_of(node, pod)}"
    assert limits_of(node, group) == (204, 40_000, 128 * MIB)
    await node.stop_pods()
    await node.ctx.cri.update_container(
        container_of(node, pod), Effect(204, 10_000, 100_000, 128 * MIB, memory_swap=128 * MIB)
    )
    node.start_pods()

    async def repaired() -> bool:
        return limits_of(node, group) == (204, 40_000, 128 * MIB)

    await eventually(repaired)
    await remove(node, pod)


async def test_memory_below_what_is_used_is_refused_by_the_kernel_and_said(node: NodeKit) -> None:
    pod = await start(
        node, "head -c 50000000 /dev/zero | tail -c 50000000 | sleep 1000",
        container=sized(("100m", "100m"), ("128Mi", "128Mi")),
    )  # fmt: skip
    group = f"{group_of(node, pod)}/{container_of(node, pod)}"
    accounting = Accounting(observe_hierarchies())

    async def holds() -> bool:
        used = accounting.memory(group)
        return used is not None and used.working_set > 40_000_000

    await eventually(holds)
    resized(node, pod, sized(("100m", "100m"), ("16Mi", "16Mi")))
    seen = await node.cluster.until(pod, lambda p: resize_conditions(p) == {"PodResizeInProgress": "Error"})
    assert seen is not None and "ResizeError" in node.cluster.reasons(pod)
    assert seen.status.container_statuses[0].resources.limits["memory"] == "128Mi"  # type: ignore[index,union-attr]
    await remove(node, pod)


async def test_who_takes_more_memory_than_the_limit_is_ended_and_the_reason_said(node: NodeKit) -> None:
    pod = node.cluster.apply(
        new(
            "exec tail -c 200000000 /dev/zero",
            container=sized(memory=("16Mi", "16Mi")), restartPolicy="Never",
        )
    )  # fmt: skip
    done = await node.cluster.until(pod, lambda p: p is not None and p.status.phase in {"Failed", "Succeeded"}, 40.0)
    assert done is not None
    ended = done.status.container_statuses[0].state.terminated  # type: ignore[index,union-attr]
    assert ended is not None and (ended.reason, ended.exit_code, done.status.phase) == ("OOMKilled", 137, "Failed")
    await remove(node, pod)


async def test_what_is_written_to_a_volume_in_memory_counts_for_the_pod(node: NodeKit) -> None:
    pod = await start(
        node, "head -c 20000000 /dev/zero >/cache/x; sleep 1000",
        container={**sized(memory=("64Mi", "64Mi")), "volumeMounts": [{"name": "c", "mountPath": "/cache"}]},
        volumes=[{"name": "c", "emptyDir": {"medium": "Memory"}}],
    )  # fmt: skip
    accounting = Accounting(observe_hierarchies())

    async def counted() -> bool:
        used = accounting.memory(group_of(node, pod))
        return used is not None and used.working_set > 19_000_000

    await eventually(counted)
    await remove(node, pod)


async def test_a_runtime_class_names_the_handler_that_runs_the_pod(node: NodeKit) -> None:
    node.cluster.handlers.update(plain="runc", other="no-such-handler")
    pod = await start(node, runtimeClassName="plain", overhead={"cpu": "100m"})
    assert limits_of(node, group_of(node, pod))[0] == 102, "the overhead is the pod's"
    for name, said in (("other", 'no runtime for "no-such-handler" is configured'), ("gone", '"gone" not found')):
        stuck = node.cluster.apply(new(runtimeClassName=name))

        async def told(wanted: Pod = stuck, words: str = said) -> bool:
            found = [m for n, r, m in node.cluster.events if (n, r) == (wanted.metadata.name, "FailedCreatePodSandBox")]
            return any(words in message for message in found)

        await eventually(told)
        await remove(node, stuck)
    await remove(node, pod)


async def test_a_pod_that_the_node_ends_says_so_and_never_starts_again(node: NodeKit) -> None:
    pod = await start(node, container=sized(memory=("16Mi", "")))
    assert node.manager is not None
    assert node.manager.evict(pod.metadata.uid, "The node was low on resource: memory. ")
    done = await node.cluster.until(pod, lambda p: p is not None and p.status.phase == "Failed")
    assert done is not None and (done.status.reason, done.status.message) == (
        "Evicted", "The node was low on resource: memory. "
    )  # fmt: skip
    (why,) = [c for c in done.status.conditions or [] if c.type == "DisruptionTarget"]
    assert (why.status, why.reason) == ("True", "TerminationByKubelet")
    assert "Evicted" in node.cluster.reasons(pod)
    assert not node.manager.evict(pod.metadata.uid, "again"), "it has ended already"
    assert not node.manager.evict("nobody", "x")
    assert node.ctx.room.shortage("x", {"cpu": 2000}) is None, "it uses nothing of the node any more"
    await remove(node, pod)
