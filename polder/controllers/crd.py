"""Custom resource definitions in deletion: their objects go first, then the finalizer that the API server gave them."""

from __future__ import annotations

from polder.api.errors import ApiError
from polder.api.extensions import CustomResourceDefinition
from polder.api.kinds import kind_of
from polder.api.meta import Object
from polder.base.ref import Ref
from polder.client.client import Client
from polder.controllers.batch import each
from polder.controllers.gc_feed import resource_of
from polder.controllers.resources import Resource, delete_object, list_objects, patch_metadata
from polder.controllers.settings import ControllerSettings

FINALIZER = "customresourcecleanup.apiextensions.k8s.io"
DEFINITIONS = Resource.of(kind_of(CustomResourceDefinition))


class DefinitionController:
    """Reconciles definitions of all tenants; key: the definition's reference."""

    def __init__(self, client: Client, settings: ControllerSettings) -> None:
        self._client = client
        self._settings = settings

    async def reconcile(self, ref: Ref) -> float | None:
        """One step towards the definition being gone. The seconds until the next look, None when there is none."""
        try:
            definition = await self._client.get(CustomResourceDefinition, ref)
        except ApiError as error:
            if error.is_not_found:
                return None
            raise
        finalizers = definition.metadata.finalizers or []
        if definition.metadata.deletion_timestamp is None or FINALIZER not in finalizers:
            return None
        resource = resource_of(definition)
        if resource is not None and await self._empty(ref, resource):
            return self._settings.recheck
        kept = [f for f in finalizers if f != FINALIZER]
        await patch_metadata(self._client, DEFINITIONS, ref, definition, {"finalizers": kept or None})
        return None

    async def _empty(self, ref: Ref, resource: Resource) -> list[Object]:
        """Deletes the kind's objects; those that are still there."""
        found = await list_objects(self._client, ref.tenant, resource)
        going = [o for o in found if o.metadata.deletion_timestamp is None]
        await each([delete_object(self._client, resource, _ref(ref, o), o) for o in going])
        return await list_objects(self._client, ref.tenant, resource) if found else []


def _ref(definition: Ref, obj: Object) -> Ref:
    return Ref(definition.tenant, obj.metadata.namespace, obj.metadata.name)
