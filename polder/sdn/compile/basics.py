"""The concerns that everything stands on: nodes, routers, networks, ports."""

from __future__ import annotations

from collections.abc import Iterable

from polder.api import core
from polder.api import polder as api
from polder.api.meta import ref_of
from polder.base.ids import TenantName
from polder.base.ref import Ref
from polder.sdn.compile.concern import Declaration, Home, Index, View, itself
from polder.sdn.compile.errors import CompileError
from polder.sdn.compile.fragments import compile_network, compile_node, compile_port, compile_router
from polder.sdn.compile.keys import Concern, Key
from polder.sdn.compile.prefixes import NETWORKS, rivals_of
from polder.sdn.topology import types as t

TRANSIT: Index[api.Port, api.Port] = Index(
    "transit", api.Port, lambda _, port: (port.spec.router_of,) if port.spec.router_of else (), lambda port: port
)
"""Root's Ports that are routers' addresses, by the router's tenant."""


def _node(ref: Ref, view: View) -> t.Part | None:
    node = view.get(core.Node, ref)
    return compile_node(node) if node is not None else None


def _router(ref: Ref, view: View) -> t.Part | None:
    router = view.get(api.Router, ref)
    if router is None:
        return None
    if ref.namespace != api.SYSTEM_NAMESPACE or ref.name != api.DEFAULT_ROUTER:
        raise CompileError(
            f"Router {ref}: a tenant has one router, {api.SYSTEM_NAMESPACE}/{api.DEFAULT_ROUTER}; delete this one"
        )
    tenant = view.get(api.Tenant, tenant_ref(ref.tenant))
    return compile_router(router, tenant, view.by(TRANSIT, ref.tenant).values())


def _network(ref: Ref, view: View) -> t.Part | None:
    network = view.get(api.Network, ref)
    if network is None:
        return None
    return compile_network(network, rivals_of(ref, network, view))


def _port(ref: Ref, view: View) -> t.Part | None:
    port = view.get(api.Port, ref)
    return compile_port(port, view.part(network_key(port), t.Network)) if port is not None else None


def _pods_port(ref: Ref, port: api.Port) -> Iterable[Ref]:
    """A router's address is no port of its own."""
    return () if port.spec.router_of else (ref,)


NODE = Declaration(Concern.NODE, t.NodeAddress, (Home(core.Node, itself),), _node)
ROUTER = Declaration(Concern.ROUTER, t.Router, (Home(api.Router, itself),), _router, (TRANSIT,))
NETWORK = Declaration(Concern.NETWORK, t.Network, (Home(api.Network, itself),), _network, (NETWORKS,))
PORT = Declaration(Concern.PORT, t.Port, (Home(api.Port, _pods_port),), _port)


def network_key(port: api.Port) -> Key:
    """The network of a port, of the same tenant always."""
    namespace, _, name = port.spec.network.partition("/")
    return Key(Concern.NETWORK, Ref(ref_of(port).tenant, namespace, name))


def tenant_ref(tenant: TenantName) -> Ref:
    """A tenant's own object."""
    return Ref(TenantName("root"), "", tenant)
