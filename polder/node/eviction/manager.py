"""Looks every ten seconds at what is left of the node, and acts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from polder.api.core import Pod
from polder.api.meta import tenant_of
from polder.base.clock import Clock
from polder.node.eviction.images import ImageUse, surplus
from polder.node.eviction.kept import beyond, may_mend
from polder.node.eviction.ranking import Candidate, beyond_storage, choose, limits_storage, message
from polder.node.eviction.thresholds import (
    CONDITIONS,
    IMAGE_FS,
    IMAGE_INODES,
    MEMORY,
    NODE_FS,
    NODE_INODES,
    PIDS,
    RESOURCES,
    Amount,
    Threshold,
)
from polder.node.machine import MachineUse, observe_processes
from polder.node.stats.disk import Disk, DiskReport, Filesystem, PodDisk, filesystem
from polder.node.stats.sampler import Sampler
from polder.system.accounting import Accounting
from polder.system.cri_types import RuntimeFailureError

log = logging.getLogger(__name__)

EVERY = 10.0
COLLECT_EVERY = 300.0
"""Seconds between looks for images that nobody uses."""
AFTER = 30.0
"""Seconds that the end of a pod has to show, before another one is ended for the same reason."""


@dataclass(frozen=True, slots=True)
class EvictionSettings:
    """``transition``: seconds for which a condition stays after its reason is gone. Shares of the images' file system:
    above ``image_high`` unused images go until ``image_low`` is reached. ``memory``: the node's size in bytes.
    """

    thresholds: tuple[Threshold, ...]
    memory: int
    group: str
    transition: float = 300.0
    image_high: float = 0.85
    image_low: float = 0.80


@dataclass(frozen=True, slots=True)
class Sources:
    """Where it is looked: the machine, groups, disk; the pods that are here and how one is ended (uid, message)."""

    machine: Callable[[], MachineUse]
    accounting: Accounting
    sampler: Sampler
    disk: Disk
    images: ImageUse
    pods: Callable[[], Iterable[Pod]]
    evict: Callable[[str, str], bool]
    say: Callable[[str, str], None]
    """Notes an event about the node: (reason, message)."""


class Eviction:
    """``pressures`` says which conditions hold now."""

    def __init__(self, settings: EvictionSettings, sources: Sources, clock: Clock) -> None:
        self._settings = settings
        self._from = sources
        self._clock = clock
        self._since: dict[str, float] = {}
        """When each condition's reason was last there."""
        self._ended: dict[str, float] = {}
        self._collected = 0.0

    @property
    def pressures(self) -> frozenset[str]:
        """MemoryPressure, DiskPressure, PIDPressure, as far as they hold."""
        now = self._clock.monotonic()
        return frozenset(name for name, at in self._since.items() if now - at <= self._settings.transition)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.look()
            except (RuntimeFailureError, OSError) as error:
                log.info("the node's resources were not looked at: %s", error)
            await asyncio.sleep(EVERY)

    async def look(self) -> None:
        """One look. Raises RuntimeFailureError, OSError."""
        await self._hold_to_limits()
        found = await asyncio.to_thread(self._observe)
        met = [one for one in self._settings.thresholds if one.signal in found and one.is_met(found[one.signal])]
        now = self._clock.monotonic()
        for one in met:
            condition = CONDITIONS[one.signal]
            if condition not in self.pressures:
                self._from.say("EvictionThresholdMet", f"Attempting to reclaim {RESOURCES[one.signal]}")
            self._since[condition] = now
        for one in met:
            if await self._reclaim(one, found[one.signal]):
                break
        if not met and now - self._collected >= COLLECT_EVERY:
            self._collected = now
            await self._collect(found.get(IMAGE_FS, Amount(0, 0)))

    def _observe(self) -> dict[str, Amount]:
        use = self._from.machine()
        group = self._from.accounting.memory(self._settings.group)
        left = use.available if group is None else min(use.available, self._settings.memory - group.working_set)
        node, images = filesystem(self._from.disk.places.state), filesystem(self._from.disk.places.images)
        return {
            MEMORY: Amount(self._settings.memory, max(0, left)),
            **_of(node, NODE_FS, NODE_INODES),
            **_of(images, IMAGE_FS, IMAGE_INODES),
            PIDS: self._processes(),
        }

    def _processes(self) -> Amount:
        """The machine's, or those that the node's pods may have together, whichever are scarcer: a few pods can have all of these
        long before the machine has none.
        """
        threads, most = observe_processes()
        machine, group = Amount(most, most - threads), self._settings.group
        now, limit = self._from.accounting.processes(group), self._from.accounting.process_limit(group)
        if now is None or not limit:
            return machine
        return min(machine, Amount(limit, max(0, limit - now)), key=lambda one: one.available / one.capacity)

    async def _collect(self, images: Amount) -> None:
        """Removes unused images where too many are there."""
        wanted = surplus(images, self._settings.image_high, self._settings.image_low)
        if wanted:
            freed = await self._from.images.free(wanted)
            if freed < wanted:
                words = f"Failed to garbage collect required amount of images. Attempted to free {wanted} bytes, "
                self._from.say("FreeDiskSpaceFailed", f"{words}but only found {freed} bytes eligible to free.")
        else:
            await self._from.images.unused()  # so that it is known since when

    async def _reclaim(self, threshold: Threshold, found: Amount) -> bool:
        """One step against a shortage: first what nobody uses, else one pod, and time for that to show. Whether one was made:
        a shortage that waits, or that no pod's end mends, keeps none of the others from being mended.
        """
        now, condition = self._clock.monotonic(), CONDITIONS[threshold.signal]
        wanted = threshold.quantity(found.capacity)
        if threshold.signal in (NODE_FS, IMAGE_FS) and await self._from.images.free(wanted - found.available):
            return True
        if now - self._ended.get(condition, -AFTER) < AFTER:
            return False
        victim = choose(await self._candidates(threshold.signal, wanted - found.available), RESOURCES[threshold.signal])
        if victim is None:
            log.warning("%s: there is no pod that may be ended", condition)
            return False
        words = message(victim, threshold.signal, wanted, found.available)
        ended = self._from.evict(victim.pod.metadata.uid, words)
        if ended:
            self._ended[condition] = now
        return ended

    async def _candidates(self, signal: str, missing: int) -> Sequence[Candidate]:
        pods = [pod for pod in self._from.pods() if pod.status.phase not in {"Succeeded", "Failed"}]
        used: dict[str, dict[str, int]] = {}
        if signal == MEMORY:
            await self._from.sampler.measure()
            for one in self._from.sampler.containers():
                if one.last is not None:
                    used.setdefault(one.uid, {})[one.name] = one.last.memory.working_set
        elif signal == PIDS:
            for one in self._from.sampler.containers():
                used.setdefault(one.uid, {})[one.name] = self._from.accounting.processes(one.group) or 0
        else:
            return await self._on_disk(pods, signal in (NODE_INODES, IMAGE_INODES), missing)
        found = [(pod, used.get(pod.metadata.uid, {})) for pod in pods]
        return [Candidate(pod, sum(parts.values()), parts) for pod, parts in found if parts]

    async def _on_disk(self, pods: list[Pod], by_number: bool, missing: int) -> Sequence[Candidate]:
        report, kept = await self._from.disk.report(), await self._from.disk.kept()
        tenants = {tenant_of(pod.metadata) for pod in pods} | {one.tenant for one in kept}
        more = beyond(kept, report.node, by_number, len(tenants), {pod.metadata.uid for pod in pods})
        of = _inodes if by_number else _bytes
        known = [pod for pod in pods if pod.metadata.uid in report.pods]
        found = [of(pod, report, more.of_pods.get(pod.metadata.uid, 0)) for pod in known]
        return may_mend(found, more.of_tenants, missing)

    async def _hold_to_limits(self) -> None:
        """Ends pods that use more of the disk than their limits of ephemeral-storage."""
        limited = [pod for pod in self._from.pods() if limits_storage(pod)]
        limited = [pod for pod in limited if pod.status.phase not in {"Succeeded", "Failed"}]
        if not limited:
            return
        report = await self._from.disk.report()
        for pod in limited:
            held = report.pods.get(pod.metadata.uid, PodDisk())
            names = held.written.keys() | held.logs.keys()
            words = beyond_storage(pod, {name: held.container(name) for name in names}, held.total)
            if words:
                self._from.evict(pod.metadata.uid, words)


def _of(found: Filesystem, space: str, inodes: str) -> Mapping[str, Amount]:
    return {space: Amount(found.capacity, found.available), inodes: Amount(found.inodes, found.inodes_free)}


def _bytes(pod: Pod, report: DiskReport, kept: int) -> Candidate:
    held = report.pods[pod.metadata.uid]
    names = held.written.keys() | held.logs.keys()
    return Candidate(pod, held.total + kept, {name: held.container(name) for name in names}, kept)


def _inodes(pod: Pod, report: DiskReport, kept: int) -> Candidate:
    """By number: empty files take no space, and whoever has most of them is not who has most bytes."""
    held = report.pods[pod.metadata.uid]
    return Candidate(pod, held.inodes + kept, {name: one.inodes for name, one in held.written.items()}, kept)
