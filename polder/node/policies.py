"""What policies need of a node: that a tenant's are known here before its first pod has a link, and that Ports say what pods are.

A tenant that arrives on a node comes into the views of this node's informers one by one. Until those of policies and namespaces
show what the server has, a pod of the tenant waits: its link would be open else.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from polder.api.core import Namespace, Pod
from polder.api.errors import ApiError
from polder.api.meta import Object, ref_of
from polder.api.netpolicies import ClusterNetworkPolicy, NetworkPolicy
from polder.api.polder import NamedPort, Port, PortSpec
from polder.base.clock import Clock
from polder.base.errors import RetryableError
from polder.base.ids import ROOT, TenantName
from polder.base.ref import Ref
from polder.client.client import Client
from polder.loop.runner import Runner

log = logging.getLogger(__name__)

FIRST = (NetworkPolicy, ClusterNetworkPolicy, Namespace)
"""Kinds that have to be seen before a tenant's first pod is let on."""
PATIENCE = 10.0
"""Seconds that a pod waits for them at one try."""


@dataclass(frozen=True, slots=True)
class Views:
    """What the node's caches show: whether an object is seen, a pod of this node, the Ports of a pod by its UID."""

    knows: Callable[[type[Object], Ref], bool]
    pod: Callable[[Ref], Pod | None]
    ports_of_pod: Callable[[str], list[Port]]


class PolicyFacts:
    """``put`` takes a Port that was written."""

    def __init__(self, client: Client, views: Views, put: Callable[[Port], None], clock: Clock) -> None:
        self._client = client
        self._views = views
        self._put = put
        self._seen: set[str] = set()
        self._pods: Runner[Ref] = Runner("policy facts", self._reconcile, workers=2, clock=clock)

    async def run(self) -> None:
        """Until cancelled: Ports follow their pods."""
        await self._pods.run()

    def changed(self, ref: Ref, old: Pod | None, new: Pod | None) -> None:
        """A pod of this node is another than before."""
        if new is not None and (old is None or facts_of(old) != facts_of(new)):
            self._pods.add(ref)

    def port_changed(self, ref: Ref, old: Port | None, new: Port | None) -> None:
        """A Port has come, maybe after what it ought to say has changed."""
        if old is None and new is not None and new.spec.pod:
            self._pods.add(Ref(ref.tenant, ref.namespace, new.spec.pod))

    async def ensure_seen(self, tenant: TenantName) -> None:
        """Return when all policies of the tenant are in the node's view, which is asked once while it is here. Raises
        RetryableError.
        """
        if tenant == ROOT or tenant in self._seen:
            return
        missing: list[tuple[type[Object], Ref]] = []
        for kind in FIRST:
            missing += [(kind, ref) for ref in await self._listed(kind, tenant)]
        if any(kind is ClusterNetworkPolicy for kind, _ in missing):  # a denied group has to be whole
            missing += [(Port, ref) for ref in await self._listed(Port, tenant)]
        try:
            async with asyncio.timeout(PATIENCE):
                while missing := [one for one in missing if not self._views.knows(*one)]:  # noqa: ASYNC110 - once a stay
                    await asyncio.sleep(0.02)
        except TimeoutError as error:
            first, ref = missing[0]
            raise RetryableError(f"{first.__name__} {ref} is not in this node's view yet", 1.0) from error
        self._seen.add(tenant)

    def left(self, tenant: str) -> None:
        """The tenant's router has gone: when it comes again, so does the question."""
        self._seen.discard(tenant)

    async def _listed(self, kind: type[Object], tenant: TenantName) -> list[Ref]:
        found = await self._client.list(kind, tenant)
        return [ref_of(one) for one in found.items if one.metadata.deletion_timestamp is None]

    async def _reconcile(self, ref: Ref) -> float | None:
        """Write into the pod's Ports what it is."""
        pod = self._views.pod(ref)
        if pod is None:
            return None
        labels, ports = facts_of(pod)
        for port in self._views.ports_of_pod(pod.metadata.uid):
            spec = port.spec
            if ((spec.labels or {}), (spec.container_ports or [])) == (labels, ports):
                continue
            meta = {"uid": port.metadata.uid, "resourceVersion": port.metadata.resource_version}
            body: dict[str, Any] = {
                "labels": {**dict.fromkeys(spec.labels or {}), **labels},
                "containerPorts": [as_raw(one) for one in ports] or None,
            }
            try:
                self._put(await self._client.patch(Port, ref_of(port), {"metadata": meta, "spec": body}))
            except ApiError as error:
                if not error.is_not_found:
                    raise RetryableError(f"Port {ref_of(port)} does not say what its pod is: {error}", 0.1) from error
        return None


def facts_of(pod: Pod) -> tuple[dict[str, str], list[NamedPort]]:
    """A pod's labels, and its ports that have names."""
    containers = [*pod.spec.containers, *(c for c in pod.spec.init_containers or [] if c.restart_policy == "Always")]
    ports = [
        NamedPort(name=one.name, container_port=one.container_port, protocol=one.protocol)
        for container in containers
        for one in container.ports or []
        if one.name
    ]
    return dict(pod.metadata.labels or {}), ports


def with_facts(spec: PortSpec, pod: Pod) -> PortSpec:
    """The Port's spec, saying what the pod is."""
    labels, ports = facts_of(pod)
    return msgspec.structs.replace(spec, labels=labels or None, container_ports=ports or None)


def as_raw(port: NamedPort) -> dict[str, Any]:
    """As the API has it."""
    return {"name": port.name, "containerPort": port.container_port, "protocol": port.protocol}
