"""The names that a tenant's definitions hold, read without holding the definitions: those may be large, and many."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import msgspec

from polder.api.meta import Raw
from polder.apiserver.crdconvert import breathe
from polder.apiserver.custom import DEFINITIONS
from polder.apiserver.following import answered
from polder.store.protocol import Entry, Key, Prefix, Store

PAGE: Final = 100
"""Definitions that are read at a time, or fewer large ones."""


class _Struct(msgspec.Struct, frozen=True, rename="camel"):
    pass


class _Meta(_Struct, frozen=True):
    deletion_timestamp: str | None = None


class _Spec(_Struct, frozen=True):
    group: str = ""


class _Condition(_Struct, frozen=True):
    type: str = ""
    status: str = ""


class _Status(_Struct, frozen=True):
    accepted_names: Raw | None = None
    conditions: list[_Condition] | None = None


class Brief(_Struct, frozen=True):
    """What of a stored definition concerns names."""

    metadata: _Meta = _Meta()
    spec: _Spec = _Spec()
    status: _Status | None = None

    @property
    def waits(self) -> bool:
        """Whether it lacks names that it wants, and is to stay."""
        conditions = (self.status and self.status.conditions) or ()
        accepted = any(c.type == "NamesAccepted" and c.status == "True" for c in conditions)
        return not accepted and not self.metadata.deletion_timestamp


_DECODER: Final = msgspec.json.Decoder(Brief)


def brief(value: bytes) -> Brief:
    """Of a stored definition: the rest of it is passed over."""
    return _DECODER.decode(value)


async def definitions(
    store: Store, prefix: Prefix, revision: int | None = None, *, patient: bool = False
) -> AsyncIterator[Entry]:
    """The definitions as they were at one revision, in pages, with pauses; ``patient`` waits for a store that is away. Raises
    CompactedError, StoreError.
    """
    after: Key | None = None
    done = 0
    while True:
        ask = partial(store.list, prefix, limit=PAGE, after=after, revision=revision)
        page = await (answered(ask) if patient else ask())
        revision, after = page.revision, page.after
        for entry in page.entries:
            done = await breathe(done + len(entry.value))
            yield entry
        if after is None:
            return


@dataclass(slots=True)
class TakenNames:
    """How many of a tenant's definitions hold each name, by group."""

    _resources: Counter[tuple[str, str]] = field(default_factory=Counter)
    _kinds: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, found: Brief) -> None:
        """One definition's names."""
        names = (found.status and found.status.accepted_names) or {}
        self._resources.update((found.spec.group, name) for name in _resource_names(names))
        self._kinds.update((found.spec.group, name) for name in _kind_names(names))

    def beside(self, crd: Raw, own: bool) -> Raw:
        """One definition that stands for all but this: it holds what of this one's wanted names others hold. ``own`` tells
        whether this one's are among those that were added.
        """
        spec = crd.get("spec") or {}
        group, wanted = spec.get("group") or "", spec.get("names") or {}
        mine: Raw = ((crd.get("status") or {}).get("acceptedNames") or {}) if own else {}
        resources, kinds = _resource_names(mine), _kind_names(mine)
        kind, list_kind = (
            name if self._kinds[group, name] > (name in kinds) else ""
            for name in (wanted.get("kind") or "", wanted.get("listKind") or "")
        )
        held = [n for n in _resource_names(wanted) if self._resources[group, n] > (n in resources)]
        return {
            "spec": {"group": group},
            "status": {"acceptedNames": {"shortNames": held, "kind": kind, "listKind": list_kind}},
        }


def _resource_names(names: Raw) -> set[str]:
    return {names.get("plural") or "", names.get("singular") or "", *(names.get("shortNames") or ())} - {""}


def _kind_names(names: Raw) -> set[str]:
    return {names.get("kind") or "", names.get("listKind") or ""} - {""}


async def taken_names(store: Store, tenant: str, but: str = "") -> TakenNames:
    """What all definitions of a tenant hold, ``but`` for one."""
    taken = TakenNames()
    async for entry in definitions(store, Prefix(DEFINITIONS.resource, tenant)):
        if entry.key.name != but:
            taken.add(brief(entry.value))
    return taken
