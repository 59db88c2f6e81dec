"""All controllers of all tenants in one task group."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from polder.api.core import ConfigMap, Namespace, Node, Pod, Secret, Service, ServiceAccount
from polder.api.discovery import EndpointSlice, Lease
from polder.api.extensions import CustomResourceDefinition
from polder.api.meta import Object
from polder.api.polder import Address, Network, Port, Router, Segment, Tenant
from polder.client.client import Client
from polder.client.informer import Informer
from polder.controllers.caches import Caches
from polder.controllers.event_expiry import EventExpiry
from polder.controllers.gc import GarbageCollector
from polder.controllers.gc_feed import CustomRound, Feed, follow_informer
from polder.controllers.runners import Runners
from polder.controllers.settings import ControllerSettings
from polder.controllers.wiring import Wiring

FED = (Service, ConfigMap, Secret, ServiceAccount, EndpointSlice, Lease)
"""Kinds that only the garbage collector follows in full; it needs no cache of them."""


def shared(caches: Caches) -> dict[type[Object], Informer[Any]]:
    """The kinds that the garbage collector learns of from caches that are there anyway."""
    return {
        Tenant: caches.tenants,
        Namespace: caches.namespaces,
        Node: caches.nodes,
        Pod: caches.pods,
        Network: caches.networks,
        Router: caches.routers,
        Port: caches.ports,
        Address: caches.addresses,
        Segment: caches.segments,
        CustomResourceDefinition: caches.definitions,
    }


def _follow(collector: GarbageCollector, caches: Caches) -> None:
    for kind, informer in shared(caches).items():
        follow_informer(collector, kind, cast("Informer[Object]", informer))


async def _sweep(wiring: Wiring, period: float) -> None:
    while True:
        await asyncio.sleep(period)
        wiring.sweep()


async def run_controllers(client: Client, settings: ControllerSettings) -> None:
    """Runs until cancelled. The client's identity is a component's."""
    caches = Caches(client)
    runners = Runners(client, settings, caches)
    wiring = Wiring(caches, runners, settings.root_ca)
    async with asyncio.TaskGroup() as group:
        for informer in caches.all():
            group.create_task(informer.run())
        await caches.wait_synced()
        wiring.attach()
        _follow(runners.collector, caches)
        for runner in runners.all():
            group.create_task(runner.run())
        for kind in FED:
            group.create_task(Feed(client, runners.collector, kind).run())
        custom = CustomRound(client, runners.collector, caches.definitions, settings.custom_round)
        group.create_task(custom.run())
        group.create_task(EventExpiry(client, settings.clock, settings).run())
        group.create_task(_sweep(wiring, settings.sweep_period))
