"""How patient the controllers are, as the configuration says it."""

from pathlib import Path

import pytest

from polder.base.errors import PermanentError
from polder.controllers.node_zones import Rates
from polder.controllers.settings import ControllerSettings
from polder.main.config import ServerConfig, load
from polder.main.config_controllers import ControllersConfig, controller_settings

FILE = """
apiVersion: config.polder.dev/v1alpha1
kind: ServerConfig
listen: ["127.0.0.1:6443"]
pki: /pki
controllers: {nodeGrace: 8, nodeStartupGrace: 9, nodeMonitor: 1, evictedNodesPerSecond: 1, endedPods: 7}
"""


def test_what_is_left_out_is_as_upstream_has_it():
    found = controller_settings(ControllersConfig(), "CA")
    assert found == ControllerSettings("CA", clock=found.clock)
    assert (found.node_grace, found.node_eviction) == (40.0, Rates(0.1, 0.01, 50, 0.55))


def test_the_file_s_times_reach_the_controllers(tmp_path: Path):
    path = tmp_path / "server.yaml"
    path.write_text(FILE)
    found = controller_settings(load(path, ServerConfig).controllers, "CA")
    assert (found.node_grace, found.node_tick, found.node_eviction.normal, found.ended_pods) == (8, 1, 1, 7)
    assert found.node_startup_grace == 9
    path.write_text(FILE.replace("nodeGrace", "nodeGrase"))
    with pytest.raises(PermanentError, match="nodeGrase"):
        load(path, ServerConfig)


@pytest.mark.parametrize(
    "wrong", [{"node_grace": 0.0}, {"node_startup_grace": 0.0}, {"node_monitor": 1e9}, {"ended_pods": -1}]
)
def test_a_time_that_makes_no_sense_is_refused_by_its_name(wrong: dict[str, float]):
    with pytest.raises(PermanentError, match=next(iter(wrong))):
        controller_settings(ControllersConfig(**wrong), "CA")
