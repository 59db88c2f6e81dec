"""Service-account tokens: ES256 JWTs (RFC 7519) with a key per tenant, in upstream's claims plus the tenant's.

The key stands in the store under a resource name that no path and no CRD can spell, beside the UID of the tenant that
it belongs to. A token is good while its tenant, service account and bound object live with the UIDs that it names.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import uuid
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime

import orjson

from polder.api.core import Pod, Secret, ServiceAccount
from polder.api.errors import ApiError, Field, bad_request, conflict, invalid, not_found
from polder.api.kinds import Kind, kind_of
from polder.api.meta import Raw
from polder.apiserver.tenancy import TenantRecord, Tenants
from polder.apiserver.types import Identity, Role
from polder.base.clock import Clock, stamp
from polder.base.errors import PermanentError
from polder.base.ids import TenantName
from polder.store.protocol import Key, Put, Store
from polder.system.pki import SigningKey

ISSUER = "https://kubernetes.default.svc"
AUDIENCE = ISSUER
TENANT_CLAIM = "polder.dev/tenant"
KEY_RESOURCE = "internal:keys"
SHORTEST, LONGEST, USUAL = 600, 365 * 24 * 3600, 3600
"""Lifetimes in seconds, as upstream bounds and defaults them."""
CACHE_SIZE = 1024
TOKEN_LIMIT = 8192
SKEW = 300
"""Seconds that an ``nbf`` may lie ahead: five minutes of skew between servers."""

ACCOUNT_KIND = kind_of(ServiceAccount)
BINDABLE: dict[tuple[str, str], Kind] = {("v1", "Pod"): kind_of(Pod), ("v1", "Secret"): kind_of(Secret)}


class TokenError(PermanentError):
    """A token that is not accepted, and why: for the server's log, never for the caller."""


def signing_key_put(record: TenantRecord) -> Put:
    """Writes a new signing key for a tenant, over whatever a predecessor left."""
    value = orjson.dumps({"uid": record.uid, "key": SigningKey.generate().decode()})
    return Put(signing_key_key(record.name), value)


def signing_key_key(tenant: TenantName) -> Key:
    """Where a tenant's signing key is stored."""
    return Key(KEY_RESOURCE, tenant, "", "service-accounts")


