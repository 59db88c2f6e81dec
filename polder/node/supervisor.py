"""The node's own containerd: started, found again, watched, stopped.

It runs in a session of its own and outlives the agent; the containers' shims outlive both. A pidfile with the process's
start time says which process is ours.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from polder.base.errors import PermanentError, RetryableError
from polder.node.orphans import remove_orphans, remove_traces, shim_sockets
from polder.system import process
from polder.system.containerd import (
    ContainerdPaths,
    Registry,
    check_paths,
    find_containerd,
    observe_host,
    program_environment,
    write_config,
)
from polder.system.cri import CriClient
from polder.system.cri_types import RuntimeFailureError
from polder.system.mounts import unmount_below
from polder.system.process import Command, ProcessId

log = logging.getLogger(__name__)

READY_SECONDS = 30.0
STOP_SECONDS = 10.0
FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0
STEADY = 60.0
"""Seconds of life after which containerd's next death counts as the first."""


@dataclass(frozen=True, slots=True)
class SupervisorSettings:
    """``enter`` is put before the command (for tests: to run containerd in another network namespace)."""

    paths: ContainerdPaths
    registries: Mapping[str, Registry] = field(default_factory=dict)
    enter: Sequence[str] = ()


class Supervisor:
    """Keeps one containerd running. ``up`` is set while it answers."""

    def __init__(self, settings: SupervisorSettings) -> None:
        self._settings = settings
        self._paths = settings.paths
        self._process: ProcessId | None = None
        self.up = asyncio.Event()
        self.reason = "containerd has not been started yet"
        """Why it is not up, in one sentence."""

    async def run(self) -> None:
        """Starts or adopts containerd and starts it again whenever it ends; until cancelled, and then it lives on."""
        delay = FIRST_WAIT
        while True:
            began = time.monotonic()
            try:
                running = await self.ensure()
                await process.wait_gone(running)
                self._down("containerd ended unexpectedly")
            except RetryableError as error:
                self._down(str(error))
            delay = FIRST_WAIT if time.monotonic() - began > STEADY else min(delay * 2, LONGEST_WAIT)
            log.warning("%s; it is started again in %.1f s; its output is in %s", self.reason, delay, self._paths.log)
            await asyncio.sleep(delay)

    def _down(self, reason: str) -> None:
        self.up.clear()
        self.reason = reason

    async def ensure(self) -> ProcessId:
        """A containerd that answers: the one that runs, or a new one.

        Raises PermanentError where it cannot run here, RetryableError where it did not answer in time, or where what an
        earlier one left could not be removed: things on the host come and go meanwhile.
        """
        check_paths(self._paths)
        found = self.find()
        if found is None:
            found = await asyncio.to_thread(self._start)
        self._process = found
        cri = CriClient(self._paths.socket)
        try:
            await self._wait_ready(found, cri)
            await remove_orphans(self._paths, cri)
        except RuntimeFailureError as error:
            raise RetryableError(f"containerd answered and then did not: {error}") from error
        except (OSError, subprocess.SubprocessError) as error:
            raise RetryableError(f"orphans of an earlier containerd were not removed: {error}") from error
        finally:
            await cri.close()
        self.up.set()
        self.reason = ""
        return found

    def find(self) -> ProcessId | None:
        """Our containerd, if it lives."""
        held = process.read_pidfile(self._paths.pidfile)
        if held is None:
            # The agent may have died between starting it and writing the pidfile.
            others = process.find_by_argument("containerd", str(self._paths.config))
            held = others[0] if others else None
            if held is not None:
                process.write_pidfile(self._paths.pidfile, held)
        return held if held is not None and process.alive(held) else None

    def _start(self) -> ProcessId:
        held = process.read_pidfile(self._paths.pidfile)
        if held is not None and held.boot != process.boot_id() and self._paths.state.exists():
            # The machine was booted anew: what is in here described mounts and processes of before.
            unmount_below(self._paths.state)
            shutil.rmtree(self._paths.state)
        facts = replace(observe_host(self._paths), registries=self._settings.registries)
        write_config(self._paths, facts)
        program = find_containerd()
        if program is None:
            raise PermanentError("containerd is needed and not found; install Debian's package containerd")
        command = [*self._settings.enter, program, "--config", str(self._paths.config)]
        started = process.start_detached(Command(command, self._paths.log, program_environment()))
        process.write_pidfile(self._paths.pidfile, started)
        return started

    async def _wait_ready(self, running: ProcessId, cri: CriClient) -> None:
        end = time.monotonic() + READY_SECONDS
        while True:
            try:
                # Not answered before containerd has found again what runs.
                await cri.list_sandboxes()
                return
            except RuntimeFailureError as error:
                if not process.alive(running):
                    process.reap(running.pid)
                    raise RetryableError("containerd ended while it started") from error
                if time.monotonic() > end:
                    raise RetryableError(f"containerd does not answer: {error}") from error
            await asyncio.sleep(0.02)

    async def stop(self) -> None:
        """Ends containerd alone; containers and their shims go on running."""
        found = self.find()
        if found is not None:
            await process.stop(found, STOP_SECONDS)
        self._paths.pidfile.unlink(missing_ok=True)
        self._down("containerd was stopped")

    async def destroy(self) -> None:
        """Ends containerd, whatever still runs under its shims, and takes away its mounts. Files stay."""
        sockets = shim_sockets(self._paths)
        await self.stop()
        for shim in process.find_by_argument("containerd", str(self._paths.base)):
            await process.stop(shim, STOP_SECONDS)
        await asyncio.to_thread(remove_traces, self._paths, sockets)
