"""Who loses the race for an address or a port chooses again, unless the caller asked for that one."""

from __future__ import annotations

import asyncio
import ipaddress
import tracemalloc
from typing import Any

import pytest

from polder.api.core import Service
from polder.api.errors import ApiError
from polder.api.kinds import kind_of
from polder.api.polder import Router
from polder.apiserver.admission import AdmissionContext
from polder.apiserver.catalog import Resource
from polder.apiserver.objects import encode
from polder.apiserver.service_claims import ServiceClaims, address_key
from polder.apiserver.types import Identity, Role
from polder.base.clock import SystemClock
from polder.base.ids import TenantName
from polder.store.memory import MemoryStore
from polder.store.protocol import ConflictError, Key, Put

SERVICES = kind_of(Service)
T = TenantName("t")


async def claims(service_cidr: str = "10.96.0.0/28") -> ServiceClaims:
    store = MemoryStore()
    router = {"apiVersion": "polder.dev/v1alpha1", "kind": "Router", "metadata": {"name": "default"}}
    value = encode({**router, "spec": {"serviceCidr": service_cidr}})
    await store.commit([Put(Key(kind_of(Router).resource, T, "kube-system", "default"), value)])
    return ServiceClaims(store, SystemClock())


def asked(name: str, **spec: Any) -> AdmissionContext:
    obj = {"metadata": {"name": name}, "spec": {"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP"}], **spec}}
    who = Identity("u", Role.PLATFORM_ADMIN)
    return AdmissionContext(who, T, "create", Resource(SERVICES), "default", name, "", obj)


async def commit(hook: ServiceClaims, context: AdmissionContext) -> None:
    assert context.obj is not None
    context.along.clear()
    await hook.accompany(context, b"{}")
    await hook.store.commit(context.along)


async def test_two_that_chose_the_same_both_get_something(monkeypatch: pytest.MonkeyPatch) -> None:
    hook, first, second = await claims(), asked("a"), asked("b")
    await hook.admit(first)
    assert first.obj is not None and second.obj is not None
    chosen = {"clusterIP": first.obj["spec"]["clusterIP"], "port": first.obj["spec"]["ports"][0]["nodePort"]}
    # The other server saw the same free address and port at the same time.
    monkeypatch.setattr("random.randrange", lambda *_: int(chosen["clusterIP"].rpartition(".")[2]))
    monkeypatch.setattr("random.choice", lambda _: chosen["port"])
    await hook.admit(second)
    assert second.obj["spec"]["clusterIP"] == chosen["clusterIP"]
    monkeypatch.undo()
    await commit(hook, first)
    for _ in range(2):
        with pytest.raises(ConflictError) as lost:
            await commit(hook, second)
        assert await hook.lost(second, lost.value.key)
        if second.obj["spec"]["clusterIP"] != chosen["clusterIP"] and (
            second.obj["spec"]["ports"][0]["nodePort"] != chosen["port"]
        ):
            break
    await commit(hook, second)
    assert second.obj["spec"]["clusterIPs"] == [second.obj["spec"]["clusterIP"]] != [chosen["clusterIP"]]


async def test_an_address_that_was_asked_for_is_not_changed_for_another() -> None:
    hook, mine, other = await claims(), asked("a", clusterIP="10.96.0.5"), asked("b", clusterIP="10.96.0.5")
    await hook.admit(mine)
    await hook.admit(other)
    await commit(hook, other)
    with pytest.raises(ConflictError) as lost:
        await commit(hook, mine)
    assert not await hook.lost(mine, lost.value.key)


async def held(hook: ServiceClaims, numbers: range, cidr: str) -> None:
    network = ipaddress.IPv4Network(cidr)
    await hook.store.commit([Put(address_key(T, str(network[n])), b"{}") for n in numbers])


async def test_a_range_in_which_nothing_free_is_hit_is_not_written_out(monkeypatch: pytest.MonkeyPatch) -> None:
    hook, mine = await claims("10.96.0.0/12"), asked("a")
    await held(hook, range(256, 3256), "10.96.0.0/12")
    await hook.store.commit([Put(address_key(T, name), b"{}") for name in ("2001:db8::1", "10.0.0.1")])
    monkeypatch.setattr("random.randrange", lambda *_: 300)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    running = asyncio.create_task(others())
    tracemalloc.start()
    try:
        await hook.admit(mine)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
        running.cancel()
    assert turns >= 6
    assert mine.obj is not None and mine.obj["spec"]["clusterIP"] == str(ipaddress.IPv4Network("10.96.0.0/12")[3256])


async def test_the_last_free_address_is_found_and_then_none() -> None:
    hook, last, more = await claims(), asked("a"), asked("b")
    await held(hook, range(3, 15), "10.96.0.0/28")
    await hook.admit(last)
    assert last.obj is not None and last.obj["spec"]["clusterIP"] == "10.96.0.2"
    await held(hook, range(2, 3), "10.96.0.0/28")
    with pytest.raises(ApiError, match="range is full"):
        await hook.admit(more)
