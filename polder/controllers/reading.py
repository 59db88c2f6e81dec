"""Reading what may be gone."""

from __future__ import annotations

from typing import TypeVar

from polder.api.errors import ApiError
from polder.api.meta import Object
from polder.base.ref import Ref
from polder.client.client import Client

T = TypeVar("T", bound=Object)


async def find(client: Client, kind: type[T], ref: Ref) -> T | None:
    """The object as the server has it, None if there is none. Raises ApiError, UnreachableError."""
    try:
        return await client.get(kind, ref)
    except ApiError as error:
        if error.is_not_found:
            return None
        raise
