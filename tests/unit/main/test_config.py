from __future__ import annotations

from pathlib import Path

import pytest

from polder.base.errors import PermanentError
from polder.main.config import AgentConfig, ServerConfig, dump, load

AGENT = AgentConfig(
    node="node-1",
    server="https://10.1.1.1:6443",
    authority="ca",
    certificate="c",
    key="k",
    state="s",
    images="i",
    address="10.1.1.2",
)


def test_a_dumped_configuration_loads_again(tmp_path: Path) -> None:
    path = tmp_path / "agent.yaml"
    path.write_text(dump(AGENT))
    assert load(path, AgentConfig) == AGENT


def test_an_unknown_key_is_named(tmp_path: Path) -> None:
    path = tmp_path / "agent.yaml"
    path.write_text(dump(AGENT) + "colour: blue\n")
    with pytest.raises(PermanentError, match=r"agent\.yaml.*colour"):
        load(path, AgentConfig)


def test_another_daemons_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "agent.yaml"
    path.write_text(dump(AGENT).replace("AgentConfig", "ServerConfig"))
    with pytest.raises(PermanentError, match="kind 'ServerConfig'"):
        load(path, AgentConfig)


@pytest.mark.parametrize("text", ["a: [", "- 1", ""])
def test_what_is_no_configuration_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "server.yaml"
    path.write_text(text)
    with pytest.raises(PermanentError, match=r"server\.yaml"):
        load(path, ServerConfig)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match="No such file"):
        load(tmp_path / "none.yaml", ServerConfig)
