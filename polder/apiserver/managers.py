"""``metadata.managedFields`` in writes: kept by creates, updates and patches, decided by applies.

Source: apiserver's handlers (create, update, patch) and apimachinery's managedfields.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import orjson

from polder.api import ownership
from polder.api.apply import Conflicts, Scope, UnknownVersionError, Versions, allowed_by_last_applied, apply, update
from polder.api.apply_typed import TypedError
from polder.api.apply_types import DEDUCED, Type, type_of_schema
from polder.api.convert import convert
from polder.api.errors import ApiError, bad_request
from polder.api.fieldsets import path_text
from polder.api.kinds import BUILT_IN, Kind
from polder.api.meta import Raw
from polder.api.ownership import MANAGED, Managed, ManagedFieldsError, Manager
from polder.api.resets import kept_fields, reset_fields
from polder.api.schemas import schema_of
from polder.apiserver import content
from polder.apiserver.admission import AdmissionContext
from polder.apiserver.aside import Aside
from polder.apiserver.catalog import Resource

LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"
KUBECTL: Final = "kubectl"
_INVALID_AFTER_ADMISSION: Final = (
    ".metadata.managedFields was in an invalid state after admission; this could be caused by an outdated mutating "
    "admission controller; please fix your requests: "
)
ANNOTATIONS_LIMIT: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class Author:
    """Who writes: the name of the field manager, and when (RFC 3339)."""

    name: str
    time: str


# --- versions ---------------------------------------------------------------------------------------------------------


@functools.cache
def _forms() -> dict[tuple[str, str], Kind]:
    return {(kind.resource, kind.api_version): kind for kind in BUILT_IN}


@dataclass(frozen=True, slots=True)
class BuiltInVersions:
    """The versions in which a built-in kind is served."""

    kind: Kind

    @property
    def fixed(self) -> bool:
        """They change with the software."""
        return True

    def _form(self, version: str) -> Kind:
        found = _forms().get((self.kind.resource, version))
        if found is None:
            raise UnknownVersionError(version)
        return found

    def type_in(self, version: str) -> Type:
        """Raises UnknownVersionError."""
        schema = schema_of(self._form(version))
        return DEDUCED if schema is None else type_of_schema(schema)

    async def convert(self, obj: Raw, version: str) -> Raw:
        """Raises UnknownVersionError."""
        return convert(obj, self._form(version))


@dataclass(frozen=True, slots=True)
class CustomVersions:
    """The versions of a custom kind."""

    resource: Resource

    @property
    def fixed(self) -> bool:
        """A tenant may change its definition."""
        return False

    @property
    def calls_out(self) -> bool:
        """Whether a webhook converts between the versions."""
        return self.resource.custom is not None and self.resource.custom.webhook is not None

    def type_in(self, version: str) -> Type:
        """Raises UnknownVersionError."""
        group, _, name = version.partition("/")
        custom = self.resource.custom
        found = custom.type_in(name) if custom is not None and group == self.resource.kind.group else None
        if found is None:
            raise UnknownVersionError(version)
        return found

    async def convert(self, obj: Raw, version: str) -> Raw:
        """Raises UnknownVersionError, and ApiError 500 where the definition's webhook fails."""
        self.type_in(version)
        assert self.resource.custom is not None
        return await self.resource.custom.convert(obj, version.partition("/")[2])


def scope_of(resource: Resource, subresource: str) -> Scope:
    """Where a write of this resource or of a subresource of it goes."""
    kind = resource.kind
    versions = BuiltInVersions(kind) if resource.custom is None else CustomVersions(resource)
    reset = reset_fields(kind, subresource, custom=resource.custom is not None)
    return Scope(versions, kind.api_version, subresource, reset, kept_fields(kind, subresource))


@dataclass(frozen=True, slots=True)
class _Known:
    """Versions whose types are made already: for work in a thread, which must not fill what others share."""

    of: Versions
    types: Mapping[str, Type]

    @property
    def fixed(self) -> bool:
        """As the versions themselves."""
        return self.of.fixed

    def type_in(self, version: str) -> Type:
        """Raises UnknownVersionError."""
        found = self.types.get(version)
        if found is None:
            raise UnknownVersionError(version)
        return found

    async def convert(self, obj: Raw, version: str) -> Raw:
        """Raises UnknownVersionError."""
        return await self.of.convert(obj, version)


