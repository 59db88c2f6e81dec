"""Backups: the rows of a store, or of one tenant, as they stood at one revision, in one file.

A file is gzip over frames ``u32 length | msgpack``: first the header, then a row each, last the trailer with the number of rows
and the SHA-256 of all frames before it. Rows are as the backend holds them: what is sealed stays sealed, and the keyring is
not in the file; the header names the keys that are needed to open it. Index terms are not in it, they follow from the rows.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from polder.base.errors import PermanentError
from polder.store.protocol import EVERYTHING, Entry, Key, Prefix, Store
from polder.system.pki.sealing import is_sealed, key_id

FORMAT: Final = "polder-backup"
VERSION: Final = 1
PAGE: Final = 500
FRAME_LIMIT: Final = 64 << 20
"""Bytes of one frame: more is no backup."""
_CHUNK: Final = 1 << 16


class BackupError(PermanentError):
    """A file that is no backup, is damaged or cut off, or is of a newer Polder; or a store that cannot take it."""


class Header(msgspec.Struct, frozen=True, tag="header", tag_field="t"):
    """What is in the file: all tenants, or one with its Tenant object. ``created`` is RFC 3339."""

    revision: int
    created: str
    tenant: str = ""
    format: str = FORMAT
    version: int = VERSION


class Row(msgspec.Struct, frozen=True, tag="row", tag_field="t"):
    """One row."""

    resource: str
    tenant: str
    namespace: str
    name: str
    revision: int
    value: bytes

    @property
    def key(self) -> Key:
        """Where it was."""
        return Key(self.resource, self.tenant, self.namespace, self.name)


class Trailer(msgspec.Struct, frozen=True, tag="end", tag_field="t"):
    """The end of a whole file. ``keys`` are the ids of the keys that some rows are sealed with."""

    rows: int
    sha256: str
    keys: tuple[str, ...] = ()


Frame = Header | Row | Trailer


@dataclass(frozen=True, slots=True)
class Summary:
    """What a checked file holds."""

    header: Header
    rows: int
    keys: tuple[str, ...]


class _Writer:
    """Frames to compressed bytes."""

    def __init__(self) -> None:
        self._zip = zlib.compressobj(6, zlib.DEFLATED, 31)
        self._hash = hashlib.sha256()
        self._rows = 0
        self._keys: set[str] = set()

    def add(self, frame: Header | Row) -> bytes:
        """One frame."""
        if isinstance(frame, Row):
            self._rows += 1
            if is_sealed(frame.value):
                self._keys.add(key_id(frame.value))
        data = _framed(frame)
        self._hash.update(data)
        return self._zip.compress(data)

    def end(self) -> bytes:
        """The trailer, and all that was held back."""
        trailer = Trailer(self._rows, self._hash.hexdigest(), tuple(sorted(self._keys)))
        return self._zip.compress(_framed(trailer)) + self._zip.flush()


def _framed(frame: Frame) -> bytes:
    data = msgspec.msgpack.encode(frame)
    return len(data).to_bytes(4, "big") + data


async def read_store(store: Store, tenant_row: Key | None, created: str) -> AsyncGenerator[bytes, None]:
    """The file's bytes: of everything, or of the tenant whose Tenant object is at ``tenant_row``. All at one revision; raises
    CompactedError when reading took longer than history is kept, StoreError.
    """
    writer = _Writer()
    tenant = tenant_row.name if tenant_row else ""
    revision = await store.revision()
    yield writer.add(Header(revision, created, tenant))
    prefix = Prefix("", tenant) if tenant_row else EVERYTHING
    if tenant_row is not None:
        page = await store.list(Prefix(tenant_row.resource, tenant_row.tenant), revision=revision)
        yield b"".join(writer.add(_row(entry)) for entry in page.entries if entry.key == tenant_row)
    after: Key | None = None
    while True:
        page = await store.list(prefix, limit=PAGE, after=after, revision=revision)
        yield b"".join(writer.add(_row(entry)) for entry in page.entries)
        after = page.after
        if after is None:
            break
    yield writer.end()


def _row(entry: Entry) -> Row:
    key = entry.key
    return Row(key.resource, key.tenant, key.namespace, key.name, entry.revision, entry.value)


def check(path: Path) -> Summary:
    """Reads the whole file. Raises BackupError unless it is complete and undamaged."""
    header: Header | None = None
    trailer: Trailer | None = None
    rows, digest = 0, hashlib.sha256()
    for frame, data in _frames(path):
        if trailer is not None or (header is None) != isinstance(frame, Header):
            raise BackupError(f"backup {path}: its parts are not in order")
        if isinstance(frame, Trailer):
            trailer = frame
            continue
        if isinstance(frame, Header):
            header = _known(path, frame)
        else:
            rows += 1
        digest.update(data)
    if header is None or trailer is None:
        raise BackupError(f"backup {path} is cut off")
    if (trailer.rows, trailer.sha256) != (rows, digest.hexdigest()):
        raise BackupError(f"backup {path} is damaged: its checksum does not fit")
    return Summary(header, rows, trailer.keys)


def rows_of(path: Path) -> Iterator[Row]:
    """The rows of a checked file, in key order but for a tenant's own row, which comes first."""
    for frame, _ in _frames(path):
        if isinstance(frame, Row):
            yield frame


def _known(path: Path, header: Header) -> Header:
    if header.format != FORMAT:
        raise BackupError(f"{path} is no backup of Polder")
    if header.version > VERSION:
        raise BackupError(f"backup {path} has version {header.version}, this Polder knows {VERSION}; use the newer one")
    return header


def _frames(path: Path) -> Iterator[tuple[Frame, bytes]]:
    """Each frame with its bytes."""
    decoder = msgspec.msgpack.Decoder(Frame)
    try:
        with path.open("rb") as file:
            buffer = b""
            for data in _unzipped(file):
                buffer += data
                position = 0
                while len(buffer) - position >= 4:
                    size = int.from_bytes(buffer[position : position + 4], "big")
                    if size > FRAME_LIMIT:
                        raise BackupError(f"{path} is no backup of Polder")
                    end = position + 4 + size
                    if end > len(buffer):
                        break
                    yield decoder.decode(buffer[position + 4 : end]), buffer[position:end]
                    position = end
                buffer = buffer[position:]
        if buffer:
            raise BackupError(f"backup {path} is cut off")
    except zlib.error as error:
        raise BackupError(f"{path} is no backup of Polder, or is damaged: {error}") from error
    except msgspec.MsgspecError as error:
        raise BackupError(f"backup {path} is damaged: {error}") from error


def _unzipped(file: BinaryIO) -> Iterator[bytes]:
    """In pieces of bounded size, however well they were compressed."""
    unzip = zlib.decompressobj(31)
    while chunk := file.read(_CHUNK):
        while chunk:
            yield unzip.decompress(chunk, _CHUNK * 16)
            chunk = unzip.unconsumed_tail
        if unzip.eof and unzip.unused_data:
            raise zlib.error("there is more after its end")
    yield unzip.flush()
