"""An object as policies and webhooks see it, and as it is stored: the versions of one resource.

Inside a write an object has its kind's stored form (built in) or the version of the request (custom).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from polder.api.conform import conform_to
from polder.api.convert import convert
from polder.api.errors import bad_request
from polder.api.kinds import BUILT_IN, Kind
from polder.api.meta import Raw
from polder.api.schemas import definition_name, named
from polder.apiserver import content
from polder.apiserver.admission import AdmissionContext, Subject
from polder.apiserver.catalog import Resource
from polder.apiserver.options import FieldValidation
from polder.base.ids import TenantName


def _same_rows() -> Mapping[str, Sequence[Kind]]:
    found: dict[str, list[Kind]] = defaultdict(list)
    for kind in BUILT_IN:
        found[kind.resource].append(kind)
    return {name: kinds for name, kinds in found.items() if len(kinds) > 1}


_BUILT_IN: Final = _same_rows()

Siblings = Callable[[TenantName, Resource], Awaitable[Sequence[Resource]]]
"""The other served versions of a custom resource."""
ConvertCustom = Callable[[Raw, Resource], Awaitable[Raw]]
"""(object, to): a custom object in another version. Raises ApiError."""


@dataclass(frozen=True, slots=True)
class Forms:
    """Finds the versions of a resource and converts between them."""

    siblings: Siblings
    convert_custom: ConvertCustom

    async def equivalents(self, context: AdmissionContext) -> Sequence[Kind]:
        """The kinds that are the same resource in other versions."""
        if context.resource.custom is None:
            return _BUILT_IN.get(context.resource.kind.resource, ())
        return [resource.kind for resource in await self.siblings(context.tenant, context.resource)]

    async def show(self, context: AdmissionContext, obj: Raw | None, kind: Kind) -> Raw | None:
        """An object of the write in the form of ``kind``; that of a subresource has one. Raises ApiError."""
        if obj is None or context.subject is not None:
            return obj
        if context.resource.custom is None:
            return convert(obj, kind)
        if kind.api_version == obj.get("apiVersion"):
            return obj
        return await self.convert_custom(obj, await self._sibling(context, kind))

    async def take(self, context: AdmissionContext, changed: Raw, kind: Kind) -> None:
        """Makes a changed object of the form of ``kind`` the object of the write: conformed, defaulted, in its form inside.
        What a subresource is about does as it says. Raises ApiError.
        """
        if context.subject is not None:
            _take_subject(context, context.subject, changed)
            return
        assert context.obj is not None
        resource = context.resource
        if resource.custom is not None and kind.api_version != resource.kind.api_version:
            changed = await self.convert_custom(changed, resource)
        as_sent = Resource(kind) if resource.custom is None else resource
        taken = (await content.take(as_sent, changed, FieldValidation.IGNORE)).obj
        content.complete(resource, taken)
        context.obj.clear()
        context.obj.update(taken)

    async def _sibling(self, context: AdmissionContext, kind: Kind) -> Resource:
        known = await self.siblings(context.tenant, context.resource)
        return next(r for r in [context.resource, *known] if r.kind.api_version == kind.api_version)


def _take_subject(context: AdmissionContext, subject: Subject, changed: Raw) -> None:
    if subject.take is None:
        raise bad_request(
            f"{subject.kind.kind} of {context.resource.kind.plural}/{context.subresource} cannot be changed"
        )
    schema = named(definition_name(subject.kind))
    taken = {**conform_to(schema, subject.kind, changed).obj, "apiVersion": subject.obj.get("apiVersion")}
    subject.take(context, taken)
    subject.obj.clear()
    subject.obj.update(taken)
