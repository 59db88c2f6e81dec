"""Requests and limits: what they become in control groups, and the class of quality that follows (kubelet's rules)."""

from __future__ import annotations

from collections.abc import Iterable

from polder.api.core import Pod
from polder.api.podspec import Container
from polder.api.quantity import milli, whole
from polder.system.cgroups import CPU_PERIOD, Limits
from polder.system.cri_types import Resources

MIN_SHARES, MAX_SHARES = 2, 262144
MIN_QUOTA = 1000
GUARANTEED, BURSTABLE, BEST_EFFORT = "Guaranteed", "Burstable", "BestEffort"


def _shares(milli_cpu: int) -> int:
    return max(MIN_SHARES, min(milli_cpu * 1024 // 1000, MAX_SHARES))


def _quota(milli_cpu: int) -> int:
    return max(MIN_QUOTA, milli_cpu * CPU_PERIOD // 1000) if milli_cpu else 0


def _of(container: Container, side: str, name: str) -> str | int | float | None:
    held = container.resources
    amounts = None if held is None else (held.requests if side == "requests" else held.limits)
    return None if amounts is None else amounts.get(name)


def cpu(container: Container, side: str) -> int:
    """Thousandths of a CPU requested or allowed; a request not given is the limit. 0: none."""
    found = _of(container, side, "cpu")
    if found is None and side == "requests":
        found = _of(container, "limits", "cpu")
    return 0 if found is None else milli(found)


def memory(container: Container, side: str) -> int:
    """Bytes requested or allowed; a request not given is the limit. 0: none."""
    found = _of(container, side, "memory")
    if found is None and side == "requests":
        found = _of(container, "limits", "memory")
    return 0 if found is None else whole(found)


def qos_class(pod: Pod) -> str:
    """Guaranteed, Burstable or BestEffort."""
    held = [*pod.spec.containers, *(pod.spec.init_containers or [])]
    asked = [cpu(c, s) or memory(c, s) for c in held for s in ("requests", "limits")]
    if not any(asked):
        return BEST_EFFORT
    for c in held:
        for amount in (cpu, memory):
            limit = amount(c, "limits")
            if limit == 0 or amount(c, "requests") != limit:
                return BURSTABLE
    return GUARANTEED


def container_resources(pod: Pod, container: Container, node_memory: int) -> Resources:
    """A container's share of CPU and memory, and how early the kernel kills it when memory runs out."""
    return Resources(
        cpu_shares=_shares(cpu(container, "requests")),
        cpu_quota=_quota(cpu(container, "limits")),
        cpu_period=CPU_PERIOD,
        memory=memory(container, "limits"),
        oom_score_adj=_oom_score(pod, container, node_memory),
    )


def _oom_score(pod: Pod, container: Container, node_memory: int) -> int:
    quality = qos_class(pod)
    if quality == GUARANTEED:
        return -997
    if quality == BEST_EFFORT:
        return 1000
    score = 1000 - 1000 * memory(container, "requests") // max(node_memory, 1)
    return max(3, min(score, 999))


def pod_limits(pod: Pod) -> Limits:
    """What the pod as a whole may use: sums over its containers, or the largest of its init containers."""
    app, init = pod.spec.containers, pod.spec.init_containers or []

    def most(amounts: Iterable[int], single: Iterable[int]) -> int:
        return max([sum(amounts), *single])

    every = [*app, *init]
    requested = most((cpu(c, "requests") for c in app), (cpu(c, "requests") for c in init))
    limit = most((cpu(c, "limits") for c in app), (cpu(c, "limits") for c in init))
    held = most((memory(c, "limits") for c in app), (memory(c, "limits") for c in init))
    return Limits(
        cpu_shares=_shares(requested),
        cpu_quota=_quota(limit) if all(cpu(c, "limits") for c in every) else None,
        memory=held if all(memory(c, "limits") for c in every) else None,
    )
