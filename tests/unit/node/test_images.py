"""Images: archives that are built, references, policies, back-off."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import cast

import msgspec
import pytest

from polder.api.core import Secret
from polder.api.podspec import Container
from polder.base.errors import PermanentError
from polder.node.access import ImageAccess
from polder.node.archive import PAUSE_IMAGE, TOOLBOX_IMAGE, archive, build_images, read_references, toolbox
from polder.node.images import ImageError, Images, Puller, pull_policy
from polder.node.pods.backoff import FORGET, MANY, Backoff
from polder.system.cri import CriClient
from polder.system.cri_types import ImageInfo, RuntimeFailureError


def test_archives_are_the_same_each_time(tmp_path: Path) -> None:
    made = build_images(tmp_path / "a")
    again = build_images(tmp_path / "b")
    assert [p.read_bytes() for p in made] == [p.read_bytes() for p in again]
    assert [read_references(p) for p in made] == [[TOOLBOX_IMAGE], [PAUSE_IMAGE]]
    before = [p.stat().st_mtime_ns for p in made]
    assert [p.stat().st_mtime_ns for p in build_images(tmp_path / "a")] == before, "what is there is left alone"


def test_the_toolbox_has_its_tools() -> None:
    with tarfile.open(fileobj=io.BytesIO(archive(toolbox()))) as tar:
        manifest = json.load(cast(io.BufferedReader, tar.extractfile("manifest.json")))[0]
        layer = cast(io.BufferedReader, tar.extractfile(manifest["Layers"][0])).read()
    with tarfile.open(fileobj=io.BytesIO(layer)) as files:
        names = set(files.getnames())
        links = {m.linkname for m in files if m.issym()}
    assert links == {"/bin/busybox"}
    applets = {Path(name).name for name in names}
    assert {
        "sh",
        "ping",
        "nc",
        "wget",
        "ssl_client",
        "httpd",
        "arp",
        "arping",
        "ip",
        "sleep",
        "passwd",
        "openssl",
    } <= applets


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(b"no archive")
    with pytest.raises(PermanentError, match="is no image archive"):
        read_references(tmp_path / "x.tar")


def box(image: str, policy: str = "") -> Container:
    return msgspec.convert({"name": "a", "image": image, "imagePullPolicy": policy}, Container)


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("toolbox", "Always"),
        ("toolbox:latest", "Always"),
        ("toolbox:1", "IfNotPresent"),
        ("host:5000/toolbox", "Always"),
        ("host:5000/toolbox:1", "IfNotPresent"),
        ("toolbox@sha256:" + "0" * 64, "IfNotPresent"),
    ],
)
def test_default_policy_follows_the_tag(image: str, policy: str) -> None:
    assert pull_policy(box(image)) == policy
    assert pull_policy(box(image, "Never")) == "Never"


class Runtime:
    """The runtime's image service: a set of names, and pulls that fail."""

    def __init__(self, *names: str) -> None:
        self.names = set(names)
        self.pulls = 0

    async def image(self, name: str) -> ImageInfo | None:
        return ImageInfo("sha256:1", (name,), (), 1, None, "") if name in self.names else None

    async def pull(self, name: str, login: object = None) -> None:
        self.pulls += 1
        raise RuntimeFailureError(f"PullImage: {name}: no such host")


async def nothing() -> list[Secret]:
    return []


async def test_present_images_are_used_and_failing_pulls_back_off(tmp_path: Path) -> None:
    runtime, said, who = Runtime("toolbox"), list[str](), Puller("acme", "u-1", nothing)
    images = Images(cast(CriClient, runtime), ImageAccess(tmp_path))

    def say(kind: str, reason: str, message: str) -> None:
        said.append(reason)

    assert (await images.ensure(box("toolbox", "IfNotPresent"), who, say)).id == "sha256:1"
    reasons = []
    for container in (box("x:1", "Never"), box("x:1"), box("x:1"), box("X:1"), box("polder.dev/pause:1")):
        with pytest.raises(ImageError) as error:
            await images.ensure(container, who, say)
        reasons.append(error.value.reason)
    wanted = ["ErrImageNeverPull", "ErrImagePull", "ImagePullBackOff", "InvalidImageName", "InvalidImageName"]
    assert reasons == wanted
    assert runtime.pulls == 1
    assert said == [
        "Pulled",
        "ErrImageNeverPull",
        "Pulling",
        "Failed",
        "Failed",
        "BackOff",
        "InspectFailed",
        "InspectFailed",
    ]


def test_delays_double_to_five_minutes_and_are_forgotten() -> None:
    waits, now, seen = Backoff(), 1000.0, []
    assert waits.remaining("k", now) == 0
    for _ in range(7):
        waits.raise_("k", now)
        seen.append(waits.remaining("k", now, now))
        now += 1
    assert seen == [10, 20, 40, 80, 160, 300, 300]
    assert waits.remaining("k", now, now + FORGET + 1) == 0, "it ran long enough"
    waits.raise_("k", now + FORGET + 1)
    assert waits.delay("k") == 10


def test_delays_are_found_again_from_the_number_of_restarts() -> None:
    lived, found = Backoff(), Backoff()
    for attempt in range(1, 5):
        lived.raise_("k", 100.0 * attempt)
    found.seed("k", 4, 400.0)
    assert found.delay("k") == lived.delay("k")
    found.seed("k", 1, 0.0)
    assert found.delay("k") == lived.delay("k"), "what is known counts"


def test_what_is_forgotten_is_not_kept_for_ever() -> None:
    waits = Backoff()
    for number in range(5000):
        waits.raise_(f"image-{number}", number * FORGET / 100)
    assert len(waits._entries) <= MANY