class Keys:
    """The tenants' signing keys, read when first used."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: OrderedDict[tuple[str, str], SigningKey] = OrderedDict()

    async def of(self, tenant: TenantRecord) -> SigningKey:
        """The key. Raises TokenError where there is none for this very tenant."""
        identity = (tenant.name, tenant.uid)
        known = self._known.get(identity)
        if known is not None:
            self._known.move_to_end(identity)
            return known
        entry = await self._store.get(signing_key_key(tenant.name))
        raw = orjson.loads(entry.value) if entry else {}
        if raw.get("uid") != tenant.uid:
            raise TokenError(f"tenant {tenant.name} has no signing key")
        key = self._known[identity] = SigningKey(raw["key"].encode())
        if len(self._known) > CACHE_SIZE:
            self._known.popitem(last=False)
        return key


@dataclass(frozen=True, slots=True)
class Bound:
    """An object that a token names with its UID, and dies with."""

    kind: Kind
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class Claims:
    """What a verified token says; times in seconds since the epoch."""

    tenant: TenantName
    tenant_uid: str
    namespace: str
    account: Bound
    objects: tuple[Bound, ...]
    audiences: tuple[str, ...]
    expires: float
    not_before: float
    id: str

    @property
    def user(self) -> str:
        """The name of the identity."""
        return f"system:serviceaccount:{self.namespace}:{self.account.name}"


def encode_jwt(key: SigningKey, claims: Raw) -> str:
    """A compact JWS over the claims."""
    head = _b64(orjson.dumps({"alg": "ES256", "kid": key.jwk.kid, "typ": "JWT"}))
    message = f"{head}.{_b64(orjson.dumps(claims))}"
    return f"{message}.{_b64(key.sign(message.encode()))}"


def looks_like_jwt(token: str) -> bool:
    """Whether a bearer token is in three parts."""
    return token.count(".") == 2


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _claims_of(raw: Raw) -> Claims:
    """Reads claims, verified or not. Raises KeyError, TypeError, ValueError, AttributeError on any other shape."""
    inner, tenant = raw["kubernetes.io"], raw[TENANT_CLAIM]
    account = inner["serviceaccount"]
    bound = [
        Bound(kind, inner[kind.singular]["name"], inner[kind.singular]["uid"])
        for kind in BINDABLE.values()
        if kind.singular in inner
    ]
    audience = raw["aud"]
    texts = (tenant["name"], tenant["uid"], inner["namespace"], account["name"], account["uid"], raw["jti"])
    if not all(isinstance(t, str) and t for t in texts):
        raise ValueError("a claim is no text")
    return Claims(
        TenantName(tenant["name"]),
        tenant["uid"],
        inner["namespace"],
        Bound(ACCOUNT_KIND, account["name"], account["uid"]),
        tuple(bound),
        tuple([audience] if isinstance(audience, str) else audience),
        float(raw["exp"]),
        float(raw["nbf"]),
        raw["jti"],
    )


class Tokens:
    """Issues and verifies the tokens of all tenants."""

    def __init__(self, store: Store, tenants: Tenants, clock: Clock) -> None:
        self._store = store
        self._tenants = tenants
        self._clock = clock
        self._keys = Keys(store)
        self._verified: OrderedDict[bytes, Claims] = OrderedDict()

    async def verify(self, token: str, audience: str = AUDIENCE) -> Identity:
        """Who holds the token, everything that it names being alive now. Raises TokenError."""
        claims = await self._signed(token)
        now = self._clock.now().timestamp()
        if now >= claims.expires or now + SKEW < claims.not_before:
            raise TokenError("the token is expired or not valid yet")
        if audience not in claims.audiences:
            raise TokenError("the token is for another audience")
        tenant = await self._tenants.get(claims.tenant)
        if tenant is None or tenant.uid != claims.tenant_uid:
            raise TokenError("the token's tenant is gone")
        for bound in (claims.account, *claims.objects):
            if await self._uid(claims.tenant, claims.namespace, bound) != bound.uid:
                raise TokenError(f"the token's {bound.kind.singular} is gone")
        return _identity(claims)

    async def _signed(self, token: str) -> Claims:
        """The claims of a token whose signature is good; the signature is checked once per token and process."""
        if len(token) > TOKEN_LIMIT:
            raise TokenError("the token is too long")
        digest = hashlib.sha256(token.encode()).digest()
        known = self._verified.get(digest)
        if known is not None:
            self._verified.move_to_end(digest)
            return known
        try:
            message, _, signature = token.rpartition(".")
            head, _, body = message.partition(".")
            algorithm = orjson.loads(_unb64(head))["alg"]
            claims = _claims_of(orjson.loads(_unb64(body)))
            mark = _unb64(signature)
        except (KeyError, TypeError, ValueError, AttributeError, binascii.Error) as error:
            raise TokenError("the token is malformed") from error
        tenant = await self._tenants.get(claims.tenant)
        if algorithm != "ES256" or tenant is None or tenant.uid != claims.tenant_uid:
            raise TokenError("the token is signed by nobody known")
        if not (await self._keys.of(tenant)).verify(message.encode(), mark):
            raise TokenError("the token's signature is wrong")
        self._verified[digest] = claims
        if len(self._verified) > CACHE_SIZE:
            self._verified.popitem(last=False)
        return claims

    async def _uid(self, tenant: TenantName, namespace: str, bound: Bound) -> str:
        """The UID that stands under the name now, empty if nothing does."""
        entry = await self._store.get(Key(bound.kind.resource, tenant, namespace, bound.name))
        return str(orjson.loads(entry.value)["metadata"]["uid"]) if entry else ""

    async def issue(self, tenant: TenantName, namespace: str, account: str, request: Raw) -> Raw:
        """Answers a TokenRequest (authentication.k8s.io/v1). Raises ApiError."""
        record = await self._tenants.get(tenant)
        entry = await self._store.get(Key(ACCOUNT_KIND.resource, tenant, namespace, account))
        if record is None or entry is None:
            raise not_found(ACCOUNT_KIND, account)
        wanted = _wanted(request)
        subject = Bound(ACCOUNT_KIND, account, orjson.loads(entry.value)["metadata"]["uid"])
        inner: Raw = {"namespace": namespace, "serviceaccount": {"name": account, "uid": subject.uid}}
        if wanted.bound is not None:
            inner[wanted.bound.kind.singular] = await self._bind(record, namespace, account, wanted.bound)
        now = int(self._clock.now().timestamp())
        claims: Raw = {
            "aud": list(wanted.audiences),
            "exp": now + wanted.seconds,
            "iat": now,
            "nbf": now,
            "iss": ISSUER,
            "jti": str(uuid.uuid4()),
            "sub": f"system:serviceaccount:{namespace}:{account}",
            "kubernetes.io": inner,
            TENANT_CLAIM: {"name": record.name, "uid": record.uid},
        }
        token = encode_jwt(await self._keys.of(record), claims)
        status = {"token": token, "expirationTimestamp": stamp(datetime.fromtimestamp(claims["exp"], UTC))}
        return _answer(request, namespace, account, wanted, status)

    async def _bind(self, tenant: TenantRecord, namespace: str, account: str, bound: Bound) -> Raw:
        """The claim about the bound object, which must live and, a pod, run as the account. Raises ApiError."""
        entry = await self._store.get(Key(bound.kind.resource, tenant.name, namespace, bound.name))
        if entry is None:
            raise not_found(bound.kind, bound.name)
        raw = orjson.loads(entry.value)
        uid = raw["metadata"]["uid"]
        if bound.uid and bound.uid != uid:
            raise conflict(
                bound.kind, bound.name, f"the UID in the bound object reference ({bound.uid}) does not match"
            )
        runs_as = (raw.get("spec") or {}).get("serviceAccountName") or "default"
        if bound.kind.singular == "pod" and runs_as != account:
            raise bad_request(f'cannot bind token for serviceaccount "{account}" to pod running as "{runs_as}"')
        return {"name": bound.name, "uid": uid}

    async def key_set(self, tenant: TenantName) -> Raw:
        """The tenant's public keys (RFC 7517). Raises ApiError 404."""
        record = await self._tenants.get(tenant)
        if record is None:
            raise ApiError(404, "NotFound", "the server could not find the requested resource")
        jwk = (await self._keys.of(record)).jwk
        public = {"kty": "EC", "crv": "P-256", "x": jwk.x, "y": jwk.y}
        return {"keys": [{"use": "sig", "alg": "ES256", "kid": jwk.kid, **public}]}


