"""Admission: ordered hooks that complete, check and accompany a write before it is committed.

Hooks run after conforming and defaulting: first those that change the object, then what the tenant itself registered
(policies and webhooks that change), then validation by ``polder.api``, then those that only look, then the tenant's
validating ones, then the last, which count what passed. A hook refuses by raising ApiError.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from polder.api.kinds import Kind
from polder.api.meta import Raw
from polder.apiserver.catalog import Resource
from polder.apiserver.types import Identity
from polder.base.ids import TenantName
from polder.store.protocol import Key, Op

_OPERATIONS = {"create": "CREATE", "update": "UPDATE", "delete": "DELETE", "connect": "CONNECT"}


@dataclass(slots=True)
class Subject:
    """What a request for a subresource is about, where that is another object than the one that is written: a Binding, an
    Eviction, a Scale, the options of a connection. ``take`` does what a changed one says, and may raise ApiError; without it
    nobody can change the object.
    """

    kind: Kind
    obj: Raw
    operation: str = "CREATE"
    old: Raw | None = None
    take: Callable[[AdmissionContext, Raw], None] | None = None


@dataclass(slots=True)
class AdmissionContext:
    """One write. ``verb`` is create, update, delete or connect; ``obj`` is None for a delete, ``old`` for a create.

    Hooks may change ``obj`` in place, add ``warnings`` for the caller, ``audit`` annotations, and ops to ``along`` that are
    committed together with the object. ``options`` are the request's (CreateOptions, UpdateOptions, DeleteOptions).
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
    given: set[Key] = field(default_factory=set)
    """Rows of claims that the server chose itself."""
    options: Raw = field(default_factory=dict)
    audit: dict[str, str] = field(default_factory=dict)
    subject: Subject | None = None

    @property
    def operation(self) -> str:
        """CREATE, UPDATE, DELETE or CONNECT: what policies and webhooks call it."""
        return self.subject.operation if self.subject is not None else _OPERATIONS[self.verb]

    def concerns(self, resource: str, *verbs: str) -> bool:
        """Whether it is a write of the object itself (no subresource), of this resource, by one of these verbs."""
        return self.resource.kind.resource == resource and self.verb in verbs and not self.subresource


def operation_options(kind: str, query: Mapping[str, str]) -> Raw:
    """A request's options as policies and webhooks see them (meta/v1 CreateOptions and its sisters)."""
    found: Raw = {"kind": kind, "apiVersion": "meta.k8s.io/v1"}
    if query.get("dryRun"):
        found["dryRun"] = [query["dryRun"]]
    for name in ("fieldManager", "fieldValidation"):
        if query.get(name):
            found[name] = query[name]
    return found


class Hook(Protocol):
    """One concern of admission."""

    async def admit(self, context: AdmissionContext) -> None:
        """Changes the context or leaves it. Raises ApiError to refuse."""
        ...


class Registered(Protocol):
    """What users registered to take part: admission policies and webhooks."""

    async def change(self, context: AdmissionContext, again: Sequence[Hook]) -> None:
        """Runs those that may change the object; ``again`` are the hooks to run once more where one did. Raises ApiError."""
        ...

    async def check(self, context: AdmissionContext) -> None:
        """Runs those that only look. Raises ApiError."""
        ...


class Companion(Protocol):
    """What is committed together with an object."""

    async def accompany(self, context: AdmissionContext, value: bytes | None) -> None:
        """Adds to ``context.along``. ``value`` is what will be stored, None for the removal of the object."""
        ...


class Assigner(Hook, Protocol):
    """Gives away what is unique, to the object as it will be."""

    async def lost(self, context: AdmissionContext, key: Key) -> bool:
        """Chooses again where the row ``key`` is taken; False where the caller named it. Raises ApiError."""
        ...


@dataclass(frozen=True, slots=True)
class Chain:
    """The hooks in their order."""

    changing: Sequence[Hook] = ()
    checking: Sequence[Hook] = ()
    companions: Sequence[Companion] = ()
    registered: Registered | None = None
    last: Sequence[Hook] = ()
    assigning: Sequence[Assigner] = ()

    async def change(self, context: AdmissionContext) -> None:
        """Runs the hooks that may change the object."""
        for hook in self.changing:
            await hook.admit(context)
        if self.registered is not None:
            await self.registered.change(context, self.changing)
        for hook in self.assigning:
            await hook.admit(context)

    async def look(self, context: AdmissionContext) -> None:
        """For what is not completed first (a deletion, a binding, an eviction, a connection): all that users registered, and the
        hooks that only look.
        """
        if self.registered is not None:
            await self.registered.change(context, ())
        await self.check(context)

    async def check(self, context: AdmissionContext) -> None:
        """Runs the hooks that only look, then those that users registered to look."""
        await self.check_own(context)
        if self.registered is not None:
            await self.registered.check(context)
        for hook in self.last:
            await hook.admit(context)

    async def check_own(self, context: AdmissionContext) -> None:
        """Runs the server's own hooks that only look."""
        for hook in self.checking:
            await hook.admit(context)

    async def lost(self, context: AdmissionContext, key: Key) -> bool:
        """Assigns anew what somebody faster claimed by the row ``key``; whether it was ours to choose. Raises ApiError."""
        return any([await assigner.lost(context, key) for assigner in self.assigning])

    async def accompany(self, context: AdmissionContext, value: bytes | None) -> None:
        """Collects what is committed together with the object."""
        for companion in self.companions:
            await companion.accompany(context, value)
