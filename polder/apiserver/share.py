"""A node's share: what of the view over all tenants a node's identity sees.

A tenant is present on a node while a pod is bound to the node or the tenant's datapath is there: a Port or an Address
held by the node, or its router's transit Port. These keep the share until the node's agent has taken the datapath down
and freed the addresses (docs/adr/0002). Objects that pods mention (configuration, secrets, accounts) follow the bound
pods alone.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Iterable

import orjson

from polder.api.addresses import ExternalAddress
from polder.api.core import Namespace, Node, Pod, Service
from polder.api.discovery import EndpointSlice
from polder.api.kinds import Kind, kind_of
from polder.api.meta import TENANT_ANNOTATION, Raw
from polder.api.netpolicies import ClusterNetworkPolicy, NetworkPolicy
from polder.api.polder import Address, Network, Port, Router, Tenant
from polder.api.staticpods import is_mirror
from polder.apiserver.following import answered
from polder.base.ids import ROOT
from polder.store.protocol import Change, ChangeType, CompactedError, Key, Prefix, Store

PODS = kind_of(Pod).resource
PORTS = kind_of(Port).resource
ADDRESSES = kind_of(Address).resource
NODES = kind_of(Node).resource
TENANTS = kind_of(Tenant).resource
OF_PRESENT_TENANTS = frozenset(
    kind_of(t).resource
    for t in (Network, Router, Port, Address, Service, EndpointSlice, Namespace, NetworkPolicy, ClusterNetworkPolicy)
)
"""Kinds of which a node sees all of every tenant present on it."""
GIVEN = kind_of(ExternalAddress).resource
"""Root's, but each is a tenant's: a node sees those of tenants present on it."""


CONTAINERS = ("containers", "initContainers", "ephemeralContainers")
Fact = tuple[str, ...]
"""(node, tenant): the tenant is on the node. (node, tenant, namespace, resource, name): a pod bound to it mentions that."""


def facts_of(key: Key, raw: Raw) -> frozenset[Fact]:
    """What a Pod, Port or Address makes true."""
    spec = raw.get("spec") or {}
    node = spec.get("nodeName" if key.resource == PODS else "node")
    if not node:
        return frozenset()
    facts: set[Fact] = {(node, spec.get("routerOf") or key.tenant)}
    if key.resource == PODS and not (key.tenant == ROOT and is_mirror(raw)):
        facts |= {(node, key.tenant, key.namespace, *mentioned) for mentioned in mentions(spec, key.name)}
    return frozenset(facts)


class Share:
    """The index of who is where, fed by the store's watch, and the watches that must end when it changes."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._rows: dict[Key, frozenset[Fact]] = {}
        self._facts: Counter[Fact] = Counter()
        self._mentioning: dict[Fact, set[str]] = {}
        self._generation: Counter[str] = Counter()
        self._listed: dict[tuple[str, str], int] = {}
        self._waiting: dict[str, list[asyncio.Future[None]]] = {}

    async def load(self) -> None:
        """Fills the index once. Call it before the server listens: to a node that asked earlier its tenants would seem to have
        left, and it would take their network down.
        """
        for resource in (PODS, PORTS, ADDRESSES):
            page = await self._store.list(Prefix(resource))
            self._reset(resource, {e.key: facts_of(e.key, orjson.loads(e.value)) for e in page.entries})

    async def run(self) -> None:
        """Keeps the index until cancelled; begins again when it fell too far behind."""
        async with asyncio.TaskGroup() as group:
            for resource in (PODS, PORTS, ADDRESSES):
                group.create_task(self._follow(resource))

    async def _follow(self, resource: str) -> None:
        while True:
            page = await answered(lambda: self._store.list(Prefix(resource)))
            self._reset(resource, {e.key: facts_of(e.key, orjson.loads(e.value)) for e in page.entries})
            try:
                async for batch in self._store.watch(Prefix(resource), page.revision):
                    for change in batch.changes:
                        self._apply(change)
            except CompactedError:
                continue
            return

    def _reset(self, resource: str, rows: dict[Key, frozenset[Fact]]) -> None:
        for key in [k for k in self._rows if k.resource == resource and k not in rows]:
            self._set(key, frozenset())
        for key, facts in rows.items():
            self._set(key, facts)

    def _apply(self, change: Change) -> None:
        gone = change.type is ChangeType.DELETE
        self._set(change.key, frozenset() if gone else facts_of(change.key, orjson.loads(change.value)))

    def _set(self, key: Key, facts: frozenset[Fact]) -> None:
        """What one row makes true now; tells when a tenant arrived on a node or left it."""
        old = self._rows.pop(key, frozenset())
        if facts:
            self._rows[key] = facts
        for fact in facts - old:
            self._facts[fact] += 1
            if self._facts[fact] == 1:
                self._begins(fact)
        for fact in old - facts:
            self._facts[fact] -= 1
            if not self._facts[fact]:
                del self._facts[fact]
                self._ends(fact)

    def _begins(self, fact: Fact) -> None:
        if len(fact) == 2:
            self._changed(fact[0])
        else:
            self._mentioning.setdefault(fact[1:], set()).add(fact[0])

    def _ends(self, fact: Fact) -> None:
        if len(fact) == 2:
            self._changed(fact[0])
            return
        nodes = self._mentioning[fact[1:]]
        nodes.discard(fact[0])
        if not nodes:
            del self._mentioning[fact[1:]]

    def mentioning(self, key: Key) -> Collection[str]:
        """The nodes with a pod bound to them that mentions an object."""
        return self._mentioning.get((key.tenant, key.namespace, key.resource, key.name), ())

    def _changed(self, node: str) -> None:
        self._generation[node] += 1
        for future in self._waiting.pop(node, []):
            if not future.done():
                future.set_result(None)

    def present(self, node: str, tenant: str) -> bool:
        """Whether the tenant is on the node; ``root`` always is."""
        return tenant == ROOT or (node, tenant) in self._facts

    def visible(self, node: str, kind: Kind, obj: Raw) -> bool:
        """Whether an object, with its tenant's annotation, is in the node's share."""
        meta = obj["metadata"]
        tenant = (meta.get("annotations") or {}).get(TENANT_ANNOTATION, ROOT)
        if kind.resource == PODS:
            return bool((obj.get("spec") or {}).get("nodeName") == node)
        if kind.resource == NODES:
            return bool(tenant == ROOT)
        if kind.resource == TENANTS:
            return self.present(node, meta["name"])
        if kind.resource == GIVEN:
            return tenant == ROOT and self.present(node, (obj.get("spec") or {}).get("tenant", ""))
        if kind.resource not in OF_PRESENT_TENANTS:
            return False
        if tenant == ROOT and kind.resource == PORTS:
            return self._root_port(node, obj.get("spec") or {})
        return self.present(node, tenant)

    def _root_port(self, node: str, spec: Raw) -> bool:
        """Root's transit Ports are each a tenant's router: they follow that tenant."""
        return spec.get("node") == node or self.present(node, spec.get("routerOf") or ROOT)

    def listed(self, node: str, resource: str) -> None:
        """Notes that the node begins to list; a later watch is good only while nothing arrived or left since."""
        self._listed[node, resource] = self._generation[node]

    async def changed(self, node: str, kind: Kind) -> None:
        """Returns when objects that do not change themselves arrive in or leave the node's share of the kind.

        At once if that happened since the node's last list, so that nothing is missed between a list and its watch.
        """
        if kind.resource not in (TENANTS, GIVEN) and kind.resource not in OF_PRESENT_TENANTS:
            await asyncio.get_running_loop().create_future()
        if self._listed.get((node, kind.resource)) != self._generation[node]:
            return
        future = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(node, [])
        waiting.append(future)
        try:
            await future
        finally:
            if future in waiting:
                waiting.remove(future)

    async def bound_pods(self, node: str, tenant: str, namespace: str | None = None) -> Iterable[Raw]:
        """The pods of a tenant (of one namespace) bound to the node, read from the store."""
        page = await self._store.list(Prefix(PODS, tenant, namespace))
        pods = (orjson.loads(entry.value) for entry in page.entries)
        return [pod for pod in pods if (pod.get("spec") or {}).get("nodeName") == node]

    async def enters(self, node: str, tenant: str) -> bool:
        """Whether the tenant is on the node, asked of the store itself when the index does not know it yet."""
        return self.present(node, tenant) or bool(await self.bound_pods(node, tenant))

    async def references(self, node: str, key: Key) -> bool:
        """Whether a pod bound to the node mentions a ConfigMap, Secret or ServiceAccount; asks the store as ``enters`` does."""
        if (node, key.tenant, key.namespace, key.resource, key.name) in self._facts:
            return True
        pods = await self.bound_pods(node, key.tenant, key.namespace)
        wanted = (key.resource, key.name)
        return any(
            wanted in mentions(pod.get("spec") or {}, pod["metadata"]["name"])
            for pod in pods
            if not (key.tenant == ROOT and is_mirror(pod))  # the node itself made it
        )


