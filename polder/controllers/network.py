"""Networks: each claims a VXLAN identifier for its life, and cannot go while something is attached to it.

The claim is the creation of a Segment in root. Order: finalizer, claim, status; back: ports gone, addresses gone, claim
given up, finalizer. A claim that a crash left without its network is found by ``SegmentController``.
"""

from __future__ import annotations

import msgspec

from polder.api.errors import ApiError
from polder.api.kinds import kind_of
from polder.api.meta import Condition, ObjectMeta, ref_of
from polder.api.polder import NETWORK_FINALIZER, Address, Network, NetworkStatus, Port, Segment, SegmentSpec
from polder.base.clock import stamp
from polder.base.errors import RetryableError
from polder.base.ids import ROOT, TenantName
from polder.base.ref import Ref
from polder.client.client import Client
from polder.controllers.conditions import a_few, merged
from polder.controllers.resources import Resource, patch_metadata
from polder.controllers.settings import ControllerSettings
from polder.controllers.vni import candidates, gateways_of, segment_name

NETWORKS = Resource.of(kind_of(Network))
SEGMENTS = kind_of(Segment)
READY = "Ready"


class NetworkController:
    """Reconciles Networks of all tenants; key: the Network's reference."""

    def __init__(self, client: Client, settings: ControllerSettings) -> None:
        self._client = client
        self._settings = settings

    async def reconcile(self, ref: Ref) -> float | None:
        """One pass. The seconds until the next look, None when all is as it should be."""
        try:
            network = await self._client.get(Network, ref)
        except ApiError as error:
            if error.is_not_found:
                return None
            raise
        finalizers = network.metadata.finalizers or []
        if network.metadata.deletion_timestamp is not None:
            return await self._release(ref, network) if NETWORK_FINALIZER in finalizers else None
        if NETWORK_FINALIZER not in finalizers:
            await patch_metadata(self._client, NETWORKS, ref, network, {"finalizers": [*finalizers, NETWORK_FINALIZER]})
            network = await self._client.get(Network, ref)
        try:
            gateways = gateways_of(network.spec)
        except ValueError as error:
            await self._say(network, network.status.vni, [], _condition("False", "InvalidCIDR", f"spec.cidr: {error}"))
            return None
        vni = await self._claim(ref, network)
        await self._say(network, vni, gateways, _condition("True", "SegmentClaimed", "the network can be used"))
        return None

    async def _claim(self, ref: Ref, network: Network) -> int:
        """The network's identifier, claimed if it is not yet. Raises RetryableError if too many were taken."""
        uid = network.metadata.uid
        if network.status.vni and await self._holder(network.status.vni) == uid:
            return network.status.vni
        for vni in candidates(uid):
            segment = Segment(
                api_version=SEGMENTS.api_version,
                kind=SEGMENTS.kind,
                metadata=ObjectMeta(name=segment_name(vni)),
                spec=SegmentSpec(vni=vni, tenant=ref.tenant, network=f"{ref.namespace}/{ref.name}", network_uid=uid),
            )
            try:
                await self._client.create(ROOT, segment)
                return vni
            except ApiError as error:
                if not error.is_already_exists:
                    raise
            if await self._holder(vni) == uid:
                return vni
        raise RetryableError(f"network {ref}: no free VXLAN identifier found", after=1.0)

    async def _holder(self, vni: int) -> str:
        """The UID of the network that holds the identifier; empty if nobody does."""
        try:
            segment = await self._client.get(Segment, Ref(ROOT, "", segment_name(vni)))
        except ApiError as error:
            if error.is_not_found:
                return ""
            raise
        return segment.spec.network_uid

    async def _release(self, ref: Ref, network: Network) -> float | None:
        """Lets the network go when nothing is attached and no address is held; read from the server, not from a cache."""
        name = f"{ref.namespace}/{ref.name}"
        ports = [p for p in (await self._client.list(Port, ref.tenant)).items if p.spec.network == name]
        held = [a for a in (await self._client.list(Address, ref.tenant)).items if a.spec.network == name]
        if ports or held:
            reason, what = ("PortsRemain", "ports") if ports else ("AddressesRemain", "addresses")
            names = a_few(f"{o.metadata.namespace}/{o.metadata.name}" for o in (ports or held))
            said = _condition("False", reason, f"the network is being deleted and waits for its {what}: {names}")
            await self._say(network, network.status.vni, network.status.gateways or [], said)
            return self._settings.recheck
        await self._give_up(network)
        kept = [f for f in network.metadata.finalizers or [] if f != NETWORK_FINALIZER]
        await patch_metadata(self._client, NETWORKS, ref, network, {"finalizers": kept or None})
        return None

    async def _give_up(self, network: Network) -> None:
        """Deletes the network's claim: the one that it settled on, or one that was not written down yet. What else a change
        of the order of candidates may have left is the SegmentController's.
        """
        vnis = [network.status.vni] if network.status.vni else candidates(network.metadata.uid)
        for vni in vnis:
            try:
                segment = await self._client.get(Segment, Ref(ROOT, "", segment_name(vni)))
            except ApiError as error:
                if error.is_not_found:
                    return
                raise
            if segment.spec.network_uid == network.metadata.uid:
                await self._client.delete(Segment, ref_of(segment), uid=segment.metadata.uid)
                return

    async def _say(self, network: Network, vni: int, gateways: list[str], condition: Condition) -> None:
        said = merged(network.status.conditions, [condition], stamp(self._settings.clock.now()))
        first = gateways[0] if gateways else ""
        conditions = said or network.status.conditions
        status = NetworkStatus(vni=vni, gateway=first, gateways=gateways or None, conditions=conditions)
        if status != network.status:
            patch = {"metadata": {"uid": network.metadata.uid}, "status": _whole(status)}
            await self._client.patch(Network, ref_of(network), patch, subresource="status")


