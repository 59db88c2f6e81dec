"""A load balancer from outside the cluster: reached at its address, and within a second after the machine that answered died."""

from __future__ import annotations

import socket
import time
from typing import Any

import pytest

from tests.e2e.harness import Cluster, eventually, pod, run
from tests.e2e.test_services import SERVE

pytestmark = pytest.mark.e2e
POOL = 220
"""The first host of the pool in the cluster's subnet, beyond those of machines."""


def served(name: str, node: str) -> dict[str, Any]:
    made = pod(name, node=node, command=SERVE)
    made["metadata"]["labels"] = {"app": "web"}
    made["spec"]["containers"][0]["env"] = [{"name": "WHO", "value": name}]
    return made


def said(address: str, seconds: float = 0.3) -> str:
    """Who answers from outside; empty when nobody does."""
    with socket.socket() as sock:
        sock.settimeout(seconds)
        try:
            sock.connect((address, 80))
            sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return sock.makefile("rb").read().rpartition(b"\n\r\n")[2].decode().split()[0]
        except (OSError, IndexError):
            return ""


def given(cluster: Cluster, tenant: str) -> tuple[str, str]:
    """The load balancer's address and the node that answers for it."""
    claims = [one for one in cluster.get("root", "externaladdresses")["items"] if one["spec"]["tenant"] == tenant]
    return (claims[0]["spec"]["address"], claims[0].get("status", {}).get("node", "")) if claims else ("", "")


def test_a_load_balancer_moves_within_a_second_when_its_machine_dies(cluster: Cluster) -> None:
    host = cluster.subnet.rpartition(".")[0]
    pool = {
        "apiVersion": "polder.dev/v1alpha1",
        "kind": "AddressPool",
        "metadata": {"name": "wire"},
        "spec": {"addresses": [f"{host}.{POOL}-{host}.{POOL + 5}"], "tenants": ["*"]},
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web"},
        "spec": {"type": "LoadBalancer", "selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
    }
    cluster.apply("root", pool)
    for tenant in ("shop", "rival"):
        cluster.make_tenant(tenant)
        cluster.apply(tenant, service, served("one", "node-1"), served("two", "node-2"), pod("client", node="node-1"))
    eventually(
        "an address is given and announced", lambda: given(cluster, "shop")[1] and given(cluster, "rival")[1], 60
    )
    address, node = given(cluster, "shop")
    eventually("both backends answer", lambda: {said(address) for _ in range(6)} == {"one", "two"}, 60)
    eventually("the other tenant's client runs", lambda: cluster.pod_running("rival", "client"), 60)
    theirs = given(cluster, "rival")[0]
    assert theirs != address
    fetch = "timeout 2 wget -q -O - http://{}/ || echo nobody"
    assert cluster.exec("rival", "client", "sh", "-c", fetch.format(address)).strip() == "nobody"
    assert cluster.exec("rival", "client", "sh", "-c", fetch.format(theirs)).split()[0] in ("one", "two")
    inside = ["nsenter", f"--net={cluster.state / 'nodes' / node / 'net'}", "ip", "link", "set", "uplink"]
    other = "two" if node == "node-1" else "one"
    run(*inside, "down")
    died = time.monotonic()
    try:
        while said(address, 0.1) != other:
            assert time.monotonic() < died + 5
        assert time.monotonic() - died < 1.3, "a second, and the question that came through"
        assert given(cluster, "shop")[1] != node
    finally:
        run(*inside, "up")
        host_route = ["nsenter", inside[1], "ip", "route", "replace", "default", "via", f"{host}.1"]
        run(*host_route)
    eventually("the machine is back", lambda: {said(address) for _ in range(6)} == {"one", "two"}, 60)
    for tenant in ("shop", "rival"):
        cluster.delete_tenant(tenant)
    cluster.kubectl("root", "delete", "addresspool", "wire")
