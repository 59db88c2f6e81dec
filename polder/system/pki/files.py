"""Private files, and a leaf as two of them."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from polder.base.errors import PermanentError


class PkiError(PermanentError):
    """A certificate, request or key that cannot be read or used."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """A certificate and its private key, PEM."""

    certificate: bytes
    key: bytes = field(repr=False)

    def write(self, certificate: Path, key: Path) -> None:
        """Writes both files, 0600, each atomically; the key first."""
        write_private(key, self.key)
        write_private(certificate, self.certificate)

    def replace(self, certificate: Path, key: Path) -> None:
        """Takes the place of a pair that is in use: whenever this is cut short, ``settle_pair`` finds a pair that fits."""
        write_private(_next(key), self.key)
        write_private(_next(certificate), self.certificate)
        settle_pair(certificate, key)


def settle_pair(certificate: Path, key: Path) -> None:
    """Ends a ``Leaf.replace`` that was cut short: both new files are there, or the certificate's turn comes, or it had not
    been written yet. Idempotent.
    """
    if _next(certificate).exists():
        if _next(key).exists():
            _next(key).replace(key)
        _next(certificate).replace(certificate)
    else:
        _next(key).unlink(missing_ok=True)


def _next(path: Path) -> Path:
    return path.with_name(f"{path.name}.next")


def write_private(path: Path, content: bytes) -> None:
    """Replaces ``path`` with ``content``, mode 0600, durable, never seen half written."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
