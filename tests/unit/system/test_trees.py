"""Trees of directories that tenants make: as deep as they like, and changed while they are looked at."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from polder.base.clock import SystemClock
from polder.base.ids import TenantName
from polder.node.stats.disk import Disk, DiskPlaces
from polder.node.volumes.ownership import give_to_group
from polder.node.volumes.storage import Storage
from polder.system.trees import BLOCK, remove_tree, tree_size, walk

DEEP = 1200
"""Deeper than the interpreter calls itself."""


def dig(top: Path, depth: int = DEEP) -> None:
    """A chain of directories with a file of 4 KiB in the last."""
    here = os.open(top, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    held = os.open("f", os.O_WRONLY | os.O_CREAT, dir_fd=here, mode=0o600)
    os.write(held, b"x" * 4096)
    os.fsync(held)
    os.close(held)
    os.close(here)


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[Path]:
    top = tmp_path / "deep"
    top.mkdir()
    dig(top)
    yield top
    if top.exists():
        remove_tree(top)  # what pytest cannot


def handles() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_deep_tree_is_measured_and_removed(deep: Path) -> None:
    before = handles()
    assert tree_size(deep) >= 4096
    remove_tree(deep)
    assert not deep.exists()
    assert handles() == before


def test_a_deep_trees_files_are_given_to_a_group(deep: Path) -> None:
    give_to_group(deep, 42)
    top = os.open(deep, os.O_RDONLY)
    found = {os.stat(name, dir_fd=here, follow_symlinks=False).st_gid for here, name in walk(top)}
    os.close(top)
    assert found == {42}
    assert deep.stat().st_gid == 42


async def test_a_deep_emptydir_does_not_end_the_node_that_measures_it(deep: Path, tmp_path: Path) -> None:
    place = tmp_path / "pods" / "u-1" / "volumes" / "empty-dir"
    place.mkdir(parents=True)
    os.rename(deep, place / "e")

    async def nothing() -> dict[str, dict[str, object]]:
        return {}

    async def none() -> int:
        return 0

    places = DiskPlaces(tmp_path, tmp_path / "pods", tmp_path / "logs", tmp_path)
    report = await Disk(places, nothing, none, SystemClock()).report()  # type: ignore[arg-type]  no container wrote
    assert report.pods["u-1"].volumes["e"] >= 4096
    os.rename(place / "e", deep)


async def test_a_volume_with_a_deep_tree_is_removed(tmp_path: Path) -> None:
    storage = Storage(tmp_path, lambda tenant: "u-1")
    dig(storage.directory(TenantName("evil"), "deep"))
    storage.directory(TenantName("good"), "kept")
    storage.discard("evil", "deep")
    removing = asyncio.create_task(storage.run())
    async with asyncio.timeout(300):
        while any((tmp_path / "evil.u-1").iterdir()) and not removing.done():  # noqa: ASYNC110  a disk tells nobody
            await asyncio.sleep(0.01)
    assert not removing.done(), "it goes on with the next"
    assert not any((tmp_path / "evil.u-1").iterdir())
    assert (tmp_path / "good.u-1" / "kept").is_dir()
    removing.cancel()
    await asyncio.gather(removing, return_exceptions=True)


def test_links_are_neither_followed_nor_left(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "f").write_bytes(b"x" * (1 << 20))
    top = tmp_path / "top"
    (top / "a" / "b").mkdir(parents=True)
    (top / "a" / "out").symlink_to(outside)
    (top / "out").symlink_to(outside)
    os.mkfifo(top / "a" / "fifo")
    assert tree_size(top) < 1 << 20
    remove_tree(top)
    assert not top.exists()
    assert (outside / "f").exists()


def test_a_walk_ends_where_its_directory_was_moved(tmp_path: Path) -> None:
    """By the way up it would leave the tree."""
    top = tmp_path / "a" / "top"
    (top / "x" / "y").mkdir(parents=True)
    (tmp_path / "a" / "beside").touch()
    held, seen = os.open(top, os.O_RDONLY), []
    for _, name in walk(held):
        seen.append(name)
        if name == "y":
            (top / "x").rename(tmp_path / "a" / "x")
    os.close(held)
    assert seen == ["x", "y"]


def test_no_more_is_looked_at_than_was_said(tmp_path: Path) -> None:
    for n in range(20):
        (tmp_path / f"d{n}").mkdir()
        (tmp_path / f"d{n}" / "f").write_bytes(b"x")
    held = os.open(tmp_path, os.O_RDONLY)
    assert [sum(1 for _ in walk(held, most)) for most in (0, 5, 20, 25, 40)] == [0, 5, 20, 25, 40]
    assert sum(1 for _ in walk(held)) == 40
    os.close(held)
    assert tree_size(tmp_path, 20) == 0
    assert tree_size(tmp_path) == sum(p.stat().st_blocks * BLOCK for p in tmp_path.glob("d*/f"))


def test_a_wide_tree_is_removed_and_one_that_is_not_there_is_told(tmp_path: Path) -> None:
    top = tmp_path / "top"
    for n in range(200):
        (top / str(n) / "s").mkdir(parents=True)
        (top / str(n) / "s" / "f").touch()
    remove_tree(top)
    assert not top.exists()
    with pytest.raises(FileNotFoundError):
        remove_tree(top)
