"""How a pod is printed: what its containers are doing in one word, readiness and restarts (upstream's ``printPod``)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from polder.api.columns import AGE, NAME, NONE, Column, moment, part, since, text
from polder.api.meta import Raw

_UNREACHABLE: Final = "NodeLost"
_ENDED: Final = ("Succeeded", "Failed")


@dataclass(slots=True)
class _Summary:
    """One pod in numbers and a word."""

    reason: str
    ready: int = 0
    restarts: int = 0
    restarted_at: str = ""

    def count(self, status: Raw) -> None:
        self.restarts += status.get("restartCount", 0)
        at = part(status, "lastState.terminated.finishedAt") or ""
        before, after = moment(self.restarted_at), moment(at)
        if after is not None and (before is None or after > before):
            self.restarted_at = at


def _ended(state: Raw) -> str:
    """The word for a container that terminated."""
    if state.get("reason"):
        return str(state["reason"])
    if state.get("signal"):
        return f"Signal:{state['signal']}"
    return f"ExitCode:{state.get('exitCode', 0)}"


def _initializing(pod: Raw, summary: _Summary) -> bool:
    """Whether an init container holds the pod up; says so in the summary."""
    statuses = part(pod, "status.initContainerStatuses") or []
    for number, status in enumerate(statuses):
        summary.count(status)
        terminated = part(status, "state.terminated")
        waiting = part(status, "state.waiting.reason")
        if terminated is not None and not terminated.get("exitCode"):
            continue
        if terminated is not None:
            summary.reason = f"Init:{_ended(terminated)}"
        elif waiting and waiting != "PodInitializing":
            summary.reason = f"Init:{waiting}"
        else:
            summary.reason = f"Init:{number}/{len(part(pod, 'spec.initContainers') or [])}"
        return True
    return False


def _is_true(pod: Raw, condition: str) -> bool:
    conditions = part(pod, "status.conditions") or []
    return any(c.get("type") == condition and c.get("status") == "True" for c in conditions)


def _containers(pod: Raw, summary: _Summary) -> None:
    summary.restarts = 0
    runs = False
    for status in reversed(part(pod, "status.containerStatuses") or []):
        summary.count(status)
        state = status.get("state") or {}
        if part(state, "waiting.reason"):
            summary.reason = state["waiting"]["reason"]
        elif state.get("terminated") is not None:
            summary.reason = _ended(state["terminated"])
        elif status.get("ready") and state.get("running") is not None:
            runs = True
            summary.ready += 1
    if summary.reason == "Completed" and runs:
        summary.reason = "Running" if _is_true(pod, "Ready") else "NotReady"


def summarize(pod: Raw) -> _Summary:
    """The pod's word, ready containers and restarts."""
    phase = part(pod, "status.phase") or ""
    own = part(pod, "status.reason") or ""
    summary = _Summary(own or phase)
    gated = (part(pod, "status.conditions") or ()) and any(
        c.get("type") == "PodScheduled" and c.get("reason") == "SchedulingGated" for c in pod["status"]["conditions"]
    )
    if gated:
        summary.reason = "SchedulingGated"
    if not _initializing(pod, summary) or _is_true(pod, "Initialized"):
        _containers(pod, summary)
    if part(pod, "metadata.deletionTimestamp"):
        if own == _UNREACHABLE:
            summary.reason = "Unknown"
        elif phase not in _ENDED:
            summary.reason = "Terminating"
    return summary


def _ready(pod: Raw, _: datetime) -> str:
    return f"{summarize(pod).ready}/{len(part(pod, 'spec.containers') or [])}"


def _restarts(pod: Raw, now: datetime) -> str:
    summary = summarize(pod)
    if summary.restarts and summary.restarted_at:
        return f"{summary.restarts} ({since(summary.restarted_at, now)} ago)"
    return str(summary.restarts)


COLUMNS: Final = (
    NAME,
    Column("Ready", _ready, description="The aggregate readiness state of this pod for accepting traffic."),
    Column("Status", lambda pod, _: summarize(pod).reason, description="The aggregate status of the containers in this pod."),
    Column("Restarts", _restarts, description="The number of times the containers in this pod have been restarted."),
    AGE,
    text("IP", "status.podIP", missing=NONE, priority=1),
    text("Node", "spec.nodeName", missing=NONE, priority=1),
    text("Nominated Node", "status.nominatedNodeName", missing=NONE, priority=1),
    Column("Readiness Gates", lambda _pod, _now: NONE, priority=1),
)  # fmt: skip
"""As ``kubectl get pods`` shows them."""
