"""Type checking of validating policies: what of their expressions cannot be, given the types that they are meant for.

It only warns (``status.typeChecking``), and is done when a policy is written. Types by wildcards are not looked at.
Source: apiserver's admission/plugin/policy/validating/typechecking.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, product
from typing import Final

from polder.api.cel import CelError, CelType, compile_cel
from polder.api.cel.declarations import declared
from polder.api.cel.types import BOOL, BYTES, DOUBLE, DYN, INT, STRING, TIMESTAMP, list_of, map_of, struct
from polder.api.kinds import Kind
from polder.api.meta import Raw
from polder.api.schemas import Schema, Shape, schema_of
from polder.apiserver.admission import AdmissionContext
from polder.apiserver.catalog import Resource
from polder.apiserver.policies import KindOf
from polder.apiserver.policies_cel import compose, variables_of
from polder.base.ids import TenantName

TYPES_LIMIT: Final = 10
"""Types that one policy is checked for."""
WARNING_LIMIT: Final = 4096
PLACES_LIMIT: Final = 200
"""Groups, versions and resources that are looked up for one policy."""
CHECKED: Final = 100
"""Validations of one policy that are checked; each is compiled for each type."""
_SCALARS: Final[Mapping[Shape, CelType]] = {
    Shape.STRING: STRING, Shape.QUANTITY: STRING, Shape.INT32: INT, Shape.INT64: INT, Shape.NUMBER: DOUBLE,
    Shape.BOOLEAN: BOOL, Shape.TIME: TIMESTAMP, Shape.MICRO_TIME: TIMESTAMP, Shape.BYTES: BYTES,
}  # fmt: skip

Find = Callable[[TenantName, str, str, str], Awaitable[Resource | None]]
"""(tenant, group, version, plural): the resource, None if there is none."""


@dataclass(slots=True)
class BuiltInTypes:
    """CEL's types of the published definitions; a definition that holds itself is dynamic inside."""

    _made: dict[int, CelType] = field(default_factory=dict)

    def of(self, schema: Schema) -> CelType:
        """Made on first use; there are as many as definitions."""
        known = self._made.get(id(schema))
        if known is not None:
            return known
        self._made[id(schema)] = DYN
        found = self._made[id(schema)] = self._make(schema)
        return found

    def _make(self, schema: Schema) -> CelType:
        scalar = _SCALARS.get(schema.shape)
        if scalar is not None:
            return scalar
        if schema.shape is Shape.OBJECT and schema.fields:
            return struct(schema.name, {name: self.of(prop.schema) for name, prop in schema.fields.items()})
        if schema.shape is Shape.LIST and schema.items is not None:
            return list_of(self.of(schema.items))
        if schema.shape is Shape.MAP and schema.items is not None:
            return map_of(STRING, self.of(schema.items))
        return DYN


@dataclass(slots=True)
class PolicyTypes:
    """Says in a policy's status what cannot be."""

    find: Find
    kind_of: KindOf
    types: BuiltInTypes = field(default_factory=BuiltInTypes)

    async def note(self, context: AdmissionContext) -> None:
        """Sets the status of a policy that is being written."""
        policy = context.obj
        if policy is None or context.subresource or context.verb not in {"create", "update"}:
            return
        if context.old is not None and context.old.get("spec") == policy.get("spec"):
            return
        spec = policy.get("spec") or {}
        found = await self._types(context.tenant, spec)
        params = await self._params(context.tenant, spec)
        warnings = await asyncio.to_thread(warnings_of, spec, found, params) if found else []
        checking = {"expressionWarnings": warnings} if warnings else {}
        before = (context.old or {}).get("metadata") or {}
        generation = (before.get("generation") or 0) + 1  # what the changed spec is about to get
        policy["status"] = {**(policy.get("status") or {}), "observedGeneration": generation, "typeChecking": checking}

    async def _types(self, tenant: TenantName, spec: Raw) -> list[tuple[str, CelType]]:
        wanted: set[tuple[str, str, str]] = set()
        for rule in (spec.get("matchConstraints") or {}).get("resourceRules") or []:
            groups, versions = rule.get("apiGroups") or [], rule.get("apiVersions") or []
            resources = [r for r in rule.get("resources") or [] if "*" not in r and "/" not in r]
            if "*" in groups or "*" in versions:
                continue
            wanted.update(islice(product(groups, versions, resources), PLACES_LIMIT - len(wanted)))
        found: dict[str, CelType] = {}
        for group, version, plural in sorted(wanted):
            resource = await self.find(tenant, group, version, plural)
            kind = self._type(resource) if resource is not None else None
            if resource is not None and kind is not None and len(found) < TYPES_LIMIT:
                found[f"{resource.kind.api_version}, Kind={resource.kind.kind}"] = kind
        return list(found.items())

    async def _params(self, tenant: TenantName, spec: Raw) -> CelType | None:
        said = spec.get("paramKind")
        if not said:
            return None
        resource = await self.kind_of(tenant, said.get("apiVersion", ""), said.get("kind", ""))
        return (self._type(resource) if resource is not None else None) or DYN

    def _type(self, resource: Resource) -> CelType | None:
        if resource.custom is not None:
            return declared(resource.custom.schema, "object", is_resource=True)
        return self._built_in(resource.kind)

    def _built_in(self, kind: Kind) -> CelType | None:
        schema = schema_of(kind)
        return self.types.of(schema) if schema is not None else None


def warnings_of(spec: Raw, types: Sequence[tuple[str, CelType]], params: CelType | None) -> list[Raw]:
    """The warnings for each expression that is mistaken for some of the types."""
    scopes = []
    for name, kind in types:
        scope = {**variables_of(params=params is not None), "object": kind, "oldObject": kind}
        if params is not None:
            scope["params"] = params
        scopes.append((name, compose(spec.get("variables") or [], scope).kinds))
    found = []
    for number, row in enumerate((spec.get("validations") or [])[:CHECKED]):
        for name in ("expression", "messageExpression"):
            text = row.get(name)
            said = "".join(_mistakes(str(text), scopes)) if text else ""
            if said:
                place = f"spec.validations[{number}].{name}"
                found.append({"fieldRef": place, "warning": said[:WARNING_LIMIT]})
    return found


def _mistakes(text: str, scopes: Sequence[tuple[str, Mapping[str, CelType]]]) -> list[str]:
    found = []
    for name, kinds in scopes:
        try:
            compile_cel(text, kinds)
        except CelError as error:
            found.append(f"{name}: {error}\n")
    return found
