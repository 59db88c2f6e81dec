"""What an object may multiply on nodes is bounded where it is written: these products fit into objects of allowed size."""

from __future__ import annotations

from polder.api.meta import Raw
from polder.api.validation.services import validate_service


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
