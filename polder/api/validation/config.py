"""ConfigMaps and Secrets: keys, sizes, types, immutability."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Final

from polder.api import names
from polder.api.errors import Field, FieldError
from polder.api.meta import Raw

MAX_BYTES: Final = 1024 * 1024
_IMMUTABLE: Final = "field is immutable when `immutable` is set"
_NEEDED: Final = {
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
}
"""Keys that a secret of a known type must have."""


def _size(encoded: str) -> int:
    return len(base64.b64decode(encoded))


def validate_config_map(config: Raw) -> Iterator[FieldError]:
    """Keys are file names, none twice; all values together stay below 1 MiB."""
    data, binary = config.get("data") or {}, config.get("binaryData") or {}
    for key in data:
        at = Field("data")[key]
        yield from (at.invalid(key, said) for said in names.config_key(key))
        if key in binary:
            yield at.invalid(key, "duplicate of key present in binaryData")
    for key in binary:
        yield from (Field("binaryData")[key].invalid(key, said) for said in names.config_key(key))
    if sum(len(text.encode()) for text in data.values()) + sum(map(_size, binary.values())) > MAX_BYTES:
        yield Field().too_long(MAX_BYTES)


def validate_config_map_update(new: Raw, old: Raw) -> Iterator[FieldError]:
    """An immutable one keeps its content."""
    yield from _kept(new, old, ("data", "binaryData"))


def validate_secret(secret: Raw) -> Iterator[FieldError]:
    """Keys are file names; known types have their keys; all values together stay below 1 MiB."""
    data = secret.get("data") or {}
    for key in data:
        yield from (Field("data")[key].invalid(key, said) for said in names.config_key(key))
    if sum(map(_size, data.values())) > MAX_BYTES:
        yield Field("data").too_long(MAX_BYTES)
    for key in _NEEDED.get(secret.get("type", ""), ()):
        if key not in data:
            yield Field("data")[key].required()
    if secret.get("type") == "kubernetes.io/basic-auth" and not {"username", "password"} & data.keys():
        yield Field("data[username]").required()
        yield Field("data[password]").required()
    if secret.get("type") == "kubernetes.io/service-account-token":
        annotations = (secret.get("metadata") or {}).get("annotations") or {}
        if not annotations.get("kubernetes.io/service-account.name"):
            yield Field("metadata.annotations")["kubernetes.io/service-account.name"].required()


def validate_secret_update(new: Raw, old: Raw) -> Iterator[FieldError]:
    """The type stays; an immutable one keeps its content."""
    if new.get("type") != old.get("type"):
        yield Field("type").invalid(new.get("type", ""), "field is immutable")
    yield from _kept(new, old, ("data",))


def _kept(new: Raw, old: Raw, fields: tuple[str, ...]) -> Iterator[FieldError]:
    if not old.get("immutable"):
        return
    if not new.get("immutable"):
        yield Field("immutable").forbidden(_IMMUTABLE)
    for name in fields:
        if (new.get(name) or {}) != (old.get(name) or {}):
            yield Field(name).forbidden(_IMMUTABLE)
