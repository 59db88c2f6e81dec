"""Volumes, claims, and the kinds of storage.k8s.io."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from polder.api import names, quantity
from polder.api.errors import Field, FieldError
from polder.api.meta import Raw
from polder.api.validation.rules import (
    Rules,
    choice,
    every,
    fixed,
    named,
    required,
    same,
    selector,
    unique,
    validate_amount,
    validate_selector,
)
from polder.api.validation.scheduling import validate_node_selector

_SPEC: Final = Field("spec")
_MODES: Final = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")
_SOURCES: Final = (
    "awsElasticBlockStore", "azureDisk", "azureFile", "cephfs", "cinder", "csi", "fc", "flexVolume", "flocker",
    "gcePersistentDisk", "glusterfs", "hostPath", "iscsi", "local", "nfs", "photonPersistentDisk", "portworxVolume",
    "quobyte", "rbd", "scaleIO", "storageos", "vsphereVolume",
)  # fmt: skip
_SIZE_LIMIT: Final = 256 * 1024
_COUNT_LIMIT: Final = 512
_ONE_SOURCE: Final = "must specify exactly one of inlineVolumeSpec and persistentVolumeName"


def _access(spec: Raw, at: Field, detail: str = "") -> Iterator[FieldError]:
    modes = spec.get("accessModes") or []
    if not modes:
        yield (at / "accessModes").required(detail)
    for mode in modes:
        if mode not in _MODES:
            yield (at / "accessModes").not_supported(mode, _MODES)
    if "ReadWriteOncePod" in modes and len(modes) > 1:
        yield (at / "accessModes").forbidden("may not use ReadWriteOncePod with other access modes")
    if spec.get("volumeMode") not in (None, "Block", "Filesystem"):
        yield (at / "volumeMode").not_supported(spec["volumeMode"], ("Block", "Filesystem"))


def _volume(volume: Raw) -> Iterator[FieldError]:
    spec = volume.get("spec") or {}
    yield from _access(spec, _SPEC)
    capacity, at = spec.get("capacity") or {}, _SPEC / "capacity"
    if not capacity:
        yield at.required()
    if set(capacity) != {"storage"}:
        yield at.not_supported(capacity, ("storage",))
    for name, amount in capacity.items():
        if quantity.parse(amount).value <= 0:
            yield at[name].invalid(amount, "must be greater than zero")
    found = [name for name in _SOURCES if spec.get(name) is not None]
    if not found:
        yield _SPEC.required("must specify a volume type")
    for name in found[1:]:
        yield (_SPEC / name).forbidden("may not specify more than 1 volume type")
    affinity = (spec.get("nodeAffinity") or {}).get("required")
    if affinity is not None:
        yield from validate_node_selector(affinity, _SPEC / "nodeAffinity" / "required")
    elif "local" in found:
        yield (_SPEC / "nodeAffinity").required("Local volume requires node affinity")
    yield from _source(spec)


def _source(spec: Raw) -> Iterator[FieldError]:
    """What the sources that need no cloud must say."""
    needed = {"hostPath": ("path",), "local": ("path",), "nfs": ("server", "path"), "csi": ("driver", "volumeHandle")}
    for kind, fields in needed.items():
        for name in fields if spec.get(kind) is not None else ():
            if not spec[kind].get(name):
                yield (_SPEC / kind / name).required()
    for kind in ("hostPath", "local"):
        if ".." in ((spec.get(kind) or {}).get("path") or "").split("/"):
            yield (_SPEC / kind / "path").invalid(spec[kind]["path"], "must not contain '..'")
    if (nfs := spec.get("nfs")) is not None and nfs.get("path") and not nfs["path"].startswith("/"):
        yield (_SPEC / "nfs" / "path").invalid(nfs["path"], "must be an absolute path")


def _volume_source(new: Raw, old: Raw) -> Iterator[FieldError]:
    sources = [{name: (obj.get("spec") or {}).get(name) for name in _SOURCES} for obj in (new, old)]
    csi, before = sources[0]["csi"], sources[1]["csi"]
    if csi and before and before.get("controllerExpandSecretRef") is None:
        sources[0]["csi"] = {key: value for key, value in csi.items() if key != "controllerExpandSecretRef"}
    if not same(*sources):
        yield (_SPEC / "persistentvolumesource").forbidden("spec.persistentvolumesource is immutable after creation")


def _claim(claim: Raw) -> Iterator[FieldError]:
    spec = claim.get("spec") or {}
    yield from _access(spec, _SPEC, "at least 1 access mode is required")
    storage, at = ((spec.get("resources") or {}).get("requests") or {}).get("storage"), _SPEC / "resources"
    if storage is None:
        yield at["storage"].required()
    elif quantity.parse(storage).value <= 0:
        yield (at / "requests")["storage"].invalid(storage, "must be greater than zero")
    if (chosen := spec.get("selector")) is not None:
        yield from validate_selector(chosen, _SPEC / "selector")
    for name in ("dataSource", "dataSourceRef"):
        for part in ("name", "kind") if spec.get(name) is not None else ():
            if not spec[name].get(part):
                yield (_SPEC / name / part).required()


def _claim_update(new: Raw, old: Raw) -> Iterator[FieldError]:
    """Only the volume's name, once, and the size and class of a claim that is bound may change."""
    after, before = dict(new.get("spec") or {}), dict(old.get("spec") or {})
    sizes = [((spec.get("resources") or {}).get("requests") or {}).get("storage", 0) for spec in (after, before)]
    if not before.get("volumeName"):
        after.pop("volumeName", None)
    if before.get("storageClassName") is None and not before.get("volumeName"):
        after.pop("storageClassName", None)
    if (new.get("status") or {}).get("phase") == "Bound":
        for spec in (after, before):
            spec.pop("volumeAttributesClassName", None)
            spec["resources"] = {**(spec.get("resources") or {})}
            spec["resources"]["requests"] = {
                key: value for key, value in (spec["resources"].get("requests") or {}).items() if key != "storage"
            }
    if not same(after, before):
        why = (
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"
        )
        yield _SPEC.forbidden(why)
    if quantity.parse(sizes[0]).value < quantity.parse(sizes[1]).value:
        held = ((old.get("status") or {}).get("capacity") or {}).get("storage", 0)
        if quantity.parse(sizes[0]).value <= quantity.parse(held).value:
            at = _SPEC / "resources" / "requests" / "storage"
            yield at.forbidden("field can not be less than status.capacity")


