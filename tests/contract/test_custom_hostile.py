"""What a tenant writes into definitions costs nobody else time: costly rules and large schemas leave the event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.contract.customkit import CRDS, crd, define, fields, path, version, widget

LAG = 0.25
"""Seconds that the loop may stand still on a busy machine; what is tried here takes seconds."""


@asynccontextmanager
async def prompt_loop() -> AsyncIterator[list[float]]:
    """Measures how long the event loop, which is the server's too, stands still at most."""
    gaps: list[float] = []

    async def tick() -> None:
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0.005)
            now = time.perf_counter()
            gaps.append(now - last)
            last = now

    task = asyncio.create_task(tick())
    try:
        yield gaps
    finally:
        task.cancel()


def costly() -> Any:
    """A rule that passes the estimate and costs nearly a million units on the longest list."""
    numbers = {"type": "array", "maxItems": 420, "items": {"type": "integer"}}
    spec = fields(l=numbers)
    spec["x-kubernetes-validations"] = [{"rule": "self.l.all(a, self.l.all(b, a + b >= 0))"}]
    return spec


async def test_a_costly_rule_holds_up_nobody(admin: Any) -> None:
    await define(admin, crd(version(spec=costly())))
    async with prompt_loop() as gaps:
        made = await admin.post(path(), widget("x", {"l": list(range(350))}))
    assert made.status == 201, made.body
    assert max(gaps) < LAG, max(gaps)
    refused = await admin.post(path(), widget("y", {"l": [-1, *range(349)]}))
    assert refused.status == 422 and "failed rule: self.l.all" in refused.json["message"]


async def test_what_costs_more_than_a_rule_may_is_refused(admin: Any) -> None:
    spec = costly()
    spec["x-kubernetes-validations"][0]["rule"] = "self.l.all(a, self.l.all(b, !self.l.exists(c, c == a + b + 999)))"
    spec["properties"]["l"]["maxItems"] = 100
    body = crd(version(spec=spec))
    made = await admin.post(CRDS, body)
    assert made.status == 201, made.body
    async with prompt_loop() as gaps:
        refused = await admin.post(path(), widget("x", {"l": list(range(100))}))
    assert refused.status == 422
    assert "no further validation rules will be run" in refused.json["message"]
    assert max(gaps) < LAG, max(gaps)


async def test_a_large_definition_holds_up_nobody(admin: Any) -> None:
    many = {f"field{n}": {"type": "string", "description": "x" * 40, "maxLength": 9} for n in range(9000)}
    async with prompt_loop() as gaps:
        made = await admin.post(CRDS, crd(version(spec=fields(**many))))
    assert made.status == 201, made.body[:300]
    assert max(gaps) < 2 * LAG, max(gaps)
    assert (await admin.post(path(), widget("x", {"field1": "1"}))).status == 201


async def test_many_rules_are_checked_elsewhere(admin: Any) -> None:
    spec = fields(a={"type": "integer"})
    spec["x-kubernetes-validations"] = [{"rule": f"self.a != {n}", "message": f"not {n}"} for n in range(2500)]
    async with prompt_loop() as gaps:
        await define(admin, crd(version(spec=spec)))
        made = await admin.post(path(), widget("x", {"a": 7}))
    assert made.status == 422 and "not 7" in made.json["message"]
    assert max(gaps) < LAG, max(gaps)


async def test_memory_is_bounded_as_time_is(admin: Any) -> None:
    """An expression that would make gigabytes of text for a handful of cost units."""
    spec = fields(s={"type": "string", "maxLength": 4000})
    spec["x-kubernetes-validations"] = [
        {"rule": "[1].map(x, self.s.replace('', self.s)).all(t, '%s%s%s'.format([t, t, t]) != '')"}
    ]
    await define(admin, crd(version(spec=spec)))
    began = time.perf_counter()
    refused = await admin.post(path(), widget("x", {"s": "x" * 4000}))
    assert refused.status in (201, 422)
    assert time.perf_counter() - began < 5
    lists = fields(l={"type": "array", "maxItems": 100, "items": {"type": "integer"}})
    lists["x-kubernetes-validations"] = [{"rule": "[self.l]" + ".map(a, a + a)" * 30 + ".size() == 1"}]
    await define(admin, crd(version(spec=lists), plural="doublers", kind="Doubler"))
    refused = await admin.post(path(plural="doublers"), widget("x", {"l": [1] * 100}, kind="Doubler"))
    assert refused.status == 422 and "no further validation rules will be run" in refused.json["message"]
