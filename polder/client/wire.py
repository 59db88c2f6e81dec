"""Between typed objects and the API's paths and JSON: no input or output.

An object read through us carries its tenant in the annotation ``polder.dev/tenant``; one that is written does not.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Generic, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from polder.api.errors import ApiError
from polder.api.kinds import Kind, kind_of
from polder.api.meta import TENANT_ANNOTATION, Object, Struct
from polder.base.errors import PermanentError
from polder.base.ids import EVERY_TENANT, TenantName
from polder.base.ref import Ref
from polder.client.errors import BadAnswerError

log = logging.getLogger(__name__)

T = TypeVar("T", bound=Object)

PATCHES = {
    "merge": "application/merge-patch+json",
    "json": "application/json-patch+json",
    "strategic": "application/strategic-merge-patch+json",
}


@dataclass(frozen=True, slots=True)
class Listing(Generic[T]):
    """A list as it stood at ``resource_version``."""

    items: list[T]
    resource_version: str


@dataclass(frozen=True, slots=True)
class WatchEvent(Generic[T]):
    """``type`` is ADDED, MODIFIED, DELETED or BOOKMARK; a bookmark has no object, only how far the watch has come."""

    type: str
    object: T | None
    resource_version: str


class ListMeta(Struct, frozen=True, kw_only=True):
    """metav1.ListMeta."""

    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")


class RawList(Struct, frozen=True, kw_only=True):
    """A list whose items are not decoded yet."""

    metadata: ListMeta = ListMeta()
    items: list[msgspec.Raw] | None = None


class RawEvent(Struct, frozen=True, kw_only=True):
    """One line of a watch."""

    type: str
    object: msgspec.Raw


class Preconditions(Struct, frozen=True, kw_only=True):
    """metav1.Preconditions."""

    uid: str | None = None
    resource_version: str | None = None


class DeleteOptions(Struct, frozen=True, kw_only=True):
    """metav1.DeleteOptions."""

    api_version: str
    kind: str
    grace_period_seconds: int | None = None
    preconditions: Preconditions | None = None
    propagation_policy: str | None = None


_lists = msgspec.json.Decoder(RawList)
_events = msgspec.json.Decoder(RawEvent)
_metadata = msgspec.json.Decoder(Object)
_encoder = msgspec.json.Encoder()


@cache
def decoder(kind: type[T]) -> msgspec.json.Decoder[T]:
    """The kind's decoder; fields that it does not know are ignored."""
    return msgspec.json.Decoder(kind)


def collection(kind: Kind, tenant: TenantName, namespace: str = "") -> str:
    """The path of a collection; no namespace means all of them."""
    inside = f"/namespaces/{quote(namespace, safe='')}" if namespace and kind.namespaced else ""
    return f"/tenants/{quote(tenant, safe='*')}{kind.path}{inside}/{kind.plural}"


def member(kind: Kind, ref: Ref, subresource: str = "") -> str:
    """The path of one object or of its subresource. Raises PermanentError where the reference is incomplete."""
    if not ref.name or ref.tenant == EVERY_TENANT or (kind.namespaced and not ref.namespace):
        raise PermanentError(f"{kind.kind} {ref}: a tenant, a name and, for this kind, a namespace are needed")
    tail = f"/{subresource}" if subresource else ""
    return f"{collection(kind, ref.tenant, ref.namespace)}/{quote(ref.name, safe='')}{tail}"


def with_query(path: str, **values: str) -> str:
    """The path with those parameters that are not empty."""
    query = urlencode({name: value for name, value in values.items() if value})
    return f"{path}?{query}" if query else path


def encode_object(obj: Object) -> bytes:
    """As it is written: kind filled in, the view's annotation taken out."""
    kind = kind_of(type(obj))
    meta = obj.metadata
    if meta.annotations and TENANT_ANNOTATION in meta.annotations:
        rest = {name: value for name, value in meta.annotations.items() if name != TENANT_ANNOTATION}
        meta = msgspec.structs.replace(meta, annotations=rest or None)
    return _encoder.encode(msgspec.structs.replace(obj, api_version=kind.api_version, kind=kind.kind, metadata=meta))


