"""A container's environment and the expansion of $(NAME) in it, in commands and in arguments."""

from __future__ import annotations

import base64
import binascii
import re
from collections import ChainMap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from polder.api.core import ConfigMap, Pod, Secret, Service
from polder.api.podspec import Container, EnvFrom, EnvVar, FileKeyRef, KeyRef
from polder.base.errors import PermanentError
from polder.node.pods import fields
from polder.node.pods.envfiles import EnvFile
from polder.node.pods.services import service_variables

_REFERENCE = re.compile(r"\$(?:\$|\(([^()]*)\))")
LARGEST = 6 << 20
"""Characters of an environment, and of a command with its arguments: execve(2) takes no more of both together. Who refers to what
has references itself would soon have any number.
"""


@dataclass(frozen=True, slots=True)
class Sources:
    """What a container's environment is read from, by name; None for what does not exist. ``services`` are those of the pod's
    namespace; ``files`` are named by volume and path.
    """

    config_maps: Mapping[str, ConfigMap | None] = field(default_factory=dict)
    secrets: Mapping[str, Secret | None] = field(default_factory=dict)
    kubernetes: Service | None = None
    services: Sequence[Service] = ()
    files: Mapping[tuple[str, str], EnvFile | None] = field(default_factory=dict)


def needed(container: Container) -> tuple[set[str], set[str]]:
    """The names of the ConfigMaps and Secrets that the environment is read from."""
    maps, secrets = set(), set()
    for item in container.env_from or []:
        maps.update([item.config_map_ref.name] if item.config_map_ref else [])
        secrets.update([item.secret_ref.name] if item.secret_ref else [])
    for variable in container.env or []:
        source = variable.value_from
        if source is not None:
            maps.update([source.config_map_key_ref.name] if source.config_map_key_ref else [])
            secrets.update([source.secret_key_ref.name] if source.secret_key_ref else [])
    return maps, secrets


def expand(text: str, known: Mapping[str, str]) -> str:
    """Replaces $(NAME); $$ stands for one $, and a name that is not known stays as written. Raises PermanentError where that is
    more than any program can be told.
    """
    size = len(text)

    def replace(found: re.Match[str]) -> str:
        nonlocal size
        if found[0] == "$$":
            return "$"
        value = known.get(found[1], found[0])
        size = check_size(size + len(value))
        return value

    return _REFERENCE.sub(replace, text)


def expand_all(texts: Sequence[str] | None, known: Mapping[str, str]) -> list[str]:
    """``expand`` for a command or its arguments."""
    found, size = [], 0
    for text in texts or []:
        found.append(expand(text, known))
        size = check_size(size + len(found[-1]))
    return found


def check_size(size: int) -> int:
    """The size, if a program can be started with so much. Raises PermanentError."""
    if size > LARGEST:
        raise PermanentError(f"argument list too long: more than {LARGEST} characters of variables or arguments")
    return size


def decode_secret(secret: Secret, key: str) -> bytes:
    """One value of a Secret. Raises PermanentError where it is no base64."""
    try:
        return base64.b64decode((secret.data or {})[key], validate=True)
    except binascii.Error as error:
        raise PermanentError(f"key {key} of Secret {secret.metadata.name} is no base64") from error


def environment(pod: Pod, container: Container, sources: Sources, around: fields.Surroundings) -> dict[str, str]:
    """The variables in order. Raises PermanentError, in upstream's words, for what is named and not there, and for too much."""
    linked = sources.services if pod.spec.enable_service_links is not False else ()
    known = service_variables([*linked, *([sources.kubernetes] if sources.kubernetes else [])])
    found: dict[str, str] = {}
    everything = ChainMap(found, known)
    size = _size(known)
    for item in container.env_from or []:
        whole = _from_whole(pod, item, sources)
        size = check_size(size + _size(whole))
        found.update(whole)
    for variable in container.env or []:
        value = _value(pod, container, variable, sources, around)
        if value is not None:
            found[variable.name] = value if variable.value_from else expand(value, everything)
            size = check_size(size + len(variable.name) + len(found[variable.name]))
    return {**known, **found}


def _size(variables: Mapping[str, str]) -> int:
    return check_size(sum(len(name) + len(value) for name, value in variables.items()))


def _from_whole(pod: Pod, item: EnvFrom, sources: Sources) -> dict[str, str]:
    if item.config_map_ref is not None:
        name, optional = item.config_map_ref.name, item.config_map_ref.optional
        held = sources.config_maps.get(name)
        if held is None and not optional:
            raise PermanentError(f'configmap "{name}" not found')
        pairs = dict(held.data or {}) if held else {}
    elif item.secret_ref is not None:
        name, optional = item.secret_ref.name, item.secret_ref.optional
        secret = sources.secrets.get(name)
        if secret is None and not optional:
            raise PermanentError(f'secret "{name}" not found')
        pairs = {k: decode_secret(secret, k).decode(errors="replace") for k in secret.data or {}} if secret else {}
    else:
        raise PermanentError(f"envFrom of pod {pod.metadata.name} names neither configMapRef nor secretRef")
    return {f"{item.prefix}{key}": value for key, value in pairs.items()}


def _value(
    pod: Pod, container: Container, variable: EnvVar, sources: Sources, around: fields.Surroundings
) -> str | None:
    source = variable.value_from
    if source is None:
        return variable.value
    if source.field_ref is not None:
        return fields.field(pod, source.field_ref, around)
    if source.resource_field_ref is not None:
        return fields.resource(pod, source.resource_field_ref, container, around)
    if source.config_map_key_ref is not None:
        return _config_key(pod, source.config_map_key_ref, sources)
    if source.secret_key_ref is not None:
        return _secret_key(pod, source.secret_key_ref, sources)
    if source.file_key_ref is not None:
        return _file_key(source.file_key_ref, sources)
    raise PermanentError(f"env {variable.name} has a valueFrom of a kind that is not supported")


def _file_key(ref: FileKeyRef, sources: Sources) -> str | None:
    file = sources.files.get((ref.volume_name, ref.path))
    found = None if file is None else file.value(ref.key)
    if found is None and not ref.optional:
        raise PermanentError(f'environment variable key "{ref.key}" not found in file "{ref.path}"')
    return found


def _config_key(pod: Pod, ref: KeyRef, sources: Sources) -> str | None:
    held = sources.config_maps.get(ref.name)
    if held is None:
        if ref.optional:
            return None
        raise PermanentError(f'configmap "{ref.name}" not found')
    if ref.key in (held.data or {}):
        return (held.data or {})[ref.key]
    if ref.optional:
        return None
    raise PermanentError(f"couldn't find key {ref.key} in ConfigMap {pod.metadata.namespace}/{ref.name}")


def _secret_key(pod: Pod, ref: KeyRef, sources: Sources) -> str | None:
    held = sources.secrets.get(ref.name)
    if held is None:
        if ref.optional:
            return None
        raise PermanentError(f'secret "{ref.name}" not found')
    if ref.key in (held.data or {}):
        return decode_secret(held, ref.key).decode(errors="replace")
    if ref.optional:
        return None
    raise PermanentError(f"couldn't find key {ref.key} in Secret {pod.metadata.namespace}/{ref.name}")
