"""Health checks of load balancers: what one tenant has of them leaves the others theirs."""

from __future__ import annotations

import asyncio
import socket

from polder.api.core import Service
from polder.node.checks import AT_ONCE, EACH, MOST, HealthChecks
from tests.unit.sdn.objects import Objects
from tests.unit.sdn.service_objects import service


def checked(tenant: str, number: int = 0) -> Service:
    return service(
        Objects(),
        tenant,
        f"s{number}",
        "10.96.5.5",
        external_traffic_policy="Local",
        health_check_node_port=30000 + number,
    )


async def nowhere(space: str, address: str, port: int) -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def made(services: list[Service]) -> HealthChecks:
    return HealthChecks(lambda: services, lambda key: None, lambda tenant: (tenant, "127.0.0.1"), nowhere, "n1")


def test_a_node_listens_for_so_many_services_of_a_tenant_and_in_all() -> None:
    services = [checked("evil", n) for n in range(MOST + 10)]
    services += [checked(f"t{n}", m) for n in range(8) for m in range(EACH)]
    wanted = made([*services, checked("good")]).wanted()
    assert len(wanted["good"]) == 1
    assert max(len(rows) for rows in wanted.values()) == EACH
    assert sum(len(rows) for rows in wanted.values()) == MOST


async def test_who_asks_and_says_nothing_keeps_no_other_tenant_from_an_answer() -> None:
    checks = made([checked("evil"), checked("good")])
    await checks.put(checks.wanted())
    ports = {row[3].tenant: server.sockets[0].getsockname()[1] for row, server in checks._open.items()}
    silent = [await asyncio.open_connection("127.0.0.1", ports["evil"]) for _ in range(2 * AT_ONCE)]
    try:
        async with asyncio.timeout(30):
            assert await silent[-1][0].read() == b"", "more than a tenant has are closed"
            reader, writer = await asyncio.open_connection("127.0.0.1", ports["good"])
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            assert (await reader.read()).startswith(b"HTTP/1.1 503 ")
            writer.close()
    finally:
        for _, one in silent:
            one.close()
        await checks.put({})
