"""What goes wrong between us and a server, apart from what the server itself answers (``api.errors.ApiError``)."""

from __future__ import annotations

from polder.base.errors import PermanentError, RetryableError


class UnreachableError(RetryableError):
    """No answer came: refused, timed out, broken off, or the certificate did not fit. Whether a write was done is not
    known.
    """


class BadAnswerError(PermanentError):
    """The server's answer is not what its path promises."""
