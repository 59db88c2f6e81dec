"""/version, health checks and metrics."""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aiohttp import web

from polder.api.errors import no_such_path
from polder.apiserver.answers import raw_answer, text_answer
from polder.apiserver.hooks import Call
from polder.apiserver.metrics import Metrics
from polder.apiserver.watches import Watches
from polder.store.protocol import Store, StoreError

_STORE_TIMEOUT = 2.0


@dataclass(slots=True)
class SystemPaths:
    """What the server says of itself."""

    store: Store
    watches: Watches
    metrics: Metrics
    git_version: str
    more: Callable[[], Sequence[str]]
    stopping: bool = False

    async def version(self, _: Call) -> web.StreamResponse:
        """``/version``."""
        major, minor = self.git_version.lstrip("v").split(".")[:2]
        return raw_answer(
            {
                "major": major,
                "minor": minor,
                "gitVersion": self.git_version,
                "gitCommit": "",
                "gitTreeState": "clean",
                "buildDate": "1970-01-01T00:00:00Z",
                "goVersion": f"python{platform.python_version()}",
                "compiler": platform.python_implementation().lower(),
                "platform": f"linux/{platform.machine()}",
            }
        )

    async def health(self, call: Call) -> web.StreamResponse:
        """``/healthz``, ``/livez``, ``/readyz`` and one check below them; ``?verbose`` lists the checks."""
        root, _, only = call.info.path.strip("/").partition("/")
        checks = {"ping": True, "store": await self._store_answers()}
        if root == "readyz":
            checks["shutdown"] = not self.stopping
        if only:
            if only not in checks:
                raise no_such_path()
            checks = {only: checks[only]}
        good = all(checks.values())
        if good and "verbose" not in call.query:
            return text_answer("ok")
        lines = [f"[+]{name} ok" if well else f"[-]{name} failed" for name, well in checks.items()]
        lines.append(f"{root} check {'passed' if good else 'failed'}")
        return text_answer("\n".join(lines) + "\n", 200 if good else 500)

    async def _store_answers(self) -> bool:
        try:
            async with asyncio.timeout(_STORE_TIMEOUT):
                await self.store.revision()
        except (StoreError, TimeoutError):
            return False
        return True

    async def prometheus(self, _: Call) -> web.StreamResponse:
        """``/metrics``."""
        gauges = {
            "polder_store_revision": await self.store.revision(),
            "polder_watches": self.watches.count,
        }
        answer = text_answer(self.metrics.text(gauges) + "".join(f"{line}\n" for line in self.more()))
        answer.headers["Content-Type"] = "text/plain; version=0.0.4; charset=utf-8"
        return answer
