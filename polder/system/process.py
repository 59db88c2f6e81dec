"""Processes that outlive their maker: started detached, found again by pid and start time, ended by identity only."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from polder.base.errors import PermanentError


class ProcessId(msgspec.Struct, frozen=True):
    """One process and no other: a pid is used again, a pid with its start time and boot is not.

    ``start`` is field 22 of /proc/PID/stat (clock ticks since boot, proc(5)), ``boot`` the kernel's boot id.
    """

    pid: int
    start: int
    boot: str


@dataclass(frozen=True, slots=True)
class Command:
    """What to start: arguments, the file that takes its output, and its environment (None: ours)."""

    argv: Sequence[str]
    log: Path
    env: Mapping[str, str] | None = None


def boot_id() -> str:
    """The kernel's identity of this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def start_time(pid: int) -> int | None:
    """When the process started, in clock ticks since boot; None if there is none or it is a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name in parentheses may itself hold blanks and parentheses: count from the last one.
    fields = stat[stat.rindex(")") + 2 :].split()
    return None if fields[0] in {"Z", "X"} else int(fields[19])


def identify(pid: int) -> ProcessId | None:
    """The identity of a living process."""
    start = start_time(pid)
    return None if start is None else ProcessId(pid, start, boot_id())


def alive(process: ProcessId) -> bool:
    """Whether exactly this process lives."""
    return process.boot == boot_id() and start_time(process.pid) == process.start


def start_detached(command: Command) -> ProcessId:
    """Starts a process in a session of its own, so that it outlives us; its output is appended to the log."""
    command.log.parent.mkdir(parents=True, exist_ok=True)
    with command.log.open("ab") as log:
        child = subprocess.Popen(
            list(command.argv),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=None if command.env is None else dict(command.env),
            start_new_session=True,
        )
    # Popen would warn when collected while the child lives; it is waited for by pid in reap().
    child.returncode = 0
    found = identify(child.pid)
    if found is None:
        reap(child.pid)
        raise PermanentError(f"{command.argv[0]} ended at once; its output is in {command.log}")
    return found


def reap(pid: int) -> None:
    """Collects a child that ended; does nothing for a process that is no child of ours."""
    with suppress(ChildProcessError):  # adopted: somebody else's child
        os.waitpid(pid, os.WNOHANG)


def send(process: ProcessId, number: signal.Signals) -> bool:
    """Signals exactly this process; False if it is gone."""
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    try:
        if not alive(process):
            return False
        signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)
    return True


async def wait_gone(process: ProcessId) -> None:
    """Returns when the process has ended, whoever its parent is."""
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        if not alive(process):
            return
        loop = asyncio.get_running_loop()
        gone = asyncio.Event()
        loop.add_reader(handle, gone.set)
        try:
            await gone.wait()
        finally:
            loop.remove_reader(handle)
    finally:
        os.close(handle)
        reap(process.pid)


async def stop(process: ProcessId, grace: float) -> None:
    """Ends the process: SIGTERM, then after ``grace`` seconds SIGKILL; returns when it is gone."""
    if not send(process, signal.SIGTERM):
        reap(process.pid)
        return
    try:
        async with asyncio.timeout(grace):
            await wait_gone(process)
    except TimeoutError:
        send(process, signal.SIGKILL)
        await wait_gone(process)


def write_pidfile(path: Path, process: ProcessId) -> None:
    """Stores an identity, whole or not at all."""
    draft = path.with_suffix(".new")
    draft.write_bytes(msgspec.json.encode(process))
    draft.rename(path)


def read_pidfile(path: Path) -> ProcessId | None:
    """The stored identity; None if there is none that can be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=ProcessId)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def arguments(process: ProcessId) -> list[str]:
    """A process's command line; empty if it is gone."""
    try:
        line = Path(f"/proc/{process.pid}/cmdline").read_bytes()
    except OSError:
        return []
    return [os.fsdecode(argument) for argument in line.split(b"\0")]


def find_by_argument(program: str, within: str) -> list[ProcessId]:
    """Processes whose program's name starts with ``program`` and one of whose arguments names something below ``within``
    (containerd and its shims carry their state directory's paths).
    """
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            argv = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue  # it ended meanwhile
        name = Path(os.fsdecode(argv[0])).name
        inside = any(_is_below(os.fsdecode(argument), within) for argument in argv[1:])
        process = identify(int(entry.name)) if name.startswith(program) and inside else None
        found += [process] if process is not None else []
    return found


def _is_below(argument: str, directory: str) -> bool:
    return argument == directory or argument.startswith(directory.rstrip("/") + "/")
