"""The root of every error that Polder raises on purpose, and the two intents about retrying."""

from __future__ import annotations


class PolderError(Exception):
    """One clear sentence that names the object and field, and what to do."""


class PermanentError(PolderError):
    """Trying again without a change of input gives the same error."""


class RetryableError(PolderError):
    """Trying again may help; ``after`` is the shortest useful wait in seconds."""

    def __init__(self, message: str, after: float = 0.0) -> None:
        super().__init__(message)
        self.after = after
