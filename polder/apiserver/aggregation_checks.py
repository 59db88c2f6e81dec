"""Whether aggregated APIs answer: their ``Available`` condition, kept by looking every now and then.

One task looks at all of them, a few at a time and one of each tenant, so that a thousand broken ones cost no more than a few.
Source: kube-aggregator's controllers/status/remote (reasons and messages).
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import Final

import aiohttp

from polder.api.meta import Raw
from polder.apiserver.aggregation import Aggregation, Remote, is_remote
from polder.apiserver.aggregation_proxy import proxy_headers
from polder.apiserver.dial import DialError
from polder.apiserver.objects import decode_entry, encode, terms
from polder.apiserver.outcalls import Exchange
from polder.apiserver.outcalls import said as why
from polder.apiserver.types import Identity, Role
from polder.apiserver.webhooks_index import Found
from polder.base.clock import Clock, stamp
from polder.base.ids import TenantName
from polder.store.protocol import ConflictError, Key, Put, Store

log = logging.getLogger(__name__)

EVERY: Final = 30.0
"""Seconds between two looks at one that stays as it is."""
LOOK: Final = 0.25
"""Seconds between looks for new or changed ones."""
AT_ONCE: Final = 8
SLICE: Final = 64
"""Rows that are compared before others get their turn."""
NEVER: Final = 2**62
"""No revision is later: what fails here is not tried again at once."""
PATIENCE: Final = 5.0
"""Seconds for an answer."""
ASKER: Final = Identity("system:kube-aggregator", Role.COMPONENT, groups=("system:masters",))


@dataclass(slots=True)
class Checks:
    """Keeps the conditions of every tenant's remote APIServices."""

    store: Store
    aggregation: Aggregation
    clock: Clock
    _next: dict[Key, tuple[int, float]] = field(default_factory=dict)
    _busy: set[str] = field(default_factory=set)

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                rows = self.aggregation.registered.rows()
                for key in [k for k in self._next if k not in rows]:
                    del self._next[key]
                for key, revision in rows.items():
                    if len(self._busy) < AT_ONCE and key.tenant not in self._busy and self._due(key, revision):
                        self._busy.add(key.tenant)
                        group.create_task(self._look(key))
                await asyncio.sleep(LOOK if rows else 4 * LOOK)

    def _due(self, key: Key, revision: int) -> bool:
        known = self._next.get(key)
        return known is None or known[0] < revision or known[1] <= self.clock.monotonic()

    async def _look(self, key: Key) -> None:
        try:
            entry = await self.store.get(key)
            if entry is None:
                return
            obj = decode_entry(entry)
            found = await self._condition(Remote(Found(key, entry.revision, obj))) if is_remote(obj) else LOCAL
            revision = await self._write(key, entry.revision, obj, found)
            again = EVERY if found["status"] == "True" else EVERY / 6
            self._next[key] = revision, self.clock.monotonic() + again
        except Exception:
            log.exception("the check of %s failed", key)
            self._next[key] = NEVER, self.clock.monotonic() + EVERY
        finally:
            self._busy.discard(key.tenant)

    async def _write(self, key: Key, revision: int, obj: Raw, condition: Raw) -> int:
        """Writes the condition if it says something new; the revision that stands then."""
        status = obj.get("status") or {}
        old: Raw = next((c for c in status.get("conditions") or [] if c.get("type") == "Available"), {})
        if all(old.get(name) == condition[name] for name in ("status", "reason", "message")):
            return revision
        since = old.get("lastTransitionTime") if old.get("status") == condition["status"] else None
        made = {"type": "Available", **condition, "lastTransitionTime": since or stamp(self.clock.now())}
        others = [c for c in status.get("conditions") or [] if c.get("type") != "Available"]
        changed = {**obj, "status": {**status, "conditions": [*others, made]}}
        try:
            return await self.store.commit([Put(key, encode(changed), revision, terms(changed))])
        except ConflictError:
            return 0  # looked at again at once

    async def _condition(self, remote: Remote) -> Raw:
        tenant = TenantName(remote.found.key.tenant)
        service = remote.spec["service"]
        name, namespace, port = service.get("name", ""), service.get("namespace", ""), service.get("port") or 443
        said = await self.aggregation.outcalls.look(tenant, namespace, name, port)
        if said is not None:
            return {"status": "False", "reason": said[0], "message": said[1]}
        path = f"/apis/{remote.group}/{remote.version}"
        try:
            async with asyncio.timeout(PATIENCE):
                problem = await self._asked(tenant, remote, path)
        except TimeoutError:
            problem = "context deadline exceeded"
        except (DialError, aiohttp.ClientError, OSError) as error:
            problem = why(error)
        if problem:
            url = f"https://{name}.{namespace}.svc:{port}{path}"
            message = f"failing or missing response from {url}: {problem}"
            return {"status": "False", "reason": "FailedDiscoveryCheck", "message": message[:1024]}
        return {"status": "True", "reason": "Passed", "message": "all checks passed"}

    async def _asked(self, tenant: TenantName, remote: Remote, path: str) -> str:
        """What is wrong with the answer; empty if nothing is."""
        place = await self.aggregation.place(tenant, remote, path)
        what = Exchange("GET", place.path, proxy_headers(ASKER))
        async with self.aggregation.outcalls.exchange(place.peer, what) as answer:
            answer.close()
            return "" if 200 <= answer.status < 300 else f"bad status from {place.url}: {answer.status}"


LOCAL: Final[Raw] = {"status": "True", "reason": "Local", "message": "Local APIServices are always available"}
