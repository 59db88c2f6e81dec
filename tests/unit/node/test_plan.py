"""What to do next for a pod, from what the runtime has."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polder.api.podspec import Container
from polder.node.pods.plan import Plan, Stop, is_finished, make_plan
from polder.node.probes.verdict import Probed
from polder.system.cri_types import ContainerInfo, ContainerState
from tests.unit.node.podkit import container, pod, sandbox, view

INIT = {"initContainers": [{"name": "i", "image": "x:1"}, {"name": "j", "image": "x:1"}]}


def no_wait(c: Container, last: ContainerInfo) -> float:
    return 0.0


def names(plan: Plan) -> list[str]:
    return [c.name for c in plan.start]


def test_a_new_pod_gets_a_sandbox_and_all_its_containers() -> None:
    plan = make_plan(pod(), view(sandboxes=[]), no_wait)
    assert (plan.new_sandbox, names(plan)) == (0, ["a", "b"])


def test_what_runs_is_left_alone() -> None:
    assert make_plan(pod(), view(container("a"), container("b")), no_wait) == Plan()


def test_after_the_agent_died_between_steps_only_the_rest_is_done() -> None:
    made = container("b", state=ContainerState.CREATED)
    plan = make_plan(pod(), view(container("a"), made), no_wait)
    assert (plan.new_sandbox, names(plan), plan.remove_containers) == (None, ["b"], ("b0",))


@pytest.mark.parametrize(
    ("policy", "code", "again"),
    [
        ("Always", 0, True),
        ("Always", 1, True),
        ("OnFailure", 0, False),
        ("OnFailure", 1, True),
        ("Never", 0, False),
        ("Never", 1, False),
    ],
)
def test_restart_policy(policy: str, code: int, again: bool) -> None:
    plan = make_plan(pod({"restartPolicy": policy}), view(container("a"), container("b", code=code)), no_wait)
    assert names(plan) == (["b"] if again else [])
    assert not plan.finished


def test_a_container_that_must_wait_is_delayed_and_the_other_is_not() -> None:
    waits = {"a": 7.0, "b": 0.0}
    ended = view(container("a", code=1), container("b", code=1))
    plan = make_plan(pod(), ended, lambda c, last: waits[c.name])
    assert (names(plan), plan.delayed, plan.wake) == (["b"], ("a",), 7.0)


def test_init_containers_one_after_the_other() -> None:
    spec = pod(INIT)
    assert names(make_plan(spec, view(), no_wait)) == ["i"]
    assert names(make_plan(spec, view(container("i")), no_wait)) == []
    assert names(make_plan(spec, view(container("i", code=0)), no_wait)) == ["j"]
    assert names(make_plan(spec, view(container("i", code=0), container("j", code=1)), no_wait)) == ["j"]
    done = view(container("i", code=0), container("j", code=0))
    assert names(make_plan(spec, done, no_wait)) == ["a", "b"]


def test_a_failed_init_container_ends_a_pod_that_never_restarts() -> None:
    assert is_finished(pod({**INIT, "restartPolicy": "Never"}), view(container("i", code=1)))
    assert not is_finished(pod(INIT), view(container("i", code=1)))


def test_a_dead_sandbox_is_replaced_and_init_runs_again() -> None:
    dead = view(container("i", code=0), container("j", code=0), sandboxes=[sandbox(ready=False)])
    plan = make_plan(pod(INIT), dead, no_wait)
    assert (plan.stop_sandboxes, plan.new_sandbox, names(plan)) == (("s0",), 1, ["i"])
    assert plan.remove_sandboxes == (), "it holds the restart counts"


def test_an_old_sandbox_goes_when_nothing_needs_its_records() -> None:
    both = [sandbox(0, ready=False), sandbox(1)]
    half = view(container("a", code=1), container("a", 1, sandbox="s1"), container("b", code=1), sandboxes=both)
    assert make_plan(pod(), half, no_wait).remove_sandboxes == ()
    whole = view(container("a", 1, sandbox="s1"), container("b", 1, sandbox="s1"), sandboxes=both)
    assert make_plan(pod(), whole, no_wait).remove_sandboxes == ("s0",)


def test_a_finished_pod_gives_its_sandbox_back() -> None:
    plan = make_plan(pod({"restartPolicy": "Never"}), view(container("a", code=0), container("b", code=2)), no_wait)
    assert (plan.finished, plan.stop_sandboxes, names(plan)) == (True, ("s0",), [])


def test_a_finished_pod_whose_sandbox_died_gets_no_other() -> None:
    ended = view(container("a", code=0), container("b", code=0), sandboxes=[sandbox(ready=False)])
    assert make_plan(pod({"restartPolicy": "OnFailure"}), ended, no_wait).new_sandbox is None


def test_dead_containers_beyond_two_of_a_name_are_removed() -> None:
    old = view(container("b"), *[container("a", n, code=1) for n in range(4)])
    assert make_plan(pod(), old, lambda c, last: 5.0).remove_containers == ("a1", "a0")


def test_containers_that_the_runtime_lost_are_stopped() -> None:
    lost = container("a", state=ContainerState.UNKNOWN)
    plan = make_plan(pod(), view(lost, container("b")), no_wait)
    assert ([stop.info for stop in plan.stop_containers], names(plan)) == ([lost], [])


def test_a_container_that_failed_a_probe_is_stopped_within_the_probes_grace() -> None:
    said = {"b0": Probed(True, False, "failed liveness probe", 3), "a0": Probed(ready=False)}
    bad = container("b")
    plan = make_plan(pod(), view(container("a"), bad), no_wait, said)
    assert plan.stop_containers == (Stop(bad, "Container b failed liveness probe, will be restarted", 3),)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from([None, 0, 1]), st.integers(0, 5))))
def test_a_running_container_is_never_started_again(found: list[tuple[str, int | None, int]]) -> None:
    now = view(*[container(name, attempt, code=code) for name, code, attempt in found])
    running = {c.name for c in now.containers if now.latest(c.name) is c and c.state == ContainerState.RUNNING}
    assert running.isdisjoint(names(make_plan(pod(), now, no_wait)))


def test_attempt_numbers_follow_from_the_runtime_alone() -> None:
    assert view().next_attempt("a") == 0
    assert view(container("a", 3, code=1), container("a", 2, code=1)).next_attempt("a") == 4
    assert view(container("a", 0, state=ContainerState.CREATED)).next_attempt("a") == 0
