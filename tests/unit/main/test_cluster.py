from __future__ import annotations

from pathlib import Path

import pytest

from polder.base.errors import PermanentError
from polder.main.cluster import Cluster
from polder.main.entry import main
from polder.main.hostnet import Record, write_record


def test_addresses_of_nodes_egress_and_outside_are_distinct() -> None:
    cluster = Cluster(nodes=80)
    nodes = cluster.all_nodes()
    addresses = [cluster.host_address, cluster.outside_address, *(n.address for n in nodes), *(n.egress for n in nodes)]
    assert len(set(addresses)) == len(addresses) == 162


def test_link_names_fit_the_kernel() -> None:
    cluster = Cluster(name="a23456789", nodes=80)
    cluster.check()
    assert all(len(name) <= 15 for name in [cluster.bridge, *(n.host_link for n in cluster.all_nodes())])


@pytest.mark.parametrize(
    ("cluster", "field"),
    [
        (Cluster(name="Bad"), "--name"),
        (Cluster(name="ten2345678"), "--name"),
        (Cluster(nodes=0), "--nodes"),
        (Cluster(nodes=81), "--nodes"),
        (Cluster(port=99999), "--port"),
        (Cluster(subnet="10.0.0.0/16"), "--subnet"),
        (Cluster(subnet="10.0.0.1/24"), "--subnet"),
        (Cluster(subnet="rubbish"), "--subnet"),
        (Cluster(state=Path("/" + "x" * 90)), "--state"),
    ],
)
def test_a_choice_that_cannot_work_names_its_option(cluster: Cluster, field: str) -> None:
    with pytest.raises(PermanentError, match=field):
        cluster.check()


def test_commands_without_a_cluster_say_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--state", str(tmp_path), "kubeconfig", "acme"]) == 1
    assert f"no cluster in {tmp_path}" in capsys.readouterr().err


def test_state_may_stand_behind_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for argv in (["status"], ["inspect", "tenant", "acme"], ["image", "import", __file__]):
        assert main([*argv, "--state", str(tmp_path)]) == 1
        assert f"no cluster in {tmp_path}" in capsys.readouterr().err


def test_a_file_where_a_directory_should_be_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--state", __file__, "status"]) == 1
    assert capsys.readouterr().err == f"polder: {__file__}/cluster.json: Not a directory\n"


def test_a_server_that_is_down_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cluster = Cluster(state=tmp_path, port=1)
    write_record(cluster.record, Record(name="x", subnet=cluster.subnet, port=1, nodes=1))
    assert main(["--state", str(tmp_path), "kubeconfig", "acme"]) == 1
    assert (
        f"the API server of the cluster in {tmp_path} does not answer; see `polder status`" in capsys.readouterr().err
    )
    assert main(["--state", str(tmp_path), "status"]) == 1
    assert "the API server does not answer: no connection to https://127.0.0.1:1\n" in capsys.readouterr().out


def test_an_interruption_while_a_command_is_loaded_is_one_too(monkeypatch, capsys):
    def interrupted(name: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("polder.main.entry.import_module", interrupted)
    assert main(["status"]) == 130
    assert capsys.readouterr().err == "polder: interrupted\n"
