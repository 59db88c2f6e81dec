"""The node's own containerd: started, found again, watched, stopped, without touching anybody else's."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from polder.base.errors import PermanentError
from polder.node.supervisor import Supervisor, SupervisorSettings
from polder.system import process
from polder.system.containerd import ContainerdPaths
from polder.system.mounts import observe_mounts
from tests.system.pods_kit import eventually

pytestmark = pytest.mark.system


@pytest.fixture
def base() -> Iterator[Path]:
    # Short, for the sake of socket paths.
    with tempfile.TemporaryDirectory(prefix="pc-") as made:
        yield Path(made)


def make(base: Path) -> Supervisor:
    return Supervisor(SupervisorSettings(ContainerdPaths(base / "c", base / "bin", base / "conf")))


@pytest.fixture
async def supervisor(base: Path) -> AsyncIterator[Supervisor]:
    made = make(base)
    yield made
    await made.destroy()
    assert process.find_by_argument("containerd", str(base)) == []
    assert [m for m in observe_mounts() if base in m.target.parents] == []


async def test_started_found_again_and_stopped(supervisor: Supervisor, base: Path) -> None:
    first = await supervisor.ensure()
    assert os.getsid(first.pid) == first.pid, "it outlives the agent"
    assert await supervisor.ensure() == first
    assert await make(base).ensure() == first, "the next agent finds it"
    (base / "c" / "pid").unlink()
    assert await make(base).ensure() == first, "also when the agent died before it could note it"
    await supervisor.stop()
    assert not process.alive(first)
    assert not supervisor.up.is_set()


async def test_a_stale_pidfile_is_nobody(supervisor: Supervisor, base: Path) -> None:
    mine = process.identify(os.getpid())
    assert mine is not None
    (base / "c").mkdir()
    process.write_pidfile(base / "c" / "pid", process.ProcessId(mine.pid, mine.start - 5, mine.boot))
    assert supervisor.find() is None
    assert (await supervisor.ensure()).pid != mine.pid


async def test_what_an_earlier_boot_left_is_cleared(supervisor: Supervisor, base: Path) -> None:
    (base / "c" / "state" / "old").mkdir(parents=True)
    process.write_pidfile(base / "c" / "pid", process.ProcessId(1, 1, "an earlier boot"))
    await supervisor.ensure()
    assert not (base / "c" / "state" / "old").exists()


async def test_it_is_started_again_when_it_dies(supervisor: Supervisor) -> None:
    running = asyncio.create_task(supervisor.run())
    await asyncio.wait_for(supervisor.up.wait(), 20)
    first = supervisor.find()
    assert first is not None
    os.kill(first.pid, signal.SIGKILL)
    await eventually(lambda: asyncio.sleep(0, not supervisor.up.is_set()))
    assert "ended unexpectedly" in supervisor.reason
    await asyncio.wait_for(supervisor.up.wait(), 20)
    assert supervisor.find() not in (None, first)
    running.cancel()
    await asyncio.wait({running})
    assert supervisor.find() is not None, "it lives on without the agent"


async def test_a_path_that_is_too_long_is_refused() -> None:
    with pytest.raises(PermanentError, match="state directory is too long"):
        await make(Path("/tmp/" + "x" * 100)).ensure()