def _identity(claims: Claims) -> Identity:
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{claims.namespace}", "system:authenticated")
    extra: dict[str, tuple[str, ...]] = {"authentication.kubernetes.io/credential-id": (f"JTI={claims.id}",)}
    for bound in claims.objects:
        if bound.kind.singular == "pod":
            extra["authentication.kubernetes.io/pod-name"] = (bound.name,)
            extra["authentication.kubernetes.io/pod-uid"] = (bound.uid,)
    return Identity(claims.user, Role.SERVICE_ACCOUNT, claims.tenant, groups, uid=claims.account.uid, extra=extra)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What a TokenRequest asks, defaults filled in."""

    audiences: tuple[str, ...]
    seconds: int
    bound: Bound | None


def _wanted(request: Raw) -> _Wanted:
    """Reads and checks a TokenRequest's spec. Raises ApiError 422."""
    spec = request.get("spec") or {}
    audiences, seconds = spec.get("audiences") or [AUDIENCE], spec.get("expirationSeconds", USUAL)
    at, errors = Field("spec"), []
    if not isinstance(audiences, list) or not all(isinstance(a, str) and a for a in audiences):
        errors.append((at / "audiences").invalid(audiences, "must be a list of texts"))
    if isinstance(seconds, bool) or not isinstance(seconds, int):
        errors.append((at / "expirationSeconds").type_invalid(seconds, "must be an integer"))
    elif seconds < SHORTEST:
        errors.append((at / "expirationSeconds").invalid(seconds, "may not specify a duration less than 10 minutes"))
    elif seconds > LONGEST:
        errors.append((at / "expirationSeconds").invalid(seconds, "may not specify a duration larger than 1 year"))
    reference, bound = spec.get("boundObjectRef"), None
    if reference:
        kind = BINDABLE.get((reference.get("apiVersion", ""), reference.get("kind", "")))
        if kind is None or not reference.get("name"):
            errors.append((at / "boundObjectRef").invalid(reference, "must name a v1 Pod or a v1 Secret"))
        else:
            bound = Bound(kind, reference["name"], reference.get("uid", ""))
    if errors:
        raise invalid(Kind("authentication.k8s.io", "v1", "TokenRequest", "tokenrequests", "tokenrequest"), "", errors)
    return _Wanted(tuple(audiences), seconds, bound)


def _answer(request: Raw, namespace: str, account: str, wanted: _Wanted, status: Raw) -> Raw:
    spec: Raw = {
        "audiences": list(wanted.audiences),
        "expirationSeconds": wanted.seconds,
        "boundObjectRef": (request.get("spec") or {}).get("boundObjectRef"),
    }
    meta = {"name": account, "namespace": namespace, "creationTimestamp": None}
    return {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "metadata": meta,
        "spec": spec,
        "status": status,
    }
