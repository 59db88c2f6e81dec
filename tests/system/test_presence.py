"""What one more tenant, network or pod costs on a node that has many. ``python -m bench presence`` does it with 200 and 50."""

from __future__ import annotations

import asyncio
from pathlib import Path
from statistics import median

import pytest

from tests.system.presence import presence

pytestmark = pytest.mark.system
TENANTS, NETWORKS = 24, 20


async def test_one_more_tenant_costs_what_the_first_did_and_all_are_apart(tmp_path: Path) -> None:
    async with presence(tmp_path) as place:
        times, items = [], []
        for number in range(TENANTS):
            place.counting.applied = []
            times.append(await place.tenant(number))
            items.append(sum(place.counting.applied))
        assert items[1] == items[-1], "a tenant costs its own items, whoever else is here"
        for tenant in (0, TENANTS - 1):
            place.counting.applied = []
            await place.pod(f"t{tenant}", 0, 1)
            items.append(sum(place.counting.applied))
        assert items[-2] == items[-1] < items[1], "and so does a port"
        assert median(times[-8:]) < 4 * median(times[:8]) + 0.1
        first, last = place.pods[0], place.pods[TENANTS - 1]
        pairs = ((first, place.pods[-2]), (last, place.pods[-1]))
        for one, other in pairs:
            with other.tcp_server(), other.tcp_server(address="::", port=8081):
                assert await asyncio.to_thread(one.tcp, "10.0.0.3") == other.name
                assert await asyncio.to_thread(one.tcp, "fd00:1::3", 8081) == other.name
        assert not place.pipeline.problems()


async def test_a_tenant_with_many_networks(tmp_path: Path) -> None:
    async with presence(tmp_path) as place:
        times = [await place.tenant(0)]
        times += [await place.network("t0", number) for number in range(1, NETWORKS)]
        assert median(times[-6:]) < 4 * median(times[1:7]) + 0.1
        place.counting.applied = []
        await place.pod("t0", NETWORKS - 1, 1)
        assert sum(place.counting.applied) < 25, "a port of one network touches no other network"
        one = place.pods[0]
        for number in (1, NETWORKS // 2, NETWORKS - 1):
            assert await asyncio.to_thread(one.ping, place.address(number, 0)), number
            assert await asyncio.to_thread(one.ping, f"fd00:{number + 1:x}::2"), number
        assert not place.pipeline.problems()
