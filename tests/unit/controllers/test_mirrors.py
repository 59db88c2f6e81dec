"""What slices say of Endpoints that somebody wrote by hand."""

from __future__ import annotations

from polder.api.core import ObjectReference
from polder.api.endpoints import EndpointAddress, Endpoints, EndpointsPort, EndpointSubset
from polder.api.meta import ObjectMeta
from polder.controllers.mirrors import annotations_of, is_mirrored, mirrored, repacked

HTTP = EndpointsPort(port=80, name="http")
HTTPS = EndpointsPort(port=443, name="https")


def at(*addresses: str) -> list[EndpointAddress]:
    return [EndpointAddress(ip=address) for address in addresses]


def test_ports_of_the_same_addresses_are_one_subset_and_not_ready_wins() -> None:
    found = repacked(
        [
            EndpointSubset(addresses=at("192.0.2.1", "192.0.2.2"), ports=[HTTP]),
            EndpointSubset(addresses=at("192.0.2.2", "192.0.2.1"), ports=[HTTPS]),
            EndpointSubset(not_ready_addresses=at("192.0.2.2"), ports=[HTTP, HTTPS]),
        ]
    )
    (subset,) = found
    assert subset.ports == [HTTP, HTTPS]
    assert subset.addresses == at("192.0.2.1") and subset.not_ready_addresses == at("192.0.2.2")
    assert repacked(found) == found


def test_addresses_behind_which_are_others_stay_apart() -> None:
    twice = [EndpointAddress(ip="192.0.2.1", target_ref=ObjectReference(uid=uid)) for uid in "ab"]
    (subset,) = repacked([EndpointSubset(addresses=twice)])
    assert subset.addresses == twice and subset.ports is None


def test_families_are_apart_and_a_thousand_addresses_of_a_subset_are_mirrored() -> None:
    many = at(*(f"10.1.{n // 250}.{n % 250}" for n in range(1100)))
    source = Endpoints(subsets=[EndpointSubset(addresses=many, ports=[HTTP]),
                                EndpointSubset(addresses=at("192.0.2.1", "2001:db8::1"), ports=[HTTPS])])  # fmt: skip
    found, skipped = mirrored(source)
    assert skipped == 100
    assert sorted((m.family, m.ports[0].port, len(m.endpoints)) for m in found) == [
        ("IPv4", 80, 1000), ("IPv4", 443, 1), ("IPv6", 443, 1),
    ]  # fmt: skip
    assert found[0].endpoints[0].conditions == {"ready": True}


def test_what_is_mirrored_and_which_annotations() -> None:
    def source(labels: dict[str, str], annotations: dict[str, str]) -> Endpoints:
        return Endpoints(metadata=ObjectMeta(labels=labels, annotations=annotations))

    assert is_mirrored(source({"endpoints.kubernetes.io/managed-by": "endpoint-controller"}, {}))
    assert not is_mirrored(source({"endpointslice.kubernetes.io/skip-mirror": "true"}, {}))
    assert not is_mirrored(source({}, {"control-plane.alpha.kubernetes.io/leader": "x"}))
    told = {"a": "b", "kubectl.kubernetes.io/last-applied-configuration": "{}", "polder.dev/tenant": "t"}
    assert annotations_of(source({}, told)) == {"a": "b"}
