"""What a failure of the store is to the caller: a Status that says what was or may have been done, and nothing of the inside."""

from __future__ import annotations

from polder.api.errors import ApiError, internal, too_large
from polder.store.protocol import StoreError, StoreUnknownError, TooLargeError

_READS = frozenset({"get", "list", "watch"})


def status_of(failed: StoreError, verb: str) -> ApiError:
    """413 for what does not fit, 504 for a write of which nobody knows, else 500."""
    if isinstance(failed, TooLargeError):
        return too_large("the store cannot take an object, or what is written along with it, of this size")
    if isinstance(failed, StoreUnknownError):
        message = "Timeout: the connection to the store was lost: the request may have been done, or not"
        return ApiError(504, "Timeout", message)
    return internal("the store does not answer" if verb in _READS else "the store cannot write")
