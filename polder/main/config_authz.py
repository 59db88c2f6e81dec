"""The parts of the server's configuration that say who decides what a caller may, and what is written down of it."""

from __future__ import annotations

import msgspec


class _Mode(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True, tag_field="type"):
    """One authorizer; ``type`` says which."""


class Node(_Mode, frozen=True, kw_only=True, tag="Node"):
    """Nodes may what their share needs; without this mode they may nothing. It alone decides about them, wherever it stands."""


class Rbac(_Mode, frozen=True, kw_only=True, tag="RBAC"):
    """Roles and bindings of each tenant."""


class Abac(_Mode, frozen=True, kw_only=True, tag="ABAC"):
    """A policy file, read again when it changes and on SIGHUP."""

    file: str


class Webhook(_Mode, frozen=True, kw_only=True, tag="Webhook"):
    """A service that answers SubjectAccessReviews. The names of files: its authority, our certificate and key.

    ``failure_policy`` is NoOpinion or Deny.
    """

    url: str
    authority_file: str = ""
    certificate_file: str = ""
    key_file: str = ""
    timeout_seconds: float = 3.0
    allowed_seconds: float = 300.0
    refused_seconds: float = 30.0
    failure_policy: str = "NoOpinion"


class AlwaysAllow(_Mode, frozen=True, kw_only=True, tag="AlwaysAllow"):
    """Whatever the fixed frame leaves open."""


class AlwaysDeny(_Mode, frozen=True, kw_only=True, tag="AlwaysDeny"):
    """Nothing."""


Mode = Node | Rbac | Abac | Webhook | AlwaysAllow | AlwaysDeny
DEFAULT_MODES: tuple[Mode, ...] = (Node(), Rbac())


class AuditConfig(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """Audit events: a directory per tenant below ``directory``. Without ``policy_file``: what is changed, and by whom."""

    directory: str
    policy_file: str = ""
    max_bytes: int = 16 << 20
    """Of a file, before the next one is begun."""
    kept: int = 4
    """Older files of each tenant."""
    open_files: int = 64
