"""Which resources exist for a tenant: the built-in kinds, less the platform's own, and the tenant's custom ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from polder.api.apply_types import Type
from polder.api.convert import is_stored_form
from polder.api.crd import Verdict
from polder.api.errors import no_such_path
from polder.api.kinds import BUILT_IN, PLATFORM_ONLY, Kind
from polder.api.meta import Raw
from polder.api.scale import ScalePaths
from polder.apiserver.objects import PLAIN, View
from polder.base.ids import EVERY_TENANT, ROOT, TenantName
from polder.store.protocol import Change, Check, Entry


class CustomSchema(Protocol):
    """What is known of one version of a custom kind."""

    @property
    def columns(self) -> tuple[Mapping[str, Any], ...]:
        """``additionalPrinterColumns``."""
        ...

    @property
    def schema(self) -> Raw:
        """The structural schema, which equal definitions share."""
        ...

    @property
    def webhook(self) -> Mapping[str, Any] | None:
        """What converts between versions; None where only ``apiVersion`` changes."""
        ...

    @property
    def scale(self) -> ScalePaths | None:
        """Where its scale stands; None for a kind that has none."""
        ...

    def type_in(self, version: str) -> Type | None:
        """How server-side apply merges objects in a served version of the kind; None for another version."""
        ...

    async def take(self, obj: Raw) -> tuple[Raw, tuple[str, ...]]:
        """The object without fields that the schema does not know, with its defaults; and the paths of these fields."""
        ...

    @property
    def selectable(self) -> tuple[str, ...]:
        """Fields by which its objects can be selected, beside those of metadata."""
        ...

    @property
    def warning(self) -> str:
        """What a client of a deprecated version is told; empty for others."""
        ...

    async def check(self, obj: Raw, old: Raw | None, subresource: str = "") -> Verdict:
        """What breaks the schema. Raises ApiError 422."""
        ...

    async def convert(self, obj: Raw, version: str) -> Raw:
        """An object of any version of the kind in another one. Raises ApiError 500."""
        ...

    async def stored(self, obj: Raw) -> Raw:
        """An object in the version in which rows are written. Raises ApiError 500."""
        ...

    @property
    def standing(self) -> Check:
        """The definition as it was when this was made of it."""
        ...

    def is_ready(self, value: bytes, revision: int) -> bool:
        """Whether a row is what a client of this version sees."""
        ...

    async def served(self, entries: Sequence[Entry]) -> list[Entry]:
        """Rows in the form of this version. Raises ApiError 500."""
        ...

    async def served_change(self, change: Change) -> Change:
        """A change of a row in the form of this version. Raises ApiError 500."""
        ...


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource as it is served: a kind in a version, for a custom one with its compiled schema."""

    kind: Kind
    custom: CustomSchema | None = None
    read_only: bool = False
    terminating: bool = False

    async def served(self, entry: Entry) -> Entry:
        """A row as the resource serves it. Raises ApiError 500."""
        if self.custom is None or self.custom.is_ready(entry.value, entry.revision):
            return entry
        return (await self.custom.served([entry]))[0]

    async def stored(self, obj: Raw) -> Raw:
        """An object as its row is written. Raises ApiError 500."""
        return obj if self.custom is None else await self.custom.stored(obj)

    @property
    def has_status(self) -> bool:
        """Whether status is written through a subresource only."""
        return "status" in self.kind.subresources

    def view(self, tenant: TenantName) -> View:
        """How its objects are shown to a request for ``tenant``."""
        version = self.kind.api_version if self.custom is not None else ""
        to = None if self.custom is not None or is_stored_form(self.kind) else self.kind
        return (
            View(version, True, to) if tenant == EVERY_TENANT else View(version, False, to) if version or to else PLAIN
        )


class CustomKinds(Protocol):
    """The custom kinds of each tenant."""

    async def find(self, tenant: TenantName, group: str, version: str, plural: str) -> Resource | None:
        """One that is established and served, or None."""
        ...

    async def all(self, tenant: TenantName) -> Iterable[Resource]:
        """Every served version of every established one."""
        ...


def _by_path(kinds: Iterable[Kind]) -> dict[tuple[str, str, str], Resource]:
    return {(k.group, k.version, k.plural): Resource(k) for k in kinds}


def _for_tenants() -> dict[tuple[str, str, str], Resource]:
    """What every tenant has."""
    return _by_path(k for k in BUILT_IN if k.resource not in PLATFORM_ONLY)


@dataclass(frozen=True, slots=True)
class Catalog:
    """Finds resources by path."""

    custom: CustomKinds
    _platform: Mapping[tuple[str, str, str], Resource] = field(default_factory=lambda: _by_path(BUILT_IN))
    _tenant: Mapping[tuple[str, str, str], Resource] = field(default_factory=_for_tenants)

    def built_in(self, tenant: TenantName) -> Iterable[Resource]:
        """The built-in resources that exist for a tenant (all of them for root and for the view over all tenants)."""
        return self._table(tenant).values()

    def _table(self, tenant: TenantName) -> Mapping[tuple[str, str, str], Resource]:
        return self._platform if tenant in {ROOT, EVERY_TENANT} else self._tenant

    async def find(self, tenant: TenantName, group: str, version: str, plural: str) -> Resource:
        """The resource of a path. Raises ApiError 404 where there is none."""
        found = self._table(tenant).get((group, version, plural))
        if found is None and tenant != EVERY_TENANT and "." in group:
            found = await self.custom.find(tenant, group, version, plural)
        if found is None:
            raise no_such_path()
        return found

    async def all(self, tenant: TenantName) -> list[Resource]:
        """Everything that a tenant's discovery names."""
        custom = [] if tenant == EVERY_TENANT else list(await self.custom.all(tenant))
        return [*self.built_in(tenant), *custom]
