"""Kubeconfig documents (v1 Config)."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import yaml


@dataclass(frozen=True, slots=True)
class Access:
    """Who somebody is, and whom they trust: certificates and key are PEM."""

    user: str
    authority: bytes
    certificate: bytes
    key: bytes


@dataclass(frozen=True, slots=True)
class Place:
    """One API that somebody reaches: the name of its context, and the URL."""

    name: str
    server: str


def render(access: Access, places: Sequence[Place]) -> str:
    """The document with everything inline, so that the file can be moved; the first place is the current one."""

    def b64(data: bytes) -> str:
        return base64.b64encode(data).decode()

    def cluster(place: Place) -> dict[str, str]:
        return {"server": place.server, "certificate-authority-data": b64(access.authority)}

    user = {"client-certificate-data": b64(access.certificate), "client-key-data": b64(access.key)}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": place.name, "cluster": cluster(place)} for place in places],
        "users": [{"name": access.user, "user": user}],
        "contexts": [{"name": place.name, "context": {"cluster": place.name, "user": access.user}} for place in places],
        "current-context": places[0].name,
    }
    return yaml.safe_dump(document, sort_keys=False)
