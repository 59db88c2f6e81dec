"""The parts that every kind shares (meta/v1)."""

from __future__ import annotations

from typing import Any

import msgspec

from polder.base.ids import ROOT, TenantName
from polder.base.ref import Ref

TENANT_ANNOTATION = "polder.dev/tenant"
"""Shown on objects of a view over all tenants, and filled in by our client; never stored."""


class Struct(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Base of all typed objects: frozen, camelCase on the wire, unknown fields ignored."""


class OwnerReference(Struct, frozen=True, kw_only=True):
    """The object that this one goes away with."""

    api_version: str
    kind: str
    name: str
    uid: str
    controller: bool | None = None
    block_owner_deletion: bool | None = None


class ObjectMeta(Struct, frozen=True, kw_only=True):
    """metav1.ObjectMeta; timestamps are RFC 3339 text."""

    name: str = ""
    generate_name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    deletion_grace_period_seconds: int | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    finalizers: list[str] | None = None
    owner_references: list[OwnerReference] | None = None


class Object(Struct, frozen=True, kw_only=True):
    """What every stored kind has."""

    api_version: str = ""
    kind: str = ""
    metadata: ObjectMeta = ObjectMeta()


class Condition(Struct, frozen=True, kw_only=True):
    """metav1.Condition."""

    type: str
    status: str
    reason: str = ""
    message: str = ""
    last_transition_time: str | None = None
    observed_generation: int | None = None


class LabelSelectorRequirement(Struct, frozen=True, kw_only=True):
    """One clause: In, NotIn, Exists, DoesNotExist."""

    key: str
    operator: str
    values: list[str] | None = None


class LabelSelector(Struct, frozen=True, kw_only=True):
    """metav1.LabelSelector."""

    match_labels: dict[str, str] | None = None
    match_expressions: list[LabelSelectorRequirement] | None = None


Raw = dict[str, Any]
"""A JSON object as it came: used by the API server and codecs only."""


def tenant_of(meta: ObjectMeta) -> TenantName:
    """The tenant that an object read through our client belongs to."""
    return TenantName((meta.annotations or {}).get(TENANT_ANNOTATION, ROOT))


def ref_of(obj: Object) -> Ref:
    """The object's reference, tenant included."""
    return Ref(tenant_of(obj.metadata), obj.metadata.namespace, obj.metadata.name)
