"""``metadata.managedFields``: who owns which fields, read from objects and written back.

Source: apimachinery's managedfields (managers, cap, order) and API conventions, "Server-side apply".
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Final

from polder.api import fieldsets
from polder.api.fieldsets import EMPTY, Fields, FieldsError
from polder.api.meta import Raw

MANAGED: Final = "managedFields"
MAX_UPDATERS: Final = 10
"""Managers by update that are kept apart; the oldest beyond are one, ``ANCIENT``."""
ANCIENT: Final = "ancient-changes"
UPDATE: Final = "Update"
APPLY: Final = "Apply"


@dataclass(frozen=True, slots=True, order=True)
class Manager:
    """Who owns fields: by name, operation and subresource; for updates also by version, which is empty for appliers."""

    name: str
    operation: str
    subresource: str = ""
    version: str = ""

    @staticmethod
    def updater(name: str, version: str, subresource: str = "") -> Manager:
        """One who creates, updates or patches."""
        return Manager(name or "unknown", UPDATE, subresource, version)

    @staticmethod
    def applier(name: str, subresource: str = "") -> Manager:
        """One who applies."""
        return Manager(name or "unknown", APPLY, subresource)


@dataclass(frozen=True, slots=True)
class Owned:
    """What one manager owns: fields of the object in ``version``, and when it last changed that (RFC 3339, or empty)."""

    fields: Fields
    version: str
    time: str = ""


@dataclass(slots=True)
class Managed:
    """The managers of one object."""

    owners: dict[Manager, Owned] = field(default_factory=dict)

    def copy(self) -> Managed:
        """The same managers, to be changed apart."""
        return Managed(dict(self.owners))

    def put(self, manager: Manager, fields: Fields, version: str, time: str = "") -> None:
        """Sets what a manager owns; nothing takes it off the list. No ``time`` keeps the last one."""
        if not fields:
            self.owners.pop(manager, None)
            return
        before = self.owners.get(manager)
        self.owners[manager] = Owned(fields, version, time or (before.time if before else ""))


class ManagedFieldsError(Exception):
    """A client's managedFields make no sense."""


def is_reset(entries: Any) -> bool:
    """Whether a client asks to forget all managers: an empty list, or one empty entry."""
    return isinstance(entries, list) and (not entries or (len(entries) == 1 and not _content(entries[0])))


def _content(entry: Any) -> Any:
    return {k: v for k, v in entry.items() if v not in (None, "")} if isinstance(entry, dict) else entry


def read_stored(meta: Raw) -> Managed:
    """The managers of an object that stands in the store."""
    found = Managed()
    for entry in meta.get(MANAGED) or ():
        operation, version = entry["operation"], entry["apiVersion"]
        by = Manager(entry.get("manager", ""), operation, entry.get("subresource", ""),
                     version if operation == UPDATE else "")  # fmt: skip
        found.owners[by] = Owned(entry.get("fieldsV1") or EMPTY, version, entry.get("time") or "")
    return found


def read_sent(entries: Any) -> Managed:
    """The managers that a client sent. Raises ManagedFieldsError."""
    found = Managed()
    if not isinstance(entries, list):
        raise ManagedFieldsError("managedFields must be a list")
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict) or entry.get("operation") not in (APPLY, UPDATE):
            raise ManagedFieldsError("operation must be `Apply` or `Update`")
        version, form = entry.get("apiVersion"), entry.get("fieldsType")
        if not version:
            raise ManagedFieldsError("apiVersion must not be empty")
        if form != "FieldsV1":
            what = f'invalid fieldsType "{form}"' if form else "missing fieldsType"
            raise ManagedFieldsError(f"{what} in managed fields entry {number}")
        try:
            fields = fieldsets.read_fields(entry.get("fieldsV1") or {})
        except FieldsError as problem:
            raise ManagedFieldsError(f"error decoding set: {problem}") from problem
        by = Manager(str(entry.get("manager") or ""), entry["operation"], str(entry.get("subresource") or ""),
                     str(version) if entry["operation"] == UPDATE else "")  # fmt: skip
        found.owners[by] = Owned(fields, str(version), str(entry.get("time") or ""))
    return found


def capped(managed: Managed) -> Managed:
    """The oldest updaters beyond ``MAX_UPDATERS`` become one for each version."""
    updaters = [manager for manager in managed.owners if manager.operation == UPDATE]
    excess = len(updaters) - MAX_UPDATERS
    if excess <= 0:
        return managed
    found = managed.copy()
    updaters.sort(key=lambda m: (found.owners[m].time, m))
    first: dict[str, Manager] = {}
    for manager in updaters:
        if excess <= 0:
            break
        mine = found.owners[manager]
        seen = first.setdefault(mine.version, manager)
        if seen == manager:
            continue
        bucket = Manager.updater(ANCIENT, mine.version)
        if bucket not in found.owners:
            found.owners[bucket] = found.owners.pop(seen)
        if bucket != manager:
            both = fieldsets.union(mine.fields, found.owners[bucket].fields)
            found.owners[bucket] = Owned(both, mine.version, mine.time)
            del found.owners[manager]
            excess -= 1
    return found


def write(managed: Managed, before: Raw) -> list[Raw]:
    """The entries in upstream's order. What did not change is written as ``before`` (an object's metadata) has it."""
    standing = {_identity(entry): entry for entry in before.get(MANAGED) or ()}
    found = []
    for manager, owned in managed.owners.items():
        entry: Raw = {"manager": manager.name, "operation": manager.operation, "apiVersion": owned.version}
        if owned.time:
            entry["time"] = owned.time
        entry["fieldsType"] = "FieldsV1"
        entry["fieldsV1"] = owned.fields
        if manager.subresource:
            entry["subresource"] = manager.subresource
        old = standing.get(_identity(entry))
        if old is not None and old.get("fieldsV1") == owned.fields:
            entry = old if old.get("time", "") == owned.time else {**entry, "fieldsV1": old.get("fieldsV1", EMPTY)}
        else:
            entry["fieldsV1"] = fieldsets.ordered(owned.fields)
        found.append(entry)
    found.sort(key=_order)
    return found


def _identity(entry: Raw) -> tuple[str, ...]:
    return tuple(str(entry.get(key, "")) for key in ("manager", "operation", "subresource", "apiVersion"))


def _order(entry: Raw) -> tuple[str, ...]:
    return tuple(str(entry.get(key, "")) for key in ("operation", "time", "manager", "apiVersion", "subresource"))


def same_but_times(left: list[Raw], right: list[Raw]) -> bool:
    """Whether two lists say the same, times put aside."""
    if len(left) != len(right):
        return False
    theirs = {_identity(entry): entry for entry in right}
    return all(
        (other := theirs.get(_identity(entry))) is not None and other.get("fieldsV1") == entry.get("fieldsV1")
        for entry in left
    )


def renamed(managed: Managed, old: Manager, new: Manager) -> Managed:
    """What ``old`` owned belongs to ``new`` as well as its own."""
    found = managed.copy()
    mine = found.owners.pop(old, None)
    if mine is not None:
        theirs = found.owners.get(new)
        found.owners[new] = replace(mine, fields=fieldsets.union(mine.fields, theirs.fields)) if theirs else mine
    return found
