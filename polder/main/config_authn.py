"""The part of the server's configuration that says how callers show who they are."""

from __future__ import annotations

import msgspec


class _Method(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True, tag_field="type"):
    """One method; ``type`` says which."""


class Certificate(_Method, frozen=True, kw_only=True, tag="Certificate"):
    """Client certificates of the cluster's own authorities."""


class ServiceAccount(_Method, frozen=True, kw_only=True, tag="ServiceAccount"):
    """Tokens of service accounts."""


class BootstrapToken(_Method, frozen=True, kw_only=True, tag="BootstrapToken"):
    """Bootstrap tokens: Secrets of that type in ``kube-system``."""


class TokenFile(_Method, frozen=True, kw_only=True, tag="TokenFile"):
    """Static bearer tokens: lines ``token,user,uid[,"group,group"[,tenant:tenant-uid]]``."""

    file: str


class PasswordFile(_Method, frozen=True, kw_only=True, tag="PasswordFile"):
    """HTTP basic: lines ``scrypt-hash,user,uid[,"group,group"[,tenant:tenant-uid]]``."""

    file: str


class FrontProxy(_Method, frozen=True, kw_only=True, tag="FrontProxy"):
    """Proxies with a certificate of the front proxies' authority. Only the common names in ``allowed_names`` are believed."""

    allowed_names: list[str]
    username_headers: tuple[str, ...] = ("X-Remote-User",)
    uid_headers: tuple[str, ...] = ("X-Remote-Uid",)
    group_headers: tuple[str, ...] = ("X-Remote-Group",)
    extra_header_prefixes: tuple[str, ...] = ("X-Remote-Extra-",)


class Anonymous(_Method, frozen=True, kw_only=True, tag="Anonymous"):
    """Requests that show nothing are ``system:anonymous``; with ``paths``, on these alone. Without this method they get 401.
    It counts last, wherever it stands.
    """

    paths: list[str] = []


Method = Certificate | ServiceAccount | BootstrapToken | TokenFile | PasswordFile | FrontProxy | Anonymous
DEFAULT_METHODS: tuple[Method, ...] = (Certificate(), ServiceAccount(), BootstrapToken(), Anonymous())
