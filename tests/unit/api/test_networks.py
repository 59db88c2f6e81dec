from __future__ import annotations

from typing import Any

import pytest

from polder.api.validation.networks import network_conflicts
from tests.unit.api.kit import Raw, refused, refused_update
from tests.unit.api.test_tables import row


def tenant(**spec: Any) -> Raw:
    return {"metadata": {"name": "acme"}, "spec": spec}


def network(name: str = "front", namespace: str = "default", **spec: Any) -> Raw:
    return {"metadata": {"name": name, "namespace": namespace}, "spec": {"cidr": "10.1.0.0/24", **spec}}


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ({"podCidr": "10.0.0.0"}, 'spec.podCidr: Invalid value: "10.0.0.0": must be an IPv4 prefix in canonical form'),
        ({"podCidr": "10.0.0.1/16"}, "did you mean 10.0.0.0/16?"),
        ({"podCidr": "banana"}, "such as 10.0.0.0/16"),
        ({"podCidr": "10.0.0.0/7"}, "the prefix length must be between 8 and 29"),
        ({"podCidr": "10.0.0.0/30"}, "the prefix length must be between 8 and 29"),
        ({"podCidr": "fd00::1/64"}, "did you mean fd00::/64?"),
        ({"podCidr": "fe80::/64"}, "must not overlap the link-local range fe80::/10"),
        ({"podCidr": "ff05::/64"}, "must not overlap the multicast range ff00::/8"),
        ({"podCidr": "fd00::/126"}, "the prefix length must be between 16 and 125"),
        (
            {"podCidr": "fd70:6f6c:6465:7200::/64"},
            "must not overlap fd70:6f6c:6465:7200::/64, which Polder's routers use",
        ),
        ({"podCidrs": ["10.0.0.0/16", "10.1.0.0/16"]}, "is the second IPv4 prefix"),
        ({"podCidr": "10.1.0.0/16", "podCidrs": ["10.0.0.0/16"]}, "must be the first of spec.podCidrs, 10.0.0.0/16"),
        ({"podCidrs": ["10.0.0.0/16", "fd00::/64"], "serviceCidr": "10.96.0.0/16"}, "the families of spec.podCidrs"),
        ({"podCidr": "127.0.0.0/16"}, "must not overlap the loopback range 127.0.0.0/8"),
        ({"podCidr": "169.254.0.0/16"}, "must not overlap the link-local range"),
        ({"podCidr": "224.0.0.0/8"}, "must not overlap the multicast range"),
        ({"podCidr": "100.100.0.0/16"}, "must not overlap 100.64.0.0/10, which Polder's routers use"),
        ({"serviceCidr": "100.64.0.0/16"}, "spec.serviceCidr: Invalid value"),
        ({"podCidr": "10.0.0.0/8"}, 'spec.serviceCidr: Invalid value: "10.96.0.0/16": must not overlap spec.podCidr'),
    ],
)
def test_tenants_get_two_apart_and_usable_prefixes(spec: Raw, sentence: str) -> None:
    found = refused("tenants.polder.dev", tenant(**spec))
    assert len(found) == 1
    assert sentence in found[0]


def test_a_tenants_prefixes_stay() -> None:
    assert refused("tenants.polder.dev", tenant()) == []
    found = refused_update("tenants.polder.dev", tenant(podCidr="10.1.0.0/16"), tenant())
    assert found == ['spec.podCidr: Invalid value: "10.1.0.0/16": field is immutable']


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ({"cidr": ""}, "spec.cidr: Required value"),
        ({"cidr": "10.1.0.5/24"}, "spec.cidr: Invalid value"),
        ({"cidr": "2001:db8::5/64"}, "did you mean 2001:db8::/64?"),
        ({"gateway": "10.2.0.1"}, 'spec.gateway: Invalid value: "10.2.0.1": must be inside spec.cidr 10.1.0.0/24'),
        ({"gateway": "10.1.0.0"}, "must not be the network or broadcast address"),
        ({"gateway": "10.1.0.255"}, "must not be the network or broadcast address"),
        ({"gateway": "gate"}, "must be an IPv4 address"),
        ({"gateway": "fd00::1"}, "the network has no IPv6 prefix"),
        ({"gateway": "fd00:zz::1"}, "must be an IPv6 address"),
        ({"cidr": "fd00::/64", "gateway": "fd00::1:0:0:5"}, "among the first 2^32 addresses"),
        ({"cidr": "fd00::/64", "mtu": 1279}, "must be 0 (automatic) or between 1280 and 9000"),
        ({"gateways": ["10.1.0.1", "10.1.0.2"]}, "may have one gateway of each family"),
        ({"gateway": "10.1.0.1", "router": ""}, "spec.gateway: Forbidden: an isolated network"),
        ({"router": "other"}, 'spec.router: Forbidden: router "other" is not supported'),
        ({"mtu": 575}, "spec.mtu: Invalid value: 575"),
        ({"mtu": 9001}, "spec.mtu: Invalid value: 9001"),
    ],
)
def test_networks_are_checked(spec: Raw, sentence: str) -> None:
    found = refused("networks.polder.dev", network(**spec))
    assert len(found) == 1
    assert sentence in found[0]


SOUND = (
    {},
    {"gateway": "10.1.0.254"},
    {"mtu": 576},
    {"mtu": 9000},
    {"router": ""},
    {"cidr": "fd00::/64"},
    {"cidr": "fd00::/64", "cidrs": ["fd00::/64", "10.1.0.0/24"], "gateways": ["10.1.0.9"]},
)


