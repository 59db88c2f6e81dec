"""Service-account tokens: ES256 JWTs with keys of each tenant's own, verified.

A token is good while its tenant, service account and bound object live with the UIDs that it names, and its key is the tenant's.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime

import orjson

from polder.api.errors import ApiError
from polder.api.meta import Raw
from polder.apiserver.authn_method import AUTHENTICATED, CREDENTIAL_ID, Shown, Verified
from polder.apiserver.objects import encode, terms
from polder.apiserver.signing_keys import Keys
from polder.apiserver.tenancy import Tenants
from polder.apiserver.token_claims import (
    ALGORITHM,
    AUDIENCE,
    ISSUER,
    LEGACY,
    LEGACY_ISSUER,
    TENANT_CLAIM,
    TOKEN_LIMIT,
    Bound,
    Claims,
    TokenError,
    encode_jwt,
    issuer_of,
    looks_like_jwt,
    parse_jwt,
)
from polder.apiserver.types import Identity, Role
from polder.base.clock import Clock
from polder.base.ids import ROOT, TenantName
from polder.store.protocol import ConflictError, Entry, Key, Put, Store

__all__ = ["AUDIENCE", "ISSUER", "TokenError", "Tokens"]

CACHE_SIZE = 1024
SKEW = 300
"""Seconds that an ``nbf`` may lie ahead: five minutes of skew between servers."""
LEEWAY = 60
"""Seconds for which a token outlives the moment that its account or bound object was asked to go."""
SECRET_TYPE = "kubernetes.io/service-account-token"  # noqa: S105 - a type
ACCOUNT_NAME = "kubernetes.io/service-account.name"
ACCOUNT_UID = "kubernetes.io/service-account.uid"
INVALID_SINCE = "kubernetes.io/legacy-token-invalid-since"
LAST_USED = "kubernetes.io/legacy-token-last-used"
POD_NAME, POD_UID = "authentication.kubernetes.io/pod-name", "authentication.kubernetes.io/pod-uid"
NODE_NAME, NODE_UID = "authentication.kubernetes.io/node-name", "authentication.kubernetes.io/node-uid"


@dataclass(frozen=True, slots=True)
class _Living:
    """What stands under a name that a token names."""

    entry: Entry
    raw: Raw

    @property
    def uid(self) -> str:
        return str(self.raw["metadata"]["uid"])


@dataclass(frozen=True, slots=True)
class _Signed:
    """What a token claims, under a signature that was good, and the key's name."""

    claims: Claims
    kid: str