def _known(scope: Scope, managed: Managed) -> Scope:
    types: dict[str, Type] = {}
    for version in {scope.version, *(owned.version for owned in managed.owners.values())}:
        with contextlib.suppress(UnknownVersionError):
            types[version] = scope.versions.type_in(version)
    return replace(scope, versions=_Known(scope.versions, types))


def _size(scope: Scope, *values: Raw | None) -> int:
    """Bytes of JSON to work on; none where the work may have to wait for a webhook, which only the loop can."""
    versions = scope.versions
    if isinstance(versions, CustomVersions) and versions.calls_out:
        return 0
    return sum(len(orjson.dumps(value)) for value in values if value is not None)


# --- create, update, patch --------------------------------------------------------------------------------------------


async def track(context: AdmissionContext, author: Author, sent: Any, aside: Aside) -> None:
    """Sets the new object's managedFields in place. ``sent`` is what the client sent for them (None for nothing)."""
    obj, old, resource = context.obj, context.old, context.resource
    assert obj is not None
    meta = obj["metadata"]
    standing: Raw = old["metadata"] if old is not None else {}
    managed = _begun(sent, standing, context.subresource)
    if old is not None and not managed.owners:
        meta.pop(MANAGED, None)  # nobody asked yet who owns what
        return
    scope = scope_of(resource, context.subresource)
    before = content.shown(resource, old) if old is not None else _nothing(resource)
    after = content.shown(resource, obj)
    known, by = _known(scope, managed), (author.name, author.time)
    size = _size(scope, after, before)
    found = await aside.run(context.tenant, size, lambda: update(known, before, after, managed, by))
    _put(meta, found, standing)


def _begun(sent: Any, standing: Raw, subresource: str) -> Managed:
    """The owners that a write begins with: the client's where it sends sound ones, else those that stand."""
    if subresource or sent is None or sent == standing.get(MANAGED):
        return ownership.read_stored(standing)
    if ownership.is_reset(sent):
        return Managed()
    try:
        found = ownership.read_sent(sent)
    except ManagedFieldsError:
        return ownership.read_stored(standing)
    return found if found.owners else ownership.read_stored(standing)


def _nothing(resource: Resource) -> Raw:
    return {"apiVersion": resource.kind.api_version, "kind": resource.kind.kind}


def _put(meta: Raw, managed: Managed, standing: Raw) -> None:
    entries = ownership.write(managed, standing)
    if entries:
        meta[MANAGED] = entries
    else:
        meta.pop(MANAGED, None)


def check_admitted(context: AdmissionContext, before: Any) -> None:
    """Puts back the managedFields (``before``) that admission left in a state that makes no sense, in place."""
    assert context.obj is not None
    meta = context.obj["metadata"]
    after = meta.get(MANAGED)
    if not after or after == before:
        return
    try:
        ownership.read_sent(after)
    except ManagedFieldsError as problem:
        meta.pop(MANAGED, None)
        if before:
            meta[MANAGED] = before
        context.warnings.append(f"{_INVALID_AFTER_ADMISSION}{problem}")


def settle_times(obj: Raw, old: Raw) -> None:
    """Takes the old managedFields where the new ones differ in their times alone, in place."""
    new, before = obj["metadata"].get(MANAGED), old["metadata"].get(MANAGED)
    if new and before and new != before and ownership.same_but_times(new, before):
        obj["metadata"][MANAGED] = before


# --- apply ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Applier:
    """Who applies, in which tenant, and whether by force."""

    author: Author
    tenant: str
    force: bool
    aside: Aside


