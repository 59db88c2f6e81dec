"""Images of a node under credentials: nobody uses one whom the registry did not let in."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import cast

import msgspec
import pytest

from polder.api.core import Secret
from polder.api.podspec import Container
from polder.node.access import MANY, ImageAccess
from polder.node.images import ImageError, Images, Puller
from polder.node.keyring import CONFIG_JSON, Login
from polder.system.cri import CriClient
from polder.system.cri_types import ImageInfo, RuntimeFailureError

IMAGE = "r.example/app:1"
RIGHT, WRONG = Login("r.example", "u", "pw"), Login("r.example", "u", "guess")


def test_what_was_imported_is_for_everybody(tmp_path: Path) -> None:
    access = ImageAccess(tmp_path / "a")
    assert access.allowed("sha256:1", IMAGE, "acme", [])


def test_who_was_let_in_is_remembered_by_tenant_and_credentials(tmp_path: Path) -> None:
    ImageAccess(tmp_path).grant("sha256:1", IMAGE, "acme", RIGHT)
    access = ImageAccess(tmp_path)
    assert access.allowed("sha256:1", IMAGE, "acme", [WRONG, RIGHT])
    for tenant, logins in (("acme", []), ("acme", [WRONG]), ("other", [RIGHT])):
        assert not access.allowed("sha256:1", IMAGE, tenant, logins)
    access.grant("sha256:1", IMAGE, "other", None)
    access.grant("sha256:1", IMAGE, "acme", RIGHT)
    assert access.allowed("sha256:1", IMAGE, "third", []), "without credentials it is everybody's, and stays so"
    assert b"pw" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())


def test_a_pull_that_was_cut_off_does_not_pass_for_an_import(tmp_path: Path) -> None:
    ImageAccess(tmp_path).begin(IMAGE)
    access = ImageAccess(tmp_path)
    assert not access.allowed("sha256:1", IMAGE, "acme", [RIGHT])
    access.grant("sha256:1", IMAGE, "acme", RIGHT)
    assert access.allowed("sha256:1", IMAGE, "acme", [RIGHT])


def test_a_record_that_cannot_be_read_lets_nobody_in_and_is_bounded(tmp_path: Path) -> None:
    access = ImageAccess(tmp_path)
    access.grant("sha256:1", IMAGE, "acme", RIGHT)
    record = next(tmp_path.glob("image-*"))
    record.write_text("{")
    assert not access.allowed("sha256:1", IMAGE, "acme", [RIGHT])
    for number in range(MANY + 3):
        access.grant("sha256:1", IMAGE, "acme", Login("r", str(number), ""))
    assert len(json.loads(record.read_text())["proofs"]) == MANY


class Registry:
    """A runtime whose registry lets one login in; an image stays on the node once it was pulled."""

    def __init__(self, public: bool = False) -> None:
        self.public, self.here, self.asked = public, False, list[str]()

    async def image(self, name: str) -> ImageInfo | None:
        return ImageInfo("sha256:1", (name,), (), 7, None, "") if self.here else None

    async def pull(self, name: str, login: tuple[str, ...] | None = None) -> None:
        self.asked.append(login[1] if login else "")
        if not self.public and (login is None or login[1] != "pw"):
            raise RuntimeFailureError("PullImage: 401 Unauthorized")
        self.here = True


def puller(tenant: str, password: str = "") -> Puller:
    config = base64.b64encode(json.dumps({"auths": {"r.example": {"username": "u", "password": password}}}).encode())
    found = [Secret(type=CONFIG_JSON, data={".dockerconfigjson": config.decode()})] if password else []

    async def secrets() -> list[Secret]:
        return found

    return Puller(tenant, f"pod-of-{tenant}-{password}", secrets)


async def try_it(images: Images, who: Puller, policy: str = "IfNotPresent") -> str:
    box = msgspec.convert({"name": "a", "image": IMAGE, "imagePullPolicy": policy}, Container)
    try:
        await images.ensure(box, who, lambda kind, reason, message: None)
    except ImageError as error:
        return error.reason
    return "runs"


async def test_the_first_use_of_each_tenant_asks_the_registry(tmp_path: Path) -> None:
    registry = Registry()
    images = Images(cast(CriClient, registry), ImageAccess(tmp_path))
    assert await try_it(images, puller("acme", "pw")) == "runs"
    assert await try_it(images, puller("acme", "pw")) == "runs"
    assert registry.asked == ["pw"], "the second one has shown what the first did"
    assert await try_it(images, puller("other")) == "ErrImagePull"
    assert await try_it(images, puller("other", "guess")) == "ErrImagePull"
    assert await try_it(images, puller("other", "guess")) == "ImagePullBackOff"
    assert await try_it(images, puller("other", "guess"), "Never") == "ErrImageNeverPull"
    assert await try_it(images, puller("other", "pw")) == "runs"
    assert registry.asked == ["pw", "", "guess", "pw"]


async def test_a_public_image_is_pulled_once(tmp_path: Path) -> None:
    registry = Registry(public=True)
    images = Images(cast(CriClient, registry), ImageAccess(tmp_path))
    assert [await try_it(images, puller(tenant)) for tenant in ("acme", "other")] == ["runs", "runs"]
    assert registry.asked == [""]


@pytest.mark.parametrize("tenant", ["acme", "other"])
async def test_one_pods_back_off_is_not_anothers(tmp_path: Path, tenant: str) -> None:
    images = Images(cast(CriClient, Registry()), ImageAccess(tmp_path))
    assert await try_it(images, puller("acme", "guess")) == "ErrImagePull"
    assert await try_it(images, puller(tenant, "pw")) == "runs"
