"""The pages of a node that are about what it uses: ``stats/summary``, ``metrics``, ``metrics/resource``,
``metrics/cadvisor`` and ``configz``, by paths as kubelets have them.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from polder.api.core import Pod
from polder.api.meta import Raw
from polder.node.machine import observe_booted, observe_processes
from polder.node.pages import Page, Show
from polder.node.stats import prometheus
from polder.node.stats.disk import Disk, DiskReport
from polder.node.stats.sampler import Sampler
from polder.node.stats.summary import Found, summary
from polder.system.cri_types import RuntimeFailureError

TEXT = "text/plain; version=0.0.4; charset=utf-8"
JSON = "application/json"
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class StatsPages:
    """Makes them. ``size``: CPUs in thousandths, bytes of memory; ``configuration`` is shown as it is: no secrets in it."""

    node: str
    size: tuple[int, int]
    sampler: Sampler
    disk: Disk
    pods: Callable[[], Sequence[Pod]]
    configuration: Raw

    def pages(self) -> Mapping[str, Show]:
        """By path."""
        return {
            "stats/summary": self._summary,
            "metrics": self._text(self._agent),
            "metrics/resource": self._text(self._resource),
            "metrics/cadvisor": self._text(self._cadvisor),
            "configz": self._configz,
        }

    def _by_uid(self) -> dict[str, Pod]:
        return {pod.metadata.uid: pod for pod in self.pods()}

    async def _disk(self) -> DiskReport:
        """Nothing of it where the runtime does not answer: the rest can be told all the same."""
        try:
            return await self.disk.report()
        except (RuntimeFailureError, OSError):
            return DiskReport()

    async def _summary(self, query: Mapping[str, str]) -> Page:
        del query
        disk = await self._disk()
        found = Found(
            self.node,
            observe_booted(),
            self.sampler.machine,
            observe_processes(),
            list(self.sampler.containers()),
            disk,
            self.pods(),
        )
        return Page(orjson.dumps(summary(found), option=orjson.OPT_INDENT_2), JSON)

    @staticmethod
    def _text(make: Callable[[], Awaitable[Sequence[prometheus.Family]]]) -> Show:
        async def show(query: Mapping[str, str]) -> Page:
            del query
            return Page(prometheus.text_of(await make()), TEXT)

        return show

    async def _resource(self) -> Sequence[prometheus.Family]:
        return prometheus.resource(self.sampler.containers(), self._by_uid(), self.sampler.machine[0])

    async def _cadvisor(self) -> Sequence[prometheus.Family]:
        return prometheus.cadvisor(self.sampler.containers(), self._by_uid(), await self._disk(), self.size)

    async def _agent(self) -> Sequence[prometheus.Family]:
        used = resource.getrusage(resource.RUSAGE_SELF)
        pages = _resident_pages()
        spent = {"cpu": used.ru_utime + used.ru_stime, "memory": float(pages * _PAGE)}
        return prometheus.agent(self.pods(), self.sampler.containers(), spent)

    async def _configz(self, query: Mapping[str, str]) -> Page:
        del query
        return Page(orjson.dumps({"kubeletconfig": self.configuration}), JSON)


def _resident_pages() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1])
