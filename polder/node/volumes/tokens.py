"""Service-account tokens of pods: asked for once, renewed at 80 % of their life, kept in memory only."""

from __future__ import annotations

from dataclasses import dataclass

from polder.api.core import Pod
from polder.api.podvolumes import TokenProjection
from polder.base.clock import Clock
from polder.node.pods.ports import Cluster

RENEW_AT = 0.8
LEAST = 600
"""Seconds: the shortest life that the API grants."""
REFRESH = 300.0
"""Seconds between looks at a pod's ConfigMaps and Secrets, of whose changes the server tells."""


@dataclass(frozen=True, slots=True)
class _Held:
    token: str
    renew: float


class Tokens:
    """Tokens by pod, audience and life."""

    def __init__(self, cluster: Cluster, clock: Clock) -> None:
        self._cluster = cluster
        self._clock = clock
        self._held: dict[str, dict[tuple[str, int], _Held]] = {}

    async def token(self, pod: Pod, wanted: TokenProjection) -> str:
        """A token good for at least a fifth of its life. While the server is away the old one is kept."""
        seconds = max(wanted.expiration_seconds, LEAST)
        key, now = (wanted.audience, seconds), self._clock.monotonic()
        mine = self._held.setdefault(pod.metadata.uid, {})
        held = mine.get(key)
        if held is None or now >= held.renew:
            held = _Held(await self._cluster.token(pod, wanted.audience, seconds), now + seconds * RENEW_AT)
            mine[key] = held
        return held.token

    def now(self) -> float:
        """Seconds on the clock that tokens are renewed by."""
        return self._clock.monotonic()

    def refresh_after(self, uid: str) -> float:
        """Seconds until the pod's volumes should be looked at again."""
        now = self._clock.monotonic()
        due = [held.renew - now for held in self._held.get(uid, {}).values()]
        return max(1.0, min([REFRESH, *due]))

    def forget(self, uid: str) -> None:
        """Drops a pod's tokens."""
        self._held.pop(uid, None)
