"""`polder up` beside what is there: it names the option to change, and has touched nothing."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from polder.base.errors import PermanentError
from polder.main import hostnet
from polder.main.claims import check_free
from polder.main.cluster import Cluster
from polder.main.hostnet import FORWARD, HostNetwork, Record, write_record
from polder.system.commands import run, succeeds
from polder.system.net.netns import Netns, ensure_netns, open_netns, remove_netns, run_inside

NAME = f"c{os.getpid()}"
SUBNET = "198.18.77.0/24"


def cluster(state: Path, **more: object) -> Cluster:
    chosen = {"name": NAME, "subnet": SUBNET, "port": free_port()} | more
    return Cluster(state=state, **chosen)  # type: ignore[arg-type]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def record(folder: Path, *, running: bool) -> None:
    folder.mkdir(exist_ok=True)
    write_record(folder / "cluster.json", Record(name=NAME, subnet=SUBNET, port=1, nodes=2, running=running))


@pytest.fixture
def bridge() -> Iterator[str]:
    name = f"{NAME}0"
    run("ip", "link", "add", name, "type", "bridge")
    yield name
    run("ip", "link", "del", name)


def test_what_is_free_may_be_taken(tmp_path: Path) -> None:
    check_free(cluster(tmp_path), False)
    check_free(cluster(tmp_path / "new"), False)


@pytest.mark.system
def test_the_name_of_a_running_cluster_is_taken(tmp_path: Path, bridge: str) -> None:
    other = tmp_path / "other"
    run("ip", "link", "set", bridge, "alias", str(other))
    record(other, running=True)
    with pytest.raises(PermanentError, match=f"--name {NAME}: the cluster in {other} has this name"):
        check_free(cluster(tmp_path / "mine"), False)
    record(other, running=False)
    check_free(cluster(tmp_path / "mine"), False)


@pytest.mark.system
def test_a_link_of_somebody_else_stays_theirs(tmp_path: Path, bridge: str) -> None:
    with pytest.raises(PermanentError, match=f"--name {NAME}: there is a link {bridge} of somebody else"):
        check_free(cluster(tmp_path), False)
    record(tmp_path, running=True)
    check_free(cluster(tmp_path), False)


def test_a_subnet_of_the_machine_is_taken(tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match=r"--subnet 127.0.0.0/24: link lo of this machine is in 127.0.0.0/8"):
        check_free(cluster(tmp_path, subnet="127.0.0.0/24"), False)


def test_a_port_in_use_is_taken_unless_by_our_own_server(tmp_path: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(PermanentError, match=f"--port {port}: is used by another program"):
            check_free(cluster(tmp_path, port=port), False)
        check_free(cluster(tmp_path, port=port), True)


def test_a_directory_with_something_else_is_no_state(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    check_free(cluster(tmp_path), False)
    (tmp_path / "passwd").touch()
    with pytest.raises(PermanentError, match=f"--state {tmp_path}: holds passwd but no cluster"):
        check_free(cluster(tmp_path), False)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Netns]:
    """A network namespace as the host: clusters that run on this machine have no part in the test."""
    path = tmp_path / "host"
    ensure_netns(path)
    with open_netns(path) as space:
        yield space
    remove_netns(path)


@pytest.mark.system
def test_the_last_cluster_restores_what_the_first_one_found(
    tmp_path: Path, machine: Netns, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[tuple[str, str]] = []
    monkeypatch.setattr(hostnet, "write_sysctl", lambda path, value: written.append((path, value)))
    monkeypatch.setattr(hostnet, "read_sysctl", lambda path: "1")  # as the first cluster set it
    first, second = tmp_path / "first", cluster(tmp_path / "second", name=f"d{os.getpid()}")

    def play() -> None:
        run("ip", "link", "add", f"{NAME}0", "type", "bridge")
        run("ip", "link", "set", f"{NAME}0", "alias", str(first))
        record(first, running=True)
        write_record(first / "cluster.json", Record(name=NAME, subnet=SUBNET, port=1, nodes=2, sysctls={FORWARD: "0"}))
        second.state.mkdir()
        network = HostNetwork(second)
        network.ensure()
        network.remove()
        assert written == [(FORWARD, "1")]
        network.ensure()
        record(first, running=False)
        network.remove()
        assert written == [(FORWARD, "1"), (FORWARD, "1"), (FORWARD, "0")]

    run_inside(machine, play)


def test_a_link_that_goes_by_itself_meanwhile_is_no_failure() -> None:
    """As when the namespace of the other end ends while `down` looks: here two take the same link away."""
    name = f"g{os.getpid()}"
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            run("ip", "link", "add", name, "type", "bridge")
            for done in [pool.submit(hostnet.ensure_no_link, name) for _ in range(4)]:
                done.result()
            assert not succeeds("ip", "link", "show", name)
