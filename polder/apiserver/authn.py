"""Who asks: an ordered chain of methods. The first that knows the credential says who it is; one that is shown and bad is
never anonymous.

Whatever the method, an identity is (tenant, user); on a connection that is pinned to a tenant only that tenant's count.
"""

from __future__ import annotations

import base64
import binascii
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from polder.api.errors import unauthorized
from polder.apiserver.authn_method import (
    AUTHENTICATED,
    UNAUTHENTICATED,
    Closable,
    CredentialError,
    Method,
    Shown,
    Verified,
    values_of,
)
from polder.apiserver.authn_static import StaticUser, parse_static_tokens
from polder.apiserver.authn_x509 import COMPONENT_PREFIX
from polder.apiserver.tokens import AUDIENCE
from polder.apiserver.types import Connection, Identity, Role
from polder.base.ids import ROOT
from polder.system.pki import COMPONENTS, NODE_PREFIX, NODES, PLATFORM_ADMINS, ROOT_URN, TENANT_ADMINS, URN, tenant_urn

__all__ = [
    "ANONYMOUS", "AUTHENTICATED", "COMPONENTS", "COMPONENT_PREFIX", "NODES", "NODE_PREFIX", "PLATFORM_ADMINS", "ROOT_URN",
    "TENANT_ADMINS", "URN", "Anonymous", "Authenticator", "CredentialError", "StaticUser", "parse_static_tokens",
    "tenant_urn",
]  # fmt: skip

log = logging.getLogger(__name__)

ANONYMOUS = Identity("system:anonymous", Role.NONE, ROOT, (UNAUTHENTICATED,))
BEARER_PROTOCOL = "base64url.bearer.authorization.k8s.io."
"""How a browser, which cannot set headers, shows a token when it opens a WebSocket."""
TOKEN_LIMIT = 16 * 1024
_OUTSIDE = frozenset({Role.PLATFORM_ADMIN, Role.COMPONENT, Role.NODE})
"""Nobody of these comes through a tenant's service, not even root's: a node carries those connections."""


@dataclass(frozen=True, slots=True)
class Anonymous:
    """Whether a request that shows nothing is somebody. ``paths``, if any, are the only ones where it is."""

    enabled: bool = True
    paths: tuple[str, ...] = ()

    def on(self, path: str) -> bool:
        """Whether it is on this path."""
        return self.enabled and (not self.paths or path in self.paths)


class Authenticator:
    """Turns what a connection and its headers show into an identity."""

    def __init__(self, methods: Sequence[Method], anonymous: Anonymous | None = None) -> None:
        self._methods = methods
        self._anonymous = anonymous or Anonymous()

    async def authenticate(self, conn: Connection, headers: Mapping[str, str], path: str = "") -> Identity:
        """The identity; nobody is ``system:anonymous`` of ``root``, or of the tenant that the connection is pinned to.
        Raises ApiError 401.
        """
        shown = Shown(conn, headers, _bearer(headers), (AUDIENCE,))
        found = await self._first(shown)
        if found is not None:
            who = found.who
        elif not _shows_nothing(shown) or not self._anonymous.on(path):
            raise unauthorized()
        else:
            who = ANONYMOUS if conn.pin is None else replace(ANONYMOUS, home=conn.pin)
        if conn.pin is not None and (who.home != conn.pin or who.role in _OUTSIDE):
            raise unauthorized()
        return who

    async def review(self, token: str, audiences: tuple[str, ...], conn: Connection) -> Verified | None:
        """Whose a bearer token is, that was shown to somebody else on ``conn``'s way in; None if nobody's, or if it is
        for other audiences.
        """
        where = Connection(pin=conn.pin, peer=conn.peer)
        found = await self._first(
            Shown(where, {"Authorization": f"Bearer {token}"}, token[: TOKEN_LIMIT + 1], audiences)
        )
        return found if found is not None and found.audiences else None

    def take_over(self, methods: Sequence[Method], anonymous: Anonymous) -> None:
        """Asks these from the next request on; who is being asked already goes on asking those before."""
        self._methods, self._anonymous = methods, anonymous

    async def close(self) -> None:
        """Ends the connections that methods keep to services of others."""
        for method in self._methods:
            if isinstance(method, Closable):
                await method.close()

    async def _first(self, shown: Shown) -> Verified | None:
        if len(shown.token) > TOKEN_LIMIT:
            return None
        for method in self._methods:
            try:
                found = await method.authenticate(shown)
            except CredentialError as error:
                log.info("%s: a credential from %s is refused: %s", type(method).__name__, _peer(shown), error)
                continue
            if found is not None and set(found.audiences) & set(shown.audiences):
                return found
        return None


def _shows_nothing(shown: Shown) -> bool:
    return shown.connection.certificate is None and not shown.headers.get("Authorization") and not shown.token


def _peer(shown: Shown) -> str:
    return shown.connection.peer or "a pod"


def _bearer(headers: Mapping[str, str]) -> str:
    """The bearer token (RFC 6750), of the header or of a WebSocket's protocols."""
    scheme, _, token = headers.get("Authorization", "").strip().partition(" ")
    if scheme.lower() == "bearer":
        return token.strip()
    if "Authorization" in headers or headers.get("Upgrade", "").lower() != "websocket":
        return ""
    for line in values_of(headers, "Sec-WebSocket-Protocol"):
        for protocol in line.split(","):
            coded = protocol.strip().removeprefix(BEARER_PROTOCOL)
            if coded != protocol.strip():
                try:
                    return base64.urlsafe_b64decode(coded + "=" * (-len(coded) % 4)).decode()
                except (ValueError, binascii.Error):
                    return ""
    return ""
