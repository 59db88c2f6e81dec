"""Files of volumes: what they hold, how they change, when tokens are renewed."""

from __future__ import annotations

import base64
import os
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from polder.api.core import ConfigMap, Pod, Secret
from polder.api.meta import ObjectMeta
from polder.api.podvolumes import DownwardVolume, KeyToPath, TokenProjection
from polder.base.errors import PermanentError, RetryableError
from polder.base.ids import TenantName
from polder.base.ref import Ref
from polder.node.pods.fields import Surroundings
from polder.node.pods.ports import Cluster
from polder.node.volumes.atomic import FileSpec, ensure_files
from polder.node.volumes.contents import config_map_files, downward_files, secret_files
from polder.node.volumes.hostpaths import host_path
from polder.node.volumes.manager import Volumes
from polder.node.volumes.ownership import give_to_group
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

    async def secret(self, ref: object) -> Secret | None:
        return None


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
    assert (found["m"].path / "k").read_text() == "v"
    (found["e"].path / "kept").write_text("x")
    assert (await volumes.ensure(pod(spec)))["e"] == found["e"]
    assert (found["e"].path / "kept").read_text() == "x", "what a pod wrote outlives the agent"
    assert volumes.refresh_after(pod(spec)) is not None
    assert volumes.refresh_after(pod({"volumes": [{"name": "e", "emptyDir": {}}]})) is None
    await volumes.remove("u-1")
    await volumes.remove("u-1")
    assert os.listdir(tmp_path) == []


