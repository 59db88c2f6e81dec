"""What requests and limits become, what a node has room for, and how a resize is shown."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from polder.api.core import ContainerStatus, Pod, PodCondition, PodStatus
from polder.node.pods import resources, sizes
from polder.node.pods.resources import container_resources, pod_amounts, pod_limits, qos_class
from polder.node.pods.room import Room
from polder.node.pods.sizes import needs_restart, sizes_of, with_sizes
from polder.system.cgroups import page_size
from tests.unit.node.podkit import pod

MIB, GIB = 1 << 20, 1 << 30


def asks(cpu: str = "", memory: str = "", /, **limits: str) -> dict[str, Any]:
    requests = {name: value for name, value in (("cpu", cpu), ("memory", memory)) if value}
    return {"resources": {"requests": requests, "limits": limits}}


def made(*containers: dict[str, Any], **spec: Any) -> Pod:
    named = [{"name": f"c{number}", "image": "i", **one} for number, one in enumerate(containers)]
    init = [{"name": f"i{number}", "image": "i", **one} for number, one in enumerate(spec.pop("init", []))]
    return pod({"containers": named, "initContainers": init or None, **spec})


def test_a_pod_asks_for_its_highest_moment_and_its_overhead() -> None:
    plain = made(asks("100m", "64Mi"), asks("200m"), init=[asks("1", "32Mi")])
    assert pod_amounts(plain, "requests") == {"cpu": 1000, "memory": 64 * MIB}
    beside = made(
        asks("100m"), init=[{**asks("50m"), "restartPolicy": "Always"}, asks("400m")], overhead={"cpu": "10m"}
    )
    assert pod_amounts(beside, "requests")["cpu"] == 460, "the sidecar runs beside the second one"
    whole = made(asks("100m", cpu="300m"), resources={"requests": {"cpu": "500m"}, "limits": {"memory": "1Gi"}})
    assert pod_amounts(whole, "requests") == {"cpu": 500, "memory": GIB}
    over = made(asks(cpu="100m"), overhead={"cpu": "10m", "memory": "8Mi"})
    assert pod_amounts(over, "limits") == {"cpu": 110}, "overhead makes no limit where there is none"


@pytest.mark.parametrize(
    ("body", "quality"),
    [
        (made({}), "BestEffort"),
        (made(asks("1", "1Gi", cpu="1", memory="1Gi")), "Guaranteed"),
        (made(asks(cpu="1", memory="1Gi")), "Guaranteed"),
        (made(asks("1", "1Gi", cpu="1", memory="1Gi"), {}), "Burstable"),
        (made({}, resources={"limits": {"cpu": "1", "memory": "1Gi"}}), "Guaranteed"),
        (made(asks(cpu="1", memory="1Gi"), resources={"requests": {"cpu": "1"}}), "Burstable"),
    ],
)
def test_class(body: Pod, quality: str) -> None:
    assert qos_class(body) == quality


def test_limits_of_the_pod_hold_for_containers_without_their_own() -> None:
    body = made(asks("100m"), asks(memory="64Mi"), resources={"limits": {"cpu": "500m", "memory": "256Mi"}})
    first, second = (container_resources(body, c, 4 * GIB) for c in body.spec.containers)
    assert (first.cpu_quota, first.memory, first.cpu_shares) == (50_000, 256 * MIB, 102)
    assert (second.cpu_quota, second.memory, second.cpu_shares) == (50_000, 64 * MIB, 512)
    assert pod_limits(body).memory == 256 * MIB and pod_limits(body).cpu_quota == 50_000
    assert pod_limits(made(asks(cpu="1"), {})).cpu_quota is None, "one without a limit may use the whole node"


def test_huge_pages_are_limited_by_their_size() -> None:
    body = made({"resources": {"limits": {"hugepages-2Mi": "8Mi", "hugepages-1Gi": "1Gi"}}})
    assert pod_limits(body).huge_pages == (("1GB", GIB), ("2MB", 8 * MIB))
    assert [page_size(n) for n in (2 * MIB, GIB, 64 << 10)] == ["2MB", "1GB", "64KB"]


def score(body: Pod, number: int = 0, *, init: bool = False) -> int:
    containers = body.spec.init_containers if init else body.spec.containers
    return container_resources(body, (containers or [])[number], 4 * GIB).oom_score_adj


def test_who_goes_first_when_memory_runs_out() -> None:
    assert score(made({})) == 1000 and score(made(asks(cpu="1", memory="1Gi"))) == -997
    assert score(made(asks("1", "1Gi"))) == 750
    assert score(made(asks("1"))) == 999 and score(made(asks("1", "4Gi"))) == 3
    sidecar = made(asks("1", "2Gi"), init=[{**asks("1", "64Mi"), "restartPolicy": "Always"}])
    assert score(sidecar, init=True) == score(sidecar) == 500, "a sidecar goes no earlier than those it serves"
    whole = made(asks("1", "1Gi"), asks("1"), resources={"requests": {"memory": "3Gi"}})
    assert (score(whole), score(whole, 1)) == (500, 750), "what nobody claimed is shared"
    critical = pod({"priority": resources.CRITICAL}, tenant="root")
    assert score(critical) == -997 and score(pod({"priority": resources.CRITICAL}, tenant="globex")) == 1000


# --- the node's books -------------------------------------------------------------------------------------------------


def test_room_is_counted_and_who_waits_is_called() -> None:
    room, called = Room({"cpu": 1000, "memory": GIB, "pods": 3}), []
    room.give("a", {"cpu": 600}, "Burstable")
    room.give("b", {"cpu": 300, "memory": GIB}, "Guaranteed")
    lack = room.shortage("c", {"cpu": 200})
    assert lack is not None and lack.ever
    assert str(lack) == "Node didn't have enough resource: cpu, requested: 200, used: 900, capacity: 1000"
    assert room.shortage("a", {"cpu": 700}, {"cpu": 600}) is None, "its own part is no obstacle"
    never = room.shortage("a", {"cpu": 1001}, {"cpu": 600})
    assert never is not None and not never.ever
    assert room.shortage("a", {"cpu": 1001}, {"cpu": 1100}) is None, "less than it has always fits"
    room.wait("c", lambda: called.append("c"))
    room.give("a", {"cpu": 700}, "Burstable")
    assert called == [] and room.burstable_cpu == 700
    room.free("b")
    assert called == ["c"] and room.shortage("c", {"cpu": 300}) is None
    room.free("b")
    room.free("a")
    assert called == ["c"] and room.burstable_cpu == 0
    for uid in "xyz":
        room.give(uid, {}, "BestEffort")
    full = room.shortage("w", {})
    assert full is not None and full.resource == "pods"


# --- resizes ----------------------------------------------------------------------------------------------------------


def test_what_was_granted_stands_in_for_what_is_asked() -> None:
    old, new = made(asks("100m", "64Mi")), made(asks("0.1", "128Mi"))
    assert sizes_of(old).same(sizes_of(made(asks("0.1", "65536Ki")))) and not sizes_of(old).same(sizes_of(new))
    assert sizes_of(with_sizes(new, sizes_of(old))) == sizes_of(old)
    assert msgspec.json.decode(msgspec.json.encode(sizes_of(old)), type=sizes.Sizes) == sizes_of(old)


@pytest.mark.parametrize(
    ("policy", "change", "again"),
    [
        ({"cpu": "NotRequired", "memory": "RestartContainer"}, asks("2", "1Gi"), False),
        ({"cpu": "NotRequired", "memory": "RestartContainer"}, asks("1", "2Gi"), True),
        ({"memory": "RestartContainer"}, asks("1", "1Gi", memory="2Gi"), True),
        ({}, asks("3", "3Gi"), False),
    ],
)
def test_a_policy_says_whether_a_container_starts_again(policy: dict[str, str], change: Any, again: bool) -> None:
    policies = [{"resourceName": name, "restartPolicy": rule} for name, rule in policy.items()]
    before = made({**asks("1", "1Gi"), "resizePolicy": policies}).spec.containers[0]
    after = made({**change, "resizePolicy": policies}).spec.containers[0]
    assert needs_restart(after, resources.noted(before)) is again
    assert not needs_restart(after, resources.noted(after))


def test_a_status_shows_what_was_granted_and_what_is_in_effect() -> None:
    granted, before = made(asks("200m", "64Mi", cpu="400m")), made(asks("100m", "64Mi", cpu="400m"))
    old = PodCondition(type="PodResizePending", status="True", reason="Deferred")
    kept = PodCondition(type="Ready", status="True")
    running = PodCondition(type="PodResizeInProgress", status="True")
    status = PodStatus(conditions=[old, kept], container_statuses=[ContainerStatus(name="c0")])
    shown = sizes.shown(status, granted, sizes_of(before), [running])
    assert [c.type for c in shown.conditions or []] == ["Ready", "PodResizeInProgress"]
    (container,) = shown.container_statuses or []
    assert container.allocated_resources == {"cpu": "200m", "memory": "64Mi"}
    assert container.resources == before.spec.containers[0].resources
    assert shown.allocated_resources == {"cpu": "200m", "memory": "64Mi"}
    assert shown.resources is not None and shown.resources.requests == {"cpu": "100m", "memory": "64Mi"}
    bare = sizes.shown(status, made({}), sizes_of(made({})), [])
    assert bare.resources is None and (bare.container_statuses or [])[0].resources is not None
