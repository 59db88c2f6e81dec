"""What tests of authentication share: a token's header, and that a credential is refused."""

from __future__ import annotations

import pytest

from polder.api.errors import ApiError
from polder.apiserver.types import Connection

OPEN = Connection()


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


async def refused(authn, conn, headers=None):
    with pytest.raises(ApiError) as caught:
        await authn.authenticate(conn, headers or {})
    assert (caught.value.code, caught.value.message) == (401, "Unauthorized")


async def refused_token(authn, token):
    await refused(authn, OPEN, bearer(token))
