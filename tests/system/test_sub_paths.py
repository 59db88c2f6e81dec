"""Mounts of volumes: ours are read-only, and no subPath leads out of its volume."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from polder.api.core import Pod
from polder.base.errors import PermanentError
from polder.node.volumes.mounting import bind_mounts
from polder.system.mounts import observe_mounts, unmount_below

pytestmark = pytest.mark.system


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Path]:
    for name in ("e", "c", "area"):
        (tmp_path / name).mkdir()
    (tmp_path / "secret").write_text("of the host")
    yield tmp_path
    unmount_below(tmp_path)


def mounts(room: Path, volume: str, sub_path: str = "", **mount: object) -> list[tuple[str, bool]]:
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
    volumes = {"e": room / "e", "c": room / "c"}
    return [(m.host_path, m.read_only) for m in bind_mounts(pod, pod.spec.containers[0], volumes, room / "area")]


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
        with pytest.raises(PermanentError, match="has a link at"):
            mounts(room, "e", path)
    for path in ("../secret", "/etc", "a/../../secret"):
        with pytest.raises(PermanentError, match="must be relative"):
            mounts(room, "e", path)
    with pytest.raises(PermanentError, match="no volume 'z'"):
        mounts(room, "z")


def test_a_link_put_in_place_afterwards_changes_nothing(room: Path) -> None:
    source, _ = mounts(room, "e", "a")[0]
    (room / "e" / "a").rename(room / "e" / "b")
    (room / "e" / "a").symlink_to(room)
    assert not (Path(source) / "secret").exists()
