"""Reading and deleting what may be gone."""

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


async def remove(client: Client, kind: type[T], ref: Ref, seen: T) -> None:
    """Deletes an object that is as it was seen; one that is gone is fine. Raises ApiError, UnreachableError."""
    meta = seen.metadata
    try:
        await client.delete(kind, ref, uid=meta.uid, resource_version=meta.resource_version)
    except ApiError as error:
        if not error.is_not_found:
            raise
