"""Up and down: nothing is left on the host, and what was stored comes back."""

from __future__ import annotations

import shutil

import pytest

from tests.e2e.conftest import new_cluster
from tests.e2e.harness import eventually, pod
from tests.e2e.host import snapshot

pytestmark = pytest.mark.e2e


def test_down_leaves_nothing_and_up_brings_everything_back() -> None:
    cluster = new_cluster("u", 190)
    cluster.nodes = 1
    before = snapshot(cluster.name), snapshot(str(cluster.state))
    try:
        cluster.up()
        assert "172.30.190.0" in str(snapshot("172.30.190"))
        cluster.make_tenant("one")
        cluster.apply("one", pod("kept"))
        eventually("the pod runs", lambda: cluster.pod_running("one", "kept"))
        cluster.up()  # again: changes nothing
        assert cluster.pod_running("one", "kept")
        assert "were killed" not in cluster.down().stdout
        assert (snapshot(cluster.name), snapshot(str(cluster.state))) == before
        cluster.up()
        eventually("the pod runs again", lambda: cluster.pod_running("one", "kept"), within=60)
    finally:
        cluster.down("--wipe")
        shutil.rmtree(cluster.state, ignore_errors=True)
    assert (snapshot(cluster.name), snapshot(str(cluster.state))) == before


def test_down_without_a_cluster_says_so(tmp_path: object) -> None:
    cluster = new_cluster("v", 191)
    assert "nothing to stop" in cluster.down().stdout
    shutil.rmtree(cluster.state)
