"""Tokens that a service of the operator's knows: TokenReview (authentication.k8s.io/v1) sent to a URL, its answers kept for
a while.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import ssl
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import msgspec

from polder.apiserver.authn_method import (
    AUTHENTICATED,
    CredentialError,
    Shown,
    Verified,
    check_groups,
)
from polder.apiserver.tenancy import Tenants
from polder.apiserver.token_claims import ISSUER, LEGACY_ISSUER, issuer_of
from polder.apiserver.types import Identity, Role
from polder.base.clock import Clock
from polder.base.ids import ROOT, TenantName

log = logging.getLogger(__name__)

ANSWER_LIMIT = 256 * 1024
KEPT = 4096
AT_ONCE = 64
OWN_ISSUERS = frozenset({ISSUER, LEGACY_ISSUER})


@dataclass(frozen=True, slots=True)
class WebhookSettings:
    """Where to ask, and how long answers hold (seconds; a refusal holds a twelfth of that). ``authority`` is PEM;
    ``certificate`` and ``key`` are files; ``tenant`` is whose users the service knows, empty for the platform's.
    """

    url: str
    authority: str = ""
    certificate: str = ""
    key: str = ""
    bearer: str = ""
    ttl: float = 120.0
    timeout: float = 10.0
    tenant: str = ""


class _User(msgspec.Struct, frozen=True, kw_only=True):
    """UserInfo."""

    username: str = ""
    uid: str = ""
    groups: list[str] | None = None
    extra: dict[str, list[str]] | None = None


class _Status(msgspec.Struct, frozen=True, kw_only=True):
    """TokenReviewStatus."""

    authenticated: bool = False
    user: _User = _User()
    audiences: list[str] | None = None


class _Review(msgspec.Struct, frozen=True, kw_only=True):
    """What comes back."""

    kind: str = ""
    status: _Status = _Status()


class Webhook:
    """The method."""

    def __init__(self, settings: WebhookSettings, tenants: Tenants, clock: Clock, audience: str) -> None:
        self._settings = settings
        self._tenants = tenants
        self._clock = clock
        self._audience = audience
        self._kept: OrderedDict[bytes, tuple[float, _Status]] = OrderedDict()
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Ends the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def authenticate(self, shown: Shown) -> Verified | None:
        """Whom the service names."""
        if not shown.token or issuer_of(shown.token) in OWN_ISSUERS:
            return None  # the cluster's own tokens go nowhere
        status = await self._status(shown.token, shown.audiences)
        if not status.authenticated or not status.user.username:
            return None
        known = status.audiences or [self._audience]
        home = await self._home()
        return Verified(_identity(status.user, home), tuple(a for a in shown.audiences if a in known))

    async def _home(self) -> TenantName:
        name = self._settings.tenant
        if name and (name == ROOT or await self._tenants.get(TenantName(name)) is None):
            raise CredentialError("the service's tenant is gone")
        return TenantName(name) if name else ROOT

    async def _status(self, token: str, audiences: tuple[str, ...]) -> _Status:
        mark = hashlib.sha256("\0".join((token, *audiences)).encode()).digest()
        now = self._clock.monotonic()
        kept = self._kept.get(mark)
        if kept is not None and kept[0] > now:
            return kept[1]
        async with self._turns:
            status = await self._ask(token, audiences)
        ttl = self._settings.ttl if status.authenticated else self._settings.ttl / 12
        self._kept[mark] = (now + ttl, status)
        self._kept.move_to_end(mark)
        if len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return status

    async def _ask(self, token: str, audiences: tuple[str, ...]) -> _Status:
        """Raises CredentialError where the service gives no good answer."""
        spec: Mapping[str, Any] = {"token": token, "audiences": list(audiences)}
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "metadata": {}, "spec": spec}
        try:
            async with asyncio.timeout(self._settings.timeout):
                raw = await self._post(msgspec.json.encode(body))
            return msgspec.json.decode(raw, type=_Review).status
        except (aiohttp.ClientError, OSError, TimeoutError, msgspec.MsgspecError, ValueError) as error:
            log.warning("the token service %s gives no answer: %s", self._settings.url, error or type(error).__name__)
            raise CredentialError("the token service gives no answer") from error

    async def _post(self, body: bytes) -> bytes:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._settings.bearer:
            headers["Authorization"] = f"Bearer {self._settings.bearer}"
        session = self._open()
        async with session.post(self._settings.url, data=body, headers=headers, allow_redirects=False) as answer:
            if answer.status not in {200, 201}:
                raise ValueError(f"it answers with HTTP code {answer.status}")
            found = b""
            async for chunk in answer.content.iter_any():
                found += chunk
                if len(found) > ANSWER_LIMIT:
                    raise ValueError(f"it answers with more than {ANSWER_LIMIT} bytes")
            return found

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            context = ssl.create_default_context(cadata=self._settings.authority or None)
            if self._settings.certificate:
                context.load_cert_chain(self._settings.certificate, self._settings.key)
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context, limit=AT_ONCE))
        return self._session


def _identity(user: _User, home: TenantName) -> Identity:
    groups = tuple(user.groups or ())
    check_groups(groups)
    extra = {key: tuple(values) for key, values in (user.extra or {}).items()}
    added = () if AUTHENTICATED in groups else (AUTHENTICATED,)
    return Identity(user.username, Role.USER, home, (*groups, *added), uid=user.uid, extra=extra)
