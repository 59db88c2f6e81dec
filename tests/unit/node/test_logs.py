"""Container logs as users see them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polder.base.clock import SystemClock
from polder.base.errors import PermanentError
from polder.node import logs
from polder.node.logs import LogReader, LogRequest, tail_offset
from polder.system.cri import UID_LABEL
from polder.system.cri_types import ContainerInfo
from tests.unit.node.podkit import container

LINES = [
    "2030-01-01T00:00:00.000000001Z stdout F one",
    "2030-01-01T00:00:01.000000001Z stderr P tw",
    "2030-01-01T00:00:02.000000001Z stderr F o",
    "2030-01-01T00:00:03.000000001Z stdout F ",
    "2030-01-01T00:00:04.000000001Z stdout F four words in it",
]


LABELS = {UID_LABEL: "u-1"}


class Room:
    """A directory of logs and the containers that the runtime has."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.containers: list[ContainerInfo] = []
        self.asked = 0
        self.reader = LogReader(root, self.listed, SystemClock())

    async def listed(self, uid: str) -> list[ContainerInfo]:
        self.asked += 1
        return self.containers

    def path(self, attempt: int = 0) -> Path:
        place = self.root / "acme_ns_p_u-1" / "a"
        place.mkdir(parents=True, exist_ok=True)
        return place / f"{attempt}.log"

    async def read(self, **options: Any) -> str:
        request = LogRequest("acme", "ns", "p", "u-1", "a", **options)
        return b"".join([chunk async for chunk in self.reader.read_logs(request)]).decode()


@pytest.fixture
def room(tmp_path: Path) -> Room:
    made = Room(tmp_path)
    made.path().write_text("\n".join(LINES) + "\n")
    return made


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "one\ntwo\n\nfour words in it\n"),
        ({"tail_lines": 0}, ""),
        ({"tail_lines": 2}, "\nfour words in it\n"),
        ({"tail_lines": 99}, "one\ntwo\n\nfour words in it\n"),
        ({"limit_bytes": 5}, "one\nt"),
        ({"since_time": "2030-01-01T00:00:03Z"}, "\nfour words in it\n"),
        ({"since_seconds": 10**9}, "one\ntwo\n\nfour words in it\n"),
        (
            {"timestamps": True, "tail_lines": 4},
            f"{LINES[1][:30]} two\n{LINES[3][:30]} \n{LINES[4][:30]} four words in it\n",
        ),
    ],
)
async def test_options(room: Room, options: dict[str, Any], text: str) -> None:
    assert await room.read(**options) == text


async def test_previous_is_the_run_before(room: Room) -> None:
    room.path(1).write_text("2030-01-01T00:00:09Z stdout F newer\n")
    assert await room.read() == "newer\n"
    assert (await room.read(previous=True)).startswith("one\n")


async def test_what_is_not_there_is_said(room: Room) -> None:
    with pytest.raises(PermanentError, match="previous terminated container"):
        await room.read(previous=True)
    request = LogRequest("acme", "ns", "p", "u-1", "../../a")
    with pytest.raises(PermanentError, match="is no name"):
        _ = [chunk async for chunk in room.reader.read_logs(request)]


async def test_follow_goes_on_until_the_container_ends(room: Room) -> None:
    room.containers = [container("a", labels=LABELS)]
    got: list[bytes] = []

    async def follow() -> None:
        request = LogRequest("acme", "ns", "p", "u-1", "a", follow=True, tail_lines=0)
        async for chunk in room.reader.read_logs(request):
            got.append(chunk)  # noqa: PERF401  read while it grows

    task = asyncio.create_task(follow())
    await asyncio.sleep(0.1)
    with room.path().open("a") as file:
        file.write("2030-01-01T00:00:10Z stdout F half")
        file.flush()
        await asyncio.sleep(0.3)
        assert got == [], "a line shows when it is whole"
        file.write(" and whole\n")
    async with asyncio.timeout(2):
        while not got:  # noqa: ASYNC110  the file is what grows
            await asyncio.sleep(0.05)
    room.containers = [container("a", code=0, labels=LABELS)]
    await asyncio.wait_for(task, 3)
    assert b"".join(got) == b"half and whole\n"


