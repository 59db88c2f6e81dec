"""The keys that service-account tokens are signed with: one per tenant that signs, and others that verify while it is replaced.

A row per tenant, under a resource name that no path and no CRD can spell, beside the UID of the tenant that it belongs to. It is
replaced in three steps, with time between them: the new key is published (``introduced``), it signs (``switched``), the old one
is dropped (``finished``).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import orjson

from polder.api.meta import Raw
from polder.apiserver.tenancy import TenantRecord
from polder.apiserver.token_claims import TokenError
from polder.base.ids import TenantName
from polder.store.protocol import Entry, Key, Put, Store
from polder.system.pki import SigningKey

KEY_RESOURCE: Final = "internal:keys"
CACHE_SIZE: Final = 1024
INTRODUCED, SWITCHED, FINISHED = "introduced", "switched", "finished"
_SIGNS, _NEXT, _OLD = "key", "next", "old"


@dataclass(frozen=True, slots=True)
class KeySet:
    """A tenant's keys: the one that signs, the one that is to, the one that did."""

    signs: SigningKey
    next: SigningKey | None = None
    old: SigningKey | None = None

    def __iter__(self) -> Iterator[SigningKey]:
        """Those whose signatures are good."""
        return (key for key in (self.signs, self.next, self.old) if key is not None)

    def named(self, kid: str) -> SigningKey | None:
        """The key that a token's header names."""
        return next((key for key in self if key.jwk.kid == kid), None)

    @property
    def stage(self) -> str:
        """What the last step was; ``finished`` where nothing is being replaced."""
        return INTRODUCED if self.next is not None else SWITCHED if self.old is not None else FINISHED


def signing_key_put(record: TenantRecord) -> Put:
    """Writes a new signing key for a tenant, over whatever a predecessor left."""
    value = orjson.dumps({"uid": record.uid, _SIGNS: SigningKey.generate().decode()})
    return Put(signing_key_key(record.name), value)


def signing_key_key(tenant: TenantName) -> Key:
    """Where a tenant's signing keys are stored."""
    return Key(KEY_RESOURCE, tenant, "", "service-accounts")


def next_step(entry: Entry) -> Put:
    """The write that takes the next step of a replacement."""
    raw: Raw = orjson.loads(entry.value)
    if _NEXT in raw:
        raw = {"uid": raw["uid"], _SIGNS: raw[_NEXT], _OLD: raw[_SIGNS]}
    elif _OLD in raw:
        raw = {"uid": raw["uid"], _SIGNS: raw[_SIGNS]}
    else:
        raw = {**raw, _NEXT: SigningKey.generate().decode()}
    return Put(entry.key, orjson.dumps(raw), entry.revision)


def read_keys(entry: Entry | None, tenant: TenantRecord) -> KeySet:
    """The keys in a row. Raises TokenError where they are not this very tenant's."""
    raw = orjson.loads(entry.value) if entry is not None else {}
    if raw.get("uid") != tenant.uid:
        raise TokenError(f"tenant {tenant.name} has no signing key")
    later = [SigningKey(raw[name].encode()) if name in raw else None for name in (_NEXT, _OLD)]
    return KeySet(SigningKey(raw[_SIGNS].encode()), *later)


class Keys:
    """The tenants' signing keys. The row is read each time, for another server may have taken a step; what was made of it is
    remembered.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: OrderedDict[tuple[str, str], tuple[int, KeySet]] = OrderedDict()

    async def of(self, tenant: TenantRecord) -> KeySet:
        """The keys. Raises TokenError where there are none for this very tenant."""
        identity = (tenant.name, tenant.uid)
        entry = await self._store.get(signing_key_key(tenant.name))
        known = self._known.get(identity)
        if entry is None or known is None or known[0] != entry.revision:
            keys = read_keys(entry, tenant)
            known = self._known[identity] = (entry.revision if entry is not None else 0, keys)
            if len(self._known) > CACHE_SIZE:
                self._known.popitem(last=False)
        self._known.move_to_end(identity)
        return known[1]
