"""All pods of a node: what happens when a worker fails, and when everything is told to end."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from polder.api.meta import ref_of
from polder.node.pods import manager as module
from polder.node.pods.manager import PodManager
from tests.unit.node.podkit import pod


def parts(runtime):
    """As much of a context as a worker that finds nothing uses."""
    return SimpleNamespace(cri=runtime, cluster=None, means=None, recorder=None, clock=None, since=0.0)


class Source:
    """An informer's cache, filled by hand."""

    synced = True

    def __init__(self) -> None:
        self.pods = {}

    def on_change(self, fn):
        self.tell = fn

    def get(self, ref):
        return self.pods.get(ref)

    async def wait_synced(self):
        return


class Runtime:
    """A runtime that has nothing, and whose answers may be a defect."""

    def __init__(self) -> None:
        self.broken = False
        self.asked = 0

    async def list_sandboxes(self, uid=""):
        self.asked += 1
        if self.broken:
            raise ZeroDivisionError
        await asyncio.sleep(0)
        return []

    async def list_containers(self, uid=""):
        return []


@pytest.mark.parametrize("changed", [True, False], ids=["its name is another's", "it is gone"])
async def test_a_pod_that_goes_while_its_worker_is_to_start_again_is_ended(monkeypatch, changed):
    monkeypatch.setattr(module, "BLIND_POLL", 0.05)
    source, runtime = Source(), Runtime()
    manager = PodManager(parts(runtime), source)
    runtime.broken, added, again = True, [], asyncio.Event()

    def add(uid, known):
        added.append(known)
        if len(added) == 1:
            PodManager._add(manager, uid, known)
        else:
            again.set()

    monkeypatch.setattr(manager, "_add", add)
    one = pod()
    source.pods[ref_of(one)] = one
    source.tell(ref_of(one), None, one)
    await asyncio.sleep(0.02)
    assert not manager._workers, "the worker failed"
    source.pods[ref_of(one)] = pod(uid="u-2") if changed else None
    async with asyncio.timeout(5):
        await again.wait()
    assert added == [one, None]


@pytest.mark.parametrize("ticks", range(8))
async def test_the_end_is_not_lost_in_a_change_of_the_runtime(ticks):
    runtime = Runtime()
    manager = PodManager(parts(runtime), Source())
    task = asyncio.ensure_future(manager._watch_runtime())
    await asyncio.sleep(0.02)
    manager._look.set()
    for _ in range(ticks):
        await asyncio.sleep(0)
    task.cancel()
    done, _ = await asyncio.wait({task}, timeout=0.5)
    task.cancel()
    assert done
