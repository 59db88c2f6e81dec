"""``/stats/summary`` as kubelets answer it (stats/v1alpha1), from what the sampler and the disk measured. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from polder.api.core import Pod
from polder.api.meta import TENANT_ANNOTATION, Raw, tenant_of
from polder.base.clock import stamp
from polder.base.ids import ROOT
from polder.node.machine import MachineUse
from polder.node.stats.disk import DiskReport, Filesystem, PodDisk
from polder.node.stats.sampler import Measured
from polder.system.accounting import MemoryUse
from polder.system.cri_types import DiskUse


@dataclass(frozen=True, slots=True)
class Found:
    """What a summary is made of. ``machine``: the last reading and the one before it; ``booted`` in seconds since the epoch."""

    node: str
    booted: float
    machine: tuple[MachineUse | None, MachineUse | None]
    processes: tuple[int, int]
    containers: Iterable[Measured]
    disk: DiskReport
    pods: Iterable[Pod]


def _time(at: float) -> str:
    return stamp(datetime.fromtimestamp(at, UTC))


def _cpu(at: float, total: int, rate: int | None) -> Raw:
    found: Raw = {"time": _time(at), "usageCoreNanoSeconds": total}
    return found if rate is None else {**found, "usageNanoCores": rate}


def _memory(at: float, use: MemoryUse) -> Raw:
    return {
        "time": _time(at),
        "usageBytes": use.usage,
        "workingSetBytes": use.working_set,
        "rssBytes": use.rss,
        "pageFaults": use.faults,
        "majorPageFaults": use.major_faults,
    }


def _fs(at: float, of: Filesystem, used: int, inodes: int | None = None) -> Raw:
    shown: Raw = {
        "time": _time(at),
        "availableBytes": of.available,
        "capacityBytes": of.capacity,
        "usedBytes": used,
        "inodesFree": of.inodes_free,
        "inodes": of.inodes,
    }
    return shown if inodes is None else {**shown, "inodesUsed": inodes}


def _node(found: Found) -> Raw:
    disk, (now, before) = found.disk, found.machine
    used, shown = disk.node.capacity - disk.node.available, disk.node.inodes - disk.node.inodes_free
    node: Raw = {
        "nodeName": found.node,
        "startTime": _time(found.booted),
        "fs": _fs(disk.at, disk.node, used, shown),
        "runtime": {
            "imageFs": _fs(disk.at, disk.images, disk.images_used),
            "containerFs": _fs(disk.at, disk.images, sum(_written(pod) for pod in disk.pods.values())),
        },
        "rlimit": {"time": _time(disk.at), "maxpid": found.processes[1], "curproc": found.processes[0]},
    }
    if now is not None:
        window = now.at - before.at if before is not None else 0.0
        rate = int((now.cpu - before.cpu) / window) if before is not None and window > 0 else None
        node["cpu"] = _cpu(now.at, now.cpu, rate)
        node["memory"] = {
            "time": _time(now.at),
            "availableBytes": now.available,
            "usageBytes": now.memory,
            "workingSetBytes": now.working_set,
        }
    return node


def _written(pod: PodDisk) -> int:
    return sum(use.used for use in pod.written.values())


def _container(one: Measured, disk: DiskReport, pod: PodDisk) -> Raw:
    assert one.last is not None
    rate, use = one.rate(), pod.written.get(one.name, DiskUse())
    return {
        "name": one.name,
        "startTime": _time(one.began),
        "cpu": _cpu(one.last.at, one.last.cpu, rate[0] if rate else None),
        "memory": _memory(one.last.at, one.last.memory),
        "rootfs": _fs(disk.at, disk.images, use.used, use.inodes),
        "logs": _fs(disk.at, disk.node, pod.logs.get(one.name, 0)),
    }


def _pod(pod: Pod, containers: list[Measured], disk: DiskReport) -> Raw:
    meta, used = pod.metadata, disk.pods.get(pod.metadata.uid, PodDisk())
    reference = {"name": meta.name, "namespace": meta.namespace, "uid": meta.uid}
    tenant = tenant_of(meta)
    shown = [_container(one, disk, used) for one in containers if one.last is not None]
    body: Raw = {
        "podRef": reference if tenant == ROOT else {**reference, TENANT_ANNOTATION: tenant},
        "startTime": pod.status.start_time,
        "containers": shown,
        "volume": [{**_fs(disk.at, disk.node, size), "name": name} for name, size in sorted(used.volumes.items())],
        "ephemeral-storage": _fs(disk.at, disk.node, used.total),
    }
    known = [(one, one.last) for one in containers if one.last is not None]
    if known:
        at = max(last.at for _, last in known)
        rates = [rate[0] for one, _ in known if (rate := one.rate()) is not None]
        uses = [last.memory for _, last in known]
        total = MemoryUse(*(sum(values) for values in zip(*(_figures(use) for use in uses), strict=True)))
        whole = sum(rates) if len(rates) == len(known) else None
        body["cpu"], body["memory"] = _cpu(at, sum(last.cpu for _, last in known), whole), _memory(at, total)
    return body


def _figures(use: MemoryUse) -> tuple[int, ...]:
    return use.usage, use.working_set, use.rss, use.faults, use.major_faults


def summary(found: Found) -> Raw:
    """The document. Pods of tenants carry in their reference whose they are: names of several tenants may be the same."""
    by_pod: dict[str, list[Measured]] = {}
    for one in found.containers:
        by_pod.setdefault(one.uid, []).append(one)
    running = [pod for pod in found.pods if pod.status.phase not in {"Succeeded", "Failed"}]
    return {
        "node": _node(found),
        "pods": [_pod(pod, by_pod.get(pod.metadata.uid, []), found.disk) for pod in running],
    }
