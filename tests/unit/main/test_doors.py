import argparse
import resource
import types

import pytest

from polder.base.errors import PermanentError
from polder.main import agent
from polder.main.config import ServerConfig
from polder.main.doors import FILES, WAYS, doors_of
from polder.main.files import open_files


def config(**more):
    return ServerConfig(listen=["127.0.0.1:6443"], pki="pki", **more)


def test_there_is_a_file_for_every_connection():
    for files in (4096, 20_000, 1 << 20):
        doors = doors_of(config(), files)
        assert doors.local.connections + doors.network.connections + 2 * doors.tenants.connections <= files - FILES
        assert doors.network.each == min(512, (files - FILES) // WAYS)
    assert doors_of(config(connections_per_source=2000), 1 << 20).network.each == 2000


def test_a_senseless_bound_is_refused_by_name():
    for wrong in (0, -1, 5000):
        with pytest.raises(PermanentError, match="connectionsPerSource"):
            doors_of(config(connections_per_source=wrong), 1 << 20)


def test_as_many_files_as_may_be_are_opened():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
        assert open_files() == resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= 256
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_an_agent_opens_as_many_files_as_it_may(monkeypatch):
    """Streams into three tenants' pods alone are more than a login's 1,024."""
    before, seen = resource.getrlimit(resource.RLIMIT_NOFILE), []
    config = types.SimpleNamespace(certificate="c", key="k", log_format="text")
    for name, instead in (
        ("load", lambda path, kind: config),
        ("settle_pair", lambda certificate, key: None),
        ("set_up", lambda form: None),
        ("run", lambda serve: seen.append(resource.getrlimit(resource.RLIMIT_NOFILE))),
    ):
        monkeypatch.setattr(agent, name, instead)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
        assert agent.command(argparse.Namespace(server="", config="x")) == 0
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert seen == [(before[1], before[1])]
