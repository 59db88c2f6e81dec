"""Secrets at rest: AES-256-GCM, a keyring with one key that writes and others that still read.

An envelope is ``NUL 'P' 'S' 1 | key id (8 bytes) | nonce (12 bytes) | ciphertext and tag``; no JSON begins with a NUL, so that
sealed and plain values cannot be taken for each other. What a value belongs to is authenticated with it: moved to another
place, it cannot be opened. NIST SP 800-38D bounds random nonces to 2**32 writes of one key: rotate before that.
"""

from __future__ import annotations

import base64
import binascii
import os
import secrets
import stat
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from polder.base.errors import PermanentError
from polder.system.pki.files import write_private

_MAGIC = b"\0PS\1"
_ID, _NONCE, _TAG, _KEY = 8, 12, 16, 32
_HEAD = len(_MAGIC) + _ID + _NONCE


class SealError(PermanentError):
    """A keyring that cannot be used, or a value that cannot be opened."""


class UnknownKeyError(SealError):
    """A value is sealed with a key that is not in the keyring."""


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``writes`` is the id of the key that seals; ``keys`` are all, base64 by id."""

    writes: str
    keys: dict[str, str]


@dataclass(frozen=True, slots=True)
class Keyring:
    """Keys by id (16 hexadecimal digits)."""

    writes: str
    keys: dict[str, bytes] = field(repr=False)

    @classmethod
    def new(cls) -> Keyring:
        """With one fresh key."""
        return cls("", {}).with_new_key().writing()

    def with_new_key(self) -> Keyring:
        """With one more key, the newest, which only reads until ``writing``."""
        name = secrets.token_hex(_ID)
        return Keyring(self.writes, {**self.keys, name: secrets.token_bytes(_KEY)})

    @property
    def newest(self) -> str:
        """The id of the key added last."""
        return next(reversed(self.keys))

    def writing(self) -> Keyring:
        """The newest key seals from now on."""
        return Keyring(self.newest, self.keys)

    def pruned(self) -> Keyring:
        """Without the keys that do not write."""
        return Keyring(self.writes, {self.writes: self.keys[self.writes]})

    def seal(self, value: bytes, place: bytes) -> bytes:
        """An envelope that opens only together with ``place``."""
        nonce = os.urandom(_NONCE)
        head = _MAGIC + bytes.fromhex(self.writes) + nonce
        return head + AESGCM(self.keys[self.writes]).encrypt(nonce, value, head + place)

    def open(self, envelope: bytes, place: bytes) -> bytes:
        """The value. Raises UnknownKeyError, SealError."""
        key = self.keys.get(key_id(envelope))
        if key is None:
            raise UnknownKeyError(f"a value is sealed with key {key_id(envelope)}, which the keyring does not have")
        head = envelope[:_HEAD]
        try:
            return AESGCM(key).decrypt(head[-_NONCE:], envelope[_HEAD:], head + place)
        except InvalidTag as error:
            raise SealError("a sealed value was changed, or moved from another place") from error

    def write(self, path: Path) -> None:
        """Replaces the file, mode 0600."""
        keys = {name: base64.b64encode(key).decode() for name, key in self.keys.items()}
        write_private(path, msgspec.json.format(msgspec.json.encode(_File(self.writes, keys))) + b"\n")


def is_sealed(value: bytes) -> bool:
    """Whether a value is an envelope."""
    return value.startswith(_MAGIC) and len(value) >= _HEAD + _TAG


def key_id(envelope: bytes) -> str:
    """The id of the key that sealed."""
    return envelope[len(_MAGIC) : len(_MAGIC) + _ID].hex()


def read_keyring(path: Path) -> Keyring:
    """Raises SealError: also for a file that others may read."""
    try:
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise SealError(f"keyring {path}: others than the owner can read it; chmod 600 it")
        found = msgspec.json.decode(path.read_bytes(), type=_File)
        keys = {name: base64.b64decode(text, validate=True) for name, text in found.keys.items()}
    except OSError as error:
        raise SealError(f"keyring {path}: {error.strerror}") from error
    except (msgspec.MsgspecError, binascii.Error) as error:
        raise SealError(f"keyring {path}: {error}") from error
    if found.writes not in keys:
        raise SealError(f"keyring {path}: the key that writes, {found.writes!r}, is not among its keys")
    for name, key in keys.items():
        if len(key) != _KEY or len(name) != 2 * _ID or not all(c in "0123456789abcdef" for c in name):
            raise SealError(f"keyring {path}: key {name!r} is not {_ID} bytes in hexadecimal and {_KEY} bytes of key")
    return Keyring(found.writes, keys)


def ensure_keyring(path: Path) -> Keyring:
    """Reads the keyring, made if missing. Raises SealError."""
    if not path.exists():
        Keyring.new().write(path)
    return read_keyring(path)
