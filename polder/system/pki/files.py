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
