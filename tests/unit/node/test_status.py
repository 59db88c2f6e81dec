"""A pod's status from what the runtime has."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest

from polder.api.core import ContainerStateWaiting, Pod, PodCondition, PodIP, PodStatus
from polder.node.pods.cluster import status_patch
from polder.node.pods.status import Facts, Verdict, build_status
from polder.node.pods.view import View
from polder.node.probes.verdict import Probed
from tests.unit.node.podkit import container, pod, view

NOW = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)


def status_of(spec: Pod, now: View, **facts: object) -> PodStatus:
    return build_status(spec, Facts(now, NOW, "192.0.2.1", **facts))  # type: ignore[arg-type]


def conditions(status: PodStatus) -> dict[str, str]:
    return {c.type: c.status for c in status.conditions or []}


@pytest.mark.parametrize(
    ("policy", "codes", "phase"),
    [
        ("Always", (None, None), "Running"),
        ("Always", (None, 1), "Running"),
        ("Always", (0, 0), "Running"),
        ("OnFailure", (0, 0), "Succeeded"),
        ("OnFailure", (0, 1), "Running"),
        ("Never", (0, 0), "Succeeded"),
        ("Never", (0, 1), "Failed"),
        ("Never", (None, 1), "Running"),
    ],
)
def test_phase(policy: str, codes: tuple[int | None, int | None], phase: str) -> None:
    now = view(container("a", code=codes[0]), container("b", code=codes[1]))
    assert status_of(pod({"restartPolicy": policy}), now).phase == phase


def test_a_pod_that_starts() -> None:
    status = status_of(pod(), view(sandboxes=[]))
    assert status.phase == "Pending"
    assert [c.state.waiting.reason for c in status.container_statuses or [] if c.state and c.state.waiting] == [
        "ContainerCreating",
        "ContainerCreating",
    ]
    assert conditions(status)["Ready"] == "False"


def test_addresses_and_times() -> None:
    status = status_of(pod(), view(container("a"), container("b")))
    assert (status.pod_ip, status.host_ip, status.start_time) == ("10.0.0.5", "192.0.2.1", "2030-01-02T03:04:05Z")
    first = (status.container_statuses or [])[0]
    assert first.state is not None and first.state.running is not None
    assert first.state.running.started_at == "1970-01-01T00:01:40Z"
    assert first.container_id == "containerd://a0"


def test_not_ready_names_the_containers() -> None:
    status = status_of(pod(), view(container("a"), container("b", code=1)))
    ready = next(c for c in status.conditions or [] if c.type == "Ready")
    assert (ready.status, ready.reason, ready.message) == (
        "False",
        "ContainersNotReady",
        "containers with unready status: [b]",
    )


PROBED = {"containers": [{"name": "a", "readinessProbe": {"tcpSocket": {"port": 1}}}, {"name": "b"}]}


def test_a_container_is_ready_when_its_probes_say_so() -> None:
    now = view(container("a"), container("b"))
    first = status_of(pod(PROBED), now)
    assert [(c.started, c.ready) for c in first.container_statuses or []] == [(True, False), (True, True)]
    assert conditions(first)["Ready"] == conditions(first)["ContainersReady"] == "False"
    assert conditions(status_of(pod(PROBED), now, probed={"a0": Probed()}))["Ready"] == "True"
    starting = status_of(pod(PROBED), now, probed={"a0": Probed(started=False, ready=False)})
    assert next((c.started, c.ready) for c in starting.container_statuses or []) == (False, False)


def test_readiness_gates_wait_for_conditions_of_others() -> None:
    gated = pod({"readinessGates": [{"conditionType": "x/a"}, {"conditionType": "x/b"}]})
    others = [PodCondition(type="x/b", status="False")]
    gated = msgspec.structs.replace(gated, status=PodStatus(conditions=others))
    status = status_of(gated, view(container("a"), container("b")))
    ready = next(c for c in status.conditions or [] if c.type == "Ready")
    assert (ready.status, ready.reason) == ("False", "ReadinessGatesNotReady")
    assert ready.message == (
        'corresponding condition of pod readiness gate "x/a" does not exist., '
        'the status of pod readiness gate "x/b" is not "True", but False'
    )
    assert conditions(status)["ContainersReady"] == "True"
    done = [PodCondition(type="x/a", status="True"), PodCondition(type="x/b", status="True")]
    gated = msgspec.structs.replace(gated, status=PodStatus(conditions=done))
    assert conditions(status_of(gated, view(container("a"), container("b"))))["Ready"] == "True"


def test_a_pod_on_the_nodes_network_has_the_nodes_address() -> None:
    status = status_of(
        pod({"hostNetwork": True}), View(*(getattr(view(container("a")), f) for f in ("sandboxes", "containers")))
    )
    assert (status.pod_ip, status.host_ip) == ("192.0.2.1", "192.0.2.1")


def test_a_crash_loop_waits_and_keeps_the_last_state() -> None:
    waiting = {"b": ContainerStateWaiting(reason="CrashLoopBackOff", message="back-off 10s")}
    status = status_of(pod(), view(container("a"), container("b", 4, code=9)), waiting=waiting)
    last = (status.container_statuses or [])[1]
    assert last.state is not None and last.state.waiting is not None
    assert (last.state.waiting.reason, last.restart_count) == ("CrashLoopBackOff", 4)
    assert last.last_state is not None and last.last_state.terminated is not None
    assert last.last_state.terminated.exit_code == 9
    assert status.phase == "Running"


def test_a_running_container_shows_how_the_one_before_ended() -> None:
    status = status_of(pod(), view(container("a", 1), container("a", 0, code=3, reason="OOMKilled"), container("b")))
    last = (status.container_statuses or [])[0].last_state
    assert last is not None and last.terminated is not None
    assert (last.terminated.exit_code, last.terminated.reason) == (3, "OOMKilled")


def test_last_words() -> None:
    status = status_of(pod(), view(container("a", code=1), container("b")), messages={"a0": "the disk is full"})
    state = (status.container_statuses or [])[0].state
    assert state is not None and state.terminated is not None
    assert state.terminated.message == "the disk is full"


def test_a_verdict_ends_the_pod() -> None:
    status = status_of(pod(), view(container("a"), container("b")), verdict=Verdict("DeadlineExceeded", "too long"))
    assert (status.phase, status.reason, status.message) == ("Failed", "DeadlineExceeded", "too long")


def test_of_a_pod_that_was_refused_nothing_is_being_created() -> None:
    status = status_of(pod(), view(), verdict=Verdict("SysctlForbidden", "no"))
    assert (status.phase, status.reason, status.container_statuses) == ("Failed", "SysctlForbidden", None)


def test_transition_times_stay_until_the_status_changes_and_conditions_of_others_are_not_written() -> None:
    old = [
        PodCondition(type="Ready", status="True", last_transition_time="2029-01-01T00:00:00Z"),
        PodCondition(type="example.com/gate", status="True"),
    ]
    spec = msgspec.structs.replace(pod(), status=PodStatus(conditions=old))
    since = {
        c.type: c.last_transition_time for c in status_of(spec, view(container("a"), container("b"))).conditions or []
    }
    assert since["Ready"] == "2029-01-01T00:00:00Z"
    assert "example.com/gate" not in since
    since = {c.type: c.last_transition_time for c in status_of(spec, view(container("a"))).conditions or []}
    assert since["Ready"] == "2030-01-02T03:04:05Z"


def test_the_generation_that_was_seen_is_told_with_what_was_made_of_it() -> None:
    first = pod()
    later = msgspec.structs.replace(first, metadata=msgspec.structs.replace(first.metadata, generation=7))
    status = status_of(later, view(container("a"), container("b")))
    assert (status.observed_generation, {c.observed_generation for c in status.conditions or []}) == (7, {7})


def test_initialized() -> None:
    spec = pod({"initContainers": [{"name": "i", "image": "x:1"}]})
    assert conditions(status_of(spec, view(container("i"))))["Initialized"] == "False"
    assert status_of(spec, view(container("i"))).phase == "Pending"
    assert conditions(status_of(spec, view(container("i", code=0))))["Initialized"] == "True"


def test_the_patch_takes_away_what_is_empty_and_keeps_required_zeros() -> None:
    spec = pod()
    status = status_of(spec, view(container("a", code=0), container("b")))
    patch = status_patch(spec, status)
    assert patch["metadata"] == {"uid": "u-1"}
    assert patch["status"]["reason"] is None
    first, second = patch["status"]["containerStatuses"]
    assert first["state"]["terminated"]["exitCode"] == 0
    assert (first["restartCount"], first["ready"]) == (0, False)
    assert (second["ready"], second["state"]["running"]) == (True, {"startedAt": "1970-01-01T00:01:40Z"})
    assert patch["status"]["initContainerStatuses"] is None
    assert status_patch(spec, PodStatus())["status"]["phase"] == "Pending"


def test_the_patch_takes_away_the_nodes_own_conditions_alone() -> None:
    shown = [PodCondition(type=name, status="True") for name in ("PodResizePending", "DisruptionTarget", "x/gate")]
    spec = msgspec.structs.replace(pod(), status=PodStatus(conditions=shown))
    patch = status_patch(
        spec, PodStatus(conditions=[PodCondition(type="Ready", status="True")], pod_ips=[PodIP(ip="10.0.0.1")])
    )
    ready, gone = patch["status"]["conditions"]
    assert ready == {"type": "Ready", "status": "True", "reason": None, "message": None, "observedGeneration": None}
    assert gone == {"type": "PodResizePending", "$patch": "delete"}
    assert patch["status"]["podIPs"] == [{"$patch": "replace"}, {"ip": "10.0.0.1"}]


SIDECARS = {"initContainers": [{"name": "s", "restartPolicy": "Always"}, {"name": "i"}], "restartPolicy": "Never"}


def test_sidecars_have_started_but_need_not_end() -> None:
    early = status_of(pod(SIDECARS), view(container("s"), container("i")))
    assert (early.phase, conditions(early)["Initialized"]) == ("Pending", "False")
    assert [(c.started, c.ready) for c in early.init_container_statuses or []] == [(True, True), (True, False)]
    done = (container("s"), container("i", code=0))
    assert status_of(pod(SIDECARS), view(*done, container("a"), container("b"))).phase == "Running"
    again = status_of(pod(SIDECARS), view(container("s", code=1), done[1], container("a"), container("b")))
    assert (again.phase, conditions(again)["Initialized"]) == ("Running", "True")
    unready = next(c for c in again.conditions or [] if c.type == "ContainersReady")
    assert unready.message == "containers with unready status: [s]"


def test_a_pod_has_ended_when_its_sidecars_have() -> None:
    ended = (container("i", code=0), container("a", code=0), container("b", code=0))
    assert status_of(pod(SIDECARS), view(container("s"), *ended)).phase == "Running"
    assert status_of(pod(SIDECARS), view(container("s", code=137), *ended)).phase == "Succeeded"


def test_a_pod_that_was_deleted_ends_in_a_phase_of_its_containers() -> None:
    good, bad = (
        view(container("a", code=0), container("b", code=0)),
        view(container("a", code=0), container("b", code=1)),
    )
    assert status_of(pod(), good).phase == "Running"
    assert status_of(pod(), good, ended=True).phase == "Succeeded"
    assert status_of(pod(), bad, ended=True).phase == "Failed"
    assert status_of(pod(), view(container("a", code=0)), ended=True).phase == "Failed"


def test_ephemeral_containers_are_shown_beside() -> None:
    spec = pod({"ephemeralContainers": [{"name": "e", "targetContainerName": "a"}]})
    status = status_of(spec, view(container("a"), container("b"), container("e")))
    shown = (status.ephemeral_container_statuses or [])[0]
    assert (shown.name, shown.ready, shown.state is not None and shown.state.running is not None) == ("e", False, True)
    assert conditions(status)["Ready"] == "True"
