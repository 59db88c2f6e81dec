"""Tokens of OpenID Connect issuers (ID tokens, JWTs): several issuers, each with its own keys, audiences and mappings.

An issuer's users are the platform's, unless the configuration ties the issuer, or a claim of its tokens, to a tenant.
Names that begin with ``system:`` are never believed, groups that begin so, or with ``polder:``, are left out: an issuer
says who its users are, not what the cluster's own parts are.
"""

from __future__ import annotations

import base64
import binascii
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from polder.api.meta import Raw
from polder.apiserver.authn_method import AUTHENTICATED, CREDENTIAL_ID, SYSTEM, CredentialError, Shown, Verified
from polder.apiserver.oidc_claims import Mapper, Mappings, User
from polder.apiserver.oidc_keys import IssuerKeys, Place
from polder.apiserver.tenancy import Tenants
from polder.apiserver.token_claims import issuer_of, looks_like_jwt
from polder.apiserver.types import Identity, Role
from polder.base.clock import Clock
from polder.base.ids import ROOT, TenantName
from polder.system.pki import RESERVED

log = logging.getLogger(__name__)

SKEW = 300
"""Seconds that ``nbf`` may lie ahead."""
TRIED = 16
"""Keys that are tried for a token that names none."""
ALGORITHMS = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"})


@dataclass(frozen=True, slots=True)
class TenantChoice:
    """Whose users an issuer's are: of one tenant (by name, and if it is given by UID), of the tenant that a claim names
    (``NAME`` or ``NAME:UID``), or, with neither, the platform's.
    """

    name: str = ""
    uid: str = ""
    claim: str = ""


@dataclass(frozen=True, slots=True)
class Issuer:
    """One issuer."""

    place: Place
    audiences: frozenset[str]
    mappings: Mappings
    tenant: TenantChoice = TenantChoice()
    algorithms: frozenset[str] = ALGORITHMS


@dataclass(frozen=True, slots=True)
class _Trusted:
    """An issuer, ready."""

    issuer: Issuer
    keys: IssuerKeys
    mapper: Mapper


class Oidc:
    """The method. Raises MappingError for a mapping that cannot be used."""

    def __init__(self, issuers: Sequence[Issuer], tenants: Tenants, clock: Clock, audience: str) -> None:
        self._tenants = tenants
        self._clock = clock
        self._audience = audience
        self._issuers = {i.place.issuer: _Trusted(i, IssuerKeys(i.place, clock), Mapper(i.mappings)) for i in issuers}

    async def close(self) -> None:
        """Ends the connections to the issuers."""
        for trusted in self._issuers.values():
            await trusted.keys.close()

    async def authenticate(self, shown: Shown) -> Verified | None:
        """Who the token is for."""
        if not looks_like_jwt(shown.token) or self._audience not in shown.audiences:
            return None
        trusted = self._issuers.get(issuer_of(shown.token))
        if trusted is None:
            return None
        claims = await self._verified(trusted, shown.token)
        user = trusted.mapper.user(claims)
        home = await self._home(trusted.issuer.tenant, claims)
        return Verified(_identity(user, home, claims), (self._audience,))

    async def _verified(self, trusted: _Trusted, token: str) -> Raw:
        """The claims, once signature, audience and times are good. Raises CredentialError."""
        message, _, signature = token.rpartition(".")
        head, _, body = message.partition(".")
        header, claims, mark = _json(head), _json(body), _bytes(signature)
        algorithm, identifier = header.get("alg"), header.get("kid", "")
        if algorithm not in trusted.issuer.algorithms or not isinstance(identifier, str) or "crit" in header:
            raise CredentialError("the token's header asks for what is not accepted")
        keys = await trusted.keys.find(identifier)
        if not any(key.verify(algorithm, message.encode(), mark) for key in keys[:TRIED]):
            raise CredentialError("the token's signature is not the issuer's")
        audience = claims.get("aud")
        audiences = [audience] if isinstance(audience, str) else audience if isinstance(audience, list) else []
        if not any(isinstance(a, str) and a in trusted.issuer.audiences for a in audiences):
            raise CredentialError("the token is for another audience")
        now = self._clock.now().timestamp()
        if now >= _moment(claims.get("exp")) or now + SKEW < _moment(claims.get("nbf", 0)):
            raise CredentialError("the token is expired or not valid yet")
        return claims

    async def _home(self, choice: TenantChoice, claims: Raw) -> TenantName:
        """Raises CredentialError where the tenant is none that lives."""
        name, uid = choice.name, choice.uid
        if choice.claim:
            value = claims.get(choice.claim)
            if not isinstance(value, str) or not value:
                raise CredentialError(f"the token's claim {choice.claim} names no tenant")
            name, _, uid = value.partition(":")
        if not name:
            return ROOT
        record = await self._tenants.get(TenantName(name))
        if record is None or name == ROOT or (uid and record.uid != uid):
            raise CredentialError("the token's tenant is gone")
        return record.name


def _identity(user: User, home: TenantName, claims: Raw) -> Identity:
    if user.name.startswith(SYSTEM):
        raise CredentialError("the token claims a name of the cluster's own parts")
    groups = tuple(g for g in user.groups if not g.startswith((SYSTEM, RESERVED)))
    if len(groups) != len(user.groups):
        log.info("groups of the cluster's own parts are left out of a token's of %s", user.name)
    extra = dict(user.extra)
    identifier = claims.get("jti")
    if isinstance(identifier, str) and identifier:
        extra.setdefault(CREDENTIAL_ID, (f"JTI={identifier}",))
    return Identity(user.name, Role.USER, home, (*groups, AUTHENTICATED), uid=user.uid, extra=extra)


def _moment(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise CredentialError("the token's times are no numbers")
    return float(value)


def _bytes(part: str) -> bytes:
    try:
        return base64.b64decode(part + "=" * (-len(part) % 4), b"-_", validate=True)
    except (ValueError, binascii.Error) as error:
        raise CredentialError("the token is malformed") from error


def _json(part: str) -> Raw:
    try:
        found = orjson.loads(_bytes(part))
    except ValueError as error:
        raise CredentialError("the token is malformed") from error
    if not isinstance(found, dict):
        raise CredentialError("the token is malformed")
    return found
