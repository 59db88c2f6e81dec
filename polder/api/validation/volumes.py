"""A pod's volumes: names, one source each, what each source needs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from polder.api import names, quantity
from polder.api.errors import Field, FieldError
from polder.api.meta import Raw
from polder.api.validation.containers import validate_field_ref, validate_resource_ref

_MODE_RULE: Final = "must be a number between 0 and 0777 (octal), both inclusive"
_HOST_PATH_TYPES: Final = (
    "", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket",
)  # fmt: skip
_PULL: Final = ("Always", "IfNotPresent", "Never")
_DRIVER_LIMIT: Final = 63
_PROJECTIONS: Final = frozenset({"secret", "configMap", "downwardAPI", "serviceAccountToken"})


def validate_volumes(volumes: list[Raw], at: Field) -> Iterator[FieldError]:
    """Names are unique DNS labels; each volume has exactly one source."""
    seen: set[str] = set()
    for number, volume in enumerate(volumes):
        where, name = at[number], volume.get("name", "")
        if not name:
            yield (where / "name").required()
        else:
            yield from ((where / "name").invalid(name, said) for said in names.dns_label(name))
        if name in seen:
            yield (where / "name").duplicate(name)
        seen.add(name)
        sources = [key for key in volume if key != "name"]
        for extra in sources[1:]:
            yield (where / extra).forbidden("may not specify more than 1 volume type")
        if sources:
            yield from _source(sources[0], volume[sources[0]], where / sources[0])


_NEEDED: Final = {
    "secret": "secretName",
    "configMap": "name",
    "image": "reference",
    "persistentVolumeClaim": "claimName",
    "ephemeral": "volumeClaimTemplate",
}
"""The field that says which one is meant, by kind of volume."""


def _source(kind: str, source: Raw, at: Field) -> Iterator[FieldError]:
    needed = _NEEDED.get(kind)
    if needed and not source.get(needed):
        yield (at / needed).required()
    match kind:
        case "emptyDir":
            if "sizeLimit" in source and quantity.parse(source["sizeLimit"]).value < 0:
                yield (at / "sizeLimit").forbidden("SizeLimit field must be a valid resource quantity")
        case "hostPath":
            yield from _host_path(source, at)
        case "secret" | "configMap":
            yield from _files(source, at)
        case "downwardAPI":
            yield from _mode(source, "defaultMode", at)
            yield from _downward(source, at)
        case "projected":
            yield from _projected(source, at)
        case "csi":
            yield from _csi(source, at)
        case "image":
            if source.get("pullPolicy") not in _PULL:
                yield (at / "pullPolicy").not_supported(source.get("pullPolicy", ""), _PULL)


def _csi(source: Raw, at: Field) -> Iterator[FieldError]:
    driver = source.get("driver", "")
    if not driver:
        yield (at / "driver").required()
    elif len(driver) > _DRIVER_LIMIT:
        yield (at / "driver").too_long(_DRIVER_LIMIT)
    else:
        yield from ((at / "driver").invalid(driver, said) for said in names.dns_subdomain(driver.lower()))
    secret = source.get("nodePublishSecretRef")
    if secret is not None and not secret.get("name"):
        yield (at / "nodePublishSecretRef" / "name").required()


def _host_path(source: Raw, at: Field) -> Iterator[FieldError]:
    path = source.get("path", "")
    if not path:
        yield (at / "path").required()
    if ".." in path.split("/"):
        yield (at / "path").invalid(path, "must not contain '..'")
    if source.get("type", "") not in _HOST_PATH_TYPES:
        yield (at / "type").not_supported(source["type"], _HOST_PATH_TYPES)


def _mode(source: Raw, name: str, at: Field) -> Iterator[FieldError]:
    if name in source and not 0 <= source[name] <= 0o777:
        yield (at / name).invalid(source[name], _MODE_RULE)


def _files(source: Raw, at: Field) -> Iterator[FieldError]:
    yield from _mode(source, "defaultMode", at)
    for number, item in enumerate(source.get("items") or ()):
        where = (at / "items")[number]
        if not item.get("key"):
            yield (where / "key").required()
        yield from _path(item.get("path", ""), where / "path")
        yield from _mode(item, "mode", where)


def _path(path: str, at: Field) -> Iterator[FieldError]:
    """Relative, and staying inside the volume."""
    if not path:
        yield at.required()
    elif path.startswith("/"):
        yield at.invalid(path, "must be a relative path")
    elif ".." in path.split("/"):
        yield at.invalid(path, "must not contain '..'")
    elif path.startswith(".."):
        yield at.invalid(path, "must not start with '..'")


def _downward(source: Raw, at: Field) -> Iterator[FieldError]:
    for number, item in enumerate(source.get("items") or ()):
        where = (at / "items")[number]
        yield from _path(item.get("path", ""), where / "path")
        yield from _mode(item, "mode", where)
        if "fieldRef" in item and "resourceFieldRef" in item:
            yield where.invalid("resource", "fieldRef and resourceFieldRef can not be specified simultaneously")
        elif "fieldRef" in item:
            yield from validate_field_ref(item["fieldRef"], where / "fieldRef", files=True)
        elif "resourceFieldRef" in item:
            yield from validate_resource_ref(item["resourceFieldRef"], where / "resourceFieldRef", files=True)
        else:
            yield (where / "fieldRef").required("one of fieldRef and resourceFieldRef is required")


def _projected(source: Raw, at: Field) -> Iterator[FieldError]:
    yield from _mode(source, "defaultMode", at)
    for number, part in enumerate(source.get("sources") or ()):
        where = (at / "sources")[number]
        kinds = list(part)
        for extra in kinds[1:]:
            yield (where / extra).forbidden("may not specify more than 1 volume type")
        if not kinds:
            yield where.required("one of configMap, downwardAPI, secret, serviceAccountToken is required")
            continue
        yield from _projection(kinds[0], part[kinds[0]], where / kinds[0])


def _projection(kind: str, part: Raw, at: Field) -> Iterator[FieldError]:
    if kind in ("secret", "configMap"):
        if not part.get("name"):
            yield (at / "name").required()
        yield from _files(part, at)
    elif kind == "downwardAPI":
        yield from _downward(part, at)
    elif kind == "serviceAccountToken":
        seconds = part.get("expirationSeconds", 3600)
        if seconds < 600:
            yield (at / "expirationSeconds").invalid(seconds, "may not specify a duration less than 10 minutes")
        if seconds > 2**32:
            yield (at / "expirationSeconds").invalid(seconds, "may not specify a duration larger than 2^32 seconds")
        yield from _path(part.get("path", ""), at / "path")
