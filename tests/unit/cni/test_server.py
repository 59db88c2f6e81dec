"""The server and both stubs, as programs, without a network behind them."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from polder.base.errors import PermanentError, RetryableError
from polder.cni.install import LOOPBACK, PLUGIN, build_stub, install
from polder.cni.server import CniServer
from polder.cni.types import CniError, CniInterface, CniRequest, CniResult, Code

CONFIG = b'{"cniVersion": "1.0.0", "name": "polder"}'


class Recorder:
    """A handler that remembers what it was asked, and fails as it is told."""

    def __init__(self) -> None:
        self.asked: list[CniRequest] = []
        self.failure: Exception | None = None

    def _ask(self, request: CniRequest) -> None:
        self.asked.append(request)
        if self.failure is not None:
            raise self.failure

    async def add(self, request: CniRequest) -> CniResult:
        self._ask(request)
        return CniResult((CniInterface("eth0", sandbox=request.netns),))

    async def delete(self, request: CniRequest) -> None:
        self._ask(request)

    async def check(self, request: CniRequest) -> None:
        self._ask(request)

    async def collect(self, request: CniRequest) -> None:
        self._ask(request)

    async def status(self) -> None:
        if self.failure is not None:
            raise self.failure


@pytest.fixture
async def handler(tmp_path: Path) -> AsyncIterator[Recorder]:
    recorder = Recorder()
    server = CniServer(tmp_path / "agent.sock", recorder)
    await server.start()
    install(tmp_path / "bin", tmp_path / "conf", tmp_path / "agent.sock")
    yield recorder
    await server.close()


async def call(folder: Path, command: str, stdin: bytes = CONFIG, plugin: str = PLUGIN) -> tuple[int, dict]:
    environment = {"CNI_COMMAND": command, "CNI_CONTAINERID": "c1", "CNI_NETNS": "/x", "CNI_IFNAME": "eth0",
                   "HOME": "/secret", "CNI_ARGS": "K8S_POD_UID=u"}  # fmt: skip
    # In a thread: the stub may end without having read, and uvloop's pipe then fails the writer.
    done = await asyncio.to_thread(
        subprocess.run, [str(folder / plugin)], input=stdin, stdout=subprocess.PIPE, env=environment, check=False
    )
    return done.returncode, json.loads(done.stdout) if done.stdout.strip() else {}


@pytest.fixture(params=["c", "python"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, handler: Recorder) -> Path:
    """Where the stub is, of either kind."""
    if request.param == "c":
        return tmp_path / "bin"
    where = tmp_path / "python"
    assert not build_stub(where / PLUGIN, compiler="no-such-compiler")
    (where / "polder-cni.sock").symlink_to(tmp_path / "agent.sock")
    return where


async def test_the_stub_passes_call_and_answer(folder: Path, handler: Recorder) -> None:
    code, answer = await call(folder, "ADD")
    assert (code, answer["interfaces"][0]["sandbox"]) == (0, "/x")
    assert (handler.asked[0].container, handler.asked[0].pod_uid) == ("c1", "u")
    assert await call(folder, "DEL") == (0, {})
    large = json.dumps({"cniVersion": "1.0.0", "name": "polder", "args": {"x": "y" * 300_000}}).encode()
    assert await call(folder, "DEL", large) == (0, {})


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (CniError(Code.UNKNOWN_CONTAINER, "unknown", "c1"), 3),
        (RetryableError("the tenant's router is not here yet"), 11),
        (PermanentError("Pod x: annotation y"), 100),
        (RuntimeError("a defect"), 11),
    ],
)
async def test_failures_have_codes(tmp_path: Path, handler: Recorder, failure: Exception, code: int) -> None:
    handler.failure = failure
    status, answer = await call(tmp_path / "bin", "ADD")
    assert (status, answer["code"]) == (1, code)
    assert str(failure.details if isinstance(failure, CniError) else failure) in answer["details"]


async def test_an_agent_that_is_away_is_said_so(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "agent.sock").unlink()
    status, answer = await call(folder, "ADD")
    assert (status, answer["code"], answer["msg"]) == (1, 11, "try again later")


async def test_an_agent_that_dies_in_the_call_is_said_so(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "agent.sock").unlink()

    async def die(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_unix_server(die, tmp_path / "agent.sock")
    status, answer = await call(folder, "ADD")
    assert (status, answer["code"]) == (1, 11)
    server.close()
    await server.wait_closed()


async def test_strangers_on_the_socket_get_an_error(tmp_path: Path, handler: Recorder) -> None:
    reader, writer = await asyncio.open_unix_connection(tmp_path / "agent.sock")
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    writer.write_eof()
    assert b"no polder-cni" in await reader.read()
    writer.close()
    await writer.wait_closed()
    assert handler.asked == []


async def test_a_restarted_agent_takes_the_socket_over(tmp_path: Path, handler: Recorder) -> None:
    second = Recorder()
    server = CniServer(tmp_path / "agent.sock", second)
    await server.start()
    assert (await call(tmp_path / "bin", "ADD"))[0] == 0
    assert (len(handler.asked), len(second.asked)) == (0, 1)
    await server.close()


async def test_installing_twice_is_once(tmp_path: Path, handler: Recorder) -> None:
    before = (tmp_path / "bin" / PLUGIN).stat().st_mtime_ns
    install(tmp_path / "bin", tmp_path / "conf", tmp_path / "agent.sock")
    assert (tmp_path / "bin" / PLUGIN).stat().st_mtime_ns == before
    config = json.loads((tmp_path / "conf" / "10-polder.conflist").read_bytes())
    assert config == {"cniVersion": "1.0.0", "name": "polder", "plugins": [{"type": "polder-cni"}]}
    version = await call(tmp_path / "bin", "VERSION", b'{"cniVersion": "0.4.0"}', LOOPBACK)
    assert version == (0, {"cniVersion": "0.4.0", "supportedVersions": ["0.3.1", "0.4.0", "1.0.0", "1.1.0"]})
