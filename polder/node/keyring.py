"""Credentials for registries from pull secrets, and which of them are for an image: pure.

Secrets are of type kubernetes.io/dockerconfigjson or kubernetes.io/dockercfg; how their keys match, with globs in the parts of
the host and prefixes of the path, is upstream's (KEP-2535, credentialprovider).
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from polder.api.core import Secret

CONFIG_JSON, CONFIG = "kubernetes.io/dockerconfigjson", "kubernetes.io/dockercfg"
DEFAULT_HOST = "index.docker.io"
LIMIT = 64
"""Credentials that are looked at for one image."""


@dataclass(frozen=True, slots=True, repr=False)
class Login:
    """Who to be at a registry. Never printed."""

    server: str
    user: str
    password: str
    identity_token: str = ""
    registry_token: str = ""

    @property
    def proof(self) -> bytes:
        """What tells two of them apart."""
        parts = (self.server, self.user, self.password, self.identity_token, self.registry_token)
        return json.dumps(parts).encode()


def logins_for(image: str, secrets: Iterable[Secret]) -> list[Login]:
    """The credentials that match an image, the most exact key first. What is malformed is passed over."""
    found: list[tuple[str, Login]] = []
    for secret in secrets:
        for key, entry in _entries(secret).items():
            login = _login(key, entry)
            if login is not None:
                found.append((_plain(key), login))
    host, path = split(image)
    matching = sorted((pair for pair in found if _matches(pair[0], host, path)), key=lambda pair: pair[0], reverse=True)
    return [login for _, login in matching[:LIMIT]]


def split(image: str) -> tuple[str, str]:
    """Registry host and the rest of a reference; without a host it is Docker's registry."""
    first, slash, rest = image.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return (DEFAULT_HOST if first == "docker.io" else first), f"/{rest}"
    return DEFAULT_HOST, f"/{image if slash else f'library/{image}'}"


def _plain(key: str) -> str:
    """A key without scheme and without the versions of the registry's interface."""
    text = key.partition("://")[2] if "://" in key else key
    host, slash, path = text.partition("/")
    if path.rstrip("/") in {"v1", "v2"}:
        path, slash = "", ""
    return f"{host}{slash}{path}"


def _matches(key: str, host: str, path: str) -> bool:
    wanted, _, prefix = key.partition("/")
    pattern, _, port = wanted.partition(":")
    name, _, own_port = host.partition(":")
    patterns, names = pattern.split("."), name.split(".")
    if port != own_port or len(patterns) != len(names) or not path.startswith(f"/{prefix}"):
        return False
    return all(fnmatchcase(one, glob) for glob, one in zip(patterns, names, strict=True))


def _entries(secret: Secret) -> dict[str, Any]:
    data = secret.data or {}
    try:
        if secret.type == CONFIG_JSON:
            whole = json.loads(base64.b64decode(data.get(".dockerconfigjson", ""), validate=True))
            found = whole.get("auths") if isinstance(whole, dict) else None
        elif secret.type == CONFIG:
            found = json.loads(base64.b64decode(data.get(".dockercfg", ""), validate=True))
        else:
            found = None
    except (ValueError, RecursionError):  # no base64, no text, no JSON
        return {}
    return found if isinstance(found, dict) else {}


def _login(key: str, entry: Any) -> Login | None:
    if not isinstance(entry, dict):
        return None
    texts = [entry.get(name, "") for name in ("username", "password", "auth", "identitytoken", "registrytoken")]
    if not all(isinstance(text, str) for text in texts):
        return None
    user, password, both, identity, registry = texts
    if both:
        try:
            user, _, password = base64.b64decode(both, validate=True).decode().rstrip("\0").partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return None
    return Login(_plain(key).partition("/")[0], user, password, identity, registry)


def is_pull_secret(secret: Secret) -> bool:
    """Whether it can hold credentials for registries."""
    return secret.type in {CONFIG_JSON, CONFIG}


Keys = Sequence[Secret]
