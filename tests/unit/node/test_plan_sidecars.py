"""Sidecars, ephemeral containers and restart rules: what starts, what is kept, what counts as ended."""

from __future__ import annotations

from typing import Any

import pytest

from polder.node.pods.plan import Plan, is_finished, make_plan
from polder.node.pods.restarts import restarts, restarts_all
from polder.node.probes.verdict import Probed
from polder.system.cri_types import ContainerInfo
from tests.unit.node.podkit import container, pod, sandbox, view

SIDECAR = {"name": "s", "image": "i:1", "restartPolicy": "Always"}
SPEC: dict[str, Any] = {"initContainers": [SIDECAR, {"name": "i", "image": "i:1"}, {**SIDECAR, "name": "t"}]}
PROBED = {
    **SPEC,
    "initContainers": [{**SIDECAR, "startupProbe": {"tcpSocket": {"port": 1}}}, *SPEC["initContainers"][1:]],
}


def plan_of(spec: dict[str, Any], *found: ContainerInfo, wait: float = 0.0, **probed: Probed) -> Plan:
    return make_plan(pod(spec), view(*found), lambda c, last: wait, probed)


def starts(spec: dict[str, Any], *found: ContainerInfo, **probed: Probed) -> list[str]:
    return [c.name for c in plan_of(spec, *found, **probed).start]


def test_each_waits_for_the_one_before() -> None:
    s, i, t = container("s"), container("i", code=0), container("t")
    assert starts(SPEC) == ["s"]
    assert starts(SPEC, s) == ["i"]
    assert starts(SPEC, s, container("i")) == []
    assert starts(SPEC, s, i) == ["t"]
    assert starts(SPEC, s, i, t) == ["a", "b"]
    assert starts(SPEC, s, i, t, container("a"), container("b")) == []


def test_the_next_waits_for_a_start_up_probe() -> None:
    s = container("s")
    assert starts(PROBED, s) == []
    assert starts(PROBED, s, s0=Probed(started=False, ready=False)) == []
    assert starts(PROBED, s, s0=Probed()) == ["i"]


def test_a_sidecar_that_ended_starts_again_and_holds_nobody_up_who_has_begun() -> None:
    gone, i = container("s", code=0), container("i", code=0)
    assert starts(SPEC, gone) == ["s"], "the next waits for it"
    assert starts(SPEC, gone, container("i")) == ["s"], "what follows runs on"
    assert starts(SPEC, gone, i) == ["s", "t"]
    running = (i, container("t"), container("a"), container("b"))
    assert starts({**SPEC, "restartPolicy": "Never"}, gone, *running) == ["s"]
    waits = plan_of(SPEC, gone, *running, wait=4.0)
    assert (waits.start, waits.delayed, waits.wake) == ((), ("s",), 4.0)


def test_init_containers_do_not_run_again_once_the_others_have_started() -> None:
    assert starts(SPEC, container("s"), container("i", code=1), container("t"), container("a"), container("b")) == []


def test_sidecars_do_not_keep_a_pod_from_ending() -> None:
    spec = {**SPEC, "restartPolicy": "Never"}
    ended = (container("i", code=0), container("a", code=0), container("b", code=1))
    assert plan_of(spec, container("s"), container("t", code=137), *ended).finished
    assert not plan_of(spec, container("s"), container("t"), *ended[:2], container("b")).finished
    assert plan_of(spec, container("s"), container("i", code=1)).finished
    assert not plan_of({**spec, "restartPolicy": "OnFailure"}, container("s"), container("i", code=1)).finished


def test_all_of_them_start_again_in_a_new_sandbox() -> None:
    old = [container(name, code=code) for name, code in (("s", 0), ("i", 0), ("t", 0), ("a", 0), ("b", 1))]
    plan = make_plan(
        pod({**SPEC, "restartPolicy": "OnFailure"}), view(*old, sandboxes=[sandbox(ready=False)]), lambda c, i: 0
    )
    assert [c.name for c in plan.start] == ["s"]
    new = [container(name, 1, code=code, sandbox="s1") for name, code in (("s", None), ("i", 0), ("t", None))]
    both = view(*old, *new, sandboxes=[sandbox(1), sandbox(ready=False)])
    plan = make_plan(pod({**SPEC, "restartPolicy": "OnFailure"}), both, lambda c, i: 0)
    assert [c.name for c in plan.start] == ["b"], "what ended well runs no more"


def test_an_ephemeral_container_starts_at_any_time_and_once() -> None:
    spec = {**SPEC, "ephemeralContainers": [{"name": "e", "image": "i:1"}]}
    assert starts(spec) == ["e", "s"]
    assert starts(spec, container("e"), container("s")) == ["i"]
    assert starts(spec, container("e", code=1), container("s")) == ["i"]
    done = {**spec, "initContainers": [], "restartPolicy": "Never"}
    assert is_finished(pod(done), view(container("e"), container("a", code=0), container("b", code=0)))


def test_a_sidecar_that_fails_a_probe_is_stopped() -> None:
    running = [container("s"), container("i", code=0), container("t"), container("a"), container("b")]
    stops = plan_of(SPEC, *running, s0=Probed(True, False, "failed liveness probe")).stop_containers
    assert [(stop.info.name, stop.why) for stop in stops] == [("s", "Init container s failed liveness probe")]


def rules(operator: str, action: str = "Restart", policy: str = "Never") -> dict[str, Any]:
    rule = {"action": action, "exitCodes": {"operator": operator, "values": [42, 43]}}
    return {"name": "a", "image": "i:1", "restartPolicy": policy, "restartPolicyRules": [rule]}


@pytest.mark.parametrize(
    ("container", "pods", "code", "again"),
    [
        (rules("In"), "Never", 42, True),
        (rules("In"), "Never", 41, False),
        (rules("In"), "Always", 41, False),
        (rules("NotIn"), "Never", 42, False),
        (rules("NotIn"), "Never", 0, True),
        (rules("In", policy="OnFailure"), "Never", 1, True),
        (rules("In", policy="OnFailure"), "Always", 0, False),
        ({"name": "a", "restartPolicy": "Always"}, "Never", 0, True),
        ({"name": "a"}, "OnFailure", 0, False),
        ({"name": "a"}, "OnFailure", 1, True),
    ],
)
def test_rules_come_before_the_containers_policy_and_that_before_the_pods(
    container: dict[str, Any], pods: str, code: int, again: bool
) -> None:
    one = pod({"containers": [container], "restartPolicy": pods})
    assert restarts(one, one.spec.containers[0], code) is again


def test_a_failed_init_container_with_rules_starts_again_though_the_pod_never_does() -> None:
    spec = {"initContainers": [{**rules("In"), "name": "i"}], "restartPolicy": "Never"}
    assert starts(spec, container("i", code=42)) == ["i"]
    assert plan_of(spec, container("i", code=1)).finished
    assert starts(spec, container("i", code=0)) == ["a", "b"]
    assert not restarts_all(pod(spec).spec.init_containers[0], 42)  # type: ignore[index]
