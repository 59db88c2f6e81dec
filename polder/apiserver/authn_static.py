"""Credentials in files: static bearer tokens, and passwords for HTTP basic (RFC 7617), which is off unless configured."""

from __future__ import annotations

import asyncio
import base64
import binascii
import csv
import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from polder.apiserver.authn_method import (
    AUTHENTICATED,
    CredentialError,
    Shown,
    Verified,
    check_groups,
    check_tenant,
)
from polder.apiserver.tenancy import Tenants
from polder.apiserver.types import Identity, Role
from polder.base.clock import Clock
from polder.base.ids import ROOT, TenantName
from polder.system.pki import PLATFORM_ADMINS, TENANT_ADMINS

PASSWORD_COST = (2**14, 8, 1)
"""n, r, p of scrypt (RFC 7914): about 40 ms and 16 MiB for a try."""
COST_LIMIT = 2**17
PASSWORDS_AT_ONCE = 2
PASSWORDS_WAITING = 64
"""Tries that wait for their turn; what comes on top is refused."""
REMEMBER = 60.0
"""Seconds that a good password is not computed again."""
REMEMBERED = 1024
ROLES: dict[tuple[str, ...], Role] = {
    (PLATFORM_ADMINS,): Role.PLATFORM_ADMIN,
    (TENANT_ADMINS,): Role.TENANT_ADMIN,
}


@dataclass(frozen=True, slots=True)
class StaticUser:
    """A row of a file; ``tenant_uid`` is empty for the platform's users."""

    name: str
    uid: str
    groups: tuple[str, ...]
    tenant: TenantName = ROOT
    tenant_uid: str = ""

    async def identity(self, tenants: Tenants) -> Identity:
        """Who it is, if its tenant lives. Raises CredentialError."""
        if self.tenant != ROOT:
            await check_tenant(tenants, self.tenant, self.tenant_uid)
        role = ROLES.get(self.groups, Role.USER)
        return Identity(self.name, role, self.tenant, (*self.groups, AUTHENTICATED), uid=self.uid)


def parse_static_tokens(text: str) -> dict[bytes, StaticUser]:
    """Reads lines ``token,user,uid[,"group,group"[,tenant:tenant-uid]]``, keyed by token SHA-256. Raises CredentialError."""
    return {_digest(row[0]): _user(row, number, "static tokens") for number, row in _rows(text)}


def parse_passwords(text: str) -> dict[str, tuple[str, StaticUser]]:
    """Reads lines ``scrypt-hash,user,uid[,"group,group"[,tenant:tenant-uid]]`` (see ``hash_password``), keyed by user.
    Raises CredentialError.
    """
    users: dict[str, tuple[str, StaticUser]] = {}
    for number, row in _rows(text):
        user = _user(row, number, "passwords")
        try:
            _parse_hash(row[0])
        except ValueError as error:
            raise CredentialError(f"passwords, line {number}: {error}") from error
        if user.name in users:
            raise CredentialError(f"passwords, line {number}: the user {user.name} is there twice")
        users[user.name] = (row[0], user)
    return users


def _rows(text: str) -> list[tuple[int, list[str]]]:
    rows = enumerate(csv.reader(text.splitlines()), 1)
    return [(number, row) for number, row in rows if row and not row[0].startswith("#")]


def _user(row: list[str], number: int, what: str) -> StaticUser:
    where = f"{what}, line {number}"
    if not 3 <= len(row) <= 5 or not row[0] or not row[1]:
        raise CredentialError(f"{where}: want SECRET,user,uid[,groups[,tenant:tenant-uid]]")
    groups = tuple(g.strip() for g in row[3].split(",") if g.strip()) if len(row) > 3 else ()
    tenant, _, uid = (row[4] if len(row) == 5 else ROOT).partition(":")
    if (tenant == ROOT) != (not uid):
        raise CredentialError(f"{where}: a tenant is named with its UID, as NAME:UID")
    if groups not in ROLES:
        try:
            check_groups(groups)
        except CredentialError as error:
            raise CredentialError(f"{where}: {error}, which stands alone") from error
    elif (groups == (TENANT_ADMINS,)) != (tenant != ROOT):
        raise CredentialError(
            f"{where}: {PLATFORM_ADMINS} is the platform's, {TENANT_ADMINS} needs a tenant's NAME:UID"
        )
    return StaticUser(row[1], row[2], groups, TenantName(tenant), uid)


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


