"""Which node answers for an address on the outside: one that is healthy, where the tenant is, and that can serve.

A node with a ready endpoint of the Service is taken before one without; with ``externalTrafficPolicy: Local`` no other may be.
The address stays where it is while that node is as good as any. What is decided here, the node's agent reads. A node that does
not
answer is left at once, long before its lease runs out (``pulse.py``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable

from polder.api.addresses import ExternalAddress
from polder.api.core import Node, Service
from polder.api.discovery import EndpointSlice
from polder.api.meta import Condition
from polder.api.polder import EGRESS_ANNOTATION
from polder.base.clock import Clock, stamp
from polder.base.ids import TenantName
from polder.base.ref import Ref
from polder.client.client import Client
from polder.controllers.balancers import service_of, whole_condition
from polder.controllers.caches import Caches
from polder.controllers.conditions import merged
from polder.controllers.reading import find

EXCLUDED = "node.kubernetes.io/exclude-from-external-load-balancers"
"""A label of nodes that answer for no load balancer."""
PLACED = "Placed"


def is_healthy(node: Node | None) -> bool:
    """Whether a node may answer for addresses."""
    if node is None or node.metadata.deletion_timestamp is not None or EXCLUDED in (node.metadata.labels or {}):
        return False
    return any(c.type == "Ready" and c.status == "True" for c in node.status.conditions or ())


def has_way(node: Node | None, address: str) -> bool:
    """Whether traffic of the address's family comes and goes there: of IPv6 a node says it."""
    said = (node.metadata.annotations or {}).get(EGRESS_ANNOTATION, "") if node is not None else ""
    return ":" not in address or ":" in said


def serving_nodes(slices: Iterable[EndpointSlice], family: str) -> set[str]:
    """The nodes that have an endpoint in use: what is ready, else what ends and still answers (KEP-1669)."""
    ready, ending = set(), set()
    for found in slices:
        for endpoint in found.endpoints or () if found.address_type == family else ():
            conditions = endpoint.conditions or {}
            if endpoint.node_name and conditions.get("ready", True):
                ready.add(endpoint.node_name)
            elif endpoint.node_name and conditions.get("serving") and conditions.get("terminating"):
                ending.add(endpoint.node_name)
    return ready or ending


def chosen(address: str, now: str, possible: set[str], serving: set[str], *, local: bool) -> str:
    """The node for an address that ``now`` has; empty where no node can. Different addresses go to different nodes."""
    good = possible & serving
    if not good and not local:
        good = possible
    if now in good or not good:
        return now if now in good else ""
    return max(good, key=lambda node: hashlib.blake2b(f"{address} {node}".encode(), digest_size=8).digest())


class AnnouncerController:
    """Reconciles ``status.node`` of an ExternalAddress; key: its reference."""

    def __init__(self, client: Client, clock: Clock, caches: Caches, is_lost: Callable[[str], bool]) -> None:
        self._is_lost = is_lost
        self._client = client
        self._clock = clock
        self._caches = caches

    async def reconcile(self, ref: Ref) -> float | None:
        """One pass. Raises ApiError."""
        claim = await find(self._client, ExternalAddress, ref)
        if claim is None or claim.metadata.deletion_timestamp is not None:
            return None
        service = self._caches.services.get(service_of(claim))
        node = self._choose(claim, service) if service is not None else ""
        said = Condition(
            type=PLACED, status="True", reason="NodeChosen", message=f"node {node} answers for the address"
        )
        if not node:
            why = "no healthy node on which the tenant is has a ready endpoint of the Service"
            said = Condition(type=PLACED, status="False", reason="NoNode", message=why)
        conditions = merged(claim.status.conditions, [said], stamp(self._clock.now()))
        if claim.status.node == node and conditions is None:
            return None
        status: dict[str, object] = {"node": node}
        if conditions is not None:
            status["conditions"] = [whole_condition(c) for c in conditions]
        patch = {"metadata": {"uid": claim.metadata.uid}, "status": status}
        await self._client.patch(ExternalAddress, ref, patch, subresource="status")
        return None

    def _choose(self, claim: ExternalAddress, service: Service) -> str:
        present = {port.spec.node for port in self._caches.ports.by_index("router", claim.spec.tenant)}
        healthy = {name for name in present if self._can(name, claim.spec.address)}
        family = "IPv6" if ":" in claim.spec.address else "IPv4"
        at = Ref(TenantName(claim.spec.tenant), *claim.spec.service.split("/"))
        serving = serving_nodes(self._caches.slices.by_index("service", at), family)
        local = service.spec.external_traffic_policy == "Local"
        return chosen(claim.spec.address, claim.status.node, healthy, serving, local=local)

    def _can(self, name: str, address: str) -> bool:
        node = self._caches.node(name)
        return is_healthy(node) and has_way(node, address) and not self._is_lost(name)
