"""Whatever stands in a tenant's slices, a service reaches no further than the tenant's pods do: the guard sees real addresses."""

from __future__ import annotations

import pytest

from polder.sdn.topology.vips import Backend
from tests.system.lab import Lab
from tests.system.test_services import CLIENT, SERVICE, service, two_tenants

pytestmark = pytest.mark.system


async def test_a_service_leads_to_no_node_no_router_no_metadata_and_no_other_tenant(lab: Lab) -> None:
    """As if compile had let these through: nobody answers, while a listener on the node does answer a node."""
    pods = two_tenants(lab)
    nodes = {name: node.facts.underlay for name, node in lab.nodes.items()}
    evil = [*nodes.values(), "100.64.1.7", "100.64.1.8", "100.64.2.7", "100.64.2.8", "169.254.1.1", "169.254.169.254",
            "127.0.0.1", "10.0.1.1", "224.0.0.1", "255.255.255.255", "0.0.0.1"]  # fmt: skip
    for number, address in enumerate(evil):
        lab.put(service("acme", Backend(address, 8080), name=f"evil{number}", address=f"10.96.6.{number}"))
    lab.put(service("acme", Backend(CLIENT, 8080, "n1")))
    await lab.deploy()
    hosts = [node.host for node in lab.nodes.values()]
    with hosts[0].tcp_server(8080), hosts[1].tcp_server(8080), pods["acme.client"].tcp_server(8080):
        assert hosts[0].tcp(nodes["n2"], 8080), "control: the node listens"
        assert pods["acme.web"].tcp(SERVICE, 80) == "acme.client", "control: services work"
        for number, address in enumerate(evil):
            for name in ("web", "far"):
                assert not pods[f"acme.{name}"].tcp(f"10.96.6.{number}", 80, 0.25), (name, address)