def _parameters(value: Raw, at: Field) -> Iterator[FieldError]:
    if len(value) > _COUNT_LIMIT:
        yield at.too_long(_COUNT_LIMIT)
    elif sum(len(key) + len(str(item)) for key, item in value.items()) > _SIZE_LIMIT:
        yield at.too_long(_SIZE_LIMIT)
    if "" in value:
        yield at.invalid("", "field can not be empty.")


def _provisioner(value: str, at: Field) -> Iterator[FieldError]:
    yield from (at.invalid(value, said) for said in names.qualified_name(value.lower()) if value)


def _topology(term: Raw, at: Field) -> Iterator[FieldError]:
    for number, clause in enumerate(term.get("matchLabelExpressions") or ()):
        where, key = (at / "matchLabelExpressions")[number], clause.get("key", "")
        yield from ((where / "key").invalid(key, said) for said in names.qualified_name(key))
        if not clause.get("values"):
            yield (where / "values").required()


def driver_name(value: str, at: Field) -> Iterator[FieldError]:
    """The name of a CSI driver."""
    if len(value) > 63:
        yield at.too_long(63)
    yield from (at.invalid(value, said) for said in names.dns_subdomain(value.lower()) if value)


def _attached(source: Raw, at: Field) -> Iterator[FieldError]:
    found = [name for name in ("inlineVolumeSpec", "persistentVolumeName") if source.get(name) is not None]
    if not found:
        yield at.required(_ONE_SOURCE)
    elif len(found) == 2:
        yield at.forbidden(_ONE_SOURCE)
    elif name := source.get("persistentVolumeName"):
        yield from ((at / "persistentVolumeName").invalid(name, said) for said in names.dns_subdomain(name))


def _csi_node_driver(driver: Raw, at: Field) -> Iterator[FieldError]:
    name, node = driver.get("name", ""), driver.get("nodeID", "")
    if not name:
        yield (at / "name").required()
    yield from driver_name(name, at / "name")
    if not node:
        yield (at / "nodeID").required()
    elif len(node) > 256:
        yield (at / "nodeID").invalid(node, "must be 256 characters or less")
    count = (driver.get("allocatable") or {}).get("count", 0)
    if count < 0:
        yield (at / "allocatable" / "count").invalid(count, "must be greater than or equal to 0")
    keys = driver.get("topologyKeys") or []
    for number, key in enumerate(keys):
        yield from (at.invalid(key, said) for said in names.qualified_name(key))
        if key in keys[:number]:
            yield at.duplicate(key)