def is_settled(network: Network, holder: str) -> bool:
    """Whether a network needs no look: ``holder`` is the UID of the network that its identifier is claimed for."""
    meta, status = network.metadata, network.status
    if meta.deletion_timestamp is not None or NETWORK_FINALIZER not in (meta.finalizers or ()):
        return False
    if not status.vni or holder != meta.uid:
        return False
    try:
        gateways = gateways_of(network.spec)
    except ValueError:
        return False
    return (status.gateways or []) == gateways and any(
        c.type == READY and c.status == "True" for c in status.conditions or []
    )


class SegmentController:
    """Gives up claims that no network stands behind; key: the Segment's reference."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def reconcile(self, ref: Ref) -> float | None:
        """Deletes the Segment if its network is gone, is another of the name, or settled on another identifier."""
        try:
            segment = await self._client.get(Segment, ref)
        except ApiError as error:
            if error.is_not_found:
                return None
            raise
        if not await self._is_held(segment):
            meta = segment.metadata
            await self._client.delete(Segment, ref, uid=meta.uid, resource_version=meta.resource_version)
        return None

    async def _is_held(self, segment: Segment) -> bool:
        namespace, _, name = segment.spec.network.partition("/")
        try:
            network = await self._client.get(Network, Ref(TenantName(segment.spec.tenant), namespace, name))
        except ApiError as error:
            if error.is_not_found:
                return False
            raise
        if network.metadata.uid != segment.spec.network_uid:
            return False
        # A network exists before it claims, and writes what it settled on: until then every claim of its own stands.
        return network.status.vni in (0, segment.spec.vni)


def _condition(status: str, reason: str, message: str) -> Condition:
    return Condition(type=READY, status=status, reason=reason, message=message)


def _whole(status: NetworkStatus) -> dict[str, object]:
    """A merge patch of the status in which nothing that is empty keeps its old value."""
    conditions = msgspec.to_builtins(status.conditions)
    return {"vni": status.vni, "gateway": status.gateway, "gateways": status.gateways, "conditions": conditions}
