"""Containers of a pod: images, environment, ports, mounts, resources, security."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from polder.api import names, quantity
from polder.api.errors import Field, FieldError
from polder.api.meta import Raw
from polder.api.validation.handlers import validate_handlers, validate_plain_init, validate_restarts
from polder.api.validation.mounts import validate_mounts
from polder.api.validation.security import validate_security

_PULL: Final = ("Always", "IfNotPresent", "Never")
_PROTOCOLS: Final = ("SCTP", "TCP", "UDP")
_MESSAGES: Final = ("FallbackToLogsOnError", "File")
_ENV_FIELDS: Final = (
    "metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName", "status.hostIP",
    "status.hostIPs", "status.podIP", "status.podIPs",
)  # fmt: skip
_FILE_FIELDS: Final = ("metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid")
_RESOURCES: Final = (
    "limits.cpu", "limits.ephemeral-storage", "limits.memory", "requests.cpu", "requests.ephemeral-storage",
    "requests.memory",
)  # fmt: skip
_HUGE: Final = ("limits.hugepages-", "requests.hugepages-")
_SUBSCRIPT: Final = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]")
_STANDARD: Final = frozenset({"cpu", "memory", "ephemeral-storage"})


def validate_containers(spec: Raw, at: Field) -> Iterator[FieldError]:
    """Init containers and containers; at least one of the latter; no name twice."""
    if not spec.get("containers"):
        yield (at / "containers").required()
    seen: set[str] = set()
    volumes = volumes_of(spec)
    for group in ("initContainers", "containers"):
        for number, container in enumerate(spec.get(group) or ()):
            where, name = (at / group)[number], container.get("name", "")
            if name and name in seen:
                yield (where / "name").duplicate(name)
            seen.add(name)
            yield from validate_container(container, where, volumes)
            yield from validate_restarts(container, where)
            if group == "containers" or container.get("restartPolicy") == "Always":
                yield from validate_handlers(container, spec, where)
            else:
                yield from validate_plain_init(container, where)


def volumes_of(spec: Raw) -> dict[str, Raw]:
    """A pod's volumes by name."""
    return {volume.get("name", ""): volume for volume in spec.get("volumes") or ()}


def validate_container(container: Raw, at: Field, volumes: Mapping[str, Raw]) -> Iterator[FieldError]:
    """One container of any sort by itself; ``volumes`` are its pod's by name."""
    name = container.get("name", "")
    if not name:
        yield (at / "name").required()
    else:
        yield from ((at / "name").invalid(name, said) for said in names.dns_label(name))
    yield from _container(container, at)
    yield from validate_mounts(container, volumes, at / "volumeMounts")
    yield from _from_files(container, volumes, at / "env")


def _container(container: Raw, at: Field) -> Iterator[FieldError]:
    image = container.get("image", "")
    if not image:
        yield (at / "image").required()
    elif image != image.strip():
        yield (at / "image").invalid(image, "must not have leading or trailing whitespace")
    if container.get("imagePullPolicy") not in _PULL:
        yield (at / "imagePullPolicy").not_supported(container.get("imagePullPolicy", ""), _PULL)
    if not container.get("terminationMessagePath"):
        yield (at / "terminationMessagePath").required()
    if container.get("terminationMessagePolicy") not in _MESSAGES:
        yield (at / "terminationMessagePolicy").not_supported(container.get("terminationMessagePolicy", ""), _MESSAGES)
    yield from _ports(container.get("ports") or [], at / "ports")
    for number, variable in enumerate(container.get("env") or ()):
        yield from _variable(variable, (at / "env")[number])
    for number, source in enumerate(container.get("envFrom") or ()):
        yield from _env_from(source, (at / "envFrom")[number])
    yield from validate_resources(container.get("resources") or {}, at / "resources")
    yield from validate_security(container.get("securityContext") or {}, at / "securityContext")


def _ports(ports: list[Raw], at: Field) -> Iterator[FieldError]:
    seen: set[str] = set()
    for number, port in enumerate(ports):
        where = at[number]
        if name := port.get("name"):
            yield from ((where / "name").invalid(name, said) for said in names.port_name(name))
            if name in seen:
                yield (where / "name").duplicate(name)
            seen.add(name)
        for field in ("containerPort", "hostPort"):
            value = port.get(field, 0)
            if not value and field == "containerPort":
                yield (where / field).required()
            elif value:
                yield from ((where / field).invalid(value, said) for said in names.port_number(value))
        if port.get("protocol") not in _PROTOCOLS:
            yield (where / "protocol").not_supported(port.get("protocol", ""), _PROTOCOLS)