def mentions(spec: Raw, pod: str) -> set[tuple[str, str]]:
    """The (resource, name) of all ConfigMaps, Secrets, ServiceAccounts and claims that the spec of a pod refers to."""
    found = {("serviceaccounts", spec.get("serviceAccountName") or "default")}
    found |= {("secrets", ref.get("name", "")) for ref in spec.get("imagePullSecrets") or []}
    for container in (c for group in CONTAINERS for c in spec.get(group) or ()):
        for source in container.get("envFrom") or []:
            found |= _named(source, "configMapRef", "secretRef")
        for variable in container.get("env") or []:
            found |= _named(variable.get("valueFrom") or {}, "configMapKeyRef", "secretKeyRef")
    for volume in spec.get("volumes") or []:
        found |= _named(volume, "configMap", "secret")
        if claim := (volume.get("persistentVolumeClaim") or {}).get("claimName"):
            found.add(("persistentvolumeclaims", claim))
        if "ephemeral" in volume:
            found.add(("persistentvolumeclaims", f"{pod}-{volume.get('name')}"))
        for source in (volume.get("projected") or {}).get("sources") or []:
            found |= _named(source, "configMap", "secret")
    return found


def _named(source: Raw, config_map: str, secret: str) -> set[tuple[str, str]]:
    found = set()
    for field, resource in ((config_map, "configmaps"), (secret, "secrets")):
        reference = source.get(field)
        if reference:
            found.add((resource, reference.get("name") or reference.get("secretName") or ""))
    return found