@pytest.mark.parametrize("spec", SOUND)
def test_sound_networks_are_taken(spec: Raw) -> None:
    assert refused("networks.polder.dev", network(**spec)) == []


def test_what_ports_depend_on_stays() -> None:
    old = network(gateway="10.1.0.1")
    for change in ({"cidr": "10.2.0.0/24"}, {"gateway": "10.1.0.2"}, {"router": ""}):
        found = refused_update("networks.polder.dev", network(**{"gateway": "10.1.0.1", **change}), old)
        assert any("field is immutable" in sentence for sentence in found), change
    assert refused_update("networks.polder.dev", network(gateway="10.1.0.1", mtu=1400), old) == []


SERVICES = ["10.96.0.0/16", "fd00:96::/112"]


@pytest.mark.parametrize(
    ("new", "sentence"),
    [
        (
            network(cidr="10.0.128.0/24"),
            "must not overlap 10.0.0.0/16 of network kube-system/default of the same router",
        ),
        (network(cidr="10.0.0.0/8"), "must not overlap the tenant's service addresses 10.96.0.0/16"),
        (network(cidr="10.96.5.0/24"), "must not overlap the tenant's service addresses 10.96.0.0/16"),
        (network(cidr="100.64.5.0/24"), "must not overlap 100.64.0.0/10"),
        (network(cidr="10.1.0.0/24"), ""),
        (network(cidr="fd00:96::/64"), "must not overlap the tenant's service addresses fd00:96::/112"),
        (network(cidrs=["10.1.0.0/24", "fd00:1::/64"]), "must not overlap fd00:1::/48 of network default/six"),
        (network(cidr="fd70:6f6c:6465:7200::/96"), "must not overlap fd70:6f6c:6465:7200::/64"),
        (network(cidr="fd00:2::/64"), ""),
        (network(cidr="10.0.128.0/24", router=""), ""),
        (network("default", "kube-system", cidr="10.0.0.0/16"), ""),
        (network(cidr="10.5.0.0/24"), ""),
    ],
)
def test_networks_of_one_router_and_its_services_are_apart(new: Raw, sentence: str) -> None:
    existing = [
        network("default", "kube-system", cidr="10.0.0.0/16", router="default"),
        network("island", cidr="10.5.0.0/16", router=""),
        network("six", cidr="fd00:1::/48", router="default"),
    ]
    found = [str(error) for error in network_conflicts(new, existing, SERVICES)]
    if sentence:
        assert any(sentence in one for one in found)
        assert all(one.startswith("spec.cidr: ") for one in found)
    else:
        assert found == []


def test_the_platform_may_use_the_routers_addresses() -> None:
    transit = network("transit", "kube-system", cidr="100.64.0.0/10")
    assert network_conflicts(transit, [], SERVICES, platform=True) == []
    assert len(network_conflicts(transit, [], SERVICES)) == 1


def test_segments_ports_and_addresses_are_named_by_what_they_claim() -> None:
    segment: Raw = {
        "metadata": {"name": "vni-7"},
        "spec": {"vni": 7, "tenant": "a", "network": "b/c", "networkUid": "u"},
    }
    assert refused("segments.polder.dev", segment) == []
    assert "must be vni-8" in refused("segments.polder.dev", {**segment, "spec": {**segment["spec"], "vni": 8}})[0]
    assert "must be between 1 and" in refused("segments.polder.dev", {**segment, "spec": {"vni": 1 << 24}})[0]
    address: Raw = {
        "metadata": {"name": "default.10.0.0.5", "namespace": "kube-system"},
        "spec": {"network": "default", "address": "10.0.0.5", "port": "default/u.eth0"},
    }
    assert refused("addresses.polder.dev", address) == []
    six: Raw = {
        "metadata": {"name": "default.fd00--5", "namespace": "kube-system"},
        "spec": {"network": "default", "address": "fd00::5", "port": "default/u.eth0"},
    }
    assert refused("addresses.polder.dev", six) == []
    other = {**address, "spec": {**address["spec"], "address": "10.0.0.6"}}
    assert "must be default.10.0.0.6" in refused("addresses.polder.dev", other)[0]
    assert refused_update("addresses.polder.dev", other, address) != []
    port: Raw = {"metadata": {"name": "u.eth0"}, "spec": {"network": "a/b", "node": "n", "addresses": ["10.0.0.5"]}}
    assert refused("ports.polder.dev", port) == []
    assert "without prefix length" in refused(
        "ports.polder.dev", {**port, "spec": {**port["spec"], "addresses": ["10.0.0.5/24"]}}
    )[0]  # fmt: skip
    moved = {**port, "spec": {**port["spec"], "node": "m"}}
    assert refused_update("ports.polder.dev", moved, port) == ['spec.node: Invalid value: "m": field is immutable']


def test_tables_show_both_families() -> None:
    both: Raw = network(cidr="fd00::/64", cidrs=["fd00::/64", "10.1.0.0/24"])
    both["status"] = {"gateway": "fd00::1", "gateways": ["fd00::1", "10.1.0.1"], "vni": 5}
    assert row("networks.polder.dev", both, "CIDR", "Gateway") == ["fd00::/64,10.1.0.0/24", "fd00::1,10.1.0.1"]
    early = row("networks.polder.dev", network(), "CIDR", "Gateway")
    assert early == ["10.1.0.0/24", "<none>"], "as rows of earlier versions"
