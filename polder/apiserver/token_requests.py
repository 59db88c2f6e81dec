"""TokenRequest (authentication.k8s.io/v1), the subresource ``token`` of a service account."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import orjson

from polder.api.errors import Field, FieldError, bad_request, conflict, invalid, not_found
from polder.api.kinds import Kind
from polder.api.meta import Raw
from polder.apiserver.signing_keys import Keys
from polder.apiserver.tenancy import TenantRecord, Tenants
from polder.apiserver.token_claims import (
    ACCOUNT_KIND,
    AUDIENCE,
    BINDABLE,
    ISSUER,
    TENANT_CLAIM,
    Bound,
    encode_jwt,
)
from polder.base.clock import Clock, stamp
from polder.base.ids import ROOT, TenantName
from polder.store.protocol import Key, Store

SHORTEST, LONGEST, USUAL = 600, 2**32, 3600
"""Lifetimes in seconds, as upstream bounds and defaults them."""
WARN_ONLY = 3607
"""The lifetime that a pod's own token asks for, as upstream writes it into pods."""
EXTENDED = 365 * 24 * 3600
"""How long such a token works in fact, so that clients that never read it again go on; a use after ``WARN_ONLY`` seconds
is stale."""
KIND = Kind("authentication.k8s.io", "v1", "TokenRequest", "tokenrequests", "tokenrequest")


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What a TokenRequest asks, defaults filled in."""

    audiences: tuple[str, ...]
    seconds: int
    bound: Bound | None


@dataclass(frozen=True, slots=True)
class _Account:
    """The account that a token is for."""

    tenant: TenantRecord
    namespace: str
    name: str
    uid: str


class TokenRequests:
    """Issues tokens."""

    def __init__(self, store: Store, tenants: Tenants, keys: Keys, clock: Clock) -> None:
        self._store = store
        self._tenants = tenants
        self._keys = keys
        self._clock = clock

    async def issue(self, tenant: TenantName, namespace: str, name: str, request: Raw) -> Raw:
        """Answers a TokenRequest. Raises ApiError."""
        record = await self._tenants.get(tenant)
        entry = await self._store.get(Key(ACCOUNT_KIND.resource, tenant, namespace, name))
        _check_names(request, namespace, name)
        if record is None or entry is None:
            raise not_found(ACCOUNT_KIND, name)
        account = _Account(record, namespace, name, orjson.loads(entry.value)["metadata"]["uid"])
        asked = (request.get("metadata") or {}).get("uid")
        if asked and asked != account.uid:
            why = (
                f"the UID in the token request ({asked}) does not match the UID of the service account ({account.uid})"
            )
            raise conflict(_named(KIND.group, KIND.kind), name, why)
        wanted = _wanted(request)
        inner: Raw = {"namespace": namespace, "serviceaccount": {"name": name, "uid": account.uid}}
        if wanted.bound is not None:
            inner |= await self._bind(account, wanted.bound)
        return await self._signed(account, wanted, inner, request)

    async def _signed(self, account: _Account, wanted: _Wanted, inner: Raw, request: Raw) -> Raw:
        now, seconds = int(self._clock.now().timestamp()), wanted.seconds
        if "pod" in inner and seconds == WARN_ONLY and wanted.audiences == (AUDIENCE,):
            inner["warnafter"], seconds = now + seconds, EXTENDED
        claims: Raw = {
            "aud": list(wanted.audiences),
            "exp": now + seconds,
            "iat": now,
            "nbf": now,
            "iss": ISSUER,
            "jti": str(uuid.uuid4()),
            "sub": f"system:serviceaccount:{account.namespace}:{account.name}",
            "kubernetes.io": inner,
            TENANT_CLAIM: {"name": account.tenant.name, "uid": account.tenant.uid},
        }
        token = encode_jwt((await self._keys.of(account.tenant)).signs, claims)
        until = stamp(datetime.fromtimestamp(now + wanted.seconds, UTC))
        return _answer(
            account, wanted, request, {"token": token, "expirationTimestamp": until}, stamp(self._clock.now())
        )

    async def _read(self, tenant: str, namespace: str, bound: Bound) -> Raw | None:
        where = (tenant, namespace) if bound.kind.namespaced else (ROOT, "")
        entry = await self._store.get(Key(bound.kind.resource, *where, bound.name))
        return orjson.loads(entry.value) if entry else None

    async def _bind(self, account: _Account, bound: Bound) -> Raw:
        """The claims about the bound object, which must live and, a pod, run as the account. Raises ApiError."""
        raw = await self._read(account.tenant.name, account.namespace, bound)
        if raw is None:
            raise not_found(bound.kind, bound.name)
        uid, spec = raw["metadata"]["uid"], raw.get("spec") or {}
        runs_as = spec.get("serviceAccountName") or "default"
        if bound.kind.singular == "pod" and runs_as != account.name:
            raise bad_request(
                f'cannot bind token for serviceaccount "{account.name}" to pod running with different serviceaccount name.'
            )
        if bound.uid and bound.uid != uid:
            why = (
                f"the UID in the bound object reference ({bound.uid}) does not match the UID in record. "
                "The object might have been deleted and then recreated"
            )
            raise conflict(_named("", bound.kind.kind), bound.name, why)
        found: Raw = {bound.kind.singular: {"name": bound.name, "uid": uid}}
        node = spec.get("nodeName") if bound.kind.singular == "pod" else ""
        if node:
            found["node"] = await self._node(node)
        return found

    async def _node(self, name: str) -> Raw:
        """What a pod's token says of the pod's node."""
        raw = await self._read(ROOT, "", Bound(BINDABLE["v1", "Node"], name, ""))
        return {"name": name, "uid": raw["metadata"]["uid"]} if raw else {"name": name}


def _named(group: str, kind: str) -> Kind:
    """Conflicts about these are told with the kind where else the resource stands."""
    return replace(KIND, group=group, plural=kind, kind=kind)


def _check_names(request: Raw, namespace: str, name: str) -> None:
    """What the body names must be what the path names. Raises ApiError 422."""
    meta, at = request.get("metadata") or {}, Field("metadata")
    for field, wanted, what in (("name", name, "name"), ("namespace", namespace, "namespace")):
        if meta.get(field) and meta[field] != wanted:
            why = f"must match the service account {what} if specified"
            raise invalid(KIND, name, [(at / field).invalid(meta[field], why)])


def _wanted(request: Raw) -> _Wanted:
    """Reads and checks a TokenRequest's spec. Raises ApiError 400, 422."""
    spec = request.get("spec") or {}
    audiences, seconds = spec.get("audiences") or [AUDIENCE], spec.get("expirationSeconds", USUAL)
    at = Field("spec")
    errors: list[FieldError] = []
    if not isinstance(audiences, list) or not all(isinstance(a, str) and a for a in audiences):
        errors.append((at / "audiences").invalid(audiences, "must be a list of texts"))
    if seconds is None:
        seconds = USUAL
    if isinstance(seconds, bool) or not isinstance(seconds, int):
        errors.append((at / "expirationSeconds").type_invalid(seconds, "must be an integer"))
    elif seconds < SHORTEST:
        errors.append((at / "expirationSeconds").invalid(seconds, "may not specify a duration less than 10 minutes"))
    elif seconds > LONGEST:
        errors.append(
            (at / "expirationSeconds").invalid(seconds, "may not specify a duration larger than 2^32 seconds")
        )
    if errors:
        raise invalid(KIND, "", errors)
    return _Wanted(tuple(audiences), seconds, _bound(spec.get("boundObjectRef")))


def _bound(reference: Raw | None) -> Bound | None:
    if not reference:
        return None
    version, kind = str(reference.get("apiVersion") or ""), str(reference.get("kind") or "")
    found = BINDABLE.get((version, kind))
    if found is None or not reference.get("name"):
        raise bad_request(f"cannot bind token to object of type {version or 'v1'}, Kind={kind}")
    return Bound(found, str(reference["name"]), str(reference.get("uid") or ""))


def _answer(account: _Account, wanted: _Wanted, request: Raw, status: Raw, now: str) -> Raw:
    spec: Raw = {"audiences": list(wanted.audiences), "expirationSeconds": wanted.seconds}
    spec["boundObjectRef"] = (request.get("spec") or {}).get("boundObjectRef")
    meta: Raw = {
        "name": account.name,
        "namespace": account.namespace,
        "uid": account.uid,
        "creationTimestamp": now,
    }
    return {"apiVersion": KIND.api_version, "kind": KIND.kind, "metadata": meta, "spec": spec, "status": status}
