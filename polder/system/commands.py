"""The host's own programs, for rare set-up where a command says it best. Never on a hot path."""

from __future__ import annotations

import subprocess
from pathlib import Path

from polder.base.errors import PolderError


class HostError(PolderError):
    """A program of the host failed."""


def run(*args: str, stdin: str = "", timeout: float = 60.0) -> str:
    """Runs a program to its end and returns what it printed. Raises HostError with its last words."""
    try:
        done = subprocess.run(args, input=stdin, capture_output=True, text=True, timeout=timeout, check=False)
    except FileNotFoundError as error:
        raise HostError(f"{args[0]} is not installed: run `make up`, which installs what is missing") from error
    except subprocess.TimeoutExpired as error:
        raise HostError(f"{' '.join(args)} did not end within {timeout:.0f} s") from error
    if done.returncode != 0:
        words = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise HostError(f"{' '.join(args)} failed: {words[-1] if words else f'exit code {done.returncode}'}")
    return done.stdout


def succeeds(*args: str) -> bool:
    """Whether a program ends with exit code 0."""
    try:
        run(*args)
    except HostError:
        return False
    return True


def inside(netns: Path, *args: str) -> tuple[str, ...]:
    """The command that runs ``args`` in a network namespace, and nothing else changed (``ip netns exec`` would remount
    /sys and hide the cgroups).
    """
    return ("nsenter", f"--net={netns}", *args)


def read_sysctl(path: str) -> str:
    """A kernel setting of this process's namespaces, by its path below /proc/sys."""
    return Path("/proc/sys", path).read_text().strip()


def write_sysctl(path: str, value: str) -> None:
    """Sets it. Raises HostError."""
    try:
        Path("/proc/sys", path).write_text(value)
    except OSError as error:
        raise HostError(f"sysctl {path} = {value}: {error.strerror}") from error
