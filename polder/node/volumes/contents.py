"""What the files of configMap, secret, downwardAPI and projected volumes hold: pure, from objects already read."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping, Sequence

from polder.api.core import ConfigMap, Pod, Secret
from polder.api.podvolumes import DownwardVolume, KeyToPath
from polder.base.errors import PermanentError, RetryableError
from polder.node.pods import fields
from polder.node.pods.environment import decode_secret
from polder.node.volumes.atomic import FileSpec

DEFAULT_MODE = 0o644

Files = dict[str, FileSpec]


def _chosen(what: str, data: Mapping[str, bytes], items: Sequence[KeyToPath] | None, rules: tuple[int, bool]) -> Files:
    mode, optional = rules
    if items is None:
        return {key: FileSpec(content, mode) for key, content in data.items()}
    found: Files = {}
    for item in items:
        if item.key in data:
            found[item.path] = FileSpec(data[item.key], item.mode if item.mode is not None else mode)
        elif not optional:
            raise RetryableError(f"{what} references non-existent config key: {item.key}")
    return found


def config_map_files(
    name: str, held: ConfigMap | None, items: Sequence[KeyToPath] | None, rules: tuple[int, bool]
) -> Files:
    """Files of a ConfigMap; ``rules`` are (mode, optional). Raises RetryableError while it is missing."""
    if held is None:
        if rules[1]:
            return {}
        raise RetryableError(f'configmap "{name}" not found')
    data = {key: text.encode() for key, text in (held.data or {}).items()}
    for key, text in (held.binary_data or {}).items():
        try:
            data[key] = base64.b64decode(text, validate=True)
        except binascii.Error as error:
            raise PermanentError(f"key {key} of ConfigMap {name} is no base64") from error
    return _chosen(f"configmap {name}", data, items, rules)


def secret_files(name: str, held: Secret | None, items: Sequence[KeyToPath] | None, rules: tuple[int, bool]) -> Files:
    """Files of a Secret; ``rules`` are (mode, optional). Raises RetryableError while it is missing."""
    if held is None:
        if rules[1]:
            return {}
        raise RetryableError(f'secret "{name}" not found')
    data = {key: decode_secret(held, key) for key in held.data or {}}
    return _chosen(f"secret {name}", data, items, rules)


def downward_files(pod: Pod, volume: DownwardVolume, mode: int, around: fields.Surroundings) -> Files:
    """Fields of the pod as files."""
    found: Files = {}
    for item in volume.items or []:
        if item.field_ref is not None:
            text = fields.field(pod, item.field_ref, around)
        elif item.resource_field_ref is not None:
            text = fields.resource(pod, item.resource_field_ref, None, around)
        else:
            raise PermanentError(f"downwardAPI item {item.path} has neither fieldRef nor resourceFieldRef")
        found[item.path] = FileSpec(text.encode(), item.mode if item.mode is not None else mode)
    return found


def merged(parts: Iterable[Files]) -> Files:
    """Several sources in one directory; the later one wins."""
    found: Files = {}
    for part in parts:
        found.update(part)
    return found
