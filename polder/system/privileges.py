"""Giving up rights: for a process that handles what strangers send."""

from __future__ import annotations

import ctypes
import os
import resource

from polder.base.errors import PermanentError

_NOBODY = 65534
_NO_NEW_PRIVS = 38
_libc = ctypes.CDLL(None, use_errno=True)


def limit_memory(data: int, files: int) -> None:
    """Bounds the process: bytes of private memory, open files (setrlimit(2)). What the host allows less of stays less."""
    for kind, wanted in ((resource.RLIMIT_DATA, data), (resource.RLIMIT_NOFILE, files)):
        _, hard = resource.getrlimit(kind)
        allowed = wanted if hard == resource.RLIM_INFINITY or os.geteuid() == 0 else min(wanted, hard)
        resource.setrlimit(kind, (allowed, allowed))


def drop_privileges() -> None:
    """Become nobody, without capabilities and without a way back (capabilities(7), prctl(2)); nothing where we are not root.
    Raises PermanentError: going on with rights would be worse than not going on.
    """
    if os.geteuid() != 0:
        return
    if _libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise PermanentError(f"rights cannot be given up: {os.strerror(ctypes.get_errno())}")
    try:
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    except OSError as error:
        raise PermanentError(f"rights cannot be given up: {error.strerror}") from error
