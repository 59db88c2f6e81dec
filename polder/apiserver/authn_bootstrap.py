"""Bootstrap tokens: ``ID.SECRET`` out of a Secret ``bootstrap-token-ID`` in ``kube-system``, as upstream's.

They are looked up in the tenant that the connection is pinned to, else in ``root``: what a tenant puts into its own
``kube-system`` makes users of that tenant and of no other.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import orjson

from polder.api.meta import Raw
from polder.api.polder import SYSTEM_NAMESPACE
from polder.apiserver.authn_method import AUTHENTICATED, CredentialError, Shown, Verified
from polder.apiserver.types import Identity, Role
from polder.base.clock import Clock
from polder.base.ids import ROOT
from polder.store.protocol import Key, Store

TOKEN = re.compile(r"([a-z0-9]{6})\.([a-z0-9]{16})")
SECRET_PREFIX = "bootstrap-token-"  # noqa: S105 - a name's beginning
SECRET_TYPE = "bootstrap.kubernetes.io/token"  # noqa: S105 - a type
USER_PREFIX = "system:bootstrap:"
GROUP = "system:bootstrappers"
EXTRA_GROUP = re.compile(r"system:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]")
USAGE = "usage-bootstrap-authentication"
JOIN_GROUP = "system:bootstrappers:polder:agents"
"""The group of tokens that nodes may join with."""
NODE_FIELD = "polder-node"
"""In a bootstrap token's Secret: the only node that may join with it."""


@dataclass(frozen=True, slots=True)
class BootstrapTokens:
    """The method."""

    store: Store
    clock: Clock
    audience: str

    async def authenticate(self, shown: Shown) -> Verified | None:
        """``system:bootstrap:ID``."""
        found = TOKEN.fullmatch(shown.token)
        if found is None or self.audience not in shown.audiences:
            return None
        home = shown.connection.pin or ROOT
        entry = await self.store.get(Key("secrets", home, SYSTEM_NAMESPACE, SECRET_PREFIX + found[1]))
        if entry is None:
            raise CredentialError("there is no such bootstrap token")
        secret = orjson.loads(entry.value)
        data = decode_data(secret)
        self._check(secret, data, found[1], found[2])
        groups = (GROUP, *_groups(data), AUTHENTICATED)
        return Verified(Identity(USER_PREFIX + found[1], Role.USER, home, groups), (self.audience,))

    def _check(self, secret: Raw, data: Mapping[str, str], identifier: str, given: str) -> None:
        """Raises CredentialError."""
        if not hmac.compare_digest(data.get("token-secret", "").encode(), given.encode()):
            raise CredentialError("the bootstrap token's secret is wrong")
        if secret.get("type") != SECRET_TYPE or secret["metadata"].get("deletionTimestamp"):
            raise CredentialError("the bootstrap token's Secret is of another type or is being deleted")
        if data.get("token-id") != identifier or data.get(USAGE) != "true":
            raise CredentialError(f"the bootstrap token's Secret has another token-id, or no {USAGE}")
        if expired(data, self.clock.now()):
            raise CredentialError("the bootstrap token is expired")


def decode_data(secret: Raw) -> dict[str, str]:
    """A Secret's data as texts; what is no text is left out."""
    found = {}
    for key, value in (secret.get("data") or {}).items():
        try:
            found[key] = base64.b64decode(value or "", validate=True).decode()
        except (ValueError, binascii.Error):
            continue
    return found


def expired(data: Mapping[str, str], now: datetime) -> bool:
    """Whether ``expiration`` (RFC 3339) has come; what cannot be read has."""
    text = data.get("expiration", "")
    if not text:
        return False
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return True
    return moment.tzinfo is None or now >= moment


def _groups(data: Mapping[str, str]) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(g for g in data.get("auth-extra-groups", "").split(",") if g))
    if any(not EXTRA_GROUP.fullmatch(group) for group in found):
        raise CredentialError("the bootstrap token's auth-extra-groups are not below system:bootstrappers:")
    return found
