"""RBAC of every tenant, straight from the store.

What a tenant's roles and bindings say is kept by namespace (empty: cluster-wide) while it is asked for, in a bounded
table, and follows the store's changes; what every tenant has without rows is shared. A tenant that nobody asks for
costs nothing. A decision waits for what this server wrote before; what another server wrote comes with the watch.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import msgspec
import orjson

from polder.api.meta import ObjectMeta, Struct
from polder.api.rbac import AggregationRule, Attributes, PolicyRule, RoleRef, Rules, Subject, gathers
from polder.apiserver.builtin import BINDINGS, CLUSTER_BINDINGS, CLUSTER_ROLES, ROLES, content, is_tombstone, places
from polder.apiserver.following import answered
from polder.apiserver.types import Decision
from polder.store.protocol import EVERYTHING, Change, ChangeType, CompactedError, Key, Prefix, Store

log = logging.getLogger(__name__)

RESOURCES = frozenset({ROLES, BINDINGS, CLUSTER_ROLES, CLUSTER_BINDINGS})
_SHARDS, _BYTES = 2048, 64 << 20
"""Bounds of what is kept: namespaces, and bytes of their objects as stored."""
_SLICE = 128
"""Objects that are decoded, or bindings looked at, before others get their turn."""
_PATIENCE = 5.0
_NAMED = 5
"""Roles that a refusal names as missing."""
_NO_OPINION = Decision(False)


class _Role(Struct, frozen=True, kw_only=True):
    metadata: ObjectMeta = ObjectMeta()
    rules: tuple[PolicyRule, ...] | None = None
    aggregation_rule: AggregationRule | None = None


class _Binding(Struct, frozen=True, kw_only=True):
    metadata: ObjectMeta = ObjectMeta()
    role_ref: RoleRef = RoleRef()
    subjects: tuple[Subject, ...] | None = None


@dataclass(frozen=True, slots=True)
class Role:
    """A role as it is asked: its rules, its labels, and for an aggregated one whose labels it gathers."""

    rules: Rules
    labels: dict[str, str]
    gathers: AggregationRule | None = None


@dataclass(frozen=True, slots=True)
class Grant:
    """A binding of somebody who asks, and the subject of it that he is."""

    namespace: str
    name: str
    ref: RoleRef
    subject: Subject

    def words(self) -> str:
        """As reasons name it."""
        kind, place = ("RoleBinding", f"{self.name}/{self.namespace}") if self.namespace else (
            "ClusterRoleBinding", self.name)  # fmt: skip
        return f'{kind} "{place}" of {self.ref.kind} "{self.ref.name}" to {self.subject.words(self.namespace)}'


@dataclass(slots=True)
class Shard:
    """The roles and bindings of one namespace of a tenant (empty: the cluster-wide ones). None: deleted built-in ones."""

    namespace: str
    roles: dict[str, Role | None] = field(default_factory=dict)
    bindings: dict[str, tuple[str, ...] | None] = field(default_factory=dict)
    by_subject: dict[str, dict[str, Grant]] = field(default_factory=dict)
    gathered: dict[str, Rules] = field(default_factory=dict)
    revision: int = 0
    size: int = 0
    loading: asyncio.Future[None] | None = None
    waiting: list[Change] = field(default_factory=list)

    def set(self, resource: str, name: str, value: bytes | None) -> None:
        """What stands under a name now, None for nothing. The value is a stored object or a tombstone."""
        if resource in {ROLES, CLUSTER_ROLES}:
            self.gathered.clear()
            self._set_role(name, value)
        else:
            self._set_binding(name, value)

    def _set_role(self, name: str, value: bytes | None) -> None:
        self.roles.pop(name, None)
        if value is not None:
            self.roles[name] = None if is_tombstone(value) else read_role(value)

    def _set_binding(self, name: str, value: bytes | None) -> None:
        for key in self.bindings.pop(name, None) or ():
            granted = self.by_subject[key]
            del granted[name]
            if not granted:
                del self.by_subject[key]
        if value is None:
            return
        if is_tombstone(value):
            self.bindings[name] = None
            return
        read = msgspec.json.decode(value, type=_Binding)
        keys = []
        for subject in read.subjects or ():
            key = subject.key(self.namespace)
            if key and name not in self.by_subject.get(key, ()):
                keys.append(key)
                self.by_subject.setdefault(key, {})[name] = Grant(self.namespace, name, read.role_ref, subject)
        self.bindings[name] = tuple(keys)

    def grants(self, keys: Sequence[str]) -> Iterator[Grant]:
        """The bindings of somebody who has these keys, built-in ones with them."""
        built = _built_in(self.namespace)
        for key in keys:
            yield from self.by_subject.get(key, {}).values()
            for name, grant in built.by_subject.get(key, {}).items():
                if name not in self.bindings:
                    yield grant

    def role(self, name: str) -> Rules | None:
        """The rules of a role, None if there is none."""
        if name in self.roles:
            own = self.roles[name]
            return own.rules if own is not None else None
        built = _built_in(self.namespace).roles.get(name)
        if built is None:
            return None
        return built.rules if built.gathers is None else self._gather(name, built.gathers)

    def _gather(self, name: str, rule: AggregationRule) -> Rules:
        """The rules of all roles that an aggregated built-in one selects; such ones among these gather theirs first."""
        known = self.gathered.get(name)
        if known is None:
            rules: dict[PolicyRule, None] = {}
            for other, labels in sorted(self._labels().items()):
                if other != name and gathers(rule, labels):
                    found = self.role(other)
                    rules.update(dict.fromkeys(found.rules if found else ()))
            known = self.gathered[name] = Rules(rules)
        return known

    def _labels(self) -> dict[str, dict[str, str]]:
        built = _built_in(self.namespace).roles
        shown = {name: role for name, role in built.items() if name not in self.roles}
        return {name: role.labels for name, role in {**shown, **self.roles}.items() if role is not None}


def read_role(value: bytes) -> Role:
    """A stored Role or ClusterRole."""
    read = msgspec.json.decode(value, type=_Role)
    return Role(Rules(read.rules or ()), read.metadata.labels or {}, read.aggregation_rule)


@lru_cache(maxsize=8)
def _built_in_of(namespace: str) -> Shard:
    shard = Shard(namespace)
    for resource in (CLUSTER_ROLES, CLUSTER_BINDINGS) if not namespace else (ROLES, BINDINGS):
        for at in places(resource):
            if at[0] == namespace:
                shard.set(resource, at[1], orjson.dumps(content(resource, at)))
    return shard


_WITH_BUILT_IN = frozenset({"", *(at[0] for at in places(ROLES))})
_NOTHING = Shard("")


def _built_in(namespace: str) -> Shard:
    return _built_in_of(namespace) if namespace in _WITH_BUILT_IN else _NOTHING


class Policies:
    """The shards of all tenants, loaded when they are asked for."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._shards: OrderedDict[tuple[str, str], Shard] = OrderedDict()
        self._bytes = 0
        self._position = 0
        self._wrote = 0
        self._moved = asyncio.Event()
        self._running = False

    def wrote(self, keys: Sequence[Key], revision: int) -> None:
        """Tells of a commit of this server, whose roles and bindings the next decision shall know."""
        if any(key.resource in RESOURCES for key in keys):
            self._wrote = max(self._wrote, revision)

    async def run(self) -> None:
        """Follows the store until cancelled; without it nothing is kept from one question to the next."""
        while True:
            self._forget_all()
            self._position = await answered(self._store.revision)
            self._running = True
            try:
                async for batch in self._store.watch(EVERYTHING, self._position):
                    for change in batch.changes:
                        if change.key.resource in RESOURCES:
                            self._apply(change)
                    self._position = batch.revision
                    self._moved.set()
                    self._moved.clear()
            except CompactedError:
                continue
            finally:
                self._running = False
                self._forget_all()
            return

    def _forget_all(self) -> None:
        self._shards.clear()
        self._bytes = 0

    def _apply(self, change: Change) -> None:
        key = change.key
        shard = self._shards.get((key.tenant, key.namespace))
        if shard is None:
            return
        if shard.loading is not None:
            shard.waiting.append(change)
            return
        self._change(shard, change)

    def _change(self, shard: Shard, change: Change) -> None:
        if change.revision <= shard.revision:
            return
        gone = change.type is ChangeType.DELETE
        grown = (0 if gone else len(change.value)) - len(change.previous or b"")
        shard.size += grown
        self._bytes += grown
        shard.set(change.key.resource, change.key.name, None if gone else change.value)

    def ready(self, tenant: str, namespace: str) -> Shard | None:
        """What stands in one namespace of a tenant (empty: cluster-wide), if it is known and needs no waiting."""
        shard = self._shards.get((tenant, namespace))
        if shard is None or shard.loading is not None or self._position < self._wrote:
            return None
        self._shards.move_to_end((tenant, namespace))
        return shard

    async def shard(self, tenant: str, namespace: str) -> Shard:
        """The same, read from the store or waited for where it must be."""
        await self._settled()
        at = (tenant, namespace)
        shard = self._shards.get(at)
        if shard is None:
            shard = Shard(namespace)
            if self._running:
                self._shards[at] = shard
            await self._load(tenant, shard)
            self._bound()
        elif shard.loading is not None:
            await asyncio.shield(shard.loading)
            if at not in self._shards:  # the load failed; it says why when it is tried again
                return await self.shard(tenant, namespace)
        return shard

    async def _settled(self) -> None:
        if not self._running or self._position >= self._wrote:
            return
        wanted = self._wrote
        try:
            async with asyncio.timeout(_PATIENCE):
                while self._running and self._position < wanted:
                    await self._moved.wait()
        except TimeoutError:
            log.warning("the store's watch is slow: roles and bindings are read anew")
            self._forget_all()
            self._wrote = self._position  # what is read from now on has it

    async def _load(self, tenant: str, shard: Shard) -> None:
        shard.loading = asyncio.get_running_loop().create_future()
        at, revision = (tenant, shard.namespace), None
        try:
            for resource in (ROLES, BINDINGS) if shard.namespace else (CLUSTER_ROLES, CLUSTER_BINDINGS):
                page = await self._store.list(Prefix(resource, tenant, shard.namespace or None), revision=revision)
                revision = shard.revision = page.revision
                for number, entry in enumerate(page.entries, 1):
                    shard.set(resource, entry.key.name, entry.value)
                    shard.size += len(entry.value)
                    if not number % _SLICE:
                        await asyncio.sleep(0)
        except BaseException:
            if self._shards.get(at) is shard:
                del self._shards[at]
            raise
        finally:
            loading, shard.loading = shard.loading, None
            loading.set_result(None)
        self._bytes += shard.size if self._shards.get(at) is shard else 0
        for change in shard.waiting:
            self._change(shard, change)
        shard.waiting = []

    def _bound(self) -> None:
        while self._shards and (len(self._shards) > _SHARDS or self._bytes > _BYTES):
            self._bytes -= self._shards.popitem(last=False)[1].size