class CountingCluster(TokenCluster):
    """Counts reads; its one ConfigMap can be changed."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0
        self.held: ConfigMap | None = MAP

    async def config_map(self, ref: object) -> ConfigMap | None:
        self.reads += 1
        return self.held


SHOWN: dict[str, Any] = {"volumes": [{"name": "m", "configMap": {"name": "m"}}]}


def counted(tmp_path: Path) -> tuple[CountingCluster, HandClock, Volumes]:
    cluster, clock = CountingCluster(), HandClock()
    around = Surroundings("h", (), 1, 1)
    return (
        cluster,
        clock,
        Volumes(tmp_path, cast(Cluster, cluster), Tokens(cast(Cluster, cluster), clock), lambda p: around),
    )


async def test_objects_are_read_again_when_they_changed_or_it_is_time(tmp_path: Path) -> None:
    cluster, clock, volumes = counted(tmp_path)
    for _ in range(3):
        found = await volumes.ensure(pod(SHOWN))
    assert cluster.reads == 1
    cluster.held = msgspec.structs.replace(MAP, data={"k": "new"})
    assert volumes.changed([("configmaps", Ref(TenantName("acme"), "ns", "other"))]) == []
    assert volumes.changed([("configmaps", Ref(TenantName("globex"), "ns", "m"))]) == [], "another tenant's"
    await volumes.ensure(pod(SHOWN))
    assert cluster.reads == 1
    assert volumes.changed([("configmaps", Ref(TenantName("acme"), "ns", "m"))]) == ["u-1"]
    await volumes.ensure(pod(SHOWN))
    assert (found["m"].path / "k").read_text() == "new"
    clock.at = 10_000.0
    await volumes.ensure(pod(SHOWN))
    assert cluster.reads == 3
    assert volumes.changed(None) == ["u-1"]
    await volumes.remove("u-1")
    assert volumes.changed(None) == []


async def test_one_volume_that_fails_keeps_no_other_from_its_news(tmp_path: Path) -> None:
    _, _, volumes = counted(tmp_path)
    spec = {"volumes": [{"name": "x", "secret": {"secretName": "gone", "optional": False}}, *SHOWN["volumes"]]}
    with pytest.raises(RetryableError):
        await volumes.ensure(pod(spec))
    place = tmp_path / "u-1" / "volumes" / "config-map" / "m"
    assert (place / "k").read_text() == "v"
    assert volumes.refresh_after(pod(spec)) == 10.0, "soon again"


async def test_what_a_pod_is_told_of_itself_follows_its_labels(tmp_path: Path) -> None:
    _, _, volumes = counted(tmp_path)
    items = [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]
    spec = {"volumes": [{"name": "d", "downwardAPI": {"items": items}}]}
    found = await volumes.ensure(pod(spec, labels={"a": "1"}))
    assert (found["d"].path / "labels").read_text() == 'a="1"'
    await volumes.ensure(pod(spec, labels={"a": "2"}))
    assert (found["d"].path / "labels").read_text() == 'a="2"'


async def test_a_token_is_its_readers_alone(tmp_path: Path) -> None:
    _, _, volumes = counted(tmp_path)

    async def mode(spec: dict[str, Any]) -> tuple[int, int, int]:
        sources = [{"serviceAccountToken": {"path": "t", "expirationSeconds": 3600}}]
        shown = await volumes.ensure(pod({**spec, "volumes": [{"name": "t", "projected": {"sources": sources}}]}))
        found = (shown["t"].path / "t").stat()
        await volumes.remove("u-1")
        return found.st_mode & 0o777, found.st_uid, found.st_gid

    one = [{"name": "a", "image": "x:1", "securityContext": {"runAsUser": 7}}]
    assert await mode({"containers": one}) == (0o600, 7, 0)
    assert await mode({"containers": [*one, {"name": "b", "image": "x:1"}]}) == (0o644, 0, 0)
    assert await mode({"securityContext": {"fsGroup": 9}, "containers": one[:1]}) == (0o640, 7, 9)


def test_the_groups_files_are_its_own_and_links_stay_where_they_point(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("x")
    volume = tmp_path / "v"
    (volume / "d").mkdir(parents=True)
    (volume / "d" / "f").touch(mode=0o600)
    (volume / "link").symlink_to(outside)
    give_to_group(volume, 42)
    assert [(p.stat().st_gid, oct(p.stat().st_mode & 0o7777)) for p in (volume / "d", volume / "d" / "f")] == [
        (42, oct(0o2775)),
        (42, oct(0o660)),
    ]
    assert (outside.stat().st_gid, (volume / "link").lstat().st_gid) == (0, 42)
    (volume / "late").touch()
    give_to_group(volume, 42, "OnRootMismatch")
    assert (volume / "late").stat().st_mode & 0o777 == 0o644, "the volume is the group's already: nothing was walked"


@pytest.mark.parametrize("kind", ["Directory", "File", "Socket", "CharDevice", "BlockDevice"])
def test_host_paths_are_what_they_are_said_to_be(tmp_path: Path, kind: str) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "f").touch()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
    good = {"Directory": tmp_path / "d", "File": tmp_path / "f", "Socket": tmp_path / "s", "CharDevice": "/dev/null"}
    for name, path in good.items():
        if name == kind:
            assert host_path(str(path), kind) == Path(path)
        else:
            with pytest.raises(PermanentError, match="hostPath type check failed"):
                host_path(str(path), kind)
    with pytest.raises(PermanentError, match="hostPath type check failed"):
        host_path(str(tmp_path / "missing"), kind)


def test_host_paths_are_made_where_that_is_said(tmp_path: Path) -> None:
    assert host_path(str(tmp_path / "a" / "b"), "DirectoryOrCreate").is_dir()
    assert host_path(str(tmp_path / "f"), "FileOrCreate").is_file()
    with pytest.raises(PermanentError, match="is not a directory"):
        host_path(str(tmp_path / "f"), "DirectoryOrCreate")
    with pytest.raises(PermanentError, match="cannot be made"):
        host_path(str(tmp_path / "no" / "f"), "FileOrCreate")


async def test_huge_pages_need_a_size(tmp_path: Path) -> None:
    cluster = cast(Cluster, TokenCluster())
    volumes = Volumes(tmp_path, cluster, Tokens(cluster, HandClock()), lambda p: Surroundings("h", (), 1, 1))
    with pytest.raises(PermanentError, match="exactly one size"):
        await volumes.ensure(pod({"volumes": [{"name": "e", "emptyDir": {"medium": "HugePages"}}]}))