def encode(value: object) -> bytes:
    """A patch, or another body, as JSON."""
    return _encoder.encode(value)


def decode_object(kind: type[T], body: bytes | msgspec.Raw, tenant: TenantName) -> T:
    """An object as it was read in a view of ``tenant``. Raises BadAnswerError."""
    try:
        obj: T = decoder(kind).decode(body)
    except msgspec.MsgspecError as error:
        raise BadAnswerError(f"the server's answer is no {kind.__name__}: {error}") from error
    if tenant != EVERY_TENANT:
        # Frozen for everybody else; this object is not shared with anybody yet.
        marked = {**(obj.metadata.annotations or {}), TENANT_ANNOTATION: tenant}
        msgspec.structs.force_setattr(obj.metadata, "annotations", marked)
    return obj


def decode_list(body: bytes) -> RawList:
    """A page of a list. Raises BadAnswerError."""
    try:
        return _lists.decode(body)
    except msgspec.MsgspecError as error:
        raise BadAnswerError(f"the server's answer is no list: {error}") from error


def decode_items(kind: type[T], items: Iterable[msgspec.Raw], tenant: TenantName) -> list[T]:
    """The items that can be understood: one that cannot must not hide the others."""
    found = []
    for item in items:
        try:
            found.append(decode_object(kind, item, tenant))
        except BadAnswerError as error:
            log.warning("skipped %s: %s", _name(item), error)
    return found


def decode_event(kind: type[T], line: bytes, tenant: TenantName) -> WatchEvent[T] | None:
    """A line of a watch; None if its object cannot be understood. Raises the ApiError that an ERROR carries, and
    BadAnswerError.
    """
    try:
        event = _events.decode(line)
        if event.type == "ERROR":
            raise ApiError.from_status(msgspec.json.decode(event.object))
        if event.type == "BOOKMARK":
            return WatchEvent(event.type, None, _metadata.decode(event.object).metadata.resource_version)
    except msgspec.MsgspecError as error:
        raise BadAnswerError(f"a line of the watch cannot be understood: {error}") from error
    try:
        obj = decode_object(kind, event.object, tenant)
    except BadAnswerError as error:
        log.warning("skipped %s of %s: %s", event.type, _name(event.object), error)
        return None
    return WatchEvent(event.type, obj, obj.metadata.resource_version)


def _name(item: msgspec.Raw) -> str:
    try:
        meta = _metadata.decode(item).metadata
    except msgspec.MsgspecError:
        return "an object without usable metadata"
    return f"{meta.namespace}/{meta.name}"


class Lines:
    """Cuts a stream of bytes into lines of any length, each byte looked at once."""

    def __init__(self) -> None:
        self._open: list[bytes] = []

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The lines that the chunk completes, without their ends; empty ones are left out."""
        *whole, rest = chunk.split(b"\n")
        for line in whole:
            complete = b"".join((*self._open, line)) if self._open else line
            self._open.clear()
            if complete:
                yield complete
        if rest:
            self._open.append(rest)


def raise_for(status: int, body: bytes) -> None:
    """Raises the ApiError of an answer that is no success. A redirect is none: nobody whom this client asks has to send it
    elsewhere, and its credential opens every door there.
    """
    if status < 300:
        return
    try:
        raw = msgspec.json.decode(body)
    except msgspec.MsgspecError:
        raw = {"message": body[:512].decode(errors="replace").strip()}
    raise ApiError.from_status(raw if isinstance(raw, dict) else {}, status)


def known_patch(how: str) -> str:
    """The content type of a way of patching. Raises PermanentError."""
    try:
        return PATCHES[how]
    except KeyError as error:
        names: Sequence[str] = sorted(PATCHES)
        raise PermanentError(f"a patch is one of {', '.join(names)}, not {how!r}") from error
