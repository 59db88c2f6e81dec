"""One served version of a custom kind, with what the server does about it: checks, conversion, the form of stored rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import orjson

from polder.api import structural
from polder.api.cel.errors import TooLongError
from polder.api.cel.program import Budget
from polder.api.crd import CustomVersion, Verdict
from polder.api.extensions import CustomResourceDefinition
from polder.api.kinds import kind_of
from polder.api.meta import Raw
from polder.apiserver.crdconvert import Converter, Target, breathe
from polder.apiserver.objects import encode
from polder.apiserver.workshop import Workshop
from polder.base.ids import ROOT, TenantName
from polder.store.protocol import Change, Check, Entry, Key

DEFINITIONS = kind_of(CustomResourceDefinition)
_COMPILE_WEIGHT = 160
"""Compiling a character takes as long as reading so many bytes of JSON."""


@dataclass(frozen=True, slots=True)
class Services:
    """What custom kinds need of the server."""

    workshop: Workshop
    converter: Converter


@dataclass(frozen=True, slots=True, eq=False)
class Custom(CustomVersion):
    """A version of a tenant's custom kind. Rows up to ``since`` were written before the definition was what it is."""

    tenant: TenantName = ROOT
    since: int = 0
    services: Services = field(default_factory=lambda: Services(Workshop(), Converter()))

    async def check(self, obj: Raw, old: Raw | None, subresource: str = "") -> Verdict:
        """What breaks the rules of metadata or the schema; in another process where it is too much for a turn of the event
        loop. Raises ApiError 422.
        """
        compiled = self.compiled
        if not compiled.is_large:
            length = 0
            for chars in compiled.prepare():
                length = await breathe(length + chars * _COMPILE_WEIGHT)
            with suppress(TooLongError):  # then in a process of its own
                return self.validate(obj, old, subresource, Budget.of_one_turn())
        return await self.services.workshop.check_object(self, obj, old, subresource)

    async def take(self, obj: Raw) -> tuple[Raw, tuple[str, ...]]:
        """The object without fields that the schema does not know, with its defaults; and the paths of these fields. Raises
        ApiError 422.
        """
        try:
            return self.prune(obj, structural.one_turn())
        except TooLongError:
            return await self.services.workshop.prune_object(self, obj)

    # --- conversion ---------------------------------------------------------------------------------------------------

    def target(self, version: str) -> Target:
        """What objects of the kind are converted to."""
        return Target(self.tenant, f"{self.kind.group}/{version}", self.kind.kind, self.webhook)

    async def convert(self, obj: Raw, version: str) -> Raw:
        """An object of any version of the kind in another one. Raises ApiError 500."""
        if obj.get("apiVersion") == f"{self.kind.group}/{version}":
            return obj
        return (await self.services.converter.convert([obj], self.target(version)))[0]

    async def stored(self, obj: Raw) -> Raw:
        """An object in the version in which rows are written. Raises ApiError 500."""
        return await self.convert(obj, self.storage or self.kind.version)

    @property
    def standing(self) -> Check:
        """The definition as it was when this was made of it."""
        name = f"{self.kind.plural}.{self.kind.group}"
        return Check(Key(DEFINITIONS.resource, self.tenant, "", name), self.since)

    def is_ready(self, value: bytes, revision: int) -> bool:
        """Whether a row shows what a client of this version sees: written in it, under the definition as it is, and by a
        schema that keeps the same fields.
        """
        return (
            self.uniform
            and revision > self.since
            and value.startswith(b'{"apiVersion":"%s"' % self.kind.api_version.encode())
        )

    async def served(self, entries: Sequence[Entry]) -> list[Entry]:
        """Rows in the form of this version: converted, without unknown fields, with defaults. Raises ApiError 500."""
        found = list(entries)
        late = [place for place, e in enumerate(found) if not self.is_ready(e.value, e.revision)]
        if not late:
            return found
        objs: list[Raw] = []
        size = 0
        for place in late:
            objs.append(orjson.loads(found[place].value))
            size = await breathe(size + len(found[place].value))
        objs = await self.services.converter.convert(objs, self.target(self.kind.version))
        for place, obj in zip(late, objs, strict=True):
            value = encode((await self.take(obj))[0])
            found[place] = dataclasses.replace(found[place], value=value)
            size = await breathe(size + len(value))
        return found

    async def served_change(self, change: Change) -> Change:
        """A change of a row in the form of this version. Raises ApiError 500."""
        value, previous = change.value, change.previous
        rows = [Entry(change.key, row, change.revision) for row in (value, previous) if row]
        shown = iter(await self.served(rows))
        return dataclasses.replace(
            change,
            value=next(shown).value if value else value,
            previous=next(shown).value if previous else previous,
        )
