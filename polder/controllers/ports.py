"""The sweeper of the network: Ports that nobody serves any more, and Addresses that no Port holds.

A node's agent frees what it holds: it removes the link, then the Port's finalizer; the Port goes, then its Addresses. The
sweeper does an agent's part only when the node itself is gone. Everything is read from the server, pod first and Port
after it (whoever makes a Port reads the pod before), and deleted with the UID and resource version that were judged.
"""

from __future__ import annotations

from polder.api.core import Pod
from polder.api.errors import ApiError
from polder.api.kinds import kind_of
from polder.api.polder import PORT_FINALIZER, Address, Port, Tenant
from polder.base.clock import Clock
from polder.base.ids import ROOT
from polder.base.ref import Ref
from polder.client.client import Client
from polder.controllers.missing import MissingNodes
from polder.controllers.reading import find
from polder.controllers.resources import Resource, patch_metadata
from polder.controllers.suspects import Suspects

PORTS = Resource.of(kind_of(Port))
ENDED = ("Succeeded", "Failed")


class PortSweeper:
    """Reconciles Ports of all tenants; key: the Port's reference."""

    def __init__(self, client: Client, missing: MissingNodes, clock: Clock, grace: float) -> None:
        self._client = client
        self._missing = missing
        self._clock = clock
        self._suspects = Suspects(grace)

    async def reconcile(self, ref: Ref) -> float | None:
        """Deletes the Port if what it is for is gone, and does the agent's part if the node is gone too."""
        port = await find(self._client, Port, ref)
        if port is None:
            self._suspects.clear(ref)
            return None
        gone = await self._missing.wait(port.spec.node)
        if port.metadata.deletion_timestamp is None:
            wait = await self._judge(ref, port, gone)
            if wait is None or wait > 0:
                return wait
            meta = port.metadata
            await self._client.delete(Port, ref, uid=meta.uid, resource_version=meta.resource_version)
            port = await find(self._client, Port, ref)
            if port is None:
                return None
        if gone is None or gone > 0:
            return gone
        kept = [f for f in port.metadata.finalizers or [] if f != PORT_FINALIZER]
        await patch_metadata(self._client, PORTS, ref, port, {"finalizers": kept or None})
        return None

    async def _judge(self, ref: Ref, port: Port, gone: float | None) -> float | None:
        """None: the Port is needed. Else the seconds until it may be deleted, 0 when it may."""
        if await self._is_needed(ref, port, gone == 0):
            self._suspects.clear(ref)
            return None
        return self._suspects.wait(ref, port.metadata.uid, self._clock.monotonic())

    async def _is_needed(self, ref: Ref, port: Port, node_gone: bool) -> bool:
        if port.spec.router_of:
            return not node_gone and await self._tenant_exists(port.spec.router_of)
        try:
            pod = await self._client.get(Pod, Ref(ref.tenant, ref.namespace, port.spec.pod))
        except ApiError as error:
            if error.is_not_found:
                return False
            raise
        return pod.metadata.uid == port.spec.pod_uid and pod.spec.node_name in ("", port.spec.node)

    async def _tenant_exists(self, name: str) -> bool:
        if name == ROOT:
            return True
        return await find(self._client, Tenant, Ref(ROOT, "", name)) is not None


class AddressSweeper:
    """Reconciles Addresses of all tenants that look orphaned; key: the Address's reference."""

    def __init__(self, client: Client, clock: Clock, grace: float) -> None:
        self._client = client
        self._clock = clock
        self._suspects = Suspects(grace)

    async def reconcile(self, ref: Ref) -> float | None:
        """Frees the address if neither its pod nor its Port exist and did not for the whole period of grace."""
        try:
            address = await self._client.get(Address, ref)
        except ApiError as error:
            if error.is_not_found:
                self._suspects.clear(ref)
                return None
            raise
        if await self._is_held(ref, address):
            self._suspects.clear(ref)
            return None
        meta = address.metadata
        wait = self._suspects.wait(ref, meta.resource_version, self._clock.monotonic())
        if wait > 0:
            return wait
        await self._client.delete(Address, ref, uid=meta.uid, resource_version=meta.resource_version)
        self._suspects.clear(ref)
        return None

    async def _is_held(self, ref: Ref, address: Address) -> bool:
        namespace, _, name = address.spec.port.partition("/")
        if address.spec.pod_uid:
            for pod in (await self._client.list(Pod, ref.tenant, namespace)).items:
                if pod.metadata.uid == address.spec.pod_uid and _may_use(pod, address.spec.node):
                    return True
        try:
            await self._client.get(Port, Ref(ref.tenant, namespace, name))
        except ApiError as error:
            if error.is_not_found:
                return False
            raise
        return True


def _may_use(pod: Pod, node: str) -> bool:
    """Whether a pod's node may be about to use an address that it claimed for the pod."""
    return pod.status.phase not in ENDED and pod.spec.node_name in ("", node)
