"""Turns stored entries into the bytes of answers and of watch events, in the form that the caller accepts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import orjson

from polder.api.convert import convert
from polder.api.meta import TENANT_ANNOTATION, Raw
from polder.apiserver import tables
from polder.apiserver.catalog import Resource
from polder.apiserver.negotiate import Accepted, Form
from polder.apiserver.objects import View, decode, splice
from polder.base.ids import TenantName
from polder.store.protocol import Entry, Key


@dataclass(frozen=True, slots=True)
class ListMeta:
    """metav1.ListMeta."""

    revision: int
    token: str = ""
    remaining: int | None = None

    def raw(self) -> Raw:
        """As JSON shows it."""
        found: Raw = {"resourceVersion": str(self.revision)}
        if self.token:
            found["continue"] = self.token
        if self.remaining:
            found["remainingItemCount"] = self.remaining
        return found


@dataclass(frozen=True, slots=True)
class Renderer:
    """One way of showing one resource. Renderers of one ``token`` give equal bytes, so watchers can share them."""

    resource: Resource
    view: View
    accepted: Accepted
    include: str = "Metadata"
    token: str = ""

    def decode(self, key: Key, value: bytes, revision: int) -> Raw:
        """The object as the view shows it, parsed."""
        obj = decode(value, revision)
        if self.view.to is not None:
            obj = convert(obj, self.view.to)
        if self.view.api_version:
            obj["apiVersion"] = self.view.api_version
        if self.view.tenants:
            meta = obj["metadata"]
            meta["annotations"] = {**meta.get("annotations", {}), TENANT_ANNOTATION: key.tenant}
        return obj

    def one(self, entry: Entry, now: datetime) -> bytes:
        """One object."""
        return self.value(entry.key, entry.value, entry.revision, now)

    def value(self, key: Key, value: bytes, revision: int, now: datetime) -> bytes:
        """One stored value."""
        if self.accepted.form is Form.OBJECT:
            return splice(value, revision, key, self.view)
        obj = self.decode(key, value, revision)
        if self.accepted.form is Form.METADATA:
            return orjson.dumps(tables.partial(obj, self.accepted.meta_version))
        meta = {"resourceVersion": str(revision)}
        return orjson.dumps(tables.table(self.resource, [obj], meta, now, self._options))

    @property
    def _options(self) -> tables.Options:
        return tables.Options(self.include, self.accepted.meta_version, self.view.tenants)

    def many(self, entries: Sequence[Entry], meta: ListMeta, now: datetime) -> bytes:
        """A list."""
        if self.accepted.form is Form.OBJECT:
            return self._object_list(entries, meta)
        objs = [self.decode(e.key, e.value, e.revision) for e in entries]
        if self.accepted.form is Form.METADATA:
            version = f"meta.k8s.io/{self.accepted.meta_version}"
            items = [tables.partial(o, self.accepted.meta_version) for o in objs]
            head = {"kind": "PartialObjectMetadataList", "apiVersion": version, "metadata": meta.raw()}
            return orjson.dumps({**head, "items": items})
        return orjson.dumps(tables.table(self.resource, objs, meta.raw(), now, self._options))

    def _object_list(self, entries: Sequence[Entry], meta: ListMeta) -> bytes:
        kind = self.resource.kind
        head = {"kind": f"{kind.kind}List", "apiVersion": kind.api_version, "metadata": meta.raw()}
        view = self.view
        items = b",".join([splice(e.value, e.revision, e.key, view) for e in entries])
        return b"".join((orjson.dumps(head)[:-1], b',"items":[', items, b"]}"))

    def opening(self) -> bytes:
        """A list's beginning, up to its items, for one that is written as it is read; its metadata comes last."""
        kind = self.resource.kind
        if self.accepted.form is Form.OBJECT:
            head = {"kind": f"{kind.kind}List", "apiVersion": kind.api_version}
        elif self.accepted.form is Form.METADATA:
            head = {"kind": "PartialObjectMetadataList", "apiVersion": f"meta.k8s.io/{self.accepted.meta_version}"}
        else:
            return orjson.dumps(tables.heading(self.resource, self._options))[:-1] + b',"rows":['
        return orjson.dumps(head)[:-1] + b',"items":['

    def items(self, entries: Sequence[Entry], now: datetime) -> bytes:
        """What stands between an opening and an ending, without commas around it."""
        if self.accepted.form is Form.OBJECT:
            return b",".join([splice(e.value, e.revision, e.key, self.view) for e in entries])
        objs = [self.decode(e.key, e.value, e.revision) for e in entries]
        if self.accepted.form is Form.METADATA:
            shown = [tables.partial(o, self.accepted.meta_version) for o in objs]
        else:
            shown = tables.rows(self.resource, objs, now, self._options)
        return orjson.dumps(shown)[1:-1]

    @staticmethod
    def ending(meta: ListMeta) -> bytes:
        """A list's end, with its metadata."""
        return b'],"metadata":' + orjson.dumps(meta.raw()) + b"}"

    def bookmark(self, revision: int, initial_end: bool = False) -> bytes:
        """A bookmark's object: nothing but the revision."""
        meta: Raw = {"resourceVersion": str(revision), "creationTimestamp": None}
        if initial_end:
            meta["annotations"] = {"k8s.io/initial-events-end": "true"}
        kind = self.resource.kind
        if self.accepted.form is Form.METADATA:
            version = f"meta.k8s.io/{self.accepted.meta_version}"
            return orjson.dumps({"kind": "PartialObjectMetadata", "apiVersion": version, "metadata": meta})
        obj: Raw = {"kind": kind.kind, "apiVersion": kind.api_version, "metadata": meta}
        if self.accepted.form is Form.TABLE:
            return orjson.dumps(tables.bookmark(obj, str(revision), self.accepted.meta_version))
        return orjson.dumps(obj)


def renderer_for(resource: Resource, tenant: TenantName, accepted: Accepted, include: str = "") -> Renderer:
    """The way of showing a resource to one request."""
    view = resource.view(tenant)
    include = include or "Metadata"
    to = view.to.api_version if view.to else ""
    parts = (
        to,
        view.api_version,
        view.tenants,
        accepted.form.value,
        accepted.meta_version,
        accepted.media,
        include,
        id(resource.custom),
    )
    return Renderer(resource, view, accepted, include, repr(parts))
