"""No tenant reaches another by any way, and its own by all: at rest, and after each fault."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from polder.system.commands import run
from tests.e2e.harness import Cluster, eventually
from tests.e2e.matrix import CLUSTER, PODS, SERVED, Matrix

pytestmark = pytest.mark.e2e
AWAY = float(os.environ.get("POLDER_TEST_AWAY", "5"))
"""Seconds for which the API server is away: the requirement is 60."""
WITHIN = 5.0


@pytest.fixture(scope="module")
def matrix(cluster: Cluster) -> Iterator[Matrix]:
    made = Matrix(cluster, (f"north{os.getpid() % 1000}", f"south{os.getpid() % 1000}"))
    try:
        made.start()
        yield made
    finally:
        cluster.up()
        made.close()


def holds(matrix: Matrix, within: float = 30.0) -> None:
    """Every cell is as it ought to be; what a fault took may need a moment to be back, what must not be never may."""
    until = time.monotonic() + within
    while True:
        wrong: dict[object, tuple[object, object]] = {}
        for tenant in matrix.tenants:
            seen, wanted = matrix.look(tenant)
            assert seen.keys() == wanted.keys()
            wrong |= {(tenant, *cell): (seen[cell], wanted[cell]) for cell in wanted if seen[cell] != wanted[cell]}
        leaks = {cell: pair for cell, pair in wrong.items() if not pair[1]}
        assert not leaks, leaks
        if not wrong:
            return
        assert time.monotonic() < until, wrong


def test_every_cell_at_rest(matrix: Matrix) -> None:
    holds(matrix)


@contextlib.contextmanager
def connections(matrix: Matrix) -> Iterator[list[str]]:
    """Long connections of each tenant to its pods, that speak all the time; yields what went wrong."""
    wrong: list[str] = []
    stood: list[str] = []
    ended = threading.Event()

    def speak(tenant: str, name: str) -> None:
        listener = matrix.hosts[f"{tenant}.{name}"].socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with listener, matrix.hosts[f"{tenant}.client"].socket(socket.AF_INET, socket.SOCK_STREAM) as one:
            listener.bind(("", 8081))
            listener.listen()
            one.settimeout(10)
            one.connect((PODS[name][1], 8081))
            other, _ = listener.accept()
            stood.append(name)
            with other:
                other.settimeout(10)
                while not ended.is_set():
                    try:
                        one.sendall(b"x")
                        assert other.recv(1) == b"x"
                        other.sendall(b"y")
                        assert one.recv(1) == b"y"
                    except (OSError, AssertionError) as error:
                        wrong.append(f"{tenant} {name}: {error!r}")
                        return
                    time.sleep(0.02)

    threads = [threading.Thread(target=speak, args=(t, n)) for t in matrix.tenants for n in CLUSTER]
    for thread in threads:
        thread.start()
    try:
        eventually("all connections stand", lambda: len(stood) == len(threads), 10)
        yield wrong
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def kill(cluster: Cluster, name: str, how: signal.Signals) -> None:
    os.kill(cluster.pid(name), how)
    time.sleep(0.5)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_agents_that_start_anew_lose_no_connection(cluster: Cluster, matrix: Matrix, how: signal.Signals) -> None:
    with connections(matrix) as wrong:
        for node in ("node-1", "node-2"):
            kill(cluster, node, how)
        holds(matrix)
        cluster.up()
        holds(matrix)
    assert wrong == []


def test_a_kill_amid_a_change_of_rules_leaves_nothing_open(cluster: Cluster, matrix: Matrix) -> None:
    policies = [
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": f"p{number}"},
            "spec": {"podSelector": {"matchLabels": {"role": "client"}}, "ingress": [{}], "policyTypes": ["Ingress"]},
        }
        for number in range(30)
    ]
    done = threading.Thread(target=lambda: [cluster.apply(t, *policies) for t in matrix.tenants])
    done.start()
    for _ in range(3):
        time.sleep(0.3)
        kill(cluster, "node-1", signal.SIGKILL)
        cluster.up()
    done.join()
    holds(matrix)
    for tenant in matrix.tenants:
        cluster.kubectl(tenant, "delete", "networkpolicies", "--all")


def test_what_an_earlier_version_left_is_taken_over(cluster: Cluster, matrix: Matrix) -> None:
    """Tables of another text under our name, links and namespaces that no object asks for."""
    kill(cluster, "node-1", signal.SIGKILL)
    tenant = matrix.tenants[0]
    router, node = cluster.netns("node-1", tenant), cluster.state / "nodes" / "node-1" / "net"
    for space, table, whose in ((router, "polder", "OLD"), (node, cluster.name, cluster.name)):
        old = f'table inet {table} {{\n comment "polder {whose} 0123"\n set nodes {{ type ipv4_addr; }}\n}}\n'
        old = f"delete table inet {table}\n{old}"
        run("nsenter", f"--net={space}", "nft", "-f", "-", stdin=old)
    run("nsenter", f"--net={router}", "ip", "link", "add", "br-old", "type", "bridge")
    cluster.up()
    eventually("it is as it ought to be", lambda: not differences(cluster, tenant), 30)
    holds(matrix)


def differences(cluster: Cluster, tenant: str) -> str:
    inspected = json.loads(cluster.polder("inspect", "tenant", tenant, "-o", "json").stdout)
    return "".join(node["differences"] for node in inspected)


@pytest.mark.parametrize("what", ["table", "bridge", "route"])
def test_what_is_deleted_by_hand_is_back_within_five_seconds(cluster: Cluster, matrix: Matrix, what: str) -> None:
    router = cluster.netns("node-1", matrix.tenants[0])
    inside = ["nsenter", f"--net={router}"]
    links = run(*inside, "ip", "-o", "link").splitlines()
    bridge = next(line.split(": ")[1] for line in links if ": br-" in line)
    match what:
        case "table":
            run(*inside, "nft", "delete", "table", "inet", "polder")
        case "bridge":
            run(*inside, "ip", "link", "del", bridge)
        case _:
            run(*inside, "ip", "route", "del", "default")
    begun = time.monotonic()
    client = matrix.hosts[f"{matrix.tenants[0]}.client"]
    while what == "bridge" and client.tcp(CLUSTER["far"], SERVED) == "":
        assert time.monotonic() < begun + WITHIN
    time.sleep(max(0.0, begun + WITHIN - time.monotonic()))
    assert differences(cluster, matrix.tenants[0]) == ""
    holds(matrix)


def test_a_lost_machine_opens_nothing_and_comes_back(cluster: Cluster, matrix: Matrix) -> None:
    inside = ["nsenter", f"--net={cluster.state / 'nodes' / 'node-2' / 'net'}", "ip"]
    run(*inside, "link", "set", "uplink", "down")
    try:
        for tenant in matrix.tenants:
            seen, wanted = matrix.look(tenant)
            assert {cell for cell in wanted if not wanted[cell] and seen[cell]} == set()
            near = {cell: seen[cell] for cell in wanted if cell[2] == "same node" and cell[1] in ("pod", "service")}
            assert near == {cell: wanted[cell] for cell in near}
    finally:
        run(*inside, "link", "set", "uplink", "up")
        run(*inside, "route", "replace", "default", "via", f"{cluster.subnet.rpartition('.')[0]}.1")
    holds(matrix, 90)


def test_without_the_server_packets_go_on_and_changes_catch_up(cluster: Cluster, matrix: Matrix) -> None:
    with connections(matrix) as wrong:
        kill(cluster, "server", signal.SIGKILL)
        begun = time.monotonic()
        while time.monotonic() < begun + AWAY:
            holds(matrix)
        cluster.up()
        tenant = matrix.tenants[0]
        late = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "late"}}
        spec = {"selector": {"role": "far"}, "clusterIP": "10.96.0.94", "ports": [{"port": SERVED, "targetPort": 8080}]}
        cluster.apply(tenant, {**late, "spec": spec})
        client = matrix.hosts[f"{tenant}.client"]
        eventually("a change catches up", lambda: client.tcp("10.96.0.94", SERVED) == f"{tenant}.far", 30)
    assert wrong == []
    holds(matrix)