@dataclass(frozen=True, slots=True)
class Rbac:
    """Decides by roles and bindings. ``keys`` are an identity's in the tenant (``api.rbac.identity_keys``)."""

    policies: Policies

    async def decide(self, tenant: str, namespace: str, keys: Sequence[str], what: Attributes) -> Decision:
        """Whether somebody with these keys may; never an express refusal."""
        missing: dict[str, None] = {}
        for number, (grant, rules) in enumerate(await self._grants(tenant, namespace, keys), 1):
            if rules is None:
                missing[_not_found(grant.ref)] = None
            elif rules.allow(what):
                return Decision(True, False, f"RBAC: allowed by {grant.words()}")
            if not number % _SLICE:
                await asyncio.sleep(0)
        if not missing:
            return _NO_OPINION
        problems = list(missing)[:_NAMED]
        return Decision(False, False, f"RBAC: {problems[0]}" if len(missing) == 1 else f"RBAC: [{', '.join(problems)}]")

    async def rules(self, tenant: str, namespace: str, keys: Sequence[str]) -> list[PolicyRule]:
        """Every rule that somebody with these keys has, each once."""
        found = await self._grants(tenant, namespace, keys)
        return list({rule: None for _, rules in found if rules is not None for rule in rules.rules})

    async def role(self, tenant: str, namespace: str, ref: RoleRef) -> Rules | None:
        """The rules of the role that a binding in the namespace (empty: a cluster-wide one) refers to."""
        if ref.kind == "Role" and namespace:
            return (await self.policies.shard(tenant, namespace)).role(ref.name)
        return (await self.policies.shard(tenant, "")).role(ref.name) if ref.kind == "ClusterRole" else None

    async def _grants(self, tenant: str, namespace: str, keys: Sequence[str]) -> list[tuple[Grant, Rules | None]]:
        cluster = self.policies.ready(tenant, "") or await self.policies.shard(tenant, "")
        found = [(g, cluster.role(g.ref.name)) for g in cluster.grants(keys) if g.ref.kind == "ClusterRole"]
        if namespace:
            place = self.policies.ready(tenant, namespace) or await self.policies.shard(tenant, namespace)
            where = {"Role": place, "ClusterRole": cluster}
            found += [(g, where[g.ref.kind].role(g.ref.name)) for g in place.grants(keys) if g.ref.kind in where]
        return found


def _not_found(ref: RoleRef) -> str:
    return f'{ref.kind.lower()}.rbac.authorization.k8s.io "{ref.name}" not found'
