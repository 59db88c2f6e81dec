"""What a killed containerd leaves behind: tasks that it was just making.

It finds the others again by itself. Of these it keeps at most a sandbox that is not ready, whose removal leaves process,
shim, mounts and socket in place for ever, and with them cgroup and network namespace (seen with containerd 1.6).
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

from polder.base.errors import PermanentError, RetryableError
from polder.system import process
from polder.system.containerd import CONTAINERS, SEARCH_PATH, ContainerdPaths, find_ctr
from polder.system.cri import CriClient
from polder.system.mounts import unmount, unmount_below

log = logging.getLogger(__name__)

SECONDS = 20
SETTLED = 10.0
"""Seconds after which a socket that nobody listens on is nobody's."""
SHARED = (Path("/run/containerd/s"), Path("/run/containerd"))
"""Where shims of every containerd on the machine put their sockets; no setting changes that in containerd 1.6."""


def _bundles(paths: ContainerdPaths) -> list[Path]:
    """The directories of all tasks."""
    return [e for e in _entries(paths.state / "io.containerd.runtime.v2.task" / CONTAINERS) if e.is_dir()]


async def remove_orphans(paths: ContainerdPaths, cri: CriClient) -> list[str]:
    """Ends tasks and network namespaces that are older than the running containerd, which must have found its own again,
    and that it does not know; answers the tasks' ids. Raises RetryableError or RuntimeFailureError where it does not say.
    """
    lost = await asyncio.to_thread(_remove_tasks, paths)
    await _remove_namespaces(paths, cri)
    return lost


async def _remove_namespaces(paths: ContainerdPaths, cri: CriClient) -> None:
    began = paths.pidfile.stat().st_mtime
    old = [entry for entry in _entries(paths.netns) if entry.stat().st_mtime < began]
    if not old:
        return
    details = [await cri.sandbox_details(sandbox.id) for sandbox in await cri.list_sandboxes()]
    for entry in old:
        # The path stands in the sandbox's OCI spec, inside the runtime's own JSON.
        if not any(str(entry) in text for text in details):
            log.info("network namespace %s belongs to no sandbox: it is removed", entry.name)
            unmount(entry)
            entry.unlink(missing_ok=True)


def _entries(directory: Path) -> list[Path]:
    return list(directory.iterdir()) if directory.is_dir() else []


def _remove_tasks(paths: ContainerdPaths) -> list[str]:
    began = paths.pidfile.stat().st_mtime
    old = [bundle for bundle in _bundles(paths) if bundle.stat().st_mtime < began]
    if not old:
        return []
    known = _known_tasks(paths)
    lost = [bundle for bundle in old if bundle.name not in known]
    for bundle in lost:
        log.info("task %s was only half made when containerd died: it is ended", bundle.name)
        _remove_task(paths, bundle)
    return [bundle.name for bundle in lost]


def _known_tasks(paths: ContainerdPaths) -> set[str]:
    program = find_ctr()
    if program is None:
        raise PermanentError("ctr, containerd's own client, is needed and not found; install Debian's containerd")
    command = [program, "--address", str(paths.socket), "--namespace", CONTAINERS, "tasks", "list", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    if done.returncode != 0:
        raise RetryableError(f"containerd does not list its tasks: {done.stderr.strip()}")
    return set(done.stdout.split())


def _remove_task(paths: ContainerdPaths, bundle: Path) -> None:
    shims = _shims(paths, bundle.name)
    for shim in shims:
        # Before its container, lest it tells containerd of an end that nobody waits for.
        process.send(shim, signal.SIGKILL)
    runc = ["runc", "--root", str(paths.state / "runc" / CONTAINERS), "delete", "--force", bundle.name]
    done = subprocess.run(runc, capture_output=True, text=True, timeout=SECONDS, check=False, env={"PATH": SEARCH_PATH})
    if done.returncode != 0 and "does not exist" not in done.stderr:
        log.warning("runc delete %s: %s", bundle.name, done.stderr.strip())
    _remove_socket(bundle)
    unmount_below(bundle)
    shutil.rmtree(bundle, ignore_errors=True)
    shutil.rmtree(paths.root / "io.containerd.runtime.v2.task" / CONTAINERS / bundle.name, ignore_errors=True)


def _shims(paths: ContainerdPaths, task: str) -> Iterable[process.ProcessId]:
    found = process.find_by_argument("containerd-shim", str(paths.base))
    return [shim for shim in found if task in process.arguments(shim)]


def _remove_socket(bundle: Path) -> None:
    try:
        address = (bundle / "address").read_text().strip()
    except OSError:
        return  # it had none yet, or its shim is one that took it away itself
    place = Path(address.removeprefix("unix://"))
    if place.parent == SHARED[0]:
        place.unlink(missing_ok=True)


def shim_sockets(paths: ContainerdPaths) -> list[Path]:
    """The sockets of all shims that run now, for ``remove_traces`` when they do no more."""
    found = []
    for bundle in _bundles(paths):
        try:
            found.append(Path((bundle / "address").read_text().strip().removeprefix("unix://")))
        except OSError:
            continue  # it has none yet
    return [place for place in found if place.parent == SHARED[0]]


def remove_traces(paths: ContainerdPaths, sockets: Iterable[Path] = ()) -> None:
    """When containerd and all shims are gone for good: sockets outside the state directory, and all mounts in it.

    Shims that were killed leave their sockets. Which those are that nobody listens on is seen, whoever's they were.
    """
    unmount_below(paths.base)
    for place in sockets:
        place.unlink(missing_ok=True)
    for entry in _entries(SHARED[0]):
        if _is_abandoned(entry):
            entry.unlink(missing_ok=True)
    for directory in (SHARED[0], SHARED[1] / "fifo", SHARED[1]):
        try:
            directory.rmdir()
        except OSError:
            continue  # another containerd uses it, or it is gone


def _is_abandoned(entry: Path) -> bool:
    try:
        if time.time() - entry.stat().st_mtime < SETTLED:
            return False  # its owner may be about to listen
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(entry))
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return False
