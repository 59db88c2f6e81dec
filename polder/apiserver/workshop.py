"""Work that takes longer than a turn of the event loop, in processes of its own: checking large schemas and costly rules.

A process is started when there is work and ends when there was none for a while. It has bounded memory, and what takes too
long ends with it. Each tenant has one piece of work at a time, so that one who has much holds up nobody else's for longer
than one piece takes.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from dataclasses import dataclass, field
from typing import Any, Final
from weakref import WeakValueDictionary

import orjson

from polder.api.crd import CustomVersion, Verdict
from polder.api.errors import ApiError, FieldError, FieldErrorType
from polder.api.meta import Raw
from polder.apiserver.fairness import away

log = logging.getLogger(__name__)

PROCESSES: Final = 2
SECONDS: Final = 15.0
"""What one piece of work may take."""
IDLE: Final = 60.0
"""Seconds without work after which a process ends."""
ANSWER_LIMIT: Final = 16 * 1024 * 1024
_PROGRAM: Final = ("-m", "polder.apiserver.workbench")


def problem_of(row: list[Any]) -> FieldError:
    """A field's error as it comes from the other process."""
    return FieldError(FieldErrorType[row[0]], row[1], row[2], row[3])


@dataclass(slots=True)
class _Bench:
    """One process."""

    process: asyncio.subprocess.Process

    async def run(self, job: bytes) -> bytes:
        """The answer to a piece of work. Raises OSError, asyncio.IncompleteReadError when the process ends over it."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(len(job).to_bytes(4, "big") + job)
        await self.process.stdin.drain()
        size = int.from_bytes(await self.process.stdout.readexactly(4), "big")
        if size > ANSWER_LIMIT:
            raise OSError(f"an answer of {size} bytes")
        return await self.process.stdout.readexactly(size)

    async def end(self) -> None:
        """Ends the process."""
        if self.process.returncode is None:
            try:
                self.process.kill()
            except ProcessLookupError:
                log.debug("the process has just ended")
        await self.process.wait()


@dataclass(slots=True)
class Workshop:
    """Runs pieces of work elsewhere."""

    seconds: float = SECONDS
    idle: float = IDLE
    _turns: asyncio.Semaphore | None = None
    _free: list[_Bench] = field(default_factory=list)
    _locks: WeakValueDictionary[str, asyncio.Lock] = field(default_factory=WeakValueDictionary)
    _sweep: asyncio.TimerHandle | None = None
    _ending: set[asyncio.Task[None]] = field(default_factory=set)

    async def check_object(self, version: CustomVersion, obj: Raw, old: Raw | None, subresource: str) -> Verdict:
        """``CustomVersion.validate`` without a bound on its turn. Raises ApiError 422."""
        of = version.kind
        kind = [of.group, of.version, of.kind, of.plural, of.singular, of.namespaced]
        paths = version.scale
        scale = [paths.spec, paths.status, paths.selector] if paths is not None else None
        job = {"obj": obj, "old": old, "subresource": subresource, "kind": kind, "scale": scale}
        found = await self._run(version.owner, "object", {**job, "text": version.text.decode()})
        return Verdict([problem_of(row) for row in found["problems"]], tuple(found["warnings"]))

    async def prune_object(self, version: CustomVersion, obj: Raw) -> tuple[Raw, tuple[str, ...]]:
        """``CustomVersion.prune`` without a bound on its turn. Raises ApiError 422."""
        found = await self._run(version.owner, "prune", {"obj": obj, "text": version.text.decode()})
        return found["obj"], tuple(found["unknown"])

    async def check_definition(self, tenant: str, new: Raw, old: Raw | None) -> list[FieldError]:
        """What is wrong with a definition. Raises ApiError 422."""
        found = await self._run(tenant, "definition", {"new": new, "old": old})
        return [problem_of(row) for row in found["problems"]]

    async def _run(self, tenant: str, name: str, job: Raw) -> Raw:
        lock = self._locks.setdefault(tenant, asyncio.Lock())
        if self._turns is None:
            self._turns = asyncio.Semaphore(PROCESSES)
        body = orjson.dumps({"job": name, **job})
        async with away(), lock, self._turns:
            answer = await self._attempt(body)
        found: Raw = orjson.loads(answer)
        if "error" in found:
            said = found["error"]
            raise ApiError(said["code"], said["reason"], said["message"], said["details"])
        return found

    async def _attempt(self, body: bytes) -> bytes:
        self._free = [bench for bench in self._free if bench.process.returncode is None]
        bench = self._free.pop() if self._free else await self._start()
        try:
            async with asyncio.timeout(self.seconds):
                answer = await bench.run(body)
        except (TimeoutError, OSError, asyncio.IncompleteReadError) as error:
            await bench.end()
            why = (
                f"checking the object against its definition took more than {self.seconds:g} seconds or too much memory"
            )
            log.warning("a piece of work of %d bytes was given up: %r", len(body), error)
            raise ApiError(422, "Invalid", why) from error
        except BaseException:
            await bench.end()
            raise
        self._free.append(bench)
        self._later()
        return answer

    async def _start(self) -> _Bench:
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            sys.executable, *_PROGRAM, stdin=pipe, stdout=pipe, limit=ANSWER_LIMIT
        )
        return _Bench(process)

    def _later(self) -> None:
        """Ends what stays without work."""
        if self._sweep is not None:
            self._sweep.cancel()
        self._sweep = asyncio.get_running_loop().call_later(self.idle, self._end_free)

    def _end_free(self) -> None:
        self._sweep = None
        for bench in self._free:
            task = asyncio.ensure_future(bench.end())
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)
        self._free.clear()

    async def close(self) -> None:
        """Ends every process."""
        if self._sweep is not None:
            self._sweep.cancel()
        self._end_free()
        await asyncio.gather(*self._ending, return_exceptions=True)
