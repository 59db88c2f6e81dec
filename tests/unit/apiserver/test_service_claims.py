"""Who loses the race for an address or a port chooses again, unless the caller asked for that one."""

from __future__ import annotations

import ipaddress
import tracemalloc
from typing import Any

import pytest

from polder.api.core import Service
from polder.api.errors import ApiError
from polder.api.kinds import kind_of
from polder.apiserver.admission import AdmissionContext
from polder.apiserver.catalog import Resource
from polder.apiserver.objects import encode
from polder.apiserver.service_claims import ServiceClaims
from polder.apiserver.service_ranges import CIDRS, address_key
from polder.apiserver.types import Identity, Role
from polder.base.clock import SystemClock
from polder.base.ids import TenantName
from polder.store.memory import MemoryStore
from polder.store.protocol import ConflictError, Key, Put
from tests.turns import counted_turns

SERVICES = kind_of(Service)
T = TenantName("t")


async def claims(*cidrs: str) -> ServiceClaims:
    """The hook of a tenant with these service ranges."""
    store = MemoryStore()
    hook = ServiceClaims(store, SystemClock())
    await more_ranges(hook, "kubernetes", *cidrs or ("10.96.0.0/28",))
    return hook


async def more_ranges(hook: ServiceClaims, name: str, *cidrs: str, ready: str = "True", **meta: str) -> None:
    status = {"conditions": [{"type": "Ready", "status": ready}]}
    row = {"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": name, **meta},
           "spec": {"cidrs": list(cidrs)}, "status": status}  # fmt: skip
    await hook.store.commit([Put(Key(CIDRS.resource, T, "", name), encode(row))])


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
    tracemalloc.start()
    try:
        async with counted_turns() as turns:
            await hook.admit(mine)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
    assert turns.taken >= 6
    assert mine.obj is not None and mine.obj["spec"]["clusterIP"] == str(ipaddress.IPv4Network("10.96.0.0/12")[3256])


async def test_the_last_free_address_is_found_and_then_none() -> None:
    hook, last, more = await claims(), asked("a"), asked("b")
    await held(hook, range(3, 15), "10.96.0.0/28")
    await hook.admit(last)
    assert last.obj is not None and last.obj["spec"]["clusterIP"] == "10.96.0.2"
    await held(hook, range(2, 3), "10.96.0.0/28")
    with pytest.raises(ApiError, match="range is full"):
        await hook.admit(more)


async def test_a_further_range_gives_addresses_once_it_is_ready_and_while_it_stands() -> None:
    hook, first, second = await claims(), asked("a"), asked("b", clusterIP="10.50.0.9")
    await held(hook, range(2, 15), "10.96.0.0/28")
    await more_ranges(hook, "more", "10.50.0.0/24", ready="False")
    for context, why in ((first, "range is full"), (second, "not in the valid range")):
        with pytest.raises(ApiError, match=why):
            await hook.admit(context)
    await more_ranges(hook, "more", "10.50.0.0/24")
    for context in (first, second):
        await hook.admit(context)
    assert first.obj is not None and first.obj["spec"]["clusterIP"].startswith("10.50.0.")
    # It is in deletion before the commit: the one that was chosen is chosen anew, the one that was asked for is refused.
    await more_ranges(hook, "more", "10.50.0.0/24", deletionTimestamp="2026-01-01T00:00:00Z")
    await more_ranges(hook, "other", "10.60.0.0/24")
    with pytest.raises(ConflictError) as lost:
        await commit(hook, first)
    assert await hook.lost(first, lost.value.key)
    assert first.obj["spec"]["clusterIP"].startswith("10.60.0.")
    await commit(hook, first)
    with pytest.raises(ConflictError) as lost:
        await commit(hook, second)
    with pytest.raises(ApiError, match="not in the valid range"):
        await hook.lost(second, lost.value.key)


async def test_a_range_that_changes_between_look_and_commit_is_looked_at_again() -> None:
    hook, mine = await claims("10.96.0.0/28"), asked("a", clusterIP="10.50.0.9")
    await more_ranges(hook, "more", "10.50.0.0/24")
    await hook.admit(mine)
    mine.along.clear()
    await hook.accompany(mine, b"{}")
    await more_ranges(hook, "more", "10.50.0.0/24", deletionTimestamp="2026-01-01T00:00:00Z")
    with pytest.raises(ConflictError):
        await hook.store.commit(mine.along)


async def test_both_families_get_an_address_and_ranges_of_ipv6_are_not_written_out() -> None:
    hook = await claims("10.96.0.0/16", "fd00:10:96::/64")
    single, dual = asked("a"), asked("b", ipFamilyPolicy="PreferDualStack")
    six = asked("c", ipFamilies=["IPv6"], clusterIP="fd00:10:96::00:77")
    for context in (single, dual, six):
        await hook.admit(context)
        await commit(hook, context)
    assert single.obj and dual.obj and six.obj
    assert single.obj["spec"]["ipFamilies"] == ["IPv4"] and len(single.obj["spec"]["clusterIPs"]) == 1
    assert dual.obj["spec"]["ipFamilies"] == ["IPv4", "IPv6"]
    first, second = dual.obj["spec"]["clusterIPs"]
    assert ipaddress.ip_address(first) in ipaddress.ip_network("10.96.0.0/16")
    assert ipaddress.ip_address(second) in ipaddress.ip_network("fd00:10:96::/64")
    assert await hook.store.get(address_key(T, "fd00:10:96::77")) is not None
    again = asked("d", ipFamilies=["IPv6"], clusterIP="fd00:10:96::77")
    with pytest.raises(ApiError, match="already allocated"):
        await hook.admit(again)
