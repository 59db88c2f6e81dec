"""Revisions of a set's template (ControllerRevision): which is the one of now, which go. Pure.

A revision's data is a patch that puts the template back, so that kubectl can roll back to it. Follows upstream's history
package; equal templates are equal revisions, whatever their numbers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import orjson

from polder.api.meta import TENANT_ANNOTATION, OwnerReference, Struct
from polder.api.sets import ControllerRevision
from polder.api.workloads import Template

HASH = "controller.kubernetes.io/hash"
POD_HASH = "controller-revision-hash"
"""On pods and on revisions of a DaemonSet: the hash; on pods of a StatefulSet: the revision's name."""
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
_LONGEST_PREFIX = 223
_NOT_COPIED = frozenset({TENANT_ANNOTATION})


@dataclass(frozen=True, slots=True)
class Parent:
    """Whose revisions they are."""

    owner: OwnerReference
    annotations: Mapping[str, str]
    template: Template
    collisions: int = 0


def data_of(template: Template) -> dict[str, Any]:
    """The patch that restores a template, in the form that upstream's clients make of the same template."""
    return {"spec": {"template": {**whole(template), "$patch": "replace"}}}


def whole(template: Template) -> Template:
    """A template with the empty parts that Go's types always write, so that equal templates have equal text."""
    spec = dict(template.get("spec") or {})
    for group in ("containers", "initContainers"):
        if spec.get(group):
            spec[group] = [{**container, "resources": container.get("resources") or {}} for container in spec[group]]
    return {**template, "metadata": template.get("metadata") or {}, "spec": spec}


class _Meta(Struct, frozen=True, kw_only=True):
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    finalizers: list[str] | None = None


class _Spec(Struct, frozen=True, kw_only=True):
    containers: list[dict[str, Any]] | None = None
    init_containers: list[dict[str, Any]] | None = None
    volumes: list[dict[str, Any]] | None = None


class _Shape(Struct, frozen=True, kw_only=True):
    """What is looked into of a template."""

    metadata: _Meta | None = None
    spec: _Spec


def template_of(revision: ControllerRevision) -> Template | None:
    """The template that a revision restores; None where its data is nothing of the kind (a tenant may write it)."""
    data = revision.data if isinstance(revision.data, dict) else {}
    spec = data.get("spec")
    template = spec.get("template") if isinstance(spec, dict) else None
    try:
        msgspec.convert(template, _Shape)
    except msgspec.ValidationError:
        return None
    return {key: value for key, value in (template or {}).items() if key != "$patch"}


def hash_of(template: Template, collisions: int) -> str:
    """What a revision is named by; ten letters."""
    text = orjson.dumps([data_of(template), collisions], option=orjson.OPT_SORT_KEYS)
    number, found = int.from_bytes(hashlib.sha256(text).digest()[:8], "big"), ""
    for _ in range(10):
        number, index = divmod(number, len(_ALPHABET))
        found += _ALPHABET[index]
    return found


def name_of(parent: str, mark: str) -> str:
    """The revision's name."""
    return f"{parent[:_LONGEST_PREFIX]}-{mark}"


def in_order(revisions: Iterable[ControllerRevision]) -> list[ControllerRevision]:
    """Oldest first."""
    return sorted(revisions, key=lambda r: (r.revision, r.metadata.creation_timestamp or "", r.metadata.name))


def is_of(revision: ControllerRevision, template: Template) -> bool:
    """Whether the revision restores exactly this template."""
    known = template_of(revision)
    return known is not None and whole(known) == whole(template)


def equal(revisions: Sequence[ControllerRevision], template: Template) -> list[ControllerRevision]:
    """The revisions of a template, in order."""
    return [found for found in revisions if is_of(found, template)]


def next_number(revisions: Iterable[ControllerRevision]) -> int:
    """The number of a revision that comes after all of these."""
    return max((found.revision for found in revisions), default=0) + 1


def body_of(parent: Parent, mark: str, number: int, labels: Mapping[str, str]) -> bytes:
    """A new revision, as it is sent: keys in order, as upstream's text is."""
    meta = {
        "name": name_of(parent.owner.name, mark),
        "labels": {**((parent.template.get("metadata") or {}).get("labels") or {}), **labels},
        "annotations": {k: v for k, v in parent.annotations.items() if k not in _NOT_COPIED},
        "ownerReferences": [msgspec.to_builtins(parent.owner)],
    }
    body = {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": meta,
        "data": data_of(parent.template),
        "revision": number,
    }
    return orjson.dumps(body, option=orjson.OPT_SORT_KEYS)


def surplus(
    revisions: Sequence[ControllerRevision], live: Collection[str], limit: int | None
) -> list[ControllerRevision]:
    """Of revisions in order, those beyond the history that is kept; never one that is in use (``live``, by name)."""
    if limit is None:
        return []
    idle = [found for found in revisions if found.metadata.name not in live]
    return idle[: max(0, len(idle) - limit)]
