"""Nodes as tenants' workloads find them: the platform's, with what the tenant itself put on them. Pure but for the cache."""

from __future__ import annotations

from collections.abc import Iterator

from polder.api.core import Node, Taint
from polder.api.nodeview import NODE_LABELS
from polder.base.ids import ROOT, TenantName
from polder.base.ref import Ref
from polder.client.informer import Informer
from polder.controllers.daemons_pure import Place

NO_EXECUTE = "NoExecute"


def place_for(tenant: TenantName, node: Node, overlay: Node | None) -> Place:
    """A node as a tenant's set finds it: the labels that the tenant sees, the taints of the platform and its own."""
    labels, taints = node.metadata.labels or {}, tuple(node.spec.taints or ())
    if tenant == ROOT:
        return Place(node.metadata.name, labels, taints)
    shown = {name: labels[name] for name in NODE_LABELS if name in labels}
    if overlay is None:
        return Place(node.metadata.name, shown, taints)
    own = {**(overlay.metadata.labels or {}), **shown}
    return Place(node.metadata.name, own, (*taints, *(overlay.spec.taints or ())))


class NodeViews:
    """Over a cache of the Nodes of all tenants, which has index ``tenant``: root's are the nodes, others what is put on them."""

    def __init__(self, nodes: Informer[Node]) -> None:
        self._nodes = nodes

    def places(self, tenant: TenantName) -> Iterator[Place]:
        """All nodes as the tenant's sets find them."""
        for node in self._nodes.by_index("tenant", ROOT):
            yield self._place(tenant, node)

    def place(self, tenant: TenantName, name: str) -> Place | None:
        """One of them."""
        node = self._nodes.get(Ref(ROOT, "", name))
        return self._place(tenant, node) if node is not None else None

    def evicting(self, tenant: TenantName, name: str) -> tuple[Taint, ...]:
        """The taints of a node that pods of the tenant must bear to stay on it."""
        node = self._nodes.get(Ref(ROOT, "", name))
        if node is None:
            return ()
        overlay = self._nodes.get(Ref(tenant, "", name)) if tenant != ROOT else None
        own = overlay.spec.taints if overlay is not None else None
        if not node.spec.taints and not own:
            return ()
        return tuple(taint for taint in (*(node.spec.taints or ()), *(own or ())) if taint.effect == NO_EXECUTE)

    def _place(self, tenant: TenantName, node: Node) -> Place:
        overlay = self._nodes.get(Ref(tenant, "", node.metadata.name)) if tenant != ROOT else None
        return place_for(tenant, node, overlay)
