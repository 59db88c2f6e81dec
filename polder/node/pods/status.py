"""A pod's status from what the runtime has: phase, conditions, container states (kubelet's rules)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec

from polder.api.core import (
    ContainerState,
    ContainerStateRunning,
    ContainerStateTerminated,
    ContainerStateWaiting,
    ContainerStatus,
    Pod,
    PodCondition,
    PodIP,
    PodStatus,
)
from polder.api.podspec import Container
from polder.base.clock import stamp
from polder.node.pods import plan, resources
from polder.node.pods.restarts import is_sidecar
from polder.node.pods.view import View
from polder.node.probes.verdict import Probed
from polder.system.cri_types import ContainerInfo
from polder.system.cri_types import ContainerState as Running

PENDING, RUNNING, SUCCEEDED, FAILED = "Pending", "Running", "Succeeded", "Failed"
TERMINAL = frozenset({SUCCEEDED, FAILED})
OWN = frozenset(
    {"PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled", "AllContainersRestarting"}
    | {"PodResizePending", "PodResizeInProgress", "DisruptionTarget"}
)
"""The conditions that a node writes, and may take away again; but DisruptionTarget, which others write too."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why the node ends a pod for good, whatever its containers do."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Facts:
    """What the status is made of beside the pod: ``waiting`` and ``messages`` (what containers wrote before they ended,
    by container id) come from the worker.
    """

    view: View
    now: datetime
    host_ip: str
    waiting: Mapping[str, ContainerStateWaiting] = field(default_factory=dict)
    messages: Mapping[str, str] = field(default_factory=dict)
    verdict: Verdict | None = None
    probed: Mapping[str, Probed] = field(default_factory=dict)
    ended: bool = False
    """Whether the pod was told to end and nothing of it runs any more."""


def at(nanoseconds: int) -> str | None:
    """A runtime's time stamp as text."""
    return stamp(datetime.fromtimestamp(nanoseconds / 1e9, UTC)) if nanoseconds > 0 else None


def _terminated(info: ContainerInfo, facts: Facts) -> ContainerState:
    return ContainerState(
        terminated=ContainerStateTerminated(
            exit_code=info.exit_code,
            reason=info.reason or ("Completed" if info.exit_code == 0 else "Error"),
            message=facts.messages.get(info.id) or info.message,
            started_at=at(info.started),
            finished_at=at(info.finished),
            container_id=f"containerd://{info.id}",
        )
    )


def _state(info: ContainerInfo, facts: Facts) -> ContainerState:
    if info.state in {Running.RUNNING, Running.UNKNOWN}:
        return ContainerState(running=ContainerStateRunning(started_at=at(info.started)))
    return _terminated(info, facts)


def _container(container: Container, facts: Facts, *, init: bool = False, idle: str) -> ContainerStatus:
    info = facts.view.latest(container.name)
    waiting = facts.waiting.get(container.name)
    if info is None:
        state = ContainerState(waiting=waiting or ContainerStateWaiting(reason=idle))
        return ContainerStatus(name=container.name, state=state, image=container.image, started=False)
    state, last = _state(info, facts), None
    before = facts.view.previous(container.name)
    if before is not None:
        last = _terminated(before, facts)
    if waiting is not None and state.terminated is not None and facts.verdict is None:
        state, last = ContainerState(waiting=waiting), state
    running = state.running is not None
    says = facts.probed.get(info.id) or _unprobed(container)
    done = init and state.terminated is not None and info.exit_code == 0
    return ContainerStatus(
        name=container.name,
        state=state,
        last_state=last,
        ready=done if init else running and says.ready,
        started=running and says.started,
        restart_count=info.attempt,
        image=info.image or container.image,
        image_id=info.image_ref,
        container_id=f"containerd://{info.id}",
    )


def _unprobed(container: Container) -> Probed:
    """Of a container before its first probe."""
    started = container.startup_probe is None
    return Probed(started, started and container.readiness_probe is None)


def _phase(pod: Pod, facts: Facts, initialized: bool, statuses: Sequence[ContainerStatus]) -> str:
    if facts.verdict is not None:
        return FAILED
    if (plan.is_finished(pod, facts.view) or facts.ended) and not facts.view.running():
        ended = [s.state.terminated for s in statuses if s.state is not None]
        good = initialized and all(t is not None and t.exit_code == 0 for t in ended)
        return SUCCEEDED if good else FAILED
    if pod.status.phase in TERMINAL:
        return pod.status.phase
    began = all(s.container_id or s.last_state is not None for s in statuses)
    return RUNNING if initialized and began else PENDING


