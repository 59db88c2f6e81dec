"""What an object may multiply on nodes is bounded where it is written: these products fit into objects of allowed size."""

from __future__ import annotations

from polder.api.meta import Raw
from polder.api.validation.services import validate_service
from polder.api.validation.traffic import TRAFFIC


def service(ports: int, external: int) -> Raw:
    spec = {
        "type": "ClusterIP", "clusterIP": "10.96.0.5", "clusterIPs": ["10.96.0.5"], "sessionAffinity": "None",
        "internalTrafficPolicy": "Cluster", "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
        "ports": [{"name": f"p{n}", "port": n + 1, "protocol": "TCP", "targetPort": 1} for n in range(ports)],
        "externalIPs": [f"203.0.113.{n}" for n in range(external)], "externalTrafficPolicy": "Cluster",
    }  # fmt: skip
    return {"metadata": {"name": "web", "namespace": "default"}, "spec": spec}


def test_a_service_has_so_many_ports_and_external_addresses() -> None:
    assert not list(validate_service(service(1000, 16)))
    assert "spec.externalIPs: Too many: 17" in str(*validate_service(service(1, 17)))
    assert "spec.ports: Too many: 1001" in str(*validate_service(service(1001, 1)))


def policy(selectors: int, blocks: int, named: int, numbered: int) -> Raw:
    peers: list[Raw] = [{"podSelector": {"matchLabels": {"app": f"a{n}"}}} for n in range(selectors)]
    peers += [{"ipBlock": {"cidr": f"10.{n // 256}.{n % 256}.0/24"}} for n in range(blocks)]
    ports: list[Raw] = [{"protocol": "TCP", "port": f"p{n}"} for n in range(named)]
    ports += [{"protocol": "TCP", "port": n + 1} for n in range(numbered)]
    rule = {"from": peers, "ports": ports}
    return {"metadata": {"name": "p"}, "spec": {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [rule, rule]}}


def test_a_network_policy_names_so_many_groups() -> None:
    """With 1,000 selectors and 300 pods, a pod's change took a node four seconds."""
    check = TRAFFIC["networkpolicies.networking.k8s.io"].checks
    assert not [str(error) for rule in check for error in rule(policy(400, 5000, 100, 5000))]
    found = [str(error) for rule in check for error in rule(policy(401, 0, 100, 0))]
    why = "must have at most 1000 selectors, blocks with exceptions and names of ports, all rules together"
    assert found == [f"spec: Invalid value: 1002: {why}"]