async def test_a_rotation_under_a_follower_loses_no_line(room: Room) -> None:
    """The last lines of the old file, which came after the last look, and all of the new one's."""
    room.containers = [container("a", labels=LABELS)]
    following = asyncio.create_task(room.read(follow=True, tail_lines=0))
    await asyncio.sleep(0.1)
    line = "2030-01-01T00:00:10Z stdout F {}\n"
    for turn in range(3):
        with room.path().open("a") as file:
            file.write(line.format(f"old {turn}"))
        room.path().rename(room.path().with_name("0.log.1"))
        room.path().write_text(line.format(f"new {turn}"))
        await asyncio.sleep(0.5)
    room.containers = []
    async with asyncio.timeout(5):
        assert await following == "".join(f"old {turn}\nnew {turn}\n" for turn in range(3))


async def test_what_is_written_while_a_log_is_replaced_is_read(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """The writer's last line comes after the follower's last look, and before it sees the new file."""
    room.containers = [container("a", labels=LABELS)]
    plain, aside = logs._replaced, room.path().with_name("0.log.1")

    def replaced(file: BinaryIO, path: Path) -> BinaryIO | None:
        newer = plain(file, path)
        if newer is not None:
            with aside.open("a") as old:
                old.write("2030-01-01T00:00:10Z stdout F last\n")
        return newer

    monkeypatch.setattr(logs, "_replaced", replaced)
    following = asyncio.create_task(room.read(follow=True, tail_lines=0))
    await asyncio.sleep(0.1)
    room.path().rename(aside)
    room.path().write_text("2030-01-01T00:00:11Z stdout F new\n")
    await asyncio.sleep(0.5)
    room.containers = []
    async with asyncio.timeout(5):
        assert await following == "last\nnew\n"


async def test_many_followers_ask_the_runtime_once(room: Room) -> None:
    room.containers = [container("a", labels=LABELS)]
    following = [asyncio.create_task(room.read(follow=True)) for _ in range(50)]
    await asyncio.sleep(2.5)
    assert room.asked <= 3
    room.containers = []
    async with asyncio.timeout(5):
        assert len(set(await asyncio.gather(*following))) == 1


async def test_one_stream_alone(room: Room) -> None:
    assert await room.read(stream="stdout") == "one\n\nfour words in it\n"
    assert await room.read(stream="stderr") == "two\n"


class TestStream:
    """The server's end, as far as logs use it."""

    __test__ = False

    def __init__(self) -> None:
        self.sent = b""
        self.reason = ""
        self.lost = asyncio.Event()

    async def read(self) -> bytes:
        await self.lost.wait()
        raise ConnectionError("reset")

    async def write(self, data: bytes) -> None:
        self.sent += data

    async def reset(self, reason: str) -> None:
        self.reason = reason


HEADER = {"kind": "logs", "tenant": "acme", "namespace": "ns", "pod": "p", "uid": "u-1", "container": "a"}


async def test_a_request_of_the_server(room: Room) -> None:
    stream = TestStream()
    await room.reader.serve({**HEADER, "tail_lines": 1}, stream)
    assert (stream.sent, stream.reason) == (b"four words in it\n", "")
    refused = TestStream()
    await room.reader.serve({**HEADER, "container": "b"}, refused)
    assert 'container "b"' in refused.reason
    broken = TestStream()
    await room.reader.serve({**HEADER, "tail_lines": "x"}, broken)
    assert "tail_lines" in broken.reason


async def test_a_follower_that_went_away_holds_nothing(room: Room) -> None:
    room.containers = [container("a", labels=LABELS)]
    stream = TestStream()
    serving = asyncio.create_task(room.reader.serve({**HEADER, "follow": True}, stream))
    await asyncio.sleep(0.1)
    stream.lost.set()
    await asyncio.wait_for(serving, 2)


@given(lines=st.lists(st.text("ab", max_size=3), max_size=8), count=st.integers(0, 9), ended=st.booleans())
def test_tail_is_the_last_lines(lines: list[str], count: int, ended: bool, tmp_path_factory: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "tail.log"
    text = "\n".join(lines) + ("\n" if ended and lines else "")
    path.write_text(text)
    expected = "".join(text.splitlines(keepends=True)[-count:]) if count else ""
    assert text[tail_offset(path, count) :] == expected
    assert tail_offset(path, -1) == 0
