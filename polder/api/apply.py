"""Ownership of fields through writes: what an update takes, and what an apply merges, removes and may not take.

Source: structured-merge-diff (merge.Updater) and apimachinery's managedfields.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from polder.api import fieldsets
from polder.api.apply_compare import Difference, compare, same
from polder.api.apply_typed import TypedError, check, fields_of, merge, reconciled, remove, with_named
from polder.api.apply_types import Type
from polder.api.fieldsets import EMPTY, Fields, Path
from polder.api.meta import Raw
from polder.api.ownership import Managed, Manager, Owned, capped

STRIPPED: Final = fieldsets.of_paths(
    ("f:apiVersion",), ("f:kind",), ("f:metadata",),
    *(("f:metadata", f"f:{name}") for name in (
        "name", "namespace", "creationTimestamp", "selfLink", "uid", "clusterName", "generation", "managedFields",
        "resourceVersion",
    )),
)  # fmt: skip
"""Fields that nobody owns."""
BEFORE_FIRST_APPLY: Final = "before-first-apply"


class UnknownVersionError(Exception):
    """A version that is not served any more: what was owned in it is forgotten."""


class Versions(Protocol):
    """The versions of one kind."""

    @property
    def fixed(self) -> bool:
        """Whether the types change with the software alone, so that updates need not look whether they did."""
        ...

    def type_in(self, version: str) -> Type:
        """The type of objects in an ``apiVersion``. Raises UnknownVersionError."""
        ...

    async def convert(self, obj: Raw, version: str) -> Raw:
        """The object in another ``apiVersion``. Raises UnknownVersionError."""
        ...


@dataclass(frozen=True, slots=True)
class Scope:
    """Where a write goes: the version of the request, the subresource, and the fields that it does not change.

    ``reset`` are fields that are set back, with all below them; ``kept``, where given, are the only ones that count.
    """

    versions: Versions
    version: str
    subresource: str = ""
    reset: Fields = field(default_factory=dict)
    kept: Fields = field(default_factory=dict)

    @property
    def type(self) -> Type:
        """The type in the request's version."""
        return self.versions.type_in(self.version)

    def counted(self, fields: Fields) -> Fields:
        """Without what such a write does not change."""
        if self.reset:
            fields = fieldsets.without(fields, self.reset)
        return fieldsets.only(fields, self.kept) if self.kept else fields


class Conflicts(Exception):  # noqa: N818 - what it holds
    """Fields that others own and an apply without force would change."""

    def __init__(self, fields: Mapping[Manager, Fields], owners: Mapping[Manager, Owned]) -> None:
        super().__init__("conflicts")
        self.fields = fields
        self.owners = owners

    def without(self, allowed: Fields) -> Conflicts | None:
        """The conflicts about other fields than these; None where there are none."""
        left = {manager: fieldsets.difference(fields, allowed) for manager, fields in self.fields.items()}
        left = {manager: fields for manager, fields in left.items() if fields}
        return Conflicts(left, self.owners) if left else None

    def listed(self) -> list[tuple[str, Path]]:
        """Each conflict: the manager in words, and the field."""
        return [
            (_words(manager, self.owners[manager]), path)
            for manager in sorted(self.fields)
            for path in fieldsets.paths(self.fields[manager])
        ]


def _words(manager: Manager, owned: Owned) -> str:
    found = fieldsets.shown_value(manager.name)
    if manager.subresource:
        found += f" with subresource {fieldsets.shown_value(manager.subresource)}"
    if manager.operation == "Update":
        found += f" using {owned.version}" + (f" at {owned.time}" if owned.time else "")
    return found


@dataclass(slots=True)
class _Pair:
    """An object before and after, and how the two differ in each version that an owner speaks."""

    scope: Scope
    old: Raw
    new: Raw
    known: dict[str, Difference] = field(default_factory=dict)

    async def difference(self, version: str) -> Difference:
        """Raises UnknownVersionError."""
        if version not in self.known:
            versions = self.scope.versions
            kind = versions.type_in(version)
            if version == self.scope.version:
                old, new = self.old, self.new
            else:
                old, new = await versions.convert(self.old, version), await versions.convert(self.new, version)
            self.known[version] = compare(kind, _bare(old), _bare(new)).map(self.scope.counted)
        return self.known[version]


def _bare(obj: Raw) -> Raw:
    """An object without its managers."""
    meta = obj.get("metadata")
    if not isinstance(meta, dict) or "managedFields" not in meta:
        return obj
    return {**obj, "metadata": {key: value for key, value in meta.items() if key != "managedFields"}}


async def _settle(pair: _Pair, managed: Managed, writer: Manager | None, *, force: bool) -> Managed:
    """Takes from all but the writer what was changed. Raises Conflicts unless ``force``."""
    found = Managed()
    conflicts: dict[Manager, Fields] = {}
    for manager, owned in managed.owners.items():
        if manager == writer:
            found.owners[manager] = owned
            continue
        try:
            difference = await pair.difference(owned.version)
        except UnknownVersionError:
            continue
        taken = fieldsets.intersection(owned.fields, difference.written)
        left = owned.fields
        if taken:
            conflicts[manager] = taken
            left = fieldsets.difference(left, taken)
        if difference.removed:
            left = fieldsets.difference(left, difference.removed)
        found.put(manager, left, owned.version, owned.time)
    if conflicts and not force:
        raise Conflicts(conflicts, managed.owners)
    return found


