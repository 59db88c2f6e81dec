"""Writes that constrain each other, one at a time also where several servers share a store.

A kind whose objects are checked against each other (networks must not overlap, definitions must not claim one name) has a row per
tenant. Whoever writes such an object reads the row before it looks at the others, and writes it in the same commit: of two
who looked at the same time one finds the row changed, and looks again. Within one server a lock saves most of that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from polder.api.extensions import CustomResourceDefinition
from polder.api.kinds import kind_of
from polder.api.polder import Network
from polder.apiserver.admission import AdmissionContext
from polder.base.ids import ROOT, TenantName
from polder.store.protocol import Delete, Key, Put, Store

SERIAL: Final = frozenset({kind_of(Network).resource, kind_of(CustomResourceDefinition).resource})
"""Kinds whose objects constrain each other."""
TURNS: Final = "internal:turns"


def turn_key(resource: str, tenant: str) -> Key:
    """The row of one kind in one tenant; kept in root, for it is nothing of the tenant's."""
    return Key(TURNS, ROOT, resource, tenant)


@dataclass(frozen=True, slots=True)
class Turns:
    """A hook that comes before all that looks at other objects."""

    store: Store

    async def admit(self, context: AdmissionContext) -> None:
        """Adds to ``context.along``."""
        if (
            context.resource.kind.resource in SERIAL
            and context.verb in {"create", "update"}
            and not context.subresource
        ):
            key = turn_key(context.resource.kind.resource, context.tenant)
            if all(op.key != key for op in context.along):
                context.along.append(await self.take(key))

    async def take(self, key: Key) -> Put:
        """The op that fails if anybody else takes a turn meanwhile."""
        entry = await self.store.get(key)
        return Put(key, b"", entry.revision if entry else 0)


async def left_turns(store: Store, tenant: TenantName) -> list[Delete]:
    """What takes a tenant's rows away, at its end."""
    keys = [turn_key(resource, tenant) for resource in sorted(SERIAL)]
    return [Delete(key) for key in keys if await store.get(key) is not None]
