"""containerd's supervision where the host is in motion (tests/system has the rest, with a real one)."""

from __future__ import annotations

import os
import subprocess

import pytest

from polder.base.errors import RetryableError
from polder.node import supervisor as module
from polder.node.supervisor import Supervisor, SupervisorSettings
from polder.system import process
from polder.system.containerd import ContainerdPaths


@pytest.mark.parametrize("trouble", [FileNotFoundError("bundle"), subprocess.TimeoutExpired("ctr", 20)])
async def test_what_goes_wrong_while_orphans_are_looked_for_is_tried_again(tmp_path, monkeypatch, trouble):
    async def fails(*_):
        raise trouble

    async def ready(*_):
        return

    paths = ContainerdPaths(tmp_path / "c", tmp_path / "bin", tmp_path / "conf")
    paths.pidfile.parent.mkdir(parents=True)
    process.write_pidfile(paths.pidfile, process.identify(os.getpid()))
    monkeypatch.setattr(module, "remove_orphans", fails)
    monkeypatch.setattr(Supervisor, "_wait_ready", ready)
    supervisor = Supervisor(SupervisorSettings(paths))
    with pytest.raises(RetryableError, match="orphans"):
        await supervisor.ensure()
    assert not supervisor.up.is_set()