async def _reconciled(scope: Scope, managed: Managed) -> Managed:
    """The owners with their sets as the types are today."""
    found = Managed()
    for manager, owned in managed.owners.items():
        try:
            fields = reconciled(scope.versions.type_in(owned.version), owned.fields)
        except UnknownVersionError:
            continue
        found.owners[manager] = owned if fields is owned.fields else Owned(fields, owned.version, owned.time)
    return found


async def update(scope: Scope, old: Raw, new: Raw, managed: Managed, by: tuple[str, str]) -> Managed:
    """The owners after a create, update or patch from ``old`` (an empty object for a create) to ``new``.

    ``by`` is the manager's name and the time. Who changed nothing gets nothing, and its time stays.
    """
    name, time = by
    pair = _Pair(scope, old, new)
    difference = await pair.difference(scope.version)
    if not difference.written and not difference.removed:
        return capped(managed)
    if not scope.versions.fixed:
        managed = await _reconciled(scope, managed)
    found = await _settle(pair, managed, None, force=True)
    written = fieldsets.difference(scope.counted(difference.written), STRIPPED)
    if written:
        manager = Manager.updater(name, scope.version, scope.subresource)
        before = found.owners.get(manager)
        fields = fieldsets.union(before.fields, written) if before else written
        found.put(manager, fields, scope.version, time)
    return capped(found)


@dataclass(frozen=True, slots=True)
class Applied:
    """What an apply makes: the object (the very one that stood, where nothing changes) and its owners."""

    obj: Raw
    managed: Managed


async def apply(
    scope: Scope, live: Raw, config: Raw, managed: Managed, by: tuple[Manager, str], force: bool
) -> Applied:
    """Merges a configuration into what stands. ``by`` is the applier and the time. Raises Conflicts, TypedError."""
    kind = scope.type
    check(kind, config)
    manager, time = by
    if not managed.owners and live.get("metadata", {}).get("uid"):
        managed = await update(scope, _empty(live), live, managed, (BEFORE_FIRST_APPLY, time))
    managed = await _reconciled(scope, managed)
    last = managed.owners.get(manager)
    live = _bare(live)
    merged: Raw = merge(kind, live, config)
    owned = scope.counted(fields_of(kind, config))
    managed.owners[manager] = Owned(owned, scope.version, last.time if last else "")
    mine = fieldsets.difference(owned, STRIPPED)
    if last is not None and (last.fields != mine or last.version != scope.version):
        merged = await _pruned(scope, merged, managed, manager, last)
    found = await _settle(_Pair(scope, live, merged), managed, manager, force=force)
    changed = not same(kind, merged, live)
    found.put(manager, mine, scope.version, time if changed else "")
    return Applied(merged if changed else live, found)


def _empty(obj: Raw) -> Raw:
    return {"apiVersion": obj.get("apiVersion"), "kind": obj.get("kind")}


async def _pruned(scope: Scope, merged: Raw, managed: Managed, manager: Manager, last: Owned) -> Raw:
    """Without what the applier owned, does not own any more, and nobody else owns."""
    try:
        kind = scope.versions.type_in(last.version)
        converted = merged if last.version == scope.version else await scope.versions.convert(merged, last.version)
    except UnknownVersionError:
        return merged
    before = with_named(kind, last.fields)
    mine = managed.owners[manager]
    if last.version == mine.version and not fieldsets.difference(before, with_named(kind, mine.fields)):
        return merged
    pruned = remove(kind, converted, before)
    whole = with_named(kind, fields_of(kind, converted))
    by_version: dict[str, Fields] = {}
    for owned in managed.owners.values():
        by_version[owned.version] = fieldsets.union(by_version.get(owned.version, EMPTY), owned.fields)
    for version in sorted(by_version, key=lambda version: version != last.version):
        state = (converted, pruned, last.version)
        every = whole if version == last.version else None
        pruned = await _added_back(scope, state, (version, by_version[version]), every)
    gone = fieldsets.difference(whole, with_named(kind, fields_of(kind, pruned)))
    found: Raw = remove(kind, converted, fieldsets.intersection(gone, before))
    return found if last.version == scope.version else await scope.versions.convert(found, scope.version)


async def _added_back(
    scope: Scope, state: tuple[Raw, Raw, str], owners: tuple[str, Fields], every: Fields | None
) -> Raw:
    """What was pruned from ``state`` (the object whole, pruned, and its version), less what somebody owns in a version.
    ``every`` are the fields of the whole, where they are known.
    """
    whole, pruned, spoken = state
    version, owned = owners
    try:
        kind = scope.versions.type_in(version)
        if version != spoken:
            whole, pruned = await scope.versions.convert(whole, version), await scope.versions.convert(pruned, version)
    except UnknownVersionError:
        return state[1]
    if every is None:
        every = with_named(kind, fields_of(kind, whole))
    kept = fieldsets.union(with_named(kind, fields_of(kind, pruned)), with_named(kind, owned))
    found: Raw = remove(kind, whole, fieldsets.difference(every, kept))
    return found if version == spoken else await scope.versions.convert(found, spoken)


def allowed_by_last_applied(kind: Type, live: Raw, last_applied: Raw) -> Fields:
    """The fields that a client-side apply set and that still stand as it set them."""
    try:
        check(kind, last_applied)
    except TypedError:
        return {}
    difference = compare(kind, last_applied, _bare(live))
    fields = fieldsets.difference(fields_of(kind, last_applied), difference.written)
    return fieldsets.difference(fields, difference.removed)
