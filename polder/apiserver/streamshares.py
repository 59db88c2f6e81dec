"""How many long-lived streams there may be: of a tenant, of a node, and of a tenant on a node.

A stream costs memory here and on the node for as long as it lives, and a node's connection has room for so many in all; what
one tenant has open must leave the others theirs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from polder.api.errors import ApiError
from polder.base.ids import TenantName


@dataclass(frozen=True, slots=True)
class ShareSettings:
    """Streams of one tenant in all, of one node in all, and of one tenant on one node. Of a node's, ``reserve`` are for
    tenants that have fewer than ``kept`` there: enough for each of as many tenants as a node has pods (110).
    """

    tenant: int = 512
    node: int = 768
    both: int = 256
    reserve: int = 256
    kept: int = 2


@dataclass(slots=True)
class StreamShares:
    """Counts; who has no stream costs nothing."""

    settings: ShareSettings = ShareSettings()
    _open: Counter[tuple[str, str]] = field(default_factory=Counter)

    @contextmanager
    def one(self, tenant: TenantName, node: str) -> Iterator[None]:
        """Held while a stream is open. Raises ApiError 429."""
        bounds = (
            ((tenant, ""), self.settings.tenant, "of this tenant"),
            ((tenant, node), self._share(node), "of this tenant on this node"),
            (("", node), self.settings.node, "on this node"),
        )
        for key, limit, what in bounds:
            if self._open[key] >= limit:
                held = self._open[key]
                message = f"too many requests: {held} streams {what} are open, which is the limit; try again later"
                raise ApiError(429, "TooManyRequests", message, {"retryAfterSeconds": 1})
        for key, _, _ in bounds:
            self._open[key] += 1
        try:
            yield
        finally:
            for key, _, _ in bounds:
                self._open[key] -= 1
                if not self._open[key]:
                    del self._open[key]

    def _share(self, node: str) -> int:
        """What one tenant may have there: no more than is free beside the reserve, so that who comes later finds as much as any
        other may still take. Who has more keeps it, and opens nothing new until others have theirs.
        """
        settings = self.settings
        return min(settings.both, max(settings.kept, settings.node - settings.reserve - self._open["", node]))