async def applied(scope: Scope, live: Raw | None, config: Raw, by: Applier) -> Raw:
    """``live`` (in the request's form; None where nothing stands) with a configuration applied, managedFields set.

    Raises ApiError 400, 409.
    """
    if (config.get("metadata") or {}).get(MANAGED) is not None:
        raise bad_request("metadata.managedFields must be nil")
    begun = live if live is not None else {"apiVersion": config["apiVersion"], "kind": config["kind"]}
    managed = ownership.read_stored(begun.get("metadata") or {})
    known = _known(scope, managed)
    return await by.aside.run(
        by.tenant, _size(scope, config, live), lambda: _applied(known, begun, config, managed, by)
    )


async def _applied(scope: Scope, begun: Raw, config: Raw, managed: Managed, by: Applier) -> Raw:
    author, standing = by.author, begun.get("metadata") or {}
    applier = (Manager.applier(author.name, scope.subresource), author.time)
    try:
        try:
            found = await apply(scope, begun, config, managed.copy(), applier, force=by.force)
        except Conflicts as conflicts:
            left = conflicts if author.name != KUBECTL else _upgraded(scope, begun, conflicts)
            if left is not None:
                raise conflict_error(left) from None
            found = await apply(scope, begun, config, managed.copy(), applier, force=True)
    except TypedError as mistake:
        raise bad_request(f"failed to create typed patch object ({_named(config)}): {mistake}") from mistake
    meta = dict(found.obj.get("metadata") or {})
    _put(meta, found.managed, standing)
    if author.name == KUBECTL and (meta.get("annotations") or {}).get(LAST_APPLIED):
        meta["annotations"] = _with_last_applied(meta["annotations"], config)
    return {**found.obj, "metadata": meta}


def _named(obj: Raw) -> str:
    """An object as upstream names it in such messages."""
    meta = obj.get("metadata") or {}
    version, kind = obj.get("apiVersion", ""), obj.get("kind", "")
    group = version if "/" in version else f"/{version}"
    return f"{meta.get('namespace', '')}/{meta.get('name', '')}; {group.lstrip('/') if '/' in version else group}, Kind={kind}"


def _upgraded(scope: Scope, live: Raw, conflicts: Conflicts) -> Conflicts | None:
    """What is left of the conflicts when kubectl goes from client-side to server-side apply."""
    text = ((live.get("metadata") or {}).get("annotations") or {}).get(LAST_APPLIED)
    if not text:
        return conflicts
    try:
        last = orjson.loads(text)
    except orjson.JSONDecodeError:
        return conflicts
    if not isinstance(last, dict) or last.get("apiVersion") != scope.version:
        return conflicts
    return conflicts.without(allowed_by_last_applied(scope.type, live, last))


def _with_last_applied(annotations: Raw, config: Raw) -> Raw:
    """The annotations with what was applied, as ``kubectl apply`` without --server-side expects it."""
    meta = dict(config.get("metadata") or {})
    if "annotations" in meta:
        meta["annotations"] = {k: v for k, v in (meta["annotations"] or {}).items() if k != LAST_APPLIED}
    text = orjson.dumps({**config, "metadata": meta}, option=orjson.OPT_SORT_KEYS).decode() + "\n"
    found = {**annotations, LAST_APPLIED: text}
    if sum(len(key) + len(value) for key, value in found.items()) > ANNOTATIONS_LIMIT:
        del found[LAST_APPLIED]
    return found


def conflict_error(conflicts: Conflicts) -> ApiError:
    """409: an apply would change what others own."""
    listed = [(words, path_text(path)) for words, path in conflicts.listed()]
    causes = [
        {"reason": "FieldManagerConflict", "message": f"conflict with {words}", "field": field}
        for words, field in listed
    ]
    if len(listed) == 1:
        message = f"Apply failed with 1 conflict: conflict with {listed[0][0]}: {listed[0][1]}"
    else:
        grouped: dict[str, list[str]] = {}
        for words, field in listed:
            grouped.setdefault(f"conflicts with {words}:", []).append(f"- {field}")
        lines = [line for head, fields in grouped.items() for line in (head, *fields)]
        message = f"Apply failed with {len(listed)} conflicts: " + "\n".join(lines)
    return ApiError(409, "Conflict", message, {"causes": causes})
