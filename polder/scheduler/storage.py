"""What the scheduler knows of claims, volumes, classes (of storage and of runtimes) and namespaces: followed from the first
pod on that needs it, since most clusters have none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from polder.api.core import Namespace
from polder.api.meta import ref_of
from polder.api.nodefacts import RuntimeClassFacts
from polder.api.storagefacts import Claim, StorageClassFacts, Volume
from polder.base.ids import ROOT, TenantName
from polder.base.ref import Ref
from polder.client.client import Client
from polder.client.informer import Informer
from polder.scheduler.cluster import CLAIMS, NODE, Cluster
from polder.scheduler.demand import Demand, Fixed

Touched = Callable[[Ref], None]
"""Told of a claim that changed."""


class Late:
    """Caches that are filled from the moment on when somebody wants them."""

    def __init__(self, *informers: Informer[Any]) -> None:
        self._informers = informers
        self._wanted = asyncio.Event()

    def want(self) -> bool:
        """They are needed; whether they are full already."""
        self._wanted.set()
        return self.synced

    @property
    def synced(self) -> bool:
        """Whether all have had their first list."""
        return all(informer.synced for informer in self._informers)

    async def run(self, filled: Callable[[], None]) -> None:
        """Follows the server, once they are wanted, until cancelled. ``filled`` is called when all are there."""
        await self._wanted.wait()
        async with asyncio.TaskGroup() as group:
            for informer in self._informers:
                group.create_task(informer.run())
            for informer in self._informers:
                await informer.wait_synced()
            filled()


class Storage(Late):
    """Claims, volumes and classes (a ``claims.Book``)."""

    def __init__(self, client: Client, cluster: Cluster, touched: Touched) -> None:
        self._claims = Informer(client, Claim)
        self._volumes = Informer(client, Volume)
        self._classes = Informer(client, StorageClassFacts)
        self._cluster = cluster
        self._touched = touched
        self._volumes.add_index("class", lambda v: [(ref_of(v).tenant, v.spec.storage_class_name)])
        self._claims.on_change(self._on_claim)
        self._volumes.on_change(self._on_volume)
        self._classes.on_change(self._on_volume)
        super().__init__(self._claims, self._volumes, self._classes)

    def claim(self, tenant: TenantName, namespace: str, name: str) -> Claim | None:
        """A claim."""
        return self._claims.get(Ref(tenant, namespace, name))

    def volume(self, tenant: TenantName, name: str) -> Volume | None:
        """A volume."""
        return self._volumes.get(Ref(tenant, "", name))

    def volumes(self, tenant: TenantName, storage_class: str) -> Iterable[Volume]:
        """The volumes of a class."""
        return self._volumes.by_index("class", (tenant, storage_class))

    def storage_class(self, tenant: TenantName, name: str) -> StorageClassFacts | None:
        """The tenant's class of that name, else the platform's."""
        return self._classes.get(Ref(tenant, "", name)) or self._classes.get(Ref(ROOT, "", name))

    def _on_claim(self, ref: Ref, _old: Claim | None, _new: Claim | None) -> None:
        self._cluster.tell((CLAIMS, ref.tenant))
        self._touched(ref)

    def _on_volume(self, ref: Ref, _old: object, _new: object) -> None:
        self._cluster.tell((CLAIMS, None if ref.tenant == ROOT else ref.tenant))


class RuntimeClasses(Late):
    """Where pods of runtime classes run. What a tenant's own class says of it is in the pod since its admission; what the
    platform's says is not shown to tenants.
    """

    def __init__(self, client: Client, cluster: Cluster) -> None:
        self._classes = Informer(client, RuntimeClassFacts)
        self._cluster = cluster
        self._classes.on_change(self._on_change)
        super().__init__(self._classes)

    def _on_change(self, ref: Ref, _old: object, _new: object) -> None:
        self._cluster.tell((NODE, None if ref.tenant == ROOT else ref.tenant))

    def placed(self, demand: Demand) -> Demand:
        """The demand with what the platform's class asks for, if the pod's class is one of those."""
        name = demand.runtime_class
        if demand.tenant == ROOT or self._classes.get(Ref(demand.tenant, "", name)) is not None:
            return demand
        found = self._classes.get(Ref(ROOT, "", name))
        if found is None or found.scheduling is None:
            return demand
        place = demand.shape.place
        more = (*place.tolerations, *(found.scheduling.tolerations or ()))
        place = replace(place, platform=Fixed(found.scheduling.node_selector or {}), tolerations=more)
        return replace(demand, shape=replace(demand.shape, place=place))


class Namespaces(Late):
    """The labels of namespaces, for selectors of them."""

    def __init__(self, client: Client, cluster: Cluster) -> None:
        informer = Informer(client, Namespace)
        self._cluster = cluster
        informer.on_change(self._on_change)
        super().__init__(informer)

    def _on_change(self, ref: Ref, _old: Namespace | None, new: Namespace | None) -> None:
        self._cluster.set_namespace(ref.tenant, ref.name, None if new is None else new.metadata.labels or {})
