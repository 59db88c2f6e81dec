"""Read-only views of images' files, by containerd's services (api/services/snapshots/v1/snapshots.proto, images/v1/images.proto).

The messages are few and flat: they are written and read field by field.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from polder.base.errors import PermanentError
from polder.system import mounts
from polder.system.commands import HostError, run
from polder.system.containerd import CONTAINERS, ContainerdPaths, find_ctr, snapshotter_of
from polder.system.cri_types import RuntimeFailureError
from polder.system.rpc import Channel, RpcError

_SERVICE: Final = "/containerd.services.snapshots.v1.Snapshots"
_NAMESPACE: Final = (("containerd-namespace", CONTAINERS),)
_IMAGE: Final = "/containerd.services.images.v1.Images/Get"
_SECONDS: Final = 30.0
_UNPACK: Final = 600.0
_KEPT: Final = {"containerd.io/gc.root": "polder"}
"""What containerd's collector leaves alone."""


@dataclass(frozen=True, slots=True)
class View:
    """How a view is mounted: mount(8)'s type, source and options."""

    kind: str
    source: str
    options: Sequence[str]

    def mount_at(self, target: Path) -> None:
        """Mounts it, so that nobody writes through it. Raises PermanentError."""
        if self.kind == "bind":
            mounts.mount(self.source, target, "none", mounts.MS_BIND | mounts.MS_REC)
        else:
            data = ",".join(option for option in self.options if option != "ro")
            mounts.mount(self.source, target, self.kind, mounts.MS_NODEV | mounts.MS_NOSUID, data)
        mounts.make_read_only(target)


class SnapshotError(RuntimeFailureError):
    """``taken``: there is one of this name."""

    def __init__(self, method: str, error: RpcError) -> None:
        super().__init__(
            f"snapshot {method}: {error}",
            missing=error.code == "NOT_FOUND",
            away=error.code in {"UNAVAILABLE", "DEADLINE_EXCEEDED"},
        )
        self.taken = error.code == "ALREADY_EXISTS"


class Snapshots:
    """One containerd. Every failure is a RuntimeFailureError with its words."""

    def __init__(self, paths: ContainerdPaths) -> None:
        self._paths = paths
        self._channel = Channel(f"unix://{paths.socket}")

    async def close(self) -> None:
        """Ends the connection."""
        await self._channel.close()

    async def view(self, key: str, parent: str) -> View:
        """A view of a snapshot, by its chain of layers; one of this name that is there is given again."""
        body = self._named(key)
        labels = b"".join(_bytes(4, _text(1, name) + _text(2, value)) for name, value in _KEPT.items())
        try:
            answer = await self._call("View", body + _text(3, parent) + labels)
        except SnapshotError as error:
            if not error.taken:
                raise
            answer = await self._call("Mounts", body)
        found = [_view(value) for number, value in _fields(answer) if number == 1]
        if len(found) != 1:
            raise PermanentError(f"snapshot {key} is mounted by {len(found)} mounts, not by one")
        return found[0]

    async def digest(self, image: str) -> str:
        """An image's digest, by its name, as which containerd's CRI plugin also has its id."""
        try:
            body = await self._channel.plain(_IMAGE, _text(1, image), _NAMESPACE, _SECONDS)
        except RpcError as error:
            raise RuntimeFailureError(f"image {image}: {error}", missing=error.code == "NOT_FOUND") from error
        for number in (1, 3, 2):  # of the answer the image, of that the target, of that the digest
            body = next((value for key, value in _fields(body) if key == number), b"")
        return body.decode()

    def unpack(self, digest: str) -> None:
        """Makes the snapshots of an image's layers, by the image's digest; blocks. Who imports an image makes none, the runtime
        does so for an image's first container. Raises RuntimeFailureError.
        """
        snapshotter = snapshotter_of(self._paths)
        to = ("--address", str(self._paths.socket), "--namespace", CONTAINERS)
        try:
            run(find_ctr() or "ctr", *to, "snapshots", "unpack", "--snapshotter", snapshotter, digest, timeout=_UNPACK)
        except HostError as error:
            raise RuntimeFailureError(f"image {digest} was not unpacked: {error}") from error

    async def remove(self, key: str) -> None:
        """Removes a view; none there is no error."""
        try:
            await self._call("Remove", self._named(key))
        except RuntimeFailureError as error:
            if not error.missing:
                raise

    def _named(self, key: str) -> bytes:
        return _text(1, snapshotter_of(self._paths)) + _text(2, key)

    async def _call(self, method: str, body: bytes) -> bytes:
        try:
            return await self._channel.plain(f"{_SERVICE}/{method}", body, _NAMESPACE, _SECONDS)
        except RpcError as error:
            raise SnapshotError(method, error) from error


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def _bytes(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _text(number: int, value: str) -> bytes:
    return _bytes(number, value.encode())


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if not byte & 0x80:
            return value, position


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The fields of a message that are texts and messages; numbers are passed over."""
    position = 0
    while position < len(data):
        tag, position = _read_varint(data, position)
        if tag & 7 == 0:
            _, position = _read_varint(data, position)
            continue
        if tag & 7 != 2:
            raise PermanentError("containerd answered with a message of another form")
        size, position = _read_varint(data, position)
        yield tag >> 3, data[position : position + size]
        position += size


def _view(data: bytes) -> View:
    texts: Mapping[int, list[str]] = {1: [], 2: [], 3: [], 4: []}
    for number, value in _fields(data):
        texts[number].append(value.decode())
    return View("".join(texts[1]), "".join(texts[2]), tuple(texts[4]))
