"""How long the fragments of one tenant are compiled in a run before those of others go to the kernel without them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from polder.base.clock import Clock
from polder.base.ids import ROOT, TenantName

SHARE = 0.1
"""Seconds of one run for one tenant. Whoever changes faster than it is compiled holds up itself alone."""


class Shares:
    """Those of one run; ``unbounded`` for a run in which all have to be there, such as the first that takes away."""

    def __init__(self, clock: Clock, *, unbounded: bool) -> None:
        self._clock = clock
        self._unbounded = unbounded
        self._used: defaultdict[TenantName, float] = defaultdict(float)

    def next(self, behind: Collection[TenantName]) -> TenantName | None:
        """Whose turn it is among those that are behind: the platform's, on which others build, then who used least; None when
        the share of all of them is over.
        """
        first = ROOT if ROOT in behind and self._left(ROOT) else min(behind, key=self._used.__getitem__, default=None)
        return first if first is not None and self._left(first) else None

    @contextmanager
    def used_by(self, tenant: TenantName) -> Iterator[None]:
        """What is done within counts for a tenant."""
        begun = self._clock.monotonic()
        yield
        self._used[tenant] += self._clock.monotonic() - begun

    def _left(self, tenant: TenantName) -> bool:
        return self._unbounded or self._used[tenant] < SHARE
