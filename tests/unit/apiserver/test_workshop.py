"""The processes that do long work: what takes too long, dies or is idle costs one piece of work at most."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import orjson
import pytest

from polder.api.crd import CustomVersion
from polder.api.errors import ApiError
from polder.api.kinds import Kind
from polder.apiserver import workbench
from polder.apiserver.workshop import Workshop

KIND = Kind("example.com", "v1", "Widget", "widgets", "widget")


def version(spec: dict[str, Any], owner: str = "t") -> CustomVersion:
    root = {"type": "object", "properties": {"spec": {"type": "object", "properties": spec}}}
    return CustomVersion(KIND, orjson.dumps(root), owner=owner)


def widget(**spec: Any) -> dict[str, Any]:
    return {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "x"}, "spec": spec}


async def test_the_same_is_found_elsewhere() -> None:
    workshop = Workshop()
    of = version({"n": {"type": "integer", "default": 3}, "m": {"type": "integer", "maximum": 4}})
    obj = widget(m=9, other=1)
    assert await workshop.prune_object(of, obj) == of.prune(widget(m=9, other=1))
    found = await workshop.check_object(of, obj, None, "")
    assert found.problems == of.validate(obj, None, "").problems != []
    await workshop.close()


async def test_what_takes_too_long_ends_alone() -> None:
    workshop = Workshop(seconds=0.001)
    of = version({"n": {"type": "integer"}})
    with pytest.raises(ApiError, match=r"took more than 0\.001 seconds"):
        await workshop.prune_object(of, widget())
    workshop.seconds = 15.0
    assert (await workshop.prune_object(of, widget(n=1)))[0] == widget(n=1)
    await workshop.close()


async def test_a_process_that_died_is_replaced_and_an_idle_one_ends() -> None:
    workshop = Workshop()
    of = version({"n": {"type": "integer"}})
    await workshop.prune_object(of, widget())
    (bench,) = workshop._free
    os.kill(bench.process.pid, signal.SIGKILL)
    await bench.process.wait()
    workshop.idle = 0.01
    assert (await workshop.prune_object(of, widget(n=2)))[0] == widget(n=2)
    (second,) = workshop._free
    async with asyncio.timeout(5):
        await second.process.wait()
    assert workshop._free == []
    await workshop.close()


async def test_one_tenants_work_is_done_in_turn() -> None:
    workshop = Workshop()
    of = [version({"n": {"type": "integer"}}, owner) for owner in ("a", "a", "a", "b")]
    await asyncio.gather(*(workshop.prune_object(v, widget(n=1)) for v in of))
    assert len(workshop._free) <= 2
    await workshop.close()


def test_a_lack_of_memory_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(_job: Any) -> Any:
        raise MemoryError

    monkeypatch.setitem(workbench._JOBS, "prune", lacking)
    found = orjson.loads(workbench.answer(orjson.dumps({"job": "prune"})))
    assert found["error"]["code"] == 422 and "memory" in found["error"]["message"]
