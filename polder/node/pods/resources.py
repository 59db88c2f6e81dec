"""Requests and limits: what they become in control groups, and the class of quality that follows (kubelet's rules).

Source: KEP-753 (sidecars), KEP-2837 (resources of the pod as a whole), upstream's ``kubelet/cm`` and ``kubelet/qos``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from polder.api.core import Pod
from polder.api.meta import tenant_of
from polder.api.podspec import Container
from polder.api.podspec import Resources as Asked
from polder.api.quantity import milli, whole
from polder.base.ids import ROOT
from polder.node.pods.restarts import is_sidecar
from polder.system.cgroups import CPU_PERIOD, Limits, page_size
from polder.system.cri_types import Resources

Amounts = dict[str, int]
"""By resource: cpu in thousandths, everything else in whole units."""
MIN_SHARES, MAX_SHARES = 2, 262144
MIN_QUOTA = 1000
GUARANTEED, BURSTABLE, BEST_EFFORT = "Guaranteed", "Burstable", "BestEffort"
REQUESTS, LIMITS = SIDES = ("requests", "limits")
RESIZABLE = ("cpu", "memory")
FIRMEST, WEAKEST = -997, 1000
"""oom_score_adj of Guaranteed and of BestEffort pods."""
CRITICAL = 2_000_001_000
"""The priority of system-node-critical: of the platform's pods those that go last."""
PAGES = "hugepages-"


