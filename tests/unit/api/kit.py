"""What the tests of polder.api share: kinds by resource, and the way of an object through decoding, defaults and rules."""

from __future__ import annotations

from typing import Any

from polder.api.conform import conform
from polder.api.defaults import default
from polder.api.kinds import STORED_FORM, Kind
from polder.api.validation import validate_create, validate_update

KINDS: dict[str, Kind] = dict(STORED_FORM)
Raw = dict[str, Any]


def made(resource: str, obj: Raw) -> Raw:
    """The object as it would be stored."""
    kind = KINDS[resource]
    return default(kind, conform(kind, obj).obj)


def refused(resource: str, obj: Raw) -> list[str]:
    """What is wrong with a new object, as sentences."""
    return [str(error) for error in validate_create(KINDS[resource], made(resource, obj))]


def refused_update(resource: str, new: Raw, old: Raw) -> list[str]:
    """What is wrong with a change, as sentences."""
    return [str(error) for error in validate_update(KINDS[resource], made(resource, new), made(resource, old))]


def pod(spec: Raw | None = None, container: Raw | None = None, **meta: Any) -> Raw:
    """A valid pod with changes."""
    containers = [{"name": "web", "image": "nginx:1", **(container or {})}]
    return {
        "metadata": {"name": "web", "namespace": "default", **meta},
        "spec": {"containers": containers, **(spec or {})},
    }
