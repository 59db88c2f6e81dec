"""What the platform's administrator does to tenants' signing keys, at ``/polder/v1/signing-keys?tenant=NAME``: GET says how they
stand, POST takes the next step of replacing one (``signing_keys``). To everybody else the path does not exist.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

import orjson
from aiohttp import web

from polder.api.errors import ApiError, no_such_path, not_found
from polder.api.meta import Raw
from polder.apiserver.answers import raw_answer
from polder.apiserver.hooks import Call
from polder.apiserver.signing_keys import next_step, read_keys, signing_key_key
from polder.apiserver.tenancy import TENANT_KIND, TenantRecord
from polder.apiserver.token_claims import kid_of
from polder.apiserver.tokens import SECRET_TYPE, Tokens
from polder.apiserver.types import Role
from polder.base.ids import ROOT, TenantName
from polder.store.protocol import ConflictError, Key, Prefix, Store

KEYS_PATH: Final = "/polder/v1/signing-keys"
SHOWN: Final = 5
PAGE: Final = 500


@dataclass(frozen=True, slots=True)
class KeySteps:
    """Serves the path."""

    store: Store
    tokens: Tokens

    async def serve(self, call: Call) -> web.StreamResponse:
        """Raises ApiError 404, 405, 409."""
        if call.who.role is not Role.PLATFORM_ADMIN or call.info.tenant != ROOT:
            raise no_such_path()
        if call.info.verb not in {"get", "post"}:
            raise ApiError(405, "MethodNotAllowed", f"{call.request.method} is not allowed on {call.info.path}")
        name = call.query.get("tenant") or ROOT
        tenant = await self.tokens.tenants.get(TenantName(name))
        if tenant is None:
            raise not_found(TENANT_KIND, name)
        if call.info.verb == "post":
            await self._step(tenant, force=call.query.get("force") == "true")
        keys = await self.tokens.keys.of(tenant)
        others = [key.jwk.kid for key in keys if key is not keys.signs]
        return raw_answer({"tenant": name, "stage": keys.stage, "signs": keys.signs.jwk.kid, "verify": others})

    async def _step(self, tenant: TenantRecord, *, force: bool) -> None:
        """Commits on the row as it was read: a tenant that goes, or is another, has another row. Raises ApiError 409."""
        entry = await self.store.get(signing_key_key(tenant.name))
        keys = read_keys(entry, tenant)
        if keys.old is not None and not force:
            await self._check_unused(tenant.name, keys.old.jwk.kid)
        try:
            await self.store.commit([next_step(entry)] if entry is not None else [])
        except ConflictError as lost:
            raise ApiError(409, "Conflict", "somebody else took a step at the same time; look again") from lost

    async def _check_unused(self, tenant: TenantName, kid: str) -> None:
        """Tokens in Secrets have no end: dropping their key ends them. Raises ApiError 409."""
        held = [name async for name in self._holders(tenant, kid)]
        if held:
            more = f" and {len(held) - SHOWN} more" if len(held) > SHOWN else ""
            why = (
                f"the old key signed the tokens in the Secrets {', '.join(held[:SHOWN])}{more}: remove data.token from each, "
                "and another token is written there; or force the step, and they are worthless"
            )
            raise ApiError(409, "Conflict", why)

    async def _holders(self, tenant: TenantName, kid: str) -> AsyncIterator[str]:
        """The Secrets of accounts that hold a token of this key."""
        after: Key | None = None
        while True:
            page = await self.store.list(Prefix("secrets", tenant), after=after, limit=PAGE)
            for entry in page.entries:
                if SECRET_TYPE.encode() in entry.value and _kid(orjson.loads(entry.value)) == kid:
                    yield f"{entry.key.namespace}/{entry.key.name}"
            after = page.after
            if after is None:
                return


def _kid(secret: Raw) -> str:
    try:
        return kid_of(base64.b64decode((secret.get("data") or {}).get("token", "")).decode())
    except (binascii.Error, UnicodeDecodeError):
        return ""
