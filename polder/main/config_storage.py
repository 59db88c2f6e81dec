"""The part of the server's configuration that says where objects are stored, and how secrets are sealed there."""

from __future__ import annotations

import msgspec


class EtcdConfig(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """An etcd cluster, v3.4 or later. ``endpoints`` are ``HOST:PORT``; with ``authority`` (PEM) the connections are TLS, with
    ``certificate`` and ``key`` the server shows who it is. Other users of that etcd need another ``prefix``.
    """

    endpoints: list[str]
    authority: str = ""
    certificate: str = ""
    key: str = ""
    prefix: str = "/polder"


class SealingConfig(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """Which resources are encrypted at rest, by names as stored (``secrets``, ``widgets.example.com``; ``internal:*`` for
    the platform's own keys), and the file of the keys, which every server of the cluster has.
    """

    keyring: str
    resources: tuple[str, ...] = ("secrets", "internal:*")
