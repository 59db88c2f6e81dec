"""NodeMetrics and PodMetrics (metrics.k8s.io/v1beta1): what nodes and pods use of CPU and memory. Computed, never stored.

Source: the resource metrics API (KEP-0117 and upstream's ``k8s.io/metrics``).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec

from polder.api.meta import Object, Raw, Struct
from polder.base.clock import stamp

GROUP = "metrics.k8s.io"
VERSION = "v1beta1"
Amounts = dict[str, str | int | float]
"""Quantities by name."""


class ContainerMetrics(Struct, frozen=True, kw_only=True):
    """What one container uses: CPU averaged over the window, memory as its working set at the end of it."""

    name: str
    usage: Amounts


class NodeMetrics(Object, frozen=True, kw_only=True):
    """What a node uses. ``timestamp`` ends the window, ``window`` is a duration as Go writes it."""

    timestamp: str
    window: str
    usage: Amounts


class PodMetrics(Object, frozen=True, kw_only=True):
    """What the containers of a pod use. ``timestamp`` ends the window, ``window`` is a duration as Go writes it."""

    timestamp: str
    window: str
    containers: list[ContainerMetrics]


class Usage(msgspec.Struct, frozen=True):
    """CPU in billionths of one CPU, the working set of memory in bytes."""

    cpu: int = 0
    memory: int = 0


class PodUsage(msgspec.Struct, frozen=True):
    """One pod's containers by name. ``time`` is in seconds since the epoch, ``window`` in seconds before it."""

    time: float
    window: float
    containers: dict[str, Usage]

    def total(self) -> Usage:
        """All containers together."""
        found = self.containers.values()
        return Usage(sum(one.cpu for one in found), sum(one.memory for one in found))


class NodeUsage(msgspec.Struct, frozen=True):
    """What an agent reports: the machine's use, None where it is not known yet, and that of its pods by their UIDs."""

    time: float = 0.0
    window: float = 0.0
    node: Usage | None = None
    pods: dict[str, PodUsage] = {}


def quantities(usage: Usage) -> Raw:
    """As quantities, in the units of upstream's metrics server."""
    return {"cpu": f"{usage.cpu}n" if usage.cpu else "0", "memory": f"{usage.memory // 1024}Ki"}


def duration(seconds: float) -> str:
    """A duration as Go prints it, to the millisecond."""
    thousandths = round(seconds * 1000)
    minutes, rest = divmod(thousandths, 60_000)
    text = f"{rest / 1000:.3f}".rstrip("0").rstrip(".")
    return f"{minutes}m{text}s" if minutes else f"{text}s"


def _head(kind: str, meta: Raw, labels: Mapping[str, str], time: float, window: float) -> Raw:
    at = stamp(datetime.fromtimestamp(time, UTC))
    shown = {**meta, "creationTimestamp": at, "labels": dict(labels)}
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": kind,
        "metadata": shown,
        "timestamp": at,
        "window": duration(window),
    }


def node_metrics(name: str, labels: Mapping[str, str], measured: tuple[float, float], usage: Usage) -> Raw:
    """A NodeMetrics; ``measured`` are the time and the window."""
    return {**_head("NodeMetrics", {"name": name}, labels, *measured), "usage": quantities(usage)}


def pod_metrics(namespace: str, name: str, labels: Mapping[str, str], pod: PodUsage) -> Raw:
    """A PodMetrics."""
    meta = {"name": name, "namespace": namespace}
    shown = [{"name": each, "usage": quantities(usage)} for each, usage in sorted(pod.containers.items())]
    return {**_head("PodMetrics", meta, labels, pod.time, pod.window), "containers": shown}
