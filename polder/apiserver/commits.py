"""The one way from an admitted write into the store: the object, and what its companions put beside it, in one commit.

Rows that many objects share (a quota, a namespace that must stand) are only expected to be as they were read. Where one of
those changed meanwhile the commit is composed anew; who lost that race once waits in line, and newcomers behind it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Final
from weakref import WeakValueDictionary

from polder.api.errors import ApiError, conflict
from polder.apiserver.admission import AdmissionContext, Chain
from polder.apiserver.custom import DEFINITIONS
from polder.apiserver.fairness import away
from polder.apiserver.quota import GUARDS
from polder.apiserver.quota_recount import QUOTA, QUOTAS, TENANTS, USAGES
from polder.store.protocol import ConflictError, Delete, Op, Put, Store

ATTEMPTS: Final = 64
SHARED: Final = frozenset({QUOTAS, GUARDS, USAGES, TENANTS, "namespaces"})
"""Resources of the store whose rows a commit may depend on without being about them."""


@dataclass(frozen=True, slots=True)
class Commits:
    """Commits admitted writes."""

    store: Store
    chain: Chain
    _lines: WeakValueDictionary[str, asyncio.Lock] = field(default_factory=WeakValueDictionary)

    async def commit(self, context: AdmissionContext, op: Put | Delete) -> int:
        """The revision of the commit; a dry run only looks whether it would be refused, and is at 0. Raises ApiError, and
        ConflictError where the object itself, or what is made along with it, is not as expected.
        """
        given = tuple(context.along)
        line = self._lines.get(context.tenant)
        if line is None:
            try:
                return await self._once(context, op)
            except ConflictError as lost:
                if not _is_shared(lost, op):
                    raise
                given = _without(given, lost)
                line = self._lines.setdefault(context.tenant, asyncio.Lock())
        async with line:
            for _ in range(ATTEMPTS):
                context.along[:] = given
                try:
                    return await self._once(context, op)
                except ConflictError as lost:
                    if not _is_shared(lost, op):
                        raise
                    given, last = _without(given, lost), lost
        raise conflict(QUOTA, last.key.name) from last

    async def _once(self, context: AdmissionContext, op: Put | Delete) -> int:
        await self.chain.accompany(context, op.value if isinstance(op, Put) else None)
        if context.dry_run:
            return 0
        try:
            async with away(returns_at_once=True):  # others of the tenant share the disk's next sync
                return await self.store.commit([op, *context.along])
        except ConflictError as lost:
            if lost.key.resource != DEFINITIONS.resource or op.key.resource == DEFINITIONS.resource:
                raise
            why = f"the definition {lost.key.name} has just changed, please try again"
            raise ApiError(429, "TooManyRequests", why, {"retryAfterSeconds": 1}) from lost


def _without(given: tuple[Op, ...], lost: ConflictError) -> tuple[Op, ...]:
    """What admission put beside the object, but for what is to be looked at again."""
    return tuple(op for op in given if op.key != lost.key)


def _is_shared(lost: ConflictError, op: Put | Delete) -> bool:
    return lost.key != op.key and lost.key.resource in SHARED
