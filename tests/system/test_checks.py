"""Health checks of load balancers by real packets: each machine says whether it has a backend, to those who may ask."""

from __future__ import annotations

import asyncio
import json
import socket

import pytest

from polder.api import core
from polder.api.meta import ref_of
from polder.node.checks import HealthChecks
from polder.sdn.topology.vips import Backend, Vip, VipPort
from tests.system.lab import UNDERLAY, Host, Lab
from tests.system.test_hosted import platform
from tests.system.test_services import FAR
from tests.unit.sdn.objects import Objects
from tests.unit.sdn.service_objects import service

pytestmark = pytest.mark.system
PORT = 32123


def asked(client: Host, address: str) -> tuple[int, int]:
    """Status and endpoints; zeros where nobody answers."""
    with client.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.settimeout(1)
        try:
            sock.connect((address, PORT))
            sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            head, _, body = sock.makefile("rb").read().partition(b"\r\n\r\n")
        except OSError:
            return 0, 0
    said = json.loads(body)
    assert said["service"] == {"namespace": "default", "name": "web"} and said["serviceProxyHealthy"]
    return int(head.split()[1]), said["localEndpoints"]


def checked(lab: Lab, node: str, vips: dict[str, Vip]) -> HealthChecks:
    made = [
        service(Objects(), tenant, "web", "10.96.5.5", external_traffic_policy="Local", health_check_node_port=PORT)
        for tenant in vips
    ]
    assert all(isinstance(one, core.Service) and ref_of(one).name == "web" for one in made)
    number = {"root": 1, "acme": 7}
    return HealthChecks(
        lambda: made,
        lambda key: vips[key.ref.tenant],
        lambda tenant: (tenant, f"100.64.{node[1:]}.{number[tenant]}"),
        lab.nodes[node].kernel.listen_in,
        node,
    )


async def test_machines_say_whether_they_have_a_backend(lab: Lab) -> None:
    pods = platform(lab)
    vips = {}
    for tenant in ("root", "acme"):
        port = VipPort("tcp", 80, ready=(Backend(FAR, 8080, "n2"),))
        more = {"local_outside": True, "health": PORT}
        vips[tenant] = Vip(tenant, "default/web", ("10.96.5.5",), ("10.96.5.5",), (port,), **more)  # type: ignore[arg-type]
        lab.put(vips[tenant])
    await lab.deploy()
    await lab.verify()
    both = [checked(lab, node, vips) for node in ("n1", "n2")]
    for one in both:
        await one.put(one.wanted())
    n1, n2 = f"{UNDERLAY}.1", f"{UNDERLAY}.2"
    try:
        for client, address, said in (
            (lab.outside, n1, (503, 0)),
            (lab.outside, n2, (200, 1)),
            (pods["root.client"], n1, (503, 0)),
            (pods["acme.far"], n2, (200, 1)),
            (pods["acme.client"], "100.64.1.7", (503, 0)),
            (pods["globex.client"], n1, (0, 0)),
            (pods["globex.client"], "100.64.1.7", (0, 0)),
            (lab.outside, "100.64.1.7", (0, 0)),
        ):
            assert await asyncio.to_thread(asked, client, address) == said, (client.name, address)
    finally:
        for one in both:
            await one.put({})
