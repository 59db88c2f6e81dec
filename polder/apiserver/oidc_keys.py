"""The keys of an OpenID Connect issuer: found by discovery, fetched over HTTPS, kept for a while, fetched again when a
token names one that is not there.

Sources: OpenID Connect Discovery 1.0; RFC 7517. Answers are bounded in time and size, redirects are not followed, and
however many unknown keys callers name, an issuer is asked at most every few seconds.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import aiohttp
import orjson

from polder.api.meta import Raw
from polder.apiserver.authn_method import CredentialError
from polder.base.clock import Clock
from polder.system.pki import PkiError, PublicKey

log = logging.getLogger(__name__)

ANSWER_LIMIT = 256 * 1024
TIME_LIMIT = 10.0
KEYS_LIMIT = 64
FRESH = 600.0
"""Seconds after which keys are asked for again, so that one that the issuer withdrew is withdrawn here."""
LAST_RESORT = 3600.0
"""Seconds for which keys are still believed while the issuer does not answer."""
PAUSE = 10.0
"""Seconds between two questions to an issuer."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an issuer's keys are. ``authority`` is the PEM to check it by, empty for the machine's own authorities;
    ``discovery`` replaces ``ISSUER/.well-known/openid-configuration``.
    """

    issuer: str
    authority: str = ""
    discovery: str = ""

    @property
    def document(self) -> str:
        """The URL of the discovery document."""
        return self.discovery or f"{self.issuer.rstrip('/')}/.well-known/openid-configuration"


@dataclass(frozen=True, slots=True)
class _Known:
    """Keys by their identifier; those without one under the empty text."""

    keys: Mapping[str, Sequence[PublicKey]]
    since: float


class IssuerKeys:
    """The keys of one issuer."""

    def __init__(self, place: Place, clock: Clock) -> None:
        self._place = place
        self._clock = clock
        self._known: _Known | None = None
        self._asked = -PAUSE
        self._turn = asyncio.Lock()
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Ends the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def find(self, identifier: str) -> Sequence[PublicKey]:
        """The keys that a token may be signed with: those of that identifier, all of them where a token names none. Raises
        CredentialError where the issuer has none such, or cannot be asked.
        """
        now = self._clock.monotonic()
        known = self._known
        if known is None or now - known.since >= FRESH or not _choose(known, identifier):
            known = await self._refresh(identifier)
        found = _choose(known, identifier) if known else ()
        if not found:
            raise CredentialError("the issuer has no such key, or does not answer")
        return found

    async def _refresh(self, identifier: str) -> _Known | None:
        """Asks the issuer, unless another did meanwhile or it was asked a moment ago. One caller at a time."""
        async with self._turn:
            known, now = self._known, self._clock.monotonic()
            if known is not None and now - known.since < FRESH and _choose(known, identifier):
                return known
            if now - self._asked >= PAUSE:
                self._asked = now
                try:
                    self._known = known = _Known(await self._fetch(), now)
                except (aiohttp.ClientError, OSError, TimeoutError, ValueError, KeyError, TypeError) as error:
                    log.warning("the keys of issuer %s cannot be had: %s", self._place.issuer, error or type(error))
            return known if known is not None and now - known.since < LAST_RESORT else None

    async def _fetch(self) -> Mapping[str, Sequence[PublicKey]]:
        async with asyncio.timeout(TIME_LIMIT):
            document = await self._get(self._place.document)
            if document["issuer"] != self._place.issuer:
                raise ValueError(f"its discovery document is of the issuer {document['issuer']!r}")
            where = document["jwks_uri"]
            if not isinstance(where, str) or not where.startswith("https://"):
                raise ValueError("its jwks_uri is no https URL")
            keys = (await self._get(where))["keys"]
        found: dict[str, list[PublicKey]] = {}
        for raw in keys[:KEYS_LIMIT]:
            try:
                found.setdefault(str(raw.get("kid", "")), []).append(PublicKey(raw))
            except PkiError as error:
                log.debug("a key of issuer %s is left out: %s", self._place.issuer, error)
        return found

    async def _get(self, url: str) -> Raw:
        if self._session is None:
            context = ssl.create_default_context(cadata=self._place.authority or None)
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context, limit=2))
        async with self._session.get(url, allow_redirects=False, headers={"Accept": "application/json"}) as answer:
            if answer.status != 200:
                raise ValueError(f"{url} answers with HTTP code {answer.status}")
            body = await answer.content.read(ANSWER_LIMIT + 1)
            while not answer.content.at_eof() and len(body) <= ANSWER_LIMIT:
                body += await answer.content.read(ANSWER_LIMIT + 1 - len(body))
        if len(body) > ANSWER_LIMIT:
            raise ValueError(f"{url} answers with more than {ANSWER_LIMIT} bytes")
        found = orjson.loads(body)
        if not isinstance(found, dict):
            raise TypeError(f"{url} answers with no JSON object")
        return found


def _choose(known: _Known, identifier: str) -> Sequence[PublicKey]:
    if identifier:
        return known.keys.get(identifier, ())
    return [key for keys in known.keys.values() for key in keys]
