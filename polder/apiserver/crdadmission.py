"""CustomResourceDefinitions as they are written: the names that they get, and whether their kinds are served."""

from __future__ import annotations

from dataclasses import dataclass

from polder.api.crd_status import next_status
from polder.api.errors import ApiError
from polder.apiserver.admission import AdmissionContext
from polder.apiserver.crdregistry import DEFINITIONS
from polder.apiserver.objects import decode_entry
from polder.base.clock import Clock, stamp
from polder.store.protocol import Prefix, Store


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
        page = await self.store.list(Prefix(DEFINITIONS.resource, context.tenant))
        others = [decode_entry(entry) for entry in page.entries if entry.key.name != context.name]
        context.obj["status"] = next_status(context.obj, others, stamp(self.clock.now()))
