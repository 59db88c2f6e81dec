"""An address with a zone is none. Python's ipaddress takes any text for the zone of an IPv6 address, canonical or not, and nodes
read addresses of tenants in the text of their rules.
"""

from __future__ import annotations

from typing import Any

import pytest

EVIL = "fd00::1%x } ; flush ruleset ; #"
V1, NAMESPACED = "/api/v1/namespaces/default", "namespaces/default"
PORTS = [{"port": 80}]


def policy(**block: Any) -> dict[str, Any]:
    return {"podSelector": {}, "ingress": [{"from": [{"ipBlock": block}]}]}


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "slice": (
        f"/apis/discovery.k8s.io/v1/{NAMESPACED}/endpointslices",
        {"addressType": "IPv6", "endpoints": [{"addresses": [EVIL]}], "ports": PORTS},
    ),
    "endpoints": (f"{V1}/endpoints", {"subsets": [{"addresses": [{"ip": EVIL}], "ports": PORTS}]}),
    "external": (f"{V1}/services", {"spec": {"ports": PORTS, "externalIPs": [EVIL]}}),
    "cluster": (f"{V1}/services", {"spec": {"ports": PORTS, "clusterIP": EVIL}}),
    "source": (
        f"{V1}/services",
        {"spec": {"type": "LoadBalancer", "ports": PORTS, "loadBalancerSourceRanges": [f"{EVIL}/128"]}},
    ),
    "block": (
        f"/apis/networking.k8s.io/v1/{NAMESPACED}/networkpolicies",
        {"spec": policy(cidr="fd00::%x } ; flush ruleset/64")},
    ),
    "except": (
        f"/apis/networking.k8s.io/v1/{NAMESPACED}/networkpolicies",
        {"spec": policy(cidr="fd00::/64", **{"except": ["fd00::1%x } ; flush ruleset/128"]})},
    ),
    "network": (f"/apis/polder.dev/v1alpha1/{NAMESPACED}/networks", {"spec": {"cidrs": ["fd00::%x } ; y/64"]}}),
    "claim": ("/apis/networking.k8s.io/v1/ipaddresses", {"metadata": {"name": EVIL}}),
}


@pytest.mark.parametrize("name", CASES)
async def test_an_address_with_a_zone_is_refused(admin: Any, name: str) -> None:
    path, body = CASES[name]
    refused = await admin.post(path, {"metadata": {"name": "evil"}, **body})
    assert refused.status in (400, 422), refused.body
