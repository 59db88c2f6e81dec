"""Prometheus text of a node: ``/metrics/resource`` and ``/metrics/cadvisor`` with kubelets' names, and ``/metrics``. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from polder.api.core import Pod
from polder.api.meta import tenant_of
from polder.node.machine import MachineUse
from polder.node.stats.disk import DiskReport
from polder.node.stats.sampler import Measured
from polder.system.cri_types import DiskUse

NANO = 1e9
Labels = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Family:
    """A metric: its kind, what it says, and (labels, value, milliseconds since the epoch or 0)."""

    name: str
    kind: str
    help: str
    samples: Sequence[tuple[Labels, float, float]]


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def text_of(families: Iterable[Family]) -> bytes:
    """The exposition format, version 0.0.4."""
    lines = []
    for family in families:
        lines += [f"# HELP {family.name} {family.help}", f"# TYPE {family.name} {family.kind}"]
        for labels, value, at in family.samples:
            inner = ",".join(f'{name}="{_escaped(text)}"' for name, text in labels)
            shown = f"{{{inner}}}" if inner else ""
            when = f" {int(at * 1000)}" if at else ""
            lines.append(f"{family.name}{shown} {value:.10g}{when}")
    return ("\n".join(lines) + "\n").encode()


def _known(containers: Iterable[Measured], pods: Mapping[str, Pod]) -> list[tuple[Measured, Pod]]:
    return [(one, pods[one.uid]) for one in containers if one.last is not None and one.uid in pods]


def _labels(one: Measured, pod: Pod) -> Labels:
    meta = pod.metadata
    return (
        ("container", one.name),
        ("namespace", meta.namespace),
        ("pod", meta.name),
        ("tenant", tenant_of(meta)),
    )


def resource(containers: Iterable[Measured], pods: Mapping[str, Pod], machine: MachineUse | None) -> list[Family]:
    """What upstream's metrics server reads."""
    known = [(one, one.last, pod) for one, pod in _known(containers, pods) if one.last is not None]
    totals: dict[str, tuple[Pod, float, int, float]] = {}
    for _, last, pod in known:
        _, cpu, memory, at = totals.get(pod.metadata.uid, (pod, 0.0, 0, 0.0))
        totals[pod.metadata.uid] = (pod, cpu + last.cpu / NANO, memory + last.memory.working_set, max(at, last.at))

    def of_pod(pod: Pod) -> Labels:
        meta = pod.metadata
        return (("namespace", meta.namespace), ("pod", meta.name), ("tenant", tenant_of(meta)))

    node = [] if machine is None else [machine]
    whole = list(totals.values())
    return [
        Family("container_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed by the container in core-seconds",
               [(_labels(one, pod), last.cpu / NANO, last.at) for one, last, pod in known]),
        Family("container_memory_working_set_bytes", "gauge", "Current working set of the container in bytes",
               [(_labels(one, pod), last.memory.working_set, last.at) for one, last, pod in known]),
        Family("container_start_time_seconds", "gauge", "Start time of the container since unix epoch in seconds",
               [(_labels(one, pod), one.began, 0.0) for one, _, pod in known]),
        Family("node_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed by the node in core-seconds",
               [((), one.cpu / NANO, one.at) for one in node]),
        Family("node_memory_working_set_bytes", "gauge", "Current working set of the node in bytes",
               [((), one.working_set, one.at) for one in node]),
        Family("pod_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed by the pod in core-seconds",
               [(of_pod(pod), cpu, at) for pod, cpu, _, at in whole]),
        Family("pod_memory_working_set_bytes", "gauge", "Current working set of the pod in bytes",
               [(of_pod(pod), memory, at) for pod, _, memory, at in whole]),
        Family("resource_scrape_error", "gauge", "1 if there was an error while getting container metrics, 0 otherwise",
               [((), 0.0, 0.0)]),
    ]  # fmt: skip


def cadvisor(
    containers: Iterable[Measured], pods: Mapping[str, Pod], disk: DiskReport, machine: tuple[int, int]
) -> list[Family]:
    """Containers in cAdvisor's terms; ``machine``: CPUs in thousandths, bytes of memory."""
    rows = []
    for one, pod in _known(containers, pods):
        assert one.last is not None
        labels = (*_labels(one, pod), ("id", one.group), ("name", one.id))
        used = disk.pods[one.uid].written.get(one.name, DiskUse()) if one.uid in disk.pods else DiskUse()
        rows.append((labels, one.last, used))

    def family(name: str, kind: str, said: str, values: Sequence[float]) -> Family:
        samples = [(labels, value, last.at) for (labels, last, _), value in zip(rows, values, strict=True)]
        return Family(name, kind, said, samples)

    return [
        family("container_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed in seconds.",
               [last.cpu / NANO for _, last, _ in rows]),
        family("container_memory_usage_bytes", "gauge", "Current memory usage in bytes, including all memory.",
               [last.memory.usage for _, last, _ in rows]),
        family("container_memory_working_set_bytes", "gauge", "Current working set in bytes.",
               [last.memory.working_set for _, last, _ in rows]),
        family("container_memory_rss", "gauge", "Size of RSS in bytes.", [last.memory.rss for _, last, _ in rows]),
        family("container_fs_usage_bytes", "gauge", "Number of bytes that are consumed by the container.",
               [used.used for _, _, used in rows]),
        Family("machine_cpu_cores", "gauge", "Number of logical CPU cores.", [((), machine[0] / 1000, 0.0)]),
        Family("machine_memory_bytes", "gauge", "Amount of memory installed on the machine.", [((), machine[1], 0.0)]),
    ]  # fmt: skip


def agent(pods: Iterable[Pod], containers: Iterable[Measured], used: Mapping[str, float]) -> list[Family]:
    """The agent itself, with a kubelet's names where there are any; ``used``: seconds of CPU and bytes of memory."""
    running = sum(pod.status.phase == "Running" for pod in pods)
    return [
        Family("kubelet_running_pods", "gauge", "Number of pods that run", [((), running, 0.0)]),
        Family("kubelet_running_containers", "gauge", "Number of containers that run",
               [((("container_state", "running"),), len(list(containers)), 0.0)]),
        Family("process_cpu_seconds_total", "counter", "CPU time of the agent in seconds", [((), used["cpu"], 0.0)]),
        Family("process_resident_memory_bytes", "gauge", "Resident memory of the agent", [((), used["memory"], 0.0)]),
    ]  # fmt: skip