def _kept_drivers(new: Raw, old: Raw) -> Iterator[FieldError]:
    before = {driver.get("name"): driver for driver in (old.get("spec") or {}).get("drivers") or ()}
    for driver in (new.get("spec") or {}).get("drivers") or ():
        was = before.get(driver.get("name"))
        if was is not None and not same(*({**found, "allocatable": None} for found in (driver, was))):
            yield (_SPEC / "drivers").invalid(driver, "field is immutable")


def _tokens(driver: Raw) -> Iterator[FieldError]:
    seen: set[Any] = set()
    spec = driver.get("spec") or {}
    for number, request in enumerate(spec.get("tokenRequests") or ()):
        at, audience = (_SPEC / "tokenRequests")[number], request.get("audience", "")
        if audience in seen:
            yield (at / "audience").duplicate(audience)
        seen.add(audience)
        seconds = request.get("expirationSeconds", 600)
        if seconds < 600:
            yield (at / "expirationSeconds").invalid(seconds, "may not specify a duration less than 10 minutes")
        elif seconds > 2**32:
            yield (at / "expirationSeconds").invalid(seconds, "may not specify a duration larger than 2^32 seconds")
    period = spec.get("nodeAllocatableUpdatePeriodSeconds")
    if period is not None and period < 10:
        at = _SPEC / "nodeAllocatableUpdatePeriodSeconds"
        yield at.invalid(period, "must be greater than or equal to 10 seconds")


def _forbidden_updates(*fields: str) -> Any:
    def change(new: Raw, old: Raw) -> Iterator[FieldError]:
        for name in fields:
            if not same(new.get(name), old.get(name)):
                yield Field(name).forbidden(f"updates to {name} are forbidden.")

    return change


STORAGE: Final[dict[str, Rules]] = {
    "persistentvolumes": Rules(
        (_volume, choice("spec.persistentVolumeReclaimPolicy", "Delete", "Recycle", "Retain"),
         named("spec.storageClassName"), named("spec.volumeAttributesClassName")),
        (_volume_source, fixed("spec.volumeMode")),
    ),
    "persistentvolumeclaims": Rules(
        (_claim, named("spec.storageClassName"), named("spec.volumeAttributesClassName")),
        (_claim_update, fixed("spec.volumeMode")),
    ),
    "storageclasses.storage.k8s.io": Rules(
        (required("provisioner"), every("provisioner", _provisioner), every("parameters", _parameters),
         choice("reclaimPolicy", "Delete", "Retain"),
         choice("volumeBindingMode", "Immediate", "WaitForFirstConsumer", needed=True),
         every("allowedTopologies[]", _topology)),
        (fixed("parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"),),
    ),
    "volumeattachments.storage.k8s.io": Rules(
        (required("spec.attacher"), every("spec.attacher", driver_name), every("spec.source", _attached),
         required("spec.nodeName"), named("spec.nodeName")),
        (fixed("spec"),),
    ),
    "csidrivers.storage.k8s.io": Rules(
        (choice("spec.fsGroupPolicy", "File", "None", "ReadWriteOnceWithFSType"), _tokens,
         choice("spec.volumeLifecycleModes[]", "Persistent", "Ephemeral")),
        (fixed("spec.attachRequired", "spec.volumeLifecycleModes"),),
    ),
    "csinodes.storage.k8s.io": Rules(
        (every("spec.drivers[]", _csi_node_driver), unique("spec.drivers", "name")), (_kept_drivers,)
    ),
    "csistoragecapacities.storage.k8s.io": Rules(
        (selector("nodeTopology"), required("storageClassName"), named("storageClassName"),
         every("capacity", validate_amount), every("maximumVolumeSize", validate_amount)),
        (fixed("nodeTopology", "storageClassName"),),
    ),
    "volumeattributesclasses.storage.k8s.io": Rules(
        (required("driverName"), every("driverName", _provisioner),
         required("parameters", "must contain at least one key/value pair"), every("parameters", _parameters)),
        (_forbidden_updates("driverName", "parameters"),),
    ),
}  # fmt: skip
