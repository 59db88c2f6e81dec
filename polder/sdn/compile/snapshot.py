"""The objects as last seen, and which fragments each of them feeds.

``put`` answers with the keys whose declared inputs changed; ``compile`` gives a fragment from those inputs alone. The
cost of both depends on what the object feeds, never on how many objects there are: a port feeds itself, a network its
own ports by way of its fragment, a node, router and tenant their own fragments.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import msgspec

from polder.api import core
from polder.api import polder as api
from polder.api.meta import Object, ref_of
from polder.base.ids import TenantName
from polder.base.ref import Ref
from polder.sdn.compile.errors import CompileError
from polder.sdn.compile.fragments import compile_network, compile_node, compile_port, compile_router
from polder.sdn.compile.keys import CONCERN_OF, Concern, Key
from polder.sdn.topology.types import Network, Part

K = TypeVar("K")


class Snapshot:
    """A mutable mirror of the API objects, indexed by what depends on them."""

    def __init__(self) -> None:
        self._objects: dict[tuple[type[Object], Ref], Object] = {}
        self._networks: dict[TenantName, set[Ref]] = {}
        self._routers: dict[TenantName, set[Ref]] = {}
        self._ports: dict[Ref, set[Ref]] = {}
        self._transit: dict[TenantName, set[Ref]] = {}
        self._expected: dict[Ref, api.PortStatus] = {}

    def get(self, kind: type[Object], ref: Ref) -> Object | None:
        """The object as last seen."""
        return self._objects.get((kind, ref))

    def refs(self, kind: type[Object]) -> frozenset[Ref]:
        """All objects of a kind."""
        return frozenset(ref for known, ref in self._objects if known is kind)

    def keys(self) -> Iterable[Key]:
        """Every fragment that could be compiled."""
        for kind, ref in self._objects:
            obj = self._objects[kind, ref]
            if kind in CONCERN_OF and not (isinstance(obj, api.Port) and obj.spec.router_of):
                yield Key(CONCERN_OF[kind], ref)

    def put(self, kind: type[Object], ref: Ref, obj: Object | None) -> set[Key]:
        """Take the newer ``obj`` (None: gone), unless what is known is at least as new. The fragments to compile again."""
        old = self._objects.get((kind, ref))
        if obj is old or (obj is not None and old is not None and not _newer(obj, old)):
            return set()
        dirty: set[Key] = set()
        if old is not None:
            dirty |= self._fed(ref, old)
            self._index(ref, old, False)
            del self._objects[kind, ref]
        if obj is not None:
            self._objects[kind, ref] = obj
            self._index(ref, obj, True)
            dirty |= self._fed(ref, obj)
        expected = self._expected.get(ref)
        if expected is not None and (not isinstance(obj, api.Port) or same_use(obj.status, expected)):
            del self._expected[ref]  # the object says it itself now, or is gone
        return dirty

    def expect(self, port: Ref, status: api.PortStatus | None) -> set[Key]:
        """This node has attached or detached ``port``: its status is taken for ``status`` until the object itself says so.
        None: no more.
        """
        known = self._objects.get((api.Port, port))
        if status is None or (isinstance(known, api.Port) and same_use(known.status, status)):
            self._expected.pop(port, None)
        else:
            self._expected[port] = status
        return {Key(Concern.PORT, port)}

    def ports_of(self, network: Key) -> set[Key]:
        """The port fragments that a network's fragment is an input of."""
        return {Key(Concern.PORT, port) for port in self._ports.get(network.ref, ())}

    def compile(self, key: Key, network: Network | None = None) -> Part | None:
        """The fragment of ``key``; None when its object is gone. ``network`` is a port's network fragment."""
        ref = key.ref
        if key.concern is Concern.NODE:
            node = self._objects.get((core.Node, ref))
            return compile_node(node) if isinstance(node, core.Node) else None
        if key.concern is Concern.NETWORK:
            return self._compile_network(ref)
        if key.concern is Concern.ROUTER:
            return self._compile_router(ref)
        port = self._objects.get((api.Port, ref))
        if not isinstance(port, api.Port) or port.spec.router_of:
            return None
        if ref in self._expected:
            port = msgspec.structs.replace(port, status=self._expected[ref])
        return compile_port(port, network)

    def network_of(self, key: Key) -> Key | None:
        """The key of a port's network."""
        port = self._objects.get((api.Port, key.ref))
        if not isinstance(port, api.Port):
            return None
        return Key(Concern.NETWORK, network_ref(port))

    def _compile_network(self, ref: Ref) -> Part | None:
        network = self._objects.get((api.Network, ref))
        if not isinstance(network, api.Network):
            return None
        others = (self._objects.get((api.Network, other)) for other in self._networks.get(ref.tenant, ()))
        return compile_network(network, [o for o in others if isinstance(o, api.Network) and o is not network])

    def _compile_router(self, ref: Ref) -> Part | None:
        router = self._objects.get((api.Router, ref))
        if not isinstance(router, api.Router):
            return None
        if ref.namespace != api.SYSTEM_NAMESPACE or ref.name != api.DEFAULT_ROUTER:
            raise CompileError(
                f"Router {ref}: a tenant has one router, {api.SYSTEM_NAMESPACE}/{api.DEFAULT_ROUTER}; delete this one"
            )
        tenant = self._objects.get((api.Tenant, tenant_ref(ref.tenant)))
        ports = (self._objects.get((api.Port, port)) for port in self._transit.get(ref.tenant, ()))
        return compile_router(
            router,
            tenant if isinstance(tenant, api.Tenant) else None,
            [port for port in ports if isinstance(port, api.Port)],
        )

    def _fed(self, ref: Ref, obj: Object) -> set[Key]:
        if isinstance(obj, api.Tenant):
            return {Key(Concern.ROUTER, r) for r in self._routers.get(TenantName(ref.name), ())}
        if isinstance(obj, api.Port) and obj.spec.router_of:
            return {Key(Concern.ROUTER, r) for r in self._routers.get(TenantName(obj.spec.router_of), ())}
        if isinstance(obj, api.Network):
            return {Key(Concern.NETWORK, other) for other in self._networks.get(ref.tenant, set()) | {ref}}
        return {Key(CONCERN_OF[type(obj)], ref)}

    def _index(self, ref: Ref, obj: Object, present: bool) -> None:
        if isinstance(obj, api.Router):
            _mark(self._routers, ref.tenant, ref, present)
        elif isinstance(obj, api.Network):
            _mark(self._networks, ref.tenant, ref, present)
        elif isinstance(obj, api.Port) and obj.spec.router_of:
            _mark(self._transit, TenantName(obj.spec.router_of), ref, present)
        elif isinstance(obj, api.Port):
            _mark(self._ports, network_ref(obj), ref, present)


def network_ref(port: api.Port) -> Ref:
    """The network of a port, of the same tenant always."""
    namespace, _, name = port.spec.network.partition("/")
    return Ref(ref_of(port).tenant, namespace, name)


def same_use(one: api.PortStatus, other: api.PortStatus) -> bool:
    """Whether two statuses name the same sandbox and link."""
    return (one.sandbox, one.netns, one.link) == (other.sandbox, other.netns, other.link)


def tenant_ref(tenant: TenantName) -> Ref:
    """A tenant's own object."""
    return Ref(TenantName("root"), "", tenant)


def _newer(obj: Object, old: Object) -> bool:
    """Whether ``obj`` may replace ``old``: one counter numbers all revisions of the store."""
    new, known = obj.metadata.resource_version, old.metadata.resource_version
    return not (new.isdigit() and known.isdigit()) or int(new) > int(known)


def _mark(index: dict[K, set[Ref]], at: K, ref: Ref, present: bool) -> None:
    if present:
        index.setdefault(at, set()).add(ref)
        return
    index[at].discard(ref)
    if not index[at]:
        del index[at]
