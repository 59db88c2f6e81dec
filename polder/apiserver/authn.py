"""Who asks: client certificates, service-account tokens, a file of static tokens, or nobody.

Subjects: O ``polder:platform-admins`` (URI ``urn:polder:tenant:root``), ``polder:tenant-admins`` (URI
``urn:polder:tenant:NAME:UID``), ``polder:components`` (CN ``system:polder:NAME``), ``system:nodes`` (CN
``system:node:NAME``). A tenant's credential carries the tenant's UID, so that it is worthless to a successor.
"""

from __future__ import annotations

import csv
import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace

from polder.api.errors import ApiError, unauthorized
from polder.apiserver.tenancy import Tenants
from polder.apiserver.tokens import TokenError, Tokens, looks_like_jwt
from polder.apiserver.types import Connection, Identity, Role
from polder.base.clock import Clock
from polder.base.errors import PermanentError
from polder.base.ids import ROOT, TenantName
from polder.system.pki import ClientName, PkiError, parse_client

log = logging.getLogger(__name__)

PLATFORM_ADMINS = "polder:platform-admins"
TENANT_ADMINS = "polder:tenant-admins"
COMPONENTS = "polder:components"
NODES = "system:nodes"
COMPONENT_PREFIX = "system:polder:"
NODE_PREFIX = "system:node:"
URN = "urn:polder:tenant:"
ROOT_URN = f"{URN}{ROOT}"
ANONYMOUS = Identity("system:anonymous", Role.NONE, ROOT, ("system:unauthenticated",))
AUTHENTICATED = "system:authenticated"


class CredentialError(PermanentError):
    """A credential that is not accepted, and why: for the server's log, never for the caller."""


def tenant_urn(name: TenantName, uid: str) -> str:
    """The URI that ties a certificate to one tenant."""
    return f"{URN}{name}:{uid}"


@dataclass(frozen=True, slots=True)
class StaticUser:
    """A row of the token file; ``tenant_uid`` is empty for the platform's users."""

    name: str
    uid: str
    group: str
    tenant: TenantName = ROOT
    tenant_uid: str = ""


def parse_static_tokens(text: str) -> dict[bytes, StaticUser]:
    """Reads lines ``token,user,uid,group[,tenant:tenant-uid]``, keyed by token SHA-256. Raises CredentialError."""
    users: dict[bytes, StaticUser] = {}
    for number, row in enumerate(csv.reader(text.splitlines()), 1):
        if not row or row[0].startswith("#"):
            continue
        if len(row) not in {4, 5} or not row[0] or not row[1]:
            raise CredentialError(f"static tokens, line {number}: want token,user,uid,group[,tenant:tenant-uid]")
        group, (tenant, _, uid) = row[3], (row[4] if len(row) == 5 else ROOT).partition(":")
        if group not in {PLATFORM_ADMINS, TENANT_ADMINS} or (group == TENANT_ADMINS) != bool(uid):
            raise CredentialError(
                f"static tokens, line {number}: the group is {PLATFORM_ADMINS}, or {TENANT_ADMINS} with a tenant's UID"
            )
        users[_digest(row[0])] = StaticUser(row[1], row[2], group, TenantName(tenant), uid)
    return users


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


class Authenticator:
    """Turns what a connection and its headers show into an identity."""

    def __init__(
        self, tenants: Tenants, tokens: Tokens, clock: Clock, static: Mapping[bytes, StaticUser] | None = None
    ) -> None:
        self._tenants = tenants
        self._tokens = tokens
        self._clock = clock
        self._static = static or {}

    async def authenticate(self, conn: Connection, headers: Mapping[str, str]) -> Identity:
        """The identity; nobody is ``system:anonymous``, but not on a pinned connection. Raises ApiError 401."""
        who = await self._identify(conn, headers)
        if conn.pin is not None and (who.role is Role.NONE or who.home != conn.pin or _is_platform(who)):
            raise unauthorized()
        for header in headers:
            if header.lower().startswith("impersonate-"):
                raise ApiError(403, "Forbidden", f"{header}: impersonation is not supported by this server")
        return who

    async def _identify(self, conn: Connection, headers: Mapping[str, str]) -> Identity:
        """A good certificate wins over a token; a credential that is shown and bad is never anonymous."""
        header = headers.get("Authorization", "")
        scheme, _, token = header.partition(" ")
        if conn.certificate is not None:
            try:
                return await self._by_certificate(conn.certificate)
            except (CredentialError, PkiError) as error:
                log.info("client certificate from %s refused: %s", conn.peer or "a pod", error)
                if not header:
                    raise unauthorized() from error
        if not header:
            return ANONYMOUS
        if scheme.lower() != "bearer" or not token.strip():
            raise unauthorized()
        try:
            return await self._by_token(token.strip())
        except (CredentialError, TokenError) as error:
            log.info("bearer token from %s refused: %s", conn.peer or "a pod", error)
            raise unauthorized() from error

    async def _by_token(self, token: str) -> Identity:
        user = self._static.get(_digest(token))
        if user is None:
            if not looks_like_jwt(token):
                raise CredentialError("the token is not known")
            return await self._tokens.verify(token)
        if user.group == PLATFORM_ADMINS:
            return Identity(user.name, Role.PLATFORM_ADMIN, ROOT, (user.group, AUTHENTICATED), uid=user.uid)
        await self._check_tenant(user.tenant, user.tenant_uid)
        return Identity(user.name, Role.TENANT_ADMIN, user.tenant, (user.group, AUTHENTICATED), uid=user.uid)

    async def _by_certificate(self, der: bytes) -> Identity:
        """Raises CredentialError, PkiError."""
        name = parse_client(der)
        if self._clock.now() >= name.not_after:
            raise CredentialError("it is expired")  # TLS looks at this only when the connection begins
        who = _read_subject(name)
        if who.role is not Role.TENANT_ADMIN:
            return who
        tenant, _, uid = name.uris[0].removeprefix(URN).partition(":")
        await self._check_tenant(TenantName(tenant), uid)
        return replace(who, home=TenantName(tenant))

    async def _check_tenant(self, tenant: TenantName, uid: str) -> None:
        record = await self._tenants.get(tenant)
        if record is None or not uid or record.uid != uid or tenant == ROOT:
            raise CredentialError("its tenant is gone")


def _is_platform(who: Identity) -> bool:
    return who.role not in {Role.TENANT_ADMIN, Role.SERVICE_ACCOUNT}


def _read_subject(name: ClientName) -> Identity:
    """The identity that a subject spells, a tenant's home not yet looked up. Raises CredentialError."""
    group = name.organizations[0] if len(name.organizations) == 1 else ""
    common = name.common_name
    groups = (group, AUTHENTICATED)
    if common and group == PLATFORM_ADMINS and name.uris == (ROOT_URN,):
        return Identity(common, Role.PLATFORM_ADMIN, ROOT, groups)
    if common and group == TENANT_ADMINS and len(name.uris) == 1 and name.uris[0].startswith(URN):
        return Identity(common, Role.TENANT_ADMIN, ROOT, groups)
    if group == COMPONENTS and common.startswith(COMPONENT_PREFIX) and not name.uris:
        return Identity(common, Role.COMPONENT, ROOT, groups)
    node = common.removeprefix(NODE_PREFIX)
    if group == NODES and node != common and node and not name.uris:
        return Identity(common, Role.NODE, ROOT, groups, node=node)
    raise CredentialError("its subject is none that this server gives out")
