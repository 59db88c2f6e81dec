"""How endpoints are spread over slices, what they say, and what of too many is left out."""

from __future__ import annotations

import msgspec
import pytest

from polder.api.core import ObjectReference, Pod, PodStatus, Service, ServicePort, ServiceSpec
from polder.api.discovery import Endpoint, EndpointHints, EndpointSlice, HintedFor
from polder.api.meta import ObjectMeta
from polder.api.podspec import Container, PodSpec
from polder.controllers.endpoints_pure import Backend, grouped, hints_of, slice_endpoint, subsets_of
from polder.controllers.slices import Group, Share, spread

PORTS = (("http", "TCP", 80, None),)


def backend(number: int, *, ready: bool = True, node: str = "n", zone: str = "") -> Backend:
    reference = ObjectReference(kind="Pod", namespace="d", name=f"p{number}", uid=f"u{number}")
    return Backend(f"10.0.{number // 200}.{number % 200 + 1}", ready, ready, False, node, "", reference, zone)


def endpoints(*numbers: int) -> list[Endpoint]:
    return [slice_endpoint(backend(number)) for number in numbers]


def standing(name: str, found: list[Endpoint]) -> EndpointSlice:
    return EndpointSlice(metadata=ObjectMeta(name=name, uid=name), address_type="IPv4", endpoints=found, ports=[])


def written(shares: list[Share]) -> list[str]:
    """The slices that have other endpoints than before; '' is a new one."""
    return [s.slice.metadata.name if s.slice else "" for s in shares if not s.slice or s.slice.endpoints != s.endpoints]


def held(shares: list[Share]) -> list[str]:
    return sorted(address for share in shares for e in share.endpoints for address in e.addresses)


@pytest.mark.parametrize("change", ["replace", "add", "remove", "unready"])
def test_a_change_of_one_pod_writes_one_slice(change: str) -> None:
    existing = [standing("a", endpoints(*range(90))), standing("b", endpoints(*range(100, 200)))]
    existing.append(standing("c", endpoints(*range(200, 260))))
    now = [e for s in existing for e in s.endpoints or ()]
    if change in ("replace", "remove"):
        now = [e for e in now if e.addresses != ["10.0.0.151"]]
    if change in ("replace", "add"):
        now += endpoints(400)
    if change == "unready":
        now = [slice_endpoint(backend(150, ready=False)) if e.addresses == ["10.0.0.151"] else e for e in now]
    shares = spread(Group("IPv4", [], now), existing)
    assert written(shares) == ["a"] if change == "add" else ["b"]
    assert held(shares) == sorted(a for e in now for a in e.addresses)


def test_many_new_ones_leave_full_slices_alone_and_fill_new_ones() -> None:
    existing = [standing("a", endpoints(*range(90))), standing("b", endpoints(*range(100, 150)))]
    shares = spread(Group("IPv4", [], endpoints(*range(90), *range(100, 150), *range(300, 420))), existing)
    assert written(shares) == ["", ""]
    assert [len(s.endpoints) for s in shares] == [90, 50, 100, 20]


def test_two_pods_with_one_address_are_two_endpoints() -> None:
    first = Endpoint(addresses=["192.0.2.1"], target_ref=ObjectReference(uid="a"))
    second = Endpoint(addresses=["192.0.2.1"], target_ref=ObjectReference(uid="b"))
    (share,) = spread(Group("IPv4", [], [first, second]), [])
    assert share.endpoints == [first, second]


@pytest.mark.parametrize(
    ("distribution", "zones", "nodes"),
    [
        (None, None, None), ("Other", None, None),
        ("PreferClose", ["z"], None), ("PreferSameZone", ["z"], None), ("PreferSameNode", ["z"], ["n"]),
    ],
)  # fmt: skip
def test_hints_follow_the_distribution(
    distribution: str | None, zones: list[str] | None, nodes: list[str] | None
) -> None:
    found = hints_of(backend(1, zone="z"), distribution)
    if zones is None and nodes is None:
        assert found is None
        return
    assert found == EndpointHints(
        for_zones=[HintedFor(name=z) for z in zones or ()] or None,
        for_nodes=[HintedFor(name=n) for n in nodes or ()] or None,
    )


def test_who_is_not_ready_or_has_no_zone_has_no_hint() -> None:
    assert hints_of(backend(1, ready=False, zone="z"), "PreferSameNode") is None
    assert hints_of(backend(1), "PreferClose") is None
    assert slice_endpoint(backend(1, zone="z"), "PreferClose").zone == "z"


def test_endpoints_hold_a_thousand_ready_ones_first() -> None:
    many = [backend(n, ready=n % 3 > 0) for n in range(1500)]
    other = (("http", "TCP", 81, None),)
    subsets, truncated = subsets_of({PORTS: many[:900], other: many[900:]})
    assert truncated
    ready = [len(s.addresses or ()) for s in subsets]
    assert ready == [600, 400] and [s.not_ready_addresses for s in subsets] == [None, None]
    subsets, truncated = subsets_of({PORTS: [backend(n, ready=n < 900) for n in range(1100)]})
    assert truncated and (len(subsets[0].addresses or ()), len(subsets[0].not_ready_addresses or ())) == (900, 100)
    assert subsets_of({PORTS: many[:1000]})[1] is False


def test_both_families_of_a_pod_are_found() -> None:
    service = Service(spec=ServiceSpec(ports=[ServicePort(port=80)], selector={"a": "b"}))
    pod = Pod(
        metadata=ObjectMeta(name="p", uid="u"),
        spec=PodSpec(containers=[Container(name="c")], node_name="n"),
        status=_status("10.0.0.7", "fd00::7"),
    )
    for family, address in (("IPv4", "10.0.0.7"), ("IPv6", "fd00::7")):
        ((found,),) = grouped(service, [pod], family, {"n": "z"}.__getitem__).values()
        assert (found.address, found.zone) == (address, "z")
    assert grouped(service, [_alone(pod)], "IPv6", {"n": "z"}.__getitem__) == {}


def _status(*ips: str) -> PodStatus:
    return msgspec.convert({"podIP": ips[0], "podIPs": [{"ip": ip} for ip in ips]}, PodStatus)


def _alone(pod: Pod) -> Pod:
    return msgspec.structs.replace(pod, status=_status("10.0.0.7"))
