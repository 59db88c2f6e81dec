"""Mounts of a container's volumes.

Source: upstream's ValidateVolumeMounts and those below it.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from typing import Final

from polder.api.errors import Field, FieldError
from polder.api.meta import Raw

_PROPAGATION: Final = ("Bidirectional", "HostToContainer", "None")
_RECURSIVE: Final = ("Disabled", "Enabled", "IfPossible")


def validate_mounts(container: Raw, volumes: Container[str], at: Field) -> Iterator[FieldError]:
    """``volumeMounts`` of one container; ``volumes`` has the names of its pod's."""
    seen: set[str] = set()
    for number, mount in enumerate(container.get("volumeMounts") or ()):
        where, name, path = at[number], mount.get("name", ""), mount.get("mountPath", "")
        if not name:
            yield (where / "name").required()
        elif name not in volumes:
            yield (where / "name").not_found(name)
        if not path:
            yield (where / "mountPath").required()
        if path in seen:
            yield (where / "mountPath").invalid(path, "must be unique")
        seen.add(path)
        yield from _sub_paths(mount, where)
        yield from _propagation(mount, container, where)
        yield from _recursive(mount, where / "recursiveReadOnly")


def _sub_paths(mount: Raw, at: Field) -> Iterator[FieldError]:
    for name in ("subPath", "subPathExpr"):
        if path := mount.get(name):
            if path.startswith("/"):
                yield (at / name).invalid(path, "must be a relative path")
            if ".." in path.split("/"):
                yield (at / name).invalid(path, "must not contain '..'")
    if mount.get("subPath") and mount.get("subPathExpr"):
        yield (at / "subPathExpr").invalid(mount["subPathExpr"], "subPathExpr and subPath are mutually exclusive")


def _propagation(mount: Raw, container: Raw, at: Field) -> Iterator[FieldError]:
    if (mode := mount.get("mountPropagation")) is None:
        return
    where = at / "mountPropagation"
    if mode not in _PROPAGATION:
        yield where.not_supported(mode, _PROPAGATION)
    if mode == "Bidirectional" and not (container.get("securityContext") or {}).get("privileged"):
        yield where.forbidden("Bidirectional mount propagation is available only to privileged containers")


def _recursive(mount: Raw, at: Field) -> Iterator[FieldError]:
    mode = mount.get("recursiveReadOnly", "Disabled")
    if mode not in _RECURSIVE:
        yield at.not_supported(mode, _RECURSIVE)
    elif mode != "Disabled":
        if not mount.get("readOnly"):
            yield at.forbidden("may only be specified when readOnly is true")
        if mount.get("mountPropagation", "None") != "None":
            yield at.forbidden("may only be specified when mountPropagation is None or not specified")
