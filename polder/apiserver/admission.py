"""Admission: ordered hooks that complete, check and accompany a write before it is committed.

Hooks run after conforming and defaulting: first those that change the object, then validation by ``polder.api``, then
those that only look. A hook refuses by raising ApiError.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from polder.api.meta import Raw
from polder.apiserver.catalog import Resource
from polder.apiserver.types import Identity
from polder.base.ids import TenantName
from polder.store.protocol import Op


@dataclass(slots=True)
class AdmissionContext:
    """One write. ``verb`` is create, update or delete; ``obj`` is None for a delete, ``old`` for a create.

    Hooks may change ``obj`` in place, add ``warnings`` for the caller, and ops to ``along`` that are committed together
    with the object.
    """

    who: Identity
    tenant: TenantName
    verb: str
    resource: Resource
    namespace: str
    name: str
    subresource: str = ""
    obj: Raw | None = None
    old: Raw | None = None
    dry_run: bool = False
    warnings: list[str] = field(default_factory=list)
    along: list[Op] = field(default_factory=list)

    def concerns(self, resource: str, *verbs: str) -> bool:
        """Whether it is a write of the object itself (no subresource), of this resource, by one of these verbs."""
        return self.resource.kind.resource == resource and self.verb in verbs and not self.subresource


class Hook(Protocol):
    """One concern of admission."""

    async def admit(self, context: AdmissionContext) -> None:
        """Changes the context or leaves it. Raises ApiError to refuse."""
        ...


class Companion(Protocol):
    """What is committed together with an object."""

    async def accompany(self, context: AdmissionContext, value: bytes | None) -> None:
        """Adds to ``context.along``. ``value`` is what will be stored, None for the removal of the object."""
        ...


@dataclass(frozen=True, slots=True)
class Chain:
    """The hooks in their order."""

    changing: Sequence[Hook] = ()
    checking: Sequence[Hook] = ()
    companions: Sequence[Companion] = ()

    async def change(self, context: AdmissionContext) -> None:
        """Runs the hooks that may change the object."""
        for hook in self.changing:
            await hook.admit(context)

    async def check(self, context: AdmissionContext) -> None:
        """Runs the hooks that only look."""
        for hook in self.checking:
            await hook.admit(context)

    async def accompany(self, context: AdmissionContext, value: bytes | None) -> None:
        """Collects what is committed together with the object."""
        for companion in self.companions:
            await companion.accompany(context, value)
