"""Who may use an image that is on the node: whoever showed the registry a right to it (KEP-2535), remembered on disk.

An image that this node pulled with credentials is for those who present ones that the registry accepted once; anybody else has
to pull it again and be let in by the registry. What was imported, or was pulled without credentials, is for everybody. Only
keyed digests of tenant and credentials are kept. A pull is noted before it begins, so that an agent that dies in between
does not take the image for one that was imported.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from polder.node.keyring import Login

MANY = 256
"""Credentials that are remembered for one image; the oldest are forgotten, and pull again."""


class ImageAccess:
    """The records, a small file for each image that was pulled. Everything here reads or writes a file."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._key: bytes | None = None

    def begin(self, reference: str) -> None:
        """A pull is about to begin. Raises OSError."""
        self._write(self._intent(reference), {})

    def allowed(self, image: str, reference: str, tenant: str, logins: Sequence[Login]) -> bool:
        """Whether an image that is here may be used under a reference by who has these credentials."""
        record = self._read(self._record(image))
        if record is None:
            return not self._intent(reference).exists()
        if record.get("open") is True:
            return True
        known = set(record.get("proofs") or ())
        return any(self._proof(tenant, login) in known for login in logins)

    def grant(self, image: str, reference: str, tenant: str, login: Login | None) -> None:
        """The registry gave the image to this login; None: to anybody. Raises OSError."""
        record = self._read(self._record(image)) or {"open": False, "proofs": []}
        proofs = [proof for proof in record.get("proofs") or [] if isinstance(proof, str)]
        if login is None:
            record = {"open": True, "proofs": []}
        elif not record.get("open"):
            proof = self._proof(tenant, login)
            record = {"open": False, "proofs": [*(one for one in proofs if one != proof), proof][-MANY:]}
        self._write(self._record(image), record)
        self._intent(reference).unlink(missing_ok=True)

    def _proof(self, tenant: str, login: Login) -> str:
        return hmac.new(self._secret(), tenant.encode() + b"\0" + login.proof, hashlib.sha256).hexdigest()

    def _secret(self) -> bytes:
        if self._key is None:
            path = self._directory / "key"
            try:
                self._key = path.read_bytes()
            except FileNotFoundError:
                self._key = secrets.token_bytes(32)
                self._place(path, self._key)
        return self._key

    def _record(self, image: str) -> Path:
        return self._directory / f"image-{hashlib.sha256(image.encode()).hexdigest()}"

    def _intent(self, reference: str) -> Path:
        return self._directory / f"pull-{hashlib.sha256(reference.encode()).hexdigest()}"

    def _read(self, path: Path) -> dict[str, Any] | None:
        """A record; one that cannot be read lets nobody in."""
        try:
            found = json.loads(path.read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _write(self, path: Path, value: dict[str, Any]) -> None:
        self._place(path, json.dumps(value).encode())

    def _place(self, path: Path, data: bytes) -> None:
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        new = path.with_name(f".{path.name}")
        with new.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