@dataclass(frozen=True, slots=True)
class StaticTokens:
    """The method of the token file. Tokens are found by their digest, so that looking one up says nothing about others."""

    users: Mapping[bytes, StaticUser]
    tenants: Tenants
    audience: str

    async def authenticate(self, shown: Shown) -> Verified | None:
        """The row of the token."""
        user = self.users.get(_digest(shown.token)) if shown.token and self.audience in shown.audiences else None
        return Verified(await user.identity(self.tenants), (self.audience,)) if user else None


def hash_password(password: str) -> str:
    """``scrypt$n$r$p$salt$hash``, as the password file has it."""
    n, r, p = PASSWORD_COST
    salt = secrets.token_bytes(16)
    digest = hashlib.scrypt(password.encode(), salt=salt, n=n, r=r, p=p, maxmem=256 * n * r)
    return "$".join(
        ["scrypt", str(n), str(r), str(p), base64.b64encode(salt).decode(), base64.b64encode(digest).decode()]
    )


def _parse_hash(text: str) -> tuple[int, int, int, bytes, bytes]:
    """Raises ValueError."""
    try:
        kind, n, r, p, salt, digest = text.split("$")
        found = int(n), int(r), int(p), base64.b64decode(salt, validate=True), base64.b64decode(digest, validate=True)
    except (ValueError, binascii.Error) as error:
        raise ValueError("the hash is not scrypt$n$r$p$salt$hash") from error
    if kind != "scrypt" or found[0] * found[1] * found[2] > COST_LIMIT * 8 or found[0] < 2 or found[0] & (found[0] - 1):
        raise ValueError("the hash is not scrypt's, or its cost is out of bounds")
    return found


class Passwords:
    """The method of HTTP basic. A try costs time and memory on purpose: it is made beside the event loop, two at a time;
    a good password is remembered for a minute, under a key that this process alone knows.
    """

    def __init__(self, users: Mapping[str, tuple[str, StaticUser]], tenants: Tenants, clock: Clock) -> None:
        self._users = users
        self._tenants = tenants
        self._clock = clock
        self._turns = asyncio.Semaphore(PASSWORDS_AT_ONCE)
        self._waiting = 0
        self._key = secrets.token_bytes(32)
        self._good: OrderedDict[bytes, float] = OrderedDict()
        self._nobody = hash_password(secrets.token_hex(16))

    async def authenticate(self, shown: Shown) -> Verified | None:
        """The user, if the password is right."""
        scheme, _, code = shown.headers.get("Authorization", "").strip().partition(" ")
        if scheme.lower() != "basic":
            return None
        try:
            name, colon, password = base64.b64decode(code.strip(), validate=True).decode().partition(":")
        except (ValueError, binascii.Error) as error:
            raise CredentialError("the basic credentials cannot be read") from error
        text, user = self._users.get(name, (self._nobody, None))
        good = await self._check(f"{name}:{password}", password, text)
        if not colon or user is None or not good:
            raise CredentialError("the user or the password is wrong")
        return Verified(await user.identity(self._tenants), shown.audiences)

    async def _check(self, pair: str, password: str, text: str) -> bool:
        """Takes as long for a user that there is none of."""
        mark, now = hmac.digest(self._key, pair.encode(), "sha256"), self._clock.monotonic()
        if self._good.get(mark, 0.0) > now:
            return True
        if self._waiting >= PASSWORDS_WAITING:
            raise CredentialError("too many passwords are being tried")
        n, r, p, salt, wanted = _parse_hash(text)
        self._waiting += 1
        try:
            async with self._turns:
                digest = await asyncio.to_thread(
                    hashlib.scrypt, password.encode(), salt=salt, n=n, r=r, p=p, maxmem=256 * n * r, dklen=len(wanted)
                )
        finally:
            self._waiting -= 1
        good = hmac.compare_digest(digest, wanted)
        if good:
            self._good[mark] = now + REMEMBER
            if len(self._good) > REMEMBERED:
                self._good.popitem(last=False)
        return good
