"""Built-in objects as entries; among them the ClusterRoles whose rules are gathered from the tenant's other ClusterRoles."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import orjson

from polder.api.meta import Raw
from polder.api.rbac_policy import MARK, bootstrap_roles
from polder.apiserver.builtin import BORN, CLUSTER_ROLES, Birth, built_in, content
from polder.apiserver.rbac import Shard
from polder.store.protocol import Change, ChangeType, Entry, Key, Prefix, Store

GATHERING = frozenset(role["metadata"]["name"] for role in bootstrap_roles() if "aggregationRule" in role)


class Aggregated:
    """Makes the entries of built-in objects."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def entry(self, birth: Birth, key: Key) -> Entry:
        """One built-in object."""
        return (await self.entries(birth, [key]))[key]

    async def entries(self, birth: Birth, keys: Sequence[Key], revision: int | None = None) -> dict[Key, Entry]:
        """Built-in objects of one resource, as at a revision (None: now)."""
        found: dict[Key, Entry] = {}
        shard: Shard | None = None
        newest = BORN
        for key in keys:
            changes: Raw | None = None
            if key.resource == CLUSTER_ROLES and key.name in GATHERING:
                if shard is None:
                    shard, newest = await self._roles(birth, revision)
                rules = shard.role(key.name)
                changes = {"rules": [msgspec.to_builtins(rule) for rule in rules.rules] if rules else []}
            value = built_in(birth, key.resource, (key.namespace, key.name), changes)
            found[key] = Entry(key, value, newest if changes is not None else BORN)
        return found

    async def _roles(self, birth: Birth, revision: int | None) -> tuple[Shard, int]:
        """The tenant's ClusterRoles, and the revision of the newest that may be gathered."""
        shard, newest = Shard(""), BORN
        page = await self._store.list(Prefix(CLUSTER_ROLES, birth.tenant), revision=revision)
        for entry in page.entries:
            shard.set(CLUSTER_ROLES, entry.key.name, entry.value)
            if _is_gathered(entry.key.name, entry.value):
                newest = max(newest, entry.revision)
        return shard, newest

    async def follow(self, birth: Birth, change: Change) -> list[Change]:
        """What a change of a ClusterRole means for those that gather it."""
        if not any(_is_gathered(change.key.name, value) for value in (change.value, change.previous)):
            return []
        found = []
        for name in sorted(GATHERING - {change.key.name}):
            key = Key(CLUSTER_ROLES, birth.tenant, "", name)
            if await self._store.get(key) is None:
                shown = await self.entry(birth, key)
                found.append(Change(ChangeType.PUT, key, shown.value, shown.value, change.revision))
        return found


def _is_gathered(name: str, value: bytes | None) -> bool:
    """Whether a built-in ClusterRole gathers, or would gather if it were not deleted, what is stored under a name."""
    built = content(CLUSTER_ROLES, ("", name))
    if built is not None and any(label.startswith(MARK) for label in built["metadata"]["labels"]):
        return True
    if value is None or MARK.encode() not in value:
        return False
    labels = orjson.loads(value)["metadata"].get("labels") or {}
    return any(label.startswith(MARK) for label in labels)