def build_status(pod: Pod, facts: Facts) -> PodStatus:
    """The whole status, of the conditions those that are the node's (``OWN``): others write others."""
    parts = _parts(pod, facts)
    phase = _phase(pod, facts, parts.initialized, parts.main)
    never = facts.verdict is not None and not any(s.container_id for s in (*parts.init, *parts.main))
    addresses = (facts.host_ip,) if pod.spec.host_network else facts.view.addresses
    addresses = addresses or tuple(ip.ip for ip in pod.status.pod_ips or [])
    return PodStatus(
        observed_generation=pod.metadata.generation,
        phase=phase,
        conditions=_conditions(pod, facts, phase, parts),
        reason=facts.verdict.reason if facts.verdict else "",
        message=facts.verdict.message if facts.verdict else "",
        host_ip=facts.host_ip,
        host_ips=[PodIP(ip=facts.host_ip)] if facts.host_ip else None,
        pod_ip=addresses[0] if addresses else "",
        pod_ips=[PodIP(ip=ip) for ip in addresses] or None,
        start_time=pod.status.start_time or stamp(facts.now),
        init_container_statuses=None if never else parts.init or None,
        container_statuses=None if never else parts.main,
        ephemeral_container_statuses=parts.ephemeral or None,
        qos_class=resources.qos_class(pod),
    )


@dataclass(frozen=True, slots=True)
class _Parts:
    """The containers' statuses; ``late`` are the init containers that others still wait for."""

    init: list[ContainerStatus]
    main: list[ContainerStatus]
    ephemeral: list[ContainerStatus]
    late: list[str]
    initialized: bool


def _parts(pod: Pod, facts: Facts) -> _Parts:
    specs = pod.spec.init_containers or []
    init = [_container(c, facts, init=not is_sidecar(c), idle="PodInitializing") for c in specs]
    idle = "PodInitializing" if specs else "ContainerCreating"
    main = [_container(c, facts, idle=idle) for c in pod.spec.containers]
    ephemeral = [_ephemeral(c, facts) for c in pod.spec.ephemeral_containers or []]
    late = [s.name for c, s in zip(specs, init, strict=True) if not (s.started if is_sidecar(c) else s.ready)]
    # Once a container was started after them, init containers have done their part, whatever became of their records.
    began = any(s.container_id for s in main) and not _restarted(facts.view)
    return _Parts(init, main, ephemeral, [] if began else late, began or not late)


def _restarted(view: View) -> bool:
    """Whether the newest sandbox has not got as far as an earlier one."""
    return view.sandbox is not None and all(c.sandbox != view.sandbox.id for c in view.containers)


def _ephemeral(container: Container, facts: Facts) -> ContainerStatus:
    """It is never ready, and nobody waits for it."""
    found = _container(container, facts, idle="ContainerCreating")
    return msgspec.structs.replace(found, ready=False, started=None)


def _conditions(pod: Pod, facts: Facts, phase: str, parts: _Parts) -> list[PodCondition]:
    sidecars = {c.name for c in pod.spec.init_containers or [] if is_sidecar(c)}
    lasting = [*(s for s in parts.init if s.name in sidecars), *parts.main]
    unready = [s.name for s in lasting if not s.ready]
    not_ready = ("ContainersNotReady", f"containers with unready status: [{' '.join(unready)}]")
    if phase == SUCCEEDED:
        not_ready = ("PodCompleted", "")
    elif phase == FAILED:
        not_ready = ("PodFailed", "")
    whole = not unready and phase == RUNNING
    lacking = _gates(pod) if whole else ""
    incomplete = ("ContainersNotInitialized", f"containers with incomplete status: [{' '.join(parts.late)}]")
    sandboxed = facts.view.sandbox is not None and facts.view.sandbox.ready
    wanted = [
        _condition("PodReadyToStartContainers", sandboxed),
        _condition("Initialized", parts.initialized, incomplete if phase != SUCCEEDED else ("PodCompleted", "")),
        _condition("Ready", whole and not lacking, ("ReadinessGatesNotReady", lacking) if lacking else not_ready),
        _condition("ContainersReady", whole, not_ready),
        _condition("PodScheduled", True),
    ]
    old = {c.type: c for c in pod.status.conditions or []}
    seen = pod.metadata.generation
    return [_since(c, old.get(c.type), facts.now, seen) for c in wanted]


def _gates(pod: Pod) -> str:
    """What readiness gates (KEP-580) still wait for; empty if for nothing."""
    held = {c.type: c.status for c in pod.status.conditions or []}
    lacking = []
    for gate in pod.spec.readiness_gates or []:
        name = gate.condition_type
        if name not in held:
            lacking.append(f'corresponding condition of pod readiness gate "{name}" does not exist.')
        elif held[name] != "True":
            lacking.append(f'the status of pod readiness gate "{name}" is not "True", but {held[name]}')
    return ", ".join(lacking)


def _condition(name: str, good: bool, why: tuple[str, str] = ("", "")) -> PodCondition:
    reason, message = ("", "") if good else why
    return PodCondition(type=name, status="True" if good else "False", reason=reason, message=message)


def _since(new: PodCondition, old: PodCondition | None, now: datetime, seen: int) -> PodCondition:
    same = old is not None and old.status == new.status and old.last_transition_time
    since = old.last_transition_time if same and old is not None else stamp(now)
    return msgspec.structs.replace(new, last_transition_time=since, observed_generation=seen)
