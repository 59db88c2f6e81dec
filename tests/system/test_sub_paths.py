"""Mounts of volumes: ours are read-only, and no subPath leads out of its volume."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from polder.api.core import Pod
from polder.api.podvolumes import EmptyDir
from polder.base.errors import PermanentError
from polder.node.volumes.mounting import Mounted, bind_mounts
from polder.node.volumes.scratch import ensure_scratch
from polder.system.beneath import ensure_beneath
from polder.system.mounts import mount, observe_mounts, unmount_below

pytestmark = pytest.mark.system


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Path]:
    for name in ("e", "c", "area"):
        (tmp_path / name).mkdir()
    (tmp_path / "secret").write_text("of the host")
    yield tmp_path
    unmount_below(tmp_path)


def mounts(
    room: Path, volume: str, sub_path: str = "", env: dict[str, str] | None = None, **mount: object
) -> list[tuple[str, bool]]:
    pod = msgspec.convert(
        {
            "metadata": {"name": "p"},
            "spec": {
                "volumes": [{"name": "e", "emptyDir": {}}, {"name": "c", "configMap": {"name": "c"}}],
                "containers": [
                    {"name": "a", "volumeMounts": [{"name": volume, "mountPath": "/m", "subPath": sub_path, **mount}]}
                ],
            },
        },
        Pod,
    )
    volumes = {"e": Mounted(room / "e"), "c": Mounted(room / "c", ours=True, read_only=True)}
    found = bind_mounts(pod, pod.spec.containers[0], volumes, room / "area", env or {})
    return [(m.host_path, m.read_only) for m in found]


def test_what_polder_writes_is_read_only(room: Path) -> None:
    assert mounts(room, "c") == [(str(room / "c"), True)]
    assert mounts(room, "e") == [(str(room / "e"), False)]
    assert mounts(room, "e", readOnly=True) == [(str(room / "e"), True)]


def test_a_sub_path_is_made_and_bound(room: Path) -> None:
    source, _ = mounts(room, "e", "a/b")[0]
    (Path(source) / "x").write_text("1")
    assert (room / "e" / "a" / "b" / "x").read_text() == "1"
    assert mounts(room, "e", "a/b")[0][0] == source
    assert len([m for m in observe_mounts() if room in m.target.parents]) == 1, "a restart piles up no mounts"
    (room / "e" / "file").write_text("2")
    assert Path(mounts(room, "e", "file")[0][0]).read_text() == "2"


def test_a_key_of_a_config_map(room: Path) -> None:
    (room / "c" / "..v1").mkdir()
    (room / "c" / "..v1" / "key").write_text("v")
    (room / "c" / "..data").symlink_to("..v1")
    (room / "c" / "key").symlink_to("..data/key")
    assert Path(mounts(room, "c", "key")[0][0]).read_text() == "v"
    with pytest.raises(PermanentError, match="has no 'other'"):
        mounts(room, "c", "other")


def test_a_link_of_the_tenant_leads_nowhere(room: Path) -> None:
    (room / "e" / "out").symlink_to(room)
    (room / "e" / "file").symlink_to(room / "secret")
    for path in ("out", "out/secret", "file"):
        with pytest.raises(PermanentError, match="leads out of the volume"):
            mounts(room, "e", path)
    for path in ("../secret", "/etc", "a/../../secret"):
        with pytest.raises(PermanentError, match=r"must not (be an absolute|contain)"):
            mounts(room, "e", path)
    with pytest.raises(PermanentError, match="no volume 'z'"):
        mounts(room, "z")


def test_a_link_put_in_place_afterwards_changes_nothing(room: Path) -> None:
    source, _ = mounts(room, "e", "a")[0]
    (room / "e" / "a").rename(room / "e" / "b")
    (room / "e" / "a").symlink_to(room)
    assert not (Path(source) / "secret").exists()


def test_a_link_within_the_volume_is_followed(room: Path) -> None:
    (room / "e" / "real").mkdir()
    (room / "e" / "real" / "x").write_text("1")
    (room / "e" / "link").symlink_to("real")
    source, _ = mounts(room, "e", "link")[0]
    assert (Path(source) / "x").read_text() == "1"
    (room / "e" / "dangling").symlink_to("../../nowhere")
    with pytest.raises(PermanentError):
        mounts(room, "e", "dangling/new")
    assert not (room.parent / "nowhere").exists()


def test_directories_that_are_made_have_the_volumes_mode(room: Path) -> None:
    (room / "e").chmod(0o2777)
    os.chown(room / "e", -1, 42)
    mounts(room, "e", "a/b")
    found = (room / "e" / "a" / "b").stat()
    assert (found.st_mode & 0o7777, found.st_gid) == (0o2777, 42)


@pytest.mark.parametrize(("medium", "mode"), [("", 0o2777), ("Memory", 0o3777)])
def test_scratch_space_in_memory_is_sticky_as_any_tmpfs(room: Path, medium: str, mode: int) -> None:
    spec = {"securityContext": {"fsGroup": 42}, "containers": []}
    pod = msgspec.convert({"metadata": {"name": "p"}, "spec": spec}, Pod)
    for _ in range(2):
        ensure_scratch(room / "e", pod, EmptyDir(medium=medium), 2**20)
        found = (room / "e").stat()
        assert (found.st_mode & 0o7777, found.st_gid) == (mode, 42)
    mounts(room, "e", "made")
    assert (room / "e" / "made").stat().st_mode & 0o7777 == mode


def test_an_expression_is_filled_in_and_leads_nowhere(room: Path) -> None:
    source, _ = mounts(room, "e", env={"POD": "p-1"}, subPathExpr="logs/$(POD)")[0]
    assert (room / "e" / "logs" / "p-1").is_dir() and Path(source).is_dir()
    with pytest.raises(PermanentError, match='missing value for "NONE"'):
        mounts(room, "e", subPathExpr="$(NONE)")
    for value, why in (("/tmp", "absolute path"), ("..", "must not contain"), ("a/../../b", "must not contain")):
        with pytest.raises(PermanentError, match=why):
            mounts(room, "e", env={"POD": value}, subPathExpr="$(POD)")
    mounts(room, "e", env={}, subPathExpr="$$(POD)")
    assert (room / "e" / "$(POD)").is_dir(), "what is escaped stays as it is written"


def test_a_race_of_renames_never_leads_out(room: Path) -> None:
    """A pod that swaps a directory for a link as fast as it can, while its subPath is bound again and again."""
    (room / "host").mkdir()
    (room / "host" / "secret").write_text("of the host")
    volume = room / "e"
    (volume / "a").mkdir()
    (volume / "link").symlink_to(room / "host")
    script = "import ctypes,sys\nlibc = ctypes.CDLL(None)\na, link = (sys.argv[1] + n for n in ('/a', '/link'))\n"
    script += "while True: libc.renameat2(-100, a.encode(), -100, link.encode(), 2)  # RENAME_EXCHANGE\n"
    hostile = subprocess.Popen([sys.executable, "-c", script, str(volume)])
    bound = refused = 0
    try:
        ends = time.monotonic() + 1.5
        while time.monotonic() < ends:
            try:
                source, _ = mounts(room, "e", "a")[0]
            except PermanentError:
                refused += 1
                continue
            bound += 1
            assert not (Path(source) / "secret").exists()
    finally:
        hostile.kill()
        hostile.wait()
    assert bound and refused, "both states were met"


def test_a_tree_that_is_read_only_is_so_below_other_mounts_too(room: Path) -> None:
    inner = room / "e" / "inner"
    inner.mkdir()
    mount("tmpfs", inner, "tmpfs")
    source, read_only = mounts(room, "e", readOnly=True, recursiveReadOnly="Enabled")[0]
    assert read_only
    for place in (Path(source), Path(source) / "inner"):
        with pytest.raises(OSError, match="Read-only"):
            (place / "x").touch()
    (inner / "x").touch()
    assert (Path(source) / "inner" / "x").exists(), "it shows what the volume holds"


def test_a_link_that_takes_the_place_of_a_new_directory_is_not_followed(
    room: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (room / "host").mkdir(mode=0o700)
    (room / "e").chmod(0o777)

    def swapped(name: str, mode: int, *, dir_fd: int) -> None:
        os.symlink(room / "host", name, dir_fd=dir_fd)

    monkeypatch.setattr("polder.system.beneath.os.mkdir", swapped)
    with pytest.raises(PermanentError):
        ensure_beneath(room / "e", "new/inner")
    assert (room / "host").stat().st_mode & 0o777 == 0o700 and not list((room / "host").iterdir())
