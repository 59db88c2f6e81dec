"""What service-account tokens say: the codec of their claims, in upstream's names plus the tenant's.

A token is a compact JWS (RFC 7515), always ES256, over the claims of RFC 7519. The older form, which a Secret of the type
``kubernetes.io/service-account-token`` holds, has flat claims and no end.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

import orjson

from polder.api.core import Node, Pod, Secret, ServiceAccount
from polder.api.kinds import Kind, kind_of
from polder.api.meta import Raw
from polder.apiserver.authn_method import CredentialError
from polder.base.ids import TenantName
from polder.system.pki import SigningKey

ISSUER = "https://kubernetes.default.svc"
AUDIENCE = ISSUER
LEGACY_ISSUER = "kubernetes/serviceaccount"
TENANT_CLAIM = "polder.dev/tenant"
TOKEN_LIMIT = 8192
ALGORITHM = "ES256"
LEGACY = "kubernetes.io/serviceaccount/"
"""How the flat claims of the older form begin."""

ACCOUNT_KIND = kind_of(ServiceAccount)
BINDABLE: dict[tuple[str, str], Kind] = {
    ("v1", "Pod"): kind_of(Pod),
    ("v1", "Secret"): kind_of(Secret),
    ("v1", "Node"): kind_of(Node),
}


class TokenError(CredentialError):
    """A token that is not accepted, and why: for the server's log, never for the caller."""


@dataclass(frozen=True, slots=True)
class Bound:
    """An object that a token names with its UID, and dies with."""

    kind: Kind
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class Claims:
    """What a token says; times in seconds since the epoch. ``legacy`` is the name of the Secret that holds a token of the
    older form: it has no audiences, no times and no id.
    """

    tenant: TenantName
    tenant_uid: str
    namespace: str
    account: Bound
    objects: tuple[Bound, ...] = ()
    audiences: tuple[str, ...] = ()
    expires: float = 0.0
    not_before: float = 0.0
    warn_after: float = 0.0
    id: str = ""
    legacy: str = ""

    @property
    def user(self) -> str:
        """The name of the identity."""
        return f"system:serviceaccount:{self.namespace}:{self.account.name}"


@dataclass(frozen=True, slots=True)
class Parsed:
    """A token taken apart, nothing of it believed yet."""

    claims: Claims
    algorithm: str
    kid: str
    message: bytes
    mark: bytes


def encode_jwt(key: SigningKey, claims: Raw) -> str:
    """A compact JWS over the claims."""
    head = _b64(orjson.dumps({"alg": ALGORITHM, "kid": key.jwk.kid, "typ": "JWT"}))
    message = f"{head}.{_b64(orjson.dumps(claims))}"
    return f"{message}.{_b64(key.sign(message.encode()))}"


def looks_like_jwt(token: str) -> bool:
    """Whether a bearer token is in three parts."""
    return token.count(".") == 2


def issuer_of(token: str) -> str:
    """The issuer that a token claims, unverified; empty if it cannot be read."""
    try:
        found = orjson.loads(_unb64(token.split(".")[1]))["iss"]
    except (KeyError, TypeError, ValueError, IndexError, binascii.Error):
        return ""
    return found if isinstance(found, str) else ""


def kid_of(token: str) -> str:
    """The key that a token names, unverified; empty if it cannot be read."""
    try:
        found = orjson.loads(_unb64(token.split(".", maxsplit=1)[0]))["kid"]
    except (KeyError, TypeError, ValueError, IndexError, binascii.Error):
        return ""
    return found if isinstance(found, str) else ""


def parse_jwt(token: str) -> Parsed:
    """Takes a token apart. Raises TokenError."""
    try:
        message, _, signature = token.rpartition(".")
        head, _, body = message.partition(".")
        header = orjson.loads(_unb64(head))
        algorithm, kid = header["alg"], header["kid"]
        return Parsed(_claims_of(orjson.loads(_unb64(body))), algorithm, kid, message.encode(), _unb64(signature))
    except (KeyError, TypeError, ValueError, AttributeError, binascii.Error) as error:
        raise TokenError("the token is malformed") from error


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _unb64(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)


def _claims_of(raw: Raw) -> Claims:
    """Reads claims, verified or not. Raises KeyError, TypeError, ValueError, AttributeError on any other shape."""
    tenant, issuer = raw[TENANT_CLAIM], raw["iss"]
    if issuer == LEGACY_ISSUER:
        return _legacy_of(raw, tenant)
    if issuer != ISSUER:
        raise ValueError("the token is another issuer's")
    inner = raw["kubernetes.io"]
    account = inner["serviceaccount"]
    bound = [
        Bound(kind, inner[kind.singular]["name"], inner[kind.singular].get("uid", ""))
        for kind in BINDABLE.values()
        if kind.singular in inner
    ]
    audience = raw["aud"]
    audiences = (audience,) if isinstance(audience, str) else tuple(audience)
    _check_texts(tenant["name"], tenant["uid"], inner["namespace"], account["name"], account["uid"], raw["jti"])
    _check_texts(*audiences, *(b.name for b in bound))
    return Claims(
        TenantName(tenant["name"]),
        tenant["uid"],
        inner["namespace"],
        Bound(ACCOUNT_KIND, account["name"], account["uid"]),
        tuple(bound),
        audiences,
        float(raw["exp"]),
        float(raw["nbf"]),
        float(inner.get("warnafter", 0)),
        raw["jti"],
    )


def _legacy_of(raw: Raw, tenant: Raw) -> Claims:
    namespace, secret = raw[f"{LEGACY}namespace"], raw[f"{LEGACY}secret.name"]
    name, uid = raw[f"{LEGACY}service-account.name"], raw[f"{LEGACY}service-account.uid"]
    _check_texts(tenant["name"], tenant["uid"], namespace, secret, name, uid)
    return Claims(TenantName(tenant["name"]), tenant["uid"], namespace, Bound(ACCOUNT_KIND, name, uid), legacy=secret)


def _check_texts(*texts: object) -> None:
    if not all(isinstance(t, str) and t for t in texts):
        raise ValueError("a claim is no text")
