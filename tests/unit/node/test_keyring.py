"""Pull secrets: which credentials are for which image."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from polder.api.core import Secret
from polder.node.keyring import CONFIG, CONFIG_JSON, logins_for, split


def secret(auths: dict[str, Any], kind: str = CONFIG_JSON) -> Secret:
    whole = {"auths": auths} if kind == CONFIG_JSON else auths
    key = ".dockerconfigjson" if kind == CONFIG_JSON else ".dockercfg"
    return Secret(type=kind, data={key: base64.b64encode(json.dumps(whole).encode()).decode()})


def entry(user: str) -> dict[str, str]:
    return {"username": user, "password": "pw"}


@pytest.mark.parametrize(
    ("key", "image", "fits"),
    [
        ("r.example", "r.example/a:1", True),
        ("https://r.example/v2/", "r.example/a:1", True),
        ("r.example/team", "r.example/team/a:1", True),
        ("r.example/team", "r.example/other/a:1", False),
        ("r.example", "r.example:5000/a", False),
        ("r.example:5000", "r.example:5000/a", True),
        ("*.example", "r.example/a", True),
        ("*.example", "x.r.example/a", False),
        ("r.example", "x.example/a", False),
        ("https://index.docker.io/v1/", "busybox", True),
        ("https://index.docker.io/v1/", "docker.io/library/busybox:1", True),
        ("index.docker.io", "r.example/busybox", False),
    ],
)
def test_keys_match_hosts_and_paths(key: str, image: str, fits: bool) -> None:
    assert [login.user for login in logins_for(image, [secret({key: entry("u")})])] == (["u"] if fits else [])


def test_the_most_exact_comes_first_and_both_forms_are_read() -> None:
    both = {"auth": base64.b64encode(b"v:p:q").decode()}
    found = logins_for(
        "r.example/team/a", [secret({"r.example": entry("u")}), secret({"r.example/team": both}, CONFIG)]
    )
    assert [(login.user, login.password) for login in found] == [("v", "p:q"), ("u", "pw")]
    assert found[0].server == "r.example" and "p:q" not in repr(found)


@pytest.mark.parametrize(
    "broken",
    [
        Secret(type=CONFIG_JSON, data={".dockerconfigjson": "%%%"}),
        Secret(type=CONFIG_JSON, data={".dockerconfigjson": base64.b64encode(b"[]").decode()}),
        Secret(type=CONFIG_JSON, data={".dockerconfigjson": base64.b64encode(b"[" * 100_000).decode()}),
        Secret(type=CONFIG_JSON),
        Secret(type="Opaque", data={".dockerconfigjson": "e30="}),
        secret({"r.example": {"auth": "//79"}}),
        secret({"r.example": {"username": 1}}),
        secret({"r.example": "x"}),
    ],
)
def test_what_is_malformed_gives_nothing(broken: Secret) -> None:
    assert logins_for("r.example/a", [broken]) == []


def test_references_without_a_host() -> None:
    assert split("busybox") == ("index.docker.io", "/library/busybox")
    assert split("team/app:1") == ("index.docker.io", "/team/app:1")
    assert split("localhost/a") == ("localhost", "/a")
