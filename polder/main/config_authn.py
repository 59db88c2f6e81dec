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


class Part(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """A part of a method's configuration."""


class JwtIssuer(Part, frozen=True, kw_only=True):
    """Who signs. ``certificate_authority`` is PEM; empty means the machine's own authorities."""

    url: str
    audiences: list[str]
    audience_match_policy: str = ""
    certificate_authority: str = ""
    discovery_url: str = msgspec.field(default="", name="discoveryURL")
    signing_algorithms: list[str] = []


class ClaimSource(Part, frozen=True, kw_only=True):
    """A claim with a prefix (which must be given, be it empty), or a CEL expression over ``claims``."""

    claim: str = ""
    prefix: str | None = None
    expression: str = ""


class ExtraMapping(Part, frozen=True, kw_only=True):
    """One key of extra."""

    key: str
    value_expression: str


class ClaimMappings(Part, frozen=True, kw_only=True):
    """How claims become a user."""

    username: ClaimSource
    groups: ClaimSource = ClaimSource()
    uid: ClaimSource = ClaimSource()
    extra: list[ExtraMapping] = []


class ClaimRule(Part, frozen=True, kw_only=True):
    """A claim that must have a value, or an expression over ``claims`` that must be true."""

    claim: str = ""
    required_value: str = ""
    expression: str = ""
    message: str = ""


class UserRule(Part, frozen=True, kw_only=True):
    """An expression over ``user`` that must be true."""

    expression: str
    message: str = ""


class JwtTenant(Part, frozen=True, kw_only=True):
    """Whose users these are: one tenant's, by name and UID; the tenant's that a claim names; left out: the platform's."""

    name: str = ""
    uid: str = ""
    claim: str = ""


class Jwt(Part, frozen=True, kw_only=True):
    """One issuer, in the words of apiserver.config.k8s.io/v1 AuthenticationConfiguration, and its ``tenant``."""

    issuer: JwtIssuer
    claim_mappings: ClaimMappings
    claim_validation_rules: list[ClaimRule] = []
    user_validation_rules: list[UserRule] = []
    tenant: JwtTenant = JwtTenant()


class OpenIdConnect(_Method, frozen=True, kw_only=True, tag="OpenIDConnect"):
    """Tokens of OpenID Connect issuers."""

    jwt: list[Jwt]


class Webhook(_Method, frozen=True, kw_only=True, tag="Webhook"):
    """A service that answers TokenReviews. The names of files: its authority, our certificate and key, our token."""

    url: str
    authority_file: str = ""
    certificate_file: str = ""
    key_file: str = ""
    token_file: str = ""
    cache_seconds: float = 120.0
    timeout_seconds: float = 10.0
    tenant: str = ""


class Anonymous(_Method, frozen=True, kw_only=True, tag="Anonymous"):
    """Requests that show nothing are ``system:anonymous``; with ``paths``, on these alone. Without this method they get 401.
    It counts last, wherever it stands.
    """

    paths: list[str] = []


Method = (
    Certificate
    | ServiceAccount
    | BootstrapToken
    | TokenFile
    | PasswordFile
    | FrontProxy
    | OpenIdConnect
    | Webhook
    | Anonymous
)
DEFAULT_METHODS: tuple[Method, ...] = (Certificate(), ServiceAccount(), BootstrapToken(), Anonymous())
