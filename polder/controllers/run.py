"""All controllers of all tenants in one task group."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from polder.client.client import Client
from polder.controllers.caches import Caches
from polder.controllers.certificates import Signer
from polder.controllers.event_expiry import EventExpiry
from polder.controllers.gc_feed import GarbageFeed
from polder.controllers.runners import Runners
from polder.controllers.settings import ControllerSettings
from polder.controllers.wiring import Wiring
from polder.controllers.wiring_addresses import AddressWiring
from polder.controllers.wiring_batch import BatchWiring
from polder.controllers.wiring_nodes import NodeWiring
from polder.controllers.wiring_policy import PolicyWiring
from polder.controllers.wiring_services import ServiceWiring
from polder.controllers.wiring_sets import SetWiring
from polder.controllers.wiring_storage import StorageWiring
from polder.controllers.wiring_workloads import WorkloadWiring


async def _every(period: float, work: Callable[[], None]) -> None:
    while True:
        await asyncio.sleep(period)
        work()


async def run_controllers(client: Client, settings: ControllerSettings, signer: Signer | None = None) -> None:
    """Runs until cancelled. The client's identity is a component's. Without a signer no certificate is signed."""
    caches = Caches(client)
    runners = Runners(client, settings, caches, signer)
    wiring = Wiring(caches, runners, settings.root_ca)
    async with asyncio.TaskGroup() as group:
        for informer in caches.all():
            group.create_task(informer.run())
        await caches.wait_synced()
        wiring.attach()
        ServiceWiring(caches, runners).attach()
        AddressWiring(caches, runners).attach()
        WorkloadWiring(caches, runners).attach()
        sets = SetWiring(caches, runners)
        sets.attach()
        group.create_task(sets.nodes.run())
        nodes = NodeWiring(caches, runners)
        nodes.attach()
        group.create_task(_every(settings.ended_pods_period, lambda: nodes.sweep(settings.ended_pods)))
        batch = BatchWiring(caches, runners, settings.clock)
        batch.attach()
        StorageWiring(caches, runners).attach()
        policy = PolicyWiring(caches, runners)
        policy.attach()
        for recorder in runners.recorders:
            group.create_task(recorder.run())
        for runner in runners.all():
            group.create_task(runner.run())
        group.create_task(runners.pulse.run())
        group.create_task(GarbageFeed(client, runners.garbage.add).run())
        group.create_task(EventExpiry(client, settings.clock, settings).run())
        group.create_task(_every(settings.sweep_period, wiring.sweep))
        group.create_task(_every(settings.sweep_period, policy.show))
        group.create_task(_every(settings.clock_period, batch.check_clock))
        group.create_task(_every(settings.quota_period, policy.resync))
