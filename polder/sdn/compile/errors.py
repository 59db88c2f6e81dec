"""Why a fragment cannot be compiled."""

from __future__ import annotations

from polder.base.errors import PermanentError


class CompileError(PermanentError):
    """The object and field that are wrong. The fragment is left out; no other fragment is touched."""


class NotReadyError(CompileError):
    """Nothing is wrong: something that the fragment needs is still on its way (a VNI, a network, a router's address)."""