def shares(milli_cpu: int) -> int:
    """cpu.shares of version 1."""
    return max(MIN_SHARES, min(milli_cpu * 1024 // 1000, MAX_SHARES))


def quota(milli_cpu: int) -> int:
    """cpu.cfs_quota_us; 0: none."""
    return max(MIN_QUOTA, milli_cpu * CPU_PERIOD // 1000) if milli_cpu else 0


def amounts(asked: Asked | None, side: str) -> Amounts:
    """What is requested, where a limit stands in for a request that is not given, or the limits."""
    if asked is None:
        return {}
    given = dict(asked.limits or {})
    if side == REQUESTS:
        given |= asked.requests or {}
    return {name: milli(value) if name == "cpu" else whole(value) for name, value in given.items()}


def _whole_pod(name: str) -> bool:
    """Whether the pod as a whole may name an amount of it."""
    return name in {"cpu", "memory"} or name.startswith(PAGES)


def _level(pod: Pod, side: str) -> Amounts:
    """What the pod as a whole names."""
    return {name: value for name, value in amounts(pod.spec.resources, side).items() if _whole_pod(name)}


def shared_limit(pod: Pod, name: str) -> int:
    """What the pod as a whole may use of CPU (thousandths) or memory (bytes); 0: it says nothing of it."""
    return _level(pod, LIMITS).get(name, 0) if name in RESIZABLE else 0


def is_sized(pod: Pod) -> bool:
    """Whether the pod as a whole names amounts."""
    return bool(_level(pod, REQUESTS) or _level(pod, LIMITS))


def _plus(left: Amounts, right: Mapping[str, int]) -> Amounts:
    return {name: left.get(name, 0) + right.get(name, 0) for name in left.keys() | right.keys()}


def _most(left: Amounts, right: Mapping[str, int]) -> Amounts:
    return {name: max(left.get(name, 0), right.get(name, 0)) for name in left.keys() | right.keys()}


def pod_amounts(pod: Pod, side: str) -> Amounts:
    """The pod's requests or limits: its containers' together, or the highest moment of its initialization; what the pod as a
    whole names instead of that; and its overhead, on limits only where there is one.
    """
    beside: Amounts = {}
    peak: Amounts = {}
    for container in pod.spec.init_containers or []:
        found = amounts(container.resources, side)
        if is_sidecar(container):
            beside = _plus(beside, found)
            peak = _most(peak, beside)
        else:
            peak = _most(peak, _plus(beside, found))
    together = beside
    for container in pod.spec.containers:
        together = _plus(together, amounts(container.resources, side))
    total = {**_most(together, peak), **_level(pod, side)}
    over = {name: milli(v) if name == "cpu" else whole(v) for name, v in (pod.spec.overhead or {}).items()}
    return _plus(total, {name: value for name, value in over.items() if side == REQUESTS or total.get(name)})


def _every(pod: Pod) -> list[Container]:
    return [*(pod.spec.init_containers or []), *pod.spec.containers]


def _sidecars(pod: Pod) -> list[Container]:
    return [container for container in pod.spec.init_containers or [] if is_sidecar(container)]


def cpu(container: Container, side: str) -> int:
    """Thousandths of a CPU requested or allowed; a request not given is the limit. 0: none."""
    return amounts(container.resources, side).get("cpu", 0)


def memory(container: Container, side: str) -> int:
    """Bytes requested or allowed; a request not given is the limit. 0: none."""
    return amounts(container.resources, side).get("memory", 0)


def noted(container: Container) -> dict[str, Amounts]:
    """CPU and memory of a container as they are kept with it: what a resize changes."""
    return {side: {k: v for k, v in amounts(container.resources, side).items() if k in RESIZABLE} for side in SIDES}


def qos_class(pod: Pod) -> str:
    """Guaranteed, Burstable or BestEffort. A pod that names amounts as a whole is judged by these alone."""
    asked = [pod.spec.resources] if is_sized(pod) else [container.resources for container in _every(pod)]
    pairs = [
        (amounts(one, REQUESTS).get(name, 0), amounts(one, LIMITS).get(name, 0))
        for one in asked
        for name in ("cpu", "memory")
    ]
    if not any(request or limit for request, limit in pairs):
        return BEST_EFFORT
    return GUARANTEED if all(limit and request == limit for request, limit in pairs) else BURSTABLE


def container_resources(pod: Pod, container: Container, node_memory: int) -> Resources:
    """A container's share of CPU and memory, and how early the kernel kills it when memory runs out. Where it has no limit of
    its own, the pod's is its.
    """
    limits = {**_level(pod, LIMITS), **amounts(container.resources, LIMITS)}
    requested = amounts(container.resources, REQUESTS)
    return Resources(
        cpu_shares=shares(requested.get("cpu", limits.get("cpu", 0))),
        cpu_quota=quota(limits.get("cpu", 0)),
        cpu_period=CPU_PERIOD,
        memory=limits.get("memory", 0),
        oom_score_adj=_oom_score(pod, container, node_memory),
        huge_pages=_huge_pages(limits),
    )


def _huge_pages(held: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    """The limits of huge pages by the kernel's names of their sizes."""
    found = {
        page_size(whole(name.removeprefix(PAGES))): value for name, value in held.items() if name.startswith(PAGES)
    }
    return tuple(sorted(found.items()))


def _oom_score(pod: Pod, container: Container, node_memory: int) -> int:
    if tenant_of(pod.metadata) == ROOT and (pod.spec.priority or 0) >= CRITICAL:
        return FIRMEST
    quality = qos_class(pod)
    if quality == GUARANTEED:
        return FIRMEST
    if quality == BEST_EFFORT:
        return WEAKEST
    node, extra = max(node_memory, 1), _unassigned(pod)
    score = 1000 - 1000 * (memory(container, REQUESTS) + extra) // node
    if container.name in {c.name for c in _sidecars(pod)}:  # it goes no earlier than those it serves
        least = min((memory(c, REQUESTS) for c in pod.spec.containers), default=0)
        score = min(score, 1000 - 1000 * (least + extra) // node)
    return max(1000 + FIRMEST, min(score, WEAKEST - 1))


def _unassigned(pod: Pod) -> int:
    """Each container's part of the memory that the pod as a whole requests beyond its containers."""
    asked = _level(pod, REQUESTS).get("memory", 0)
    running = [*pod.spec.containers, *_sidecars(pod)]
    held = sum(memory(c, REQUESTS) for c in running)
    return max(0, asked - held) // len(running) if asked and running else 0


def pod_limits(pod: Pod) -> Limits:
    """What the pod as a whole may use. A limit counts only if every container has one, or the pod itself."""
    requested, allowed, level = pod_amounts(pod, REQUESTS), pod_amounts(pod, LIMITS), _level(pod, LIMITS)

    def declared(name: str) -> bool:
        return bool(level.get(name)) or _all_limited(_every(pod), name)

    return Limits(
        cpu_shares=shares(requested.get("cpu", 0)),
        cpu_quota=quota(allowed.get("cpu", 0)) if declared("cpu") else None,
        memory=allowed.get("memory", 0) if declared("memory") else None,
        huge_pages=_huge_pages(requested),
    )


def _all_limited(containers: Iterable[Container], name: str) -> bool:
    return all(amounts(c.resources, LIMITS).get(name) for c in containers)
