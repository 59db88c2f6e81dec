"""Network namespaces: named ones as bind mounts in a directory, and doing things inside one.

``inside`` changes the namespace of the calling thread, so it belongs in worker threads; what is opened there (a socket)
stays in that namespace and may be used anywhere.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from polder.base.errors import PolderError

_CLONE_NEWNET = 0x40000000
_MS_BIND = 0x1000
_MNT_DETACH = 2
_NS_GET_NSTYPE = 0xB703
_THREAD_SELF = "/proc/thread-self/ns/net"
_libc = ctypes.CDLL(None, use_errno=True)
T = TypeVar("T")


class NetnsError(PolderError):
    """A network namespace could not be made, opened, entered or removed."""


class Netns:
    """An open namespace. Holding it keeps it alive; close it to let it go."""

    def __init__(self, fd: int, about: str) -> None:
        self.fd = fd
        self.about = about

    def close(self) -> None:
        """Let go; twice is once."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Netns:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_netns(path: Path | str) -> Netns:
    """The namespace at ``path``. NetnsError where there is none, also where a plain file stands (after a reboot)."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as exc:
        raise NetnsError(f"network namespace {path}: {exc.strerror}") from exc
    if not _is_netns(fd):
        os.close(fd)
        raise NetnsError(f"network namespace {path}: the file is no network namespace")
    return Netns(fd, str(path))


def own_netns() -> Netns:
    """The namespace of the calling thread."""
    return open_netns(_THREAD_SELF)


def is_netns(path: Path) -> bool:
    """Whether a network namespace stands at ``path``."""
    try:
        open_netns(path).close()
    except NetnsError:
        return False
    return True


def ensure_netns(path: Path) -> bool:
    """Have a namespace at ``path``; True if it was made now. A plain file left by a crash or reboot is used again."""
    if is_netns(path):
        return False
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.touch(mode=0o600)
    in_thread(lambda: _make(path))
    return True


def remove_netns(path: Path) -> None:
    """Take the name away; the kernel removes the namespace when the last process and socket in it is gone."""
    while _libc.umount2(os.fsencode(path), _MNT_DETACH) == 0:
        pass  # a crash between mount and report may have stacked two
    number = ctypes.get_errno()
    if number not in (errno.EINVAL, errno.ENOENT):
        raise NetnsError(f"network namespace {path}: unmounting failed: {os.strerror(number)}")
    path.unlink(missing_ok=True)


def list_netns(directory: Path) -> list[str]:
    """The names in ``directory``, those of plain files left by a crash too: they are ours to remove or to use again."""
    return sorted(entry.name for entry in os.scandir(directory)) if directory.is_dir() else []


@contextmanager
def inside(space: Netns, home: Netns) -> Iterator[None]:
    """Put the calling thread into ``space``, and back into ``home`` afterwards."""
    _enter(space)
    try:
        yield
    finally:
        _enter(home)


def run_inside(space: Netns, what: Callable[[], T]) -> T:
    """Do ``what`` in ``space``, in a thread of its own, and wait for it. For callers that must not move themselves."""

    def body() -> T:
        _enter(space)
        return what()

    return in_thread(body)


def in_thread(what: Callable[[], T]) -> T:
    """Do ``what`` in a new thread that ends afterwards, and wait for it; its exception is raised here."""
    result: list[T] = []
    failed: list[BaseException] = []

    def body() -> None:
        try:
            result.append(what())
        except BaseException as exc:  # noqa: BLE001 - carried over to the caller's thread
            failed.append(exc)

    thread = threading.Thread(target=body, name="netns")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return result[0]


def _make(path: Path) -> None:
    if _libc.unshare(_CLONE_NEWNET) != 0:
        raise NetnsError(f"network namespace {path}: unshare failed: {os.strerror(ctypes.get_errno())}")
    if _libc.mount(_THREAD_SELF.encode(), os.fsencode(path), b"none", _MS_BIND, None) != 0:
        raise NetnsError(f"network namespace {path}: mounting failed: {os.strerror(ctypes.get_errno())}")


def _enter(space: Netns) -> None:
    if _libc.setns(space.fd, _CLONE_NEWNET) != 0:
        raise NetnsError(f"network namespace {space.about}: entering failed: {os.strerror(ctypes.get_errno())}")


def _is_netns(fd: int) -> bool:
    try:
        return fcntl.ioctl(fd, _NS_GET_NSTYPE) == _CLONE_NEWNET
    except OSError:
        return False
