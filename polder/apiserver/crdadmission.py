"""CustomResourceDefinitions as they are written: the names that they get, and whether their kinds are served."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import orjson

from polder.api.crd import PROBLEMS_SHOWN
from polder.api.crd_status import next_status
from polder.api.errors import ApiError, FieldError, invalid
from polder.api.meta import Raw
from polder.api.rules import rule_texts
from polder.api.validation.crds import unknown_formats, validate_crd, validate_crd_update
from polder.apiserver.admission import AdmissionContext
from polder.apiserver.crdnames import taken_names
from polder.apiserver.custom import DEFINITIONS
from polder.apiserver.workshop import Workshop
from polder.base.clock import Clock, stamp
from polder.store.protocol import Store

_PLAIN_BYTES = 20 * 1024
_RULED_BYTES = 8 * 1024
_RULE_CHARS = 400
"""What of a definition is checked within a turn of the event loop: without rules, with rules, and of the rules themselves."""


@dataclass(frozen=True, slots=True)
class Definitions:
    """A CustomResourceDefinition is accepted or not at the moment in which it is written. Held by the writer's lock."""

    store: Store
    clock: Clock

    async def admit(self, context: AdmissionContext) -> None:
        """Sets the status; refuses new objects of a definition that ends. Raises ApiError 405."""
        if context.resource.terminating and context.verb == "create":
            message = "create not allowed while custom resource definition is terminating"
            raise ApiError(405, "MethodNotAllowed", message)
        if not context.concerns(DEFINITIONS.resource, "create", "update") or context.obj is None:
            return
        if context.verb == "create":
            context.obj["status"] = {}
        taken = await taken_names(self.store, context.tenant, but=context.name)
        others = [taken.beside(context.obj, own=False)]
        context.obj["status"] = next_status(context.obj, others, stamp(self.clock.now()))

    async def accompany(self, context: AdmissionContext, value: bytes | None) -> None:
        """An object is committed only while its definition is the one by which it was converted and checked."""
        if context.resource.custom is not None and value is not None:
            context.along.append(context.resource.custom.standing)


@dataclass(frozen=True, slots=True)
class DefinitionRules:
    """What a definition says is sound: its names, versions, schemas, rules, and how it converts."""

    workshop: Workshop

    async def admit(self, context: AdmissionContext) -> None:
        """Warns of formats that mean nothing. Raises ApiError 422."""
        if not context.concerns(DEFINITIONS.resource, "create", "update") or context.obj is None:
            return
        problems = await self._problems(context.tenant, context.obj, context.old)
        if problems:
            raise invalid(DEFINITIONS, context.name, problems)
        context.warnings += [f'unrecognized format "{name}"' for name in unknown_formats(context.obj, context.old)]

    async def _problems(self, tenant: str, new: Raw, old: Raw | None) -> list[FieldError]:
        if _is_large(new):
            return await self.workshop.check_definition(tenant, new, old)
        found = validate_crd(new) if old is None else validate_crd_update(new, old)
        return list(itertools.islice(found, PROBLEMS_SHOWN))


def _is_large(crd: Raw) -> bool:
    size = len(orjson.dumps(crd.get("spec")))
    if size > _PLAIN_BYTES:
        return True
    versions = (crd.get("spec") or {}).get("versions") or ()
    schemas = [(version.get("schema") or {}).get("openAPIV3Schema") or {} for version in versions]
    rules = sum(len(text) for schema in schemas for text in rule_texts(schema))
    return rules > _RULE_CHARS or (rules > 0 and size > _RULED_BYTES)
