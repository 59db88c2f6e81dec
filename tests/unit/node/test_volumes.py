"""Files of volumes: what they hold, how they change, when tokens are renewed."""

from __future__ import annotations

import base64
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from polder.api.core import ConfigMap, Pod, Secret
from polder.api.meta import ObjectMeta
from polder.api.podvolumes import DownwardVolume, KeyToPath, TokenProjection
from polder.base.errors import PermanentError, RetryableError
from polder.node.pods.fields import Surroundings
from polder.node.pods.ports import Cluster
from polder.node.volumes.atomic import FileSpec, ensure_files
from polder.node.volumes.contents import config_map_files, downward_files, secret_files
from polder.node.volumes.manager import Volumes
from polder.node.volumes.tokens import Tokens
from tests.unit.node.podkit import pod

MAP = ConfigMap(metadata=ObjectMeta(name="m"), data={"k": "v"}, binary_data={"b": base64.b64encode(b"\0\1").decode()})


def test_files_change_all_at_once(tmp_path: Path) -> None:
    assert ensure_files(tmp_path, {"a": FileSpec(b"1"), "d/b": FileSpec(b"2", 0o600)})
    first = (tmp_path / "..data").readlink()
    assert (tmp_path / "a").read_bytes() == b"1"
    assert (tmp_path / "d" / "b").stat().st_mode & 0o777 == 0o600
    assert not ensure_files(tmp_path, {"a": FileSpec(b"1"), "d/b": FileSpec(b"2", 0o600)}), "nothing changed"
    held = (tmp_path / "a").open("rb")
    assert ensure_files(tmp_path, {"a": FileSpec(b"3")})
    assert (tmp_path / "..data").readlink() != first
    assert sorted(p.name for p in tmp_path.iterdir() if not p.name.startswith("..v")) == ["..data", "a"]
    assert len([p for p in tmp_path.iterdir() if p.name.startswith("..v")]) == 1
    assert held.read() == b"1", "who has it open reads the old version to its end"
    held.close()


def test_what_a_killed_agent_left_is_swept(tmp_path: Path) -> None:
    (tmp_path / "..vhalf").mkdir()
    (tmp_path / "..data_new").symlink_to("..vhalf")
    ensure_files(tmp_path, {"a": FileSpec(b"1")})
    assert not (tmp_path / "..vhalf").exists()
    assert not (tmp_path / "..data_new").is_symlink()


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x", "..data", ""])
def test_files_stay_in_their_volume(tmp_path: Path, path: str) -> None:
    with pytest.raises(PermanentError, match="must be relative"):
        ensure_files(tmp_path, {path: FileSpec(b"")})


def test_config_map_files() -> None:
    assert config_map_files("m", MAP, None, (0o644, False)) == {
        "k": FileSpec(b"v", 0o644),
        "b": FileSpec(b"\0\1", 0o644),
    }
    items = [KeyToPath(key="k", path="x/y", mode=0o400)]
    assert config_map_files("m", MAP, items, (0o644, False)) == {"x/y": FileSpec(b"v", 0o400)}


def test_what_is_missing_may_come() -> None:
    with pytest.raises(RetryableError, match='configmap "m" not found'):
        config_map_files("m", None, None, (0o644, False))
    with pytest.raises(RetryableError, match="non-existent config key: x"):
        config_map_files("m", MAP, [KeyToPath(key="x", path="x")], (0o644, False))
    assert config_map_files("m", None, None, (0o644, True)) == {}


def test_a_secret_that_is_no_base64_is_named() -> None:
    with pytest.raises(PermanentError, match="key k of Secret s"):
        secret_files("s", Secret(metadata=ObjectMeta(name="s"), data={"k": "%"}), None, (0o644, False))


def test_downward_files() -> None:
    volume = msgspec.convert(
        {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}, "mode": 0o400}]}, DownwardVolume
    )
    found = downward_files(pod(labels={"b": "2", "a": 'x"y'}), volume, 0o644, Surroundings("h", (), 1, 1))
    assert found == {"labels": FileSpec(b'a="x\\"y"\nb="2"', 0o400)}


class HandClock:
    """Time that moves when told."""

    def __init__(self) -> None:
        self.at = 0.0

    def monotonic(self) -> float:
        return self.at

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.at, UTC)


class TokenCluster:
    """Gives out numbered tokens; all else of the cluster is empty."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []

    async def token(self, held: Pod, audience: str, seconds: int) -> str:
        self.asked.append((audience, seconds))
        return f"t{len(self.asked)}"

    async def config_map(self, ref: object) -> ConfigMap | None:
        return MAP


async def test_tokens_are_renewed_at_four_fifths_of_their_life() -> None:
    clock, cluster = HandClock(), TokenCluster()
    tokens = Tokens(cast(Cluster, cluster), clock)
    wanted = TokenProjection(path="t", expiration_seconds=1000)
    assert await tokens.token(pod(), wanted) == "t1"
    clock.at = 799
    assert await tokens.token(pod(), wanted) == "t1"
    assert tokens.refresh_after("u-1") == 1.0
    clock.at = 800
    assert await tokens.token(pod(), wanted) == "t2"
    assert await tokens.token(pod(), TokenProjection(path="t", audience="vault", expiration_seconds=1000)) == "t3"
    assert await tokens.token(pod(), TokenProjection(path="t", expiration_seconds=10)) == "t4"
    assert cluster.asked[-1] == ("", 600), "the API grants no shorter life"
    tokens.forget("u-1")
    assert await tokens.token(pod(), wanted) == "t5"


async def test_volumes_of_a_pod_come_and_go(tmp_path: Path) -> None:
    cluster = cast(Cluster, TokenCluster())
    volumes = Volumes(tmp_path, cluster, Tokens(cluster, HandClock()), lambda p: Surroundings("h", (), 1, 1))
    spec: dict[str, Any] = {"volumes": [{"name": "m", "configMap": {"name": "m"}}, {"name": "e", "emptyDir": {}}]}
    found = await volumes.ensure(pod(spec))
    assert (found["m"] / "k").read_text() == "v"
    (found["e"] / "kept").write_text("x")
    assert (await volumes.ensure(pod(spec)))["e"] == found["e"]
    assert (found["e"] / "kept").read_text() == "x", "what a pod wrote outlives the agent"
    assert volumes.refresh_after(pod(spec)) is not None
    assert volumes.refresh_after(pod({"volumes": [{"name": "e", "emptyDir": {}}]})) is None
    await volumes.remove("u-1")
    await volumes.remove("u-1")
    assert os.listdir(tmp_path) == []


async def test_an_unknown_medium_is_refused(tmp_path: Path) -> None:
    cluster = cast(Cluster, TokenCluster())
    volumes = Volumes(tmp_path, cluster, Tokens(cluster, HandClock()), lambda p: Surroundings("h", (), 1, 1))
    with pytest.raises(PermanentError, match="HugePages"):
        await volumes.ensure(pod({"volumes": [{"name": "e", "emptyDir": {"medium": "HugePages"}}]}))
