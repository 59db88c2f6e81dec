"""Turns of tenants that carry bytes."""

import asyncio

from polder.client.pace import Pace


async def test_a_tenant_has_one_step_in_each_round_however_many_streams_it_has():
    pace, steps, rounds = Pace(), {"busy": 0, "quiet": 0}, 0

    async def carry(tenant):
        while True:
            await pace.step(tenant)
            steps[tenant] += 1

    tasks = [asyncio.ensure_future(carry("busy")) for _ in range(50)] + [asyncio.ensure_future(carry("quiet"))]
    for _ in range(300):
        await asyncio.sleep(0)
        rounds += 1
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert steps["busy"] <= rounds
    assert steps["quiet"] >= steps["busy"] / 2
    assert steps["busy"] > 50


async def test_within_a_tenant_it_is_first_come_first_served():
    pace, order = Pace(), []

    async def one(number):
        await pace.step("a")
        order.append(number)

    await asyncio.gather(*map(one, range(10)))
    assert order == list(range(10))
    assert not pace._tenants, "who carries nothing costs nothing"