class Tokens:
    """Verifies the tokens of all tenants: a method of authentication."""

    def __init__(self, store: Store, tenants: Tenants, clock: Clock) -> None:
        self._store = store
        self.tenants = tenants
        self._clock = clock
        self.keys = Keys(store)
        self._verified: OrderedDict[bytes, _Signed] = OrderedDict()

    async def authenticate(self, shown: Shown) -> Verified | None:
        """The account that a token of one of our issuers is for."""
        if not looks_like_jwt(shown.token) or issuer_of(shown.token) not in {ISSUER, LEGACY_ISSUER}:
            return None
        return await self.verify(shown.token, shown.audiences)

    async def verify(self, token: str, audiences: tuple[str, ...] = (AUDIENCE,)) -> Verified:
        """Who holds the token, everything that it names being alive now, and for which of the audiences. Raises
        TokenError.
        """
        signed = await self._signed(token)
        claims = signed.claims
        good = (AUDIENCE,) if claims.legacy else claims.audiences
        accepted = tuple(a for a in audiences if a in good)
        if not accepted:
            raise TokenError("the token is for another audience")
        tenant = await self.tenants.get(claims.tenant)
        if tenant is None or tenant.uid != claims.tenant_uid:
            raise TokenError("the token's tenant is gone")
        if (await self.keys.of(tenant)).named(signed.kid) is None:
            raise TokenError("the token's key was replaced")
        if claims.legacy:
            await self._check_legacy(claims, token)
        else:
            now = self._clock.now().timestamp()
            if now >= claims.expires or now + SKEW < claims.not_before:
                raise TokenError("the token is expired or not valid yet")
        for bound in (claims.account, *_dies_with(claims)):
            await self._check_bound(claims, bound)
        return Verified(_identity(claims), accepted)

    async def _signed(self, token: str) -> _Signed:
        """The claims of a token whose signature is good; the signature is checked once per token and process."""
        if len(token) > TOKEN_LIMIT:
            raise TokenError("the token is too long")
        digest = hashlib.sha256(token.encode()).digest()
        known = self._verified.get(digest)
        if known is not None:
            self._verified.move_to_end(digest)
            return known
        parsed = parse_jwt(token)
        claims = parsed.claims
        tenant = await self.tenants.get(claims.tenant)
        if parsed.algorithm != ALGORITHM or tenant is None or tenant.uid != claims.tenant_uid:
            raise TokenError("the token is signed by nobody known")
        key = (await self.keys.of(tenant)).named(parsed.kid)
        if key is None or not key.verify(parsed.message, parsed.mark):
            raise TokenError("the token's signature is wrong")
        signed = self._verified[digest] = _Signed(claims, parsed.kid)
        if len(self._verified) > CACHE_SIZE:
            self._verified.popitem(last=False)
        return signed

    async def _living(self, tenant: TenantName, namespace: str, bound: Bound) -> _Living:
        """What stands under the name, unless it was asked to go more than a minute ago. Raises TokenError."""
        if not bound.kind.namespaced:
            tenant, namespace = ROOT, ""  # nodes are the platform's
        entry = await self._store.get(Key(bound.kind.resource, tenant, namespace, bound.name))
        if entry is None:
            raise TokenError(f"the token's {bound.kind.singular} is gone")
        raw = orjson.loads(entry.value)
        leaving = raw["metadata"].get("deletionTimestamp")
        if leaving and datetime.fromisoformat(leaving).timestamp() + LEEWAY < self._clock.now().timestamp():
            raise TokenError(f"the token's {bound.kind.singular} is being deleted")
        return _Living(entry, raw)

    async def _check_bound(self, claims: Claims, bound: Bound) -> None:
        if (await self._living(claims.tenant, claims.namespace, bound)).uid != bound.uid:
            raise TokenError(f"the token's {bound.kind.singular} is another one now")

    async def _check_legacy(self, claims: Claims, token: str) -> None:
        """A token of the older form is good while its Secret holds it. Raises TokenError."""
        entry = await self._store.get(Key("secrets", claims.tenant, claims.namespace, claims.legacy))
        raw: Raw = orjson.loads(entry.value) if entry else {"metadata": {}}
        meta = raw["metadata"]
        held = base64.b64encode(token.encode())
        kept = str((raw.get("data") or {}).get("token", "")).encode()
        if entry is None or meta.get("deletionTimestamp") or not hmac.compare_digest(kept, held):
            raise TokenError("the token's Secret does not hold it any more")
        annotations, labels = meta.get("annotations") or {}, meta.get("labels") or {}
        if raw.get("type") != SECRET_TYPE or annotations.get(ACCOUNT_NAME) != claims.account.name:
            raise TokenError("the token's Secret is not the account's")
        if labels.get(INVALID_SINCE):
            raise TokenError("the token's Secret is marked invalid")
        await self._note_use(entry, raw)

    async def _note_use(self, entry: Entry, raw: Raw) -> None:
        """Labels the Secret with the day of its last use, as upstream does, for whoever clears unused ones away."""
        today = f"{self._clock.now().astimezone(UTC):%Y-%m-%d}"
        meta = raw["metadata"]
        if (meta.get("labels") or {}).get(LAST_USED, "") >= today:
            return
        labelled = {**raw, "metadata": {**meta, "labels": {**(meta.get("labels") or {}), LAST_USED: today}}}
        try:
            await self._store.commit([Put(entry.key, encode(labelled), entry.revision, terms(labelled))])
        except ConflictError:
            return  # somebody changes the Secret right now; the next use notes it

    async def legacy(self, tenant: TenantName, namespace: str, secret: str, account: Bound) -> str:
        """The token that a Secret of the type ``kubernetes.io/service-account-token`` holds: without an end, good while
        it is there. Raises TokenError.
        """
        record = await self.tenants.get(tenant)
        if record is None:
            raise TokenError("there is no such tenant")
        claims: Raw = {
            "iss": LEGACY_ISSUER,
            "sub": f"system:serviceaccount:{namespace}:{account.name}",
            f"{LEGACY}namespace": namespace,
            f"{LEGACY}secret.name": secret,
            f"{LEGACY}service-account.name": account.name,
            f"{LEGACY}service-account.uid": account.uid,
            TENANT_CLAIM: {"name": record.name, "uid": record.uid},
        }
        return encode_jwt((await self.keys.of(record)).signs, claims)

    async def key_set(self, tenant: TenantName) -> Raw:
        """The tenant's public keys (RFC 7517). Raises ApiError 404."""
        record = await self.tenants.get(tenant)
        if record is None:
            raise ApiError(404, "NotFound", "the server could not find the requested resource")
        found = [key.jwk for key in await self.keys.of(record)]
        public = [{"kty": "EC", "crv": "P-256", "x": jwk.x, "y": jwk.y} for jwk in found]
        named = [{"use": "sig", "alg": ALGORITHM, "kid": jwk.kid} for jwk in found]
        return {"keys": [{**name, **key} for name, key in zip(named, public, strict=True)]}


def _dies_with(claims: Claims) -> list[Bound]:
    """The objects whose end is the token's. A pod's node is told along and does not count."""
    kinds = {bound.kind.singular for bound in claims.objects}
    return [bound for bound in claims.objects if bound.kind.singular != "node" or "pod" not in kinds]


def _identity(claims: Claims) -> Identity:
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{claims.namespace}", AUTHENTICATED)
    extra: dict[str, tuple[str, ...]] = {CREDENTIAL_ID: (f"JTI={claims.id}",)} if claims.id else {}
    for bound in claims.objects:
        names = {"pod": (POD_NAME, POD_UID), "node": (NODE_NAME, NODE_UID)}.get(bound.kind.singular)
        if names is not None:
            extra[names[0]] = (bound.name,)
            if bound.uid:
                extra[names[1]] = (bound.uid,)
    return Identity(claims.user, Role.SERVICE_ACCOUNT, claims.tenant, groups, uid=claims.account.uid, extra=extra)
