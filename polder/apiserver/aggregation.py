"""Aggregated APIs: which group versions of a tenant another server serves, and how it is reached.

An APIService with a service says so. It may be for any group but those that Polder serves itself: what is built in is never
shadowed. The other server is called from the tenant's own router (``outcalls.py``) and told in headers who asks; it believes
them by a certificate that is the tenant's own, so that no tenant can speak for another's users, wherever it points.

Source: kube-aggregator (apiserver/handler_proxy.go, controllers/status).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from polder.api.kinds import BUILT_IN
from polder.api.meta import Raw
from polder.apiserver.builtin_apis import API_SERVICES, is_kept
from polder.apiserver.objects import decode_entry
from polder.apiserver.outcalls import Outcalls, Place
from polder.apiserver.outconn import Pair
from polder.apiserver.proxytrust import PROXY_NAME
from polder.apiserver.webhooks_index import Found, Registrations
from polder.base.clock import Clock
from polder.base.ids import TenantName
from polder.store.protocol import Key, Store
from polder.system.pki import LEAF_LIFE, Pki

OWN_GROUPS: Final = frozenset(kind.group for kind in BUILT_IN)
_RENEW: Final = LEAF_LIFE.total_seconds() * 2 / 3
_PAIRS: Final = 256


class ProxyPairs:
    """The certificates that say that a request's headers are ours; one for each tenant, made when it is needed."""

    def __init__(self, pki: Pki, clock: Clock) -> None:
        self._pki = pki
        self._clock = clock
        self._made: OrderedDict[tuple[TenantName, int], tuple[float, Pair]] = OrderedDict()

    def of(self, tenant: TenantName) -> Pair:
        """The tenant's, made anew at two thirds of its life, and by other authorities."""
        key = (tenant, self._pki.generation)
        now, known = self._clock.monotonic(), self._made.get(key)
        if known is None or now - known[0] > _RENEW:
            leaf = self._pki.issue_front_proxy(PROXY_NAME + tenant)
            known = self._made[key] = now, Pair(leaf.certificate, leaf.key)
            while len(self._made) > _PAIRS:
                self._made.popitem(last=False)
        self._made.move_to_end(key)
        return known[1]


@dataclass(frozen=True, slots=True)
class Remote:
    """An APIService that another server stands for."""

    found: Found

    @property
    def spec(self) -> Raw:
        """As written."""
        spec: Raw = self.found.obj.get("spec") or {}
        return spec

    @property
    def group(self) -> str:
        """The API group."""
        return str(self.spec.get("group", ""))

    @property
    def version(self) -> str:
        """The version in the group."""
        return str(self.spec.get("version", ""))

    @property
    def available(self) -> bool:
        """Whether the last check succeeded."""
        conditions = (self.found.obj.get("status") or {}).get("conditions") or []
        return any(c.get("type") == "Available" and c.get("status") == "True" for c in conditions)

    @property
    def client_config(self) -> Raw:
        """The service as a webhook's reference has it."""
        return {"service": self.spec.get("service"), "caBundle": self.spec.get("caBundle")}


def is_remote(obj: Raw) -> bool:
    """Whether an APIService names a service."""
    return bool((obj.get("spec") or {}).get("service"))


class Aggregation:
    """Finds the remote group versions of a tenant."""

    def __init__(self, store: Store, outcalls: Outcalls, pairs: ProxyPairs) -> None:
        self._store = store
        self._outcalls = outcalls
        self._pairs = pairs
        self.registered = Registrations(store, frozenset({API_SERVICES}), lambda value: not is_kept(value))

    @property
    def outcalls(self) -> Outcalls:
        """What makes the calls."""
        return self._outcalls

    async def find(self, tenant: TenantName, group: str, version: str) -> Remote | None:
        """The APIService of a group version, if it is another server's."""
        if not group or group in OWN_GROUPS or not self.registered.any(tenant):
            return None
        key = Key(API_SERVICES, tenant, "", f"{version}.{group}")
        entry = await self._store.get(key)
        if entry is None:
            return None
        found = Found(key, entry.revision, decode_entry(entry))
        return Remote(found) if is_remote(found.obj) else None

    async def all(self, tenant: TenantName) -> Sequence[Remote]:
        """All of a tenant."""
        rows = await self.registered.of(API_SERVICES, tenant)
        return [Remote(row) for row in rows if is_remote(row.obj) and Remote(row).group not in OWN_GROUPS]

    async def place(self, tenant: TenantName, remote: Remote, path: str) -> Place:
        """Where a path of the remote is. Raises DialError."""
        service = {**(remote.spec.get("service") or {}), "path": path}
        config = {"service": service, "caBundle": remote.spec.get("caBundle")}
        place = await self._outcalls.place(tenant, config, self._pairs.of(tenant))
        if not remote.spec.get("insecureSkipTLSVerify"):
            return place
        return Place(place.peer.without_checks(), place.url, place.path)
