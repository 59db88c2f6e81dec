"""Which tenants have registered policies or webhooks, and what these say.

Almost no tenant has any, and every write asks: so the tenants that may have some are kept in a set, fed by a watch of the
store, and only for these the store is asked. What was read of an object is remembered by its revision, bounded.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Final, Generic, TypeVar

from polder.api.meta import Raw
from polder.apiserver.crdconvert import breathe
from polder.apiserver.following import answered
from polder.apiserver.objects import decode_entry
from polder.base.ids import TenantName
from polder.store.protocol import Batch, ChangeType, CompactedError, Entry, Key, Prefix, Store

GROUP: Final = "admissionregistration.k8s.io"
MUTATING_WEBHOOKS: Final = f"mutatingwebhookconfigurations.{GROUP}"
VALIDATING_WEBHOOKS: Final = f"validatingwebhookconfigurations.{GROUP}"
MUTATING_POLICIES: Final = f"mutatingadmissionpolicies.{GROUP}"
MUTATING_BINDINGS: Final = f"mutatingadmissionpolicybindings.{GROUP}"
VALIDATING_POLICIES: Final = f"validatingadmissionpolicies.{GROUP}"
VALIDATING_BINDINGS: Final = f"validatingadmissionpolicybindings.{GROUP}"
EXEMPT: Final = frozenset(
    {
        MUTATING_WEBHOOKS,
        VALIDATING_WEBHOOKS,
        MUTATING_POLICIES,
        MUTATING_BINDINGS,
        VALIDATING_POLICIES,
        VALIDATING_BINDINGS,
    }
)
"""What is registered never passes by what is registered: a broken webhook can always be taken away."""

EXPECTED: Final = 30.0
"""Seconds for which a write that was begun is looked for; the watch brings it long before."""
DECODED: Final = 16 * 1024 * 1024
"""Bytes of stored values of which the decoded form is remembered."""

T = TypeVar("T")
Counts = Callable[[bytes], bool]
"""Whether a row, by its stored form, is one that somebody registered."""


class Remembered(Generic[T]):
    """What was made of values of the store, by key and revision; the least used is dropped when the weights exceed ``limit``."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._weight = 0
        self._made: OrderedDict[tuple[Key, int], tuple[T, int]] = OrderedDict()

    def get(self, key: Key, revision: int) -> T | None:
        """What was made, None if it is not remembered."""
        found = self._made.get((key, revision))
        if found is None:
            return None
        self._made.move_to_end((key, revision))
        return found[0]

    def put(self, key: Key, revision: int, made: T, weight: int) -> T:
        """Remembers; gives back what was given. ``weight`` is about its bytes in memory."""
        self._weight += weight - self._made.pop((key, revision), (made, 0))[1]
        self._made[key, revision] = made, weight
        while self._weight > self._limit:
            self._weight -= self._made.popitem(last=False)[1][1]
        return made


@dataclass(frozen=True, slots=True)
class Found:
    """An object with the revision by which what is made of it may be remembered."""

    key: Key
    revision: int
    obj: Raw


class Registrations:
    """What is registered, by tenant."""

    def __init__(self, store: Store, resources: frozenset[str] = EXEMPT, counts: Counts = lambda _: True) -> None:
        self._store = store
        self._row_counts = counts
        self._resources = resources
        self._rows: dict[Key, int] = {}
        self._counts: Counter[tuple[str, str]] = Counter()
        self._expected: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._decoded: Remembered[Found] = Remembered(DECODED)

    async def load(self) -> None:
        """Learns what there is. Call it before the server listens."""
        for resource in self._resources:
            await self._reload(resource)

    async def run(self) -> None:
        """Keeps up with the store until cancelled."""
        async with asyncio.TaskGroup() as group:
            for resource in sorted(self._resources):
                group.create_task(self._follow(resource))

    async def _follow(self, resource: str) -> None:
        while True:
            revision = await answered(partial(self._reload, resource))
            try:
                async with aclosing(self._watch(resource, revision)) as batches:
                    async for batch in batches:
                        for change in batch.changes:
                            gone = change.type is ChangeType.DELETE or not self._row_counts(change.value or b"")
                            self._note(change.key, None if gone else change.revision)
            except CompactedError:
                continue
            return

    def _watch(self, resource: str, revision: int) -> AsyncGenerator[Batch, None]:
        return self._store.watch(Prefix(resource), revision)

    async def _reload(self, resource: str) -> int:
        page = await self._store.list(Prefix(resource))
        there = {entry.key: entry.revision for entry in page.entries if self._row_counts(entry.value)}
        for key in [k for k in self._rows if k.resource == resource and k not in there]:
            self._note(key, None)
        for key, revision in there.items():
            self._note(key, revision)
        return page.revision

    def _note(self, key: Key, revision: int | None) -> None:
        """What stands under a key now; None for nothing."""
        at = (key.resource, key.tenant)
        if revision is None:
            if self._rows.pop(key, None) is not None:
                self._counts[at] -= 1
                if not self._counts[at]:
                    del self._counts[at]
            return
        if key not in self._rows:
            self._counts[at] += 1
            self._expected.pop(at, None)
        self._rows[key] = revision

    def expect(self, resource: str, tenant: TenantName) -> None:
        """An object is about to be written here: it counts from its commit on, not only when the watch brings it."""
        self._expected[resource, tenant] = asyncio.get_running_loop().time() + EXPECTED
        self._expected.move_to_end((resource, tenant))
        while len(self._expected) > 4096:
            self._expected.popitem(last=False)

    def _may_have(self, at: tuple[str, str]) -> bool:
        if at in self._counts:
            return True
        until = self._expected.get(at)
        if until is not None and until < asyncio.get_running_loop().time():
            del self._expected[at]
            return False
        return until is not None

    async def of(self, resource: str, tenant: TenantName) -> list[Found]:
        """The tenant's objects of one kind, by name."""
        at = (resource, tenant)
        if not self._may_have(at):
            return []
        page = await self._store.list(Prefix(resource, tenant))
        found, size = [], 0
        for entry in page.entries:
            known = self._decoded.get(entry.key, entry.revision)
            if known is None:
                size = await breathe(size + len(entry.value))
                known = self._decode(entry)
            found.append(known)
        return found

    def rows(self) -> Mapping[Key, int]:
        """Where anything is registered, of all tenants, and its revision."""
        return dict(self._rows)

    def any(self, tenant: TenantName) -> bool:
        """Whether the tenant may have registered anything."""
        return any(self._may_have((resource, tenant)) for resource in self._resources)

    def _decode(self, entry: Entry) -> Found:
        found = Found(entry.key, entry.revision, decode_entry(entry))
        return self._decoded.put(entry.key, entry.revision, found, len(entry.value) + 512)
