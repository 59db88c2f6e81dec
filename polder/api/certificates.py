"""CertificateSigningRequest (certificates.k8s.io/v1)."""

from __future__ import annotations

from polder.api.meta import Object, Struct


class SigningSpec(Struct, frozen=True, kw_only=True):
    """``request`` is PEM in base64; user, groups, uid and extra are who asked, set by the API server."""

    request: str = ""
    signer_name: str = ""
    expiration_seconds: int | None = None
    usages: list[str] | None = None
    username: str = ""
    uid: str = ""
    groups: list[str] | None = None
    extra: dict[str, list[str]] | None = None


class SigningCondition(Struct, frozen=True, kw_only=True):
    """Approved, Denied or Failed."""

    type: str
    status: str = "True"
    reason: str = ""
    message: str = ""
    last_update_time: str | None = None
    last_transition_time: str | None = None


class SigningStatus(Struct, frozen=True, kw_only=True):
    """``certificate`` is PEM in base64."""

    conditions: list[SigningCondition] | None = None
    certificate: str | None = None


class CertificateSigningRequest(Object, frozen=True, kw_only=True):
    """Asks a signer for a certificate."""

    spec: SigningSpec = SigningSpec()
    status: SigningStatus = SigningStatus()
