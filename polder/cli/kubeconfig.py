"""Kubeconfig documents (v1 Config)."""

from __future__ import annotations

import base64
from dataclasses import dataclass

import yaml


@dataclass(frozen=True, slots=True)
class Access:
    """How one identity reaches one API. Certificates and key are PEM."""

    name: str
    server: str
    authority: bytes
    certificate: bytes
    key: bytes


def render(access: Access) -> str:
    """The document with everything inline, so that the file can be moved."""

    def b64(data: bytes) -> str:
        return base64.b64encode(data).decode()

    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": access.name,
                "cluster": {"server": access.server, "certificate-authority-data": b64(access.authority)},
            }
        ],
        "users": [
            {
                "name": f"{access.name}-admin",
                "user": {
                    "client-certificate-data": b64(access.certificate),
                    "client-key-data": b64(access.key),
                },
            }
        ],
        "contexts": [{"name": access.name, "context": {"cluster": access.name, "user": f"{access.name}-admin"}}],
        "current-context": access.name,
    }
    return yaml.safe_dump(document, sort_keys=False)