def _variable(variable: Raw, at: Field) -> Iterator[FieldError]:
    name = variable.get("name", "")
    if not name:
        yield (at / "name").required()
    else:
        yield from ((at / "name").invalid(name, said) for said in names.env_name(name))
    source = variable.get("valueFrom")
    if source is None:
        return
    where = at / "valueFrom"
    if not source:
        which = "`fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"
        yield where.invalid("", f"must specify one of: {which}")
    if variable.get("value"):
        yield where.invalid("", "may not be specified when `value` is not empty")
    if len(source) > 1:
        yield where.invalid("", "may not have more than one field specified at a time")
    if "fieldRef" in source:
        yield from validate_field_ref(source["fieldRef"], where / "fieldRef", files=False)
    if "resourceFieldRef" in source:
        yield from validate_resource_ref(source["resourceFieldRef"], where / "resourceFieldRef", files=False)
    for kind in ("configMapKeyRef", "secretKeyRef"):
        if kind in source:
            yield from _key_ref(source[kind], where / kind)
    if "fileKeyRef" in source:
        yield from _file_key(source["fileKeyRef"], where / "fileKeyRef")


def _file_key(ref: Raw, at: Field) -> Iterator[FieldError]:
    for name, rule in (("key", names.env_name), ("volumeName", names.dns_label)):
        if not ref.get(name):
            yield (at / name).required()
        else:
            yield from ((at / name).invalid(ref[name], said) for said in rule(ref[name]))
    if not ref.get("path"):
        yield (at / "path").required()
    elif ".." in ref["path"].split("/"):
        yield (at / "path").invalid(ref["path"], "must not contain '..'")


def _from_files(container: Raw, volumes: Mapping[str, Raw], at: Field) -> Iterator[FieldError]:
    for number, variable in enumerate(container.get("env") or ()):
        named = ((variable.get("valueFrom") or {}).get("fileKeyRef") or {}).get("volumeName")
        where = at[number] / "valueFrom" / "fileKeyRef" / "volumeName"
        if named and named not in volumes:
            yield where.not_found(named)
        elif named and "emptyDir" not in volumes[named]:
            yield where.invalid(named, "referenced volume must be of type emptyDir")


def _key_ref(ref: Raw, at: Field) -> Iterator[FieldError]:
    if not ref.get("name"):
        yield (at / "name").required()
    if not ref.get("key"):
        yield (at / "key").required()
    else:
        yield from ((at / "key").invalid(ref["key"], said) for said in names.config_key(ref["key"]))


def validate_field_ref(ref: Raw, at: Field, *, files: bool) -> Iterator[FieldError]:
    """A field of the pod that a variable or (``files``) a downward volume shows."""
    path = ref.get("fieldPath", "")
    supported = _FILE_FIELDS if files else _ENV_FIELDS
    if not path:
        yield (at / "fieldPath").required()
    elif found := _SUBSCRIPT.fullmatch(path):
        yield from ((at / "fieldPath").invalid(path, said) for said in names.qualified_name(found[2].lower()))
    elif path not in supported:
        yield (at / "fieldPath").not_supported(path, supported)


def validate_resource_ref(ref: Raw, at: Field, *, files: bool) -> Iterator[FieldError]:
    """A resource of a container that a variable or (``files``) a downward volume shows."""
    if files and not ref.get("containerName"):
        yield (at / "containerName").required()
    resource = ref.get("resource", "")
    if not resource:
        yield (at / "resource").required()
    elif resource not in _RESOURCES and not resource.startswith(_HUGE):
        yield (at / "resource").not_supported(resource, _RESOURCES)


def _env_from(source: Raw, at: Field) -> Iterator[FieldError]:
    if prefix := source.get("prefix"):
        yield from ((at / "prefix").invalid(prefix, said) for said in names.env_name(prefix))
    kinds = [kind for kind in ("configMapRef", "secretRef") if kind in source]
    if not kinds:
        yield at.invalid("", "must specify one of: `configMapRef` or `secretRef`")
    elif len(kinds) > 1:
        yield at.invalid("", "may not have more than one field specified at a time")
    for kind in kinds:
        if not source[kind].get("name"):
            yield (at / kind / "name").required()


def validate_resources(resources: Raw, at: Field) -> Iterator[FieldError]:
    """Requests and limits of a container."""
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    for group, amounts in (("limits", limits), ("requests", requests)):
        for name, amount in amounts.items():
            where = (at / group)[name]
            yield from (where.invalid(name, said) for said in names.qualified_name(name))
            if "/" not in name and name not in _STANDARD and not name.startswith("hugepages-"):
                yield where.invalid(name, "must be a standard resource for containers")
            if quantity.parse(amount).value < 0:
                yield where.invalid(amount, "must be greater than or equal to 0")
    for name, amount in requests.items():
        if name in limits and quantity.parse(amount).value > quantity.parse(limits[name]).value:
            yield (at / "requests").invalid(amount, f"must be less than or equal to {name} limit of {limits[name]}")
