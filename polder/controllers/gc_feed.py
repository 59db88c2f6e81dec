"""What the garbage collector learns from: a watch for each built-in kind, a slow round over the custom ones.

The view over all tenants has no custom kinds (each tenant's may differ), and a watch for each kind of each tenant would
make a tenant cost tasks. So collections of custom objects are read in turn, a bounded number in a second.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing

from polder.api.errors import ApiError
from polder.api.extensions import CustomResourceDefinition
from polder.api.kinds import Kind, kind_of
from polder.api.meta import Object, ref_of
from polder.base.errors import PolderError
from polder.base.ids import EVERY_TENANT
from polder.base.ref import Ref
from polder.client.client import Client
from polder.client.informer import Informer
from polder.controllers.gc import GarbageCollector
from polder.controllers.gc_graph import Item
from polder.controllers.resources import Resource, list_objects

log = logging.getLogger(__name__)

RETRY = 2.0
PAUSE = 0.05
"""Seconds between two collections of custom objects."""


def item_of(kind: Kind | Resource, obj: Object) -> Item:
    """An object of a kind as the collector knows it."""
    return Item(ref_of(obj), kind.api_version, kind.kind, obj.metadata.uid)


def follow_informer(collector: GarbageCollector, kind: type[Object], informer: Informer[Object]) -> None:
    """Learns from a cache that exists for another reason."""
    row = kind_of(kind)

    def changed(_ref: Ref, old: Object | None, new: Object | None) -> None:
        if old is not None and (new is None or new.metadata.uid != old.metadata.uid):
            collector.gone(old.metadata.uid)
        if new is not None:
            collector.see(item_of(row, new), new.metadata)

    informer.on_change(changed)


class Feed:
    """Follows one built-in kind over all tenants without keeping its objects."""

    def __init__(self, client: Client, collector: GarbageCollector, kind: type[Object]) -> None:
        self._client = client
        self._collector = collector
        self._type = kind
        self._kind = kind_of(kind)
        self._version = ""

    async def run(self) -> None:
        """Follows until cancelled."""
        while True:
            try:
                if not self._version:
                    await self._list()
                await self._watch()
            except PolderError as error:
                if isinstance(error, ApiError):
                    self._version = ""
                log.debug("garbage collector, %s: %s", self._kind.resource, error)
                await asyncio.sleep(RETRY)

    async def _list(self) -> None:
        listing = await self._client.list(self._type, EVERY_TENANT)
        for obj in listing.items:
            self._collector.see(item_of(self._kind, obj), obj.metadata)
        self._collector.settle(self._kind.api_version, self._kind.kind, listing.items)
        self._version = listing.resource_version

    async def _watch(self) -> None:
        async with aclosing(self._client.watch(self._type, EVERY_TENANT, since=self._version)) as events:
            async for event in events:
                if event.object is not None and event.type == "DELETED":
                    self._collector.gone(event.object.metadata.uid)
                elif event.object is not None:
                    self._collector.see(item_of(self._kind, event.object), event.object.metadata)
                self._version = event.resource_version or self._version


class CustomRound:
    """Goes round the custom collections of all tenants."""

    def __init__(
        self,
        client: Client,
        collector: GarbageCollector,
        definitions: Informer[CustomResourceDefinition],
        period: float,
    ) -> None:
        self._client = client
        self._collector = collector
        self._definitions = definitions
        self._period = period

    async def run(self) -> None:
        """Goes round until cancelled."""
        await self._definitions.wait_synced()
        while True:
            for definition in self._definitions.values():
                await self._look(definition)
                await asyncio.sleep(PAUSE)
            await asyncio.sleep(self._period)

    async def _look(self, definition: CustomResourceDefinition) -> None:
        tenant = ref_of(definition).tenant
        resource = resource_of(definition)
        if resource is None:
            return
        try:
            found = await list_objects(self._client, tenant, resource)
        except PolderError as error:
            log.debug("garbage collector, %s of tenant %s: %s", resource.name, tenant, error)
            return
        for obj in found:
            ref = Ref(tenant, obj.metadata.namespace, obj.metadata.name)
            self._collector.see(Item(ref, resource.api_version, resource.kind, obj.metadata.uid), obj.metadata)
        self._collector.settle(resource.api_version, resource.kind, found, tenant)


def resource_of(definition: CustomResourceDefinition) -> Resource | None:
    """The resource that a definition serves, in the version that is stored if that is served; None if none is."""
    served = [v for v in definition.spec.versions if v.served]
    if not served:
        return None
    version = next((v for v in served if v.storage), served[0])
    names = definition.spec.names
    return Resource(
        definition.spec.group, version.name, names.plural, names.kind, definition.spec.scope == "Namespaced"
    )
