"""``POST /polder/v1/account-token``: the token of a Secret that names a ServiceAccount, for the controller that fills it in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from aiohttp import web

from polder.api.core import Secret, ServiceAccount
from polder.api.errors import bad_request, no_such_path, not_found
from polder.api.kinds import kind_of
from polder.apiserver.answers import text_answer
from polder.apiserver.hooks import Call
from polder.apiserver.objects import decode_entry
from polder.apiserver.token_claims import Bound
from polder.apiserver.tokens import SECRET_TYPE, TokenError, Tokens
from polder.apiserver.types import Role
from polder.store.protocol import Key, Store

ACCOUNT_TOKEN_PATH: Final = "/polder/v1/account-token"  # noqa: S105 - a path
_SECRETS: Final = kind_of(Secret)
_ACCOUNTS: Final = kind_of(ServiceAccount)


@dataclass(frozen=True, slots=True)
class AccountTokens:
    """Signs such tokens. Nobody but Polder's components sees the path."""

    store: Store
    tokens: Tokens

    async def serve(self, call: Call) -> web.StreamResponse:
        """``?namespace=…&secret=…&account=…&uid=…``. Raises ApiError 400, 404."""
        if call.who.role is not Role.COMPONENT or call.info.verb != "post":
            raise no_such_path()
        tenant, query = call.info.tenant, call.query
        namespace, secret, account = (query.get(name, "") for name in ("namespace", "secret", "account"))
        held = await self.store.get(Key(_SECRETS.resource, tenant, namespace, secret))
        if held is None or decode_entry(held).get("type") != SECRET_TYPE:
            raise not_found(_SECRETS, secret)
        known = await self.store.get(Key(_ACCOUNTS.resource, tenant, namespace, account))
        if known is None or decode_entry(known)["metadata"]["uid"] != query.get("uid", ""):
            raise not_found(_ACCOUNTS, account)
        bound = Bound(_ACCOUNTS, account, query["uid"])
        try:
            return text_answer(await self.tokens.legacy(tenant, namespace, secret, bound))
        except TokenError as error:
            raise bad_request(str(error)) from error
