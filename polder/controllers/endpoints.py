"""Endpoints and EndpointSlices of Services, and slices for Endpoints that somebody wrote by hand.

Pods are looked up in the cache, whose next change brings the key back if it was behind; what is written is read from
the server before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

import msgspec

from polder.api.core import Service
from polder.api.discovery import Endpoint, EndpointSlice
from polder.api.endpoints import Endpoints, EndpointSubset
from polder.api.errors import ApiError
from polder.api.kinds import kind_of
from polder.api.meta import ObjectMeta, OwnerReference, ref_of
from polder.api.podfacts import ControlledPod
from polder.base.ref import Ref
from polder.client.client import Client
from polder.client.events import Recorder
from polder.controllers.endpoints_pure import (
    HEADLESS,
    MANAGED_BY,
    SERVICE_NAME,
    Backend,
    Ports,
    ZoneOf,
    grouped,
    is_headless,
    ordered,
    selects,
    slice_endpoint,
    slice_ports,
    subsets_of,
)
from polder.controllers.mirrors import MIRROR_LIMIT, annotations_of, is_mirrored, mirrored
from polder.controllers.own_writes import OwnWrites
from polder.controllers.reading import find
from polder.controllers.slices import Group, Slices, Wanted, merge

SLICES_BY = "endpointslice-controller.k8s.io"
MIRRORS_BY = "endpointslicemirroring-controller.k8s.io"
ENDPOINTS_MANAGED = "endpoints.kubernetes.io/managed-by"
ENDPOINTS_BY = "endpoint-controller"
OVER_CAPACITY = "endpoints.kubernetes.io/over-capacity"
RESERVED = frozenset({SERVICE_NAME, MANAGED_BY, HEADLESS, ENDPOINTS_MANAGED})
ENDPOINTS = kind_of(Endpoints)
SERVICES = kind_of(Service)
PodsOf = Callable[[Ref], Sequence[ControlledPod]]
"""The pods of a namespace (its reference has no name), as a cache knows them."""
AT_ONCE = 100
"""Pods that are looked at before others have their turn."""
Found = dict[Ports, list[Backend]]


class EndpointsController:
    """Reconciles a Service; key: its reference."""

    def __init__(self, client: Client, pods: PodsOf, zone_of: ZoneOf, events: Recorder) -> None:
        self._client = client
        self._pods = pods
        self._zone_of = zone_of
        self._events = events
        self.own = OwnWrites()
        self._slices = Slices(client, self.own)

    async def reconcile(self, ref: Ref) -> float | None:
        """One pass over what belongs to the Service. Raises ApiError."""
        service = await find(self._client, Service, ref)
        if service is None:
            await self._orphaned(ref)
            return None
        if service.metadata.deletion_timestamp is not None:
            return None
        listed = await self._client.list(EndpointSlice, ref.tenant, ref.namespace, labels=f"{SERVICE_NAME}={ref.name}")
        own = [s for s in listed.items if _is_by(s, SLICES_BY)]
        mirrors = [s for s in listed.items if _is_by(s, MIRRORS_BY)]
        if service.spec.selector:
            await self._from_pods(ref, service, own)
            await self._drop(mirrors)
        else:
            await self._from_hand(ref, mirrors)
            await self._drop(own)
        return None

    async def _from_pods(self, ref: Ref, service: Service, existing: list[EndpointSlice]) -> None:
        if service.spec.cluster_ip == "" and service.spec.ip_families is None:
            return  # of type ExternalName
        families = service.spec.ip_families or ["IPv4"]
        by_family = await self._look(ref, service, families)
        groups = []
        for family, found in by_family.items():
            groups += [Group(family, slice_ports(p), await self._told(service, bs)) for p, bs in found.items()]
            if not found:
                groups.append(Group(family, [], []))
        await self._slices.settle(self._wanted(ref, service), groups, existing)
        subsets, truncated = subsets_of(by_family[families[0]])
        await self._write_endpoints(ref, service, subsets, {OVER_CAPACITY: "truncated"} if truncated else {})

    async def _look(self, ref: Ref, service: Service, families: list[str]) -> dict[str, Found]:
        """The endpoints by family and ports, in the order of addresses; a large namespace is gone through with pauses."""
        by_family: dict[str, Found] = {family: {} for family in families}
        pods, selector = self._pods(Ref(ref.tenant, ref.namespace, "")), service.spec.selector or {}
        for start in range(0, len(pods), AT_ONCE):
            chosen = [pod for pod in pods[start : start + AT_ONCE] if selects(selector, pod.metadata.labels)]
            for family, all_ in by_family.items():
                for ports, backends in grouped(service, chosen, family, self._zone_of).items():
                    all_.setdefault(ports, []).extend(backends)
            await asyncio.sleep(0)
        return {family: ordered(found) for family, found in by_family.items()}

    async def _told(self, service: Service, backends: list[Backend]) -> list[Endpoint]:
        """Endpoints as slices say them."""
        found: list[Endpoint] = []
        for start in range(0, len(backends), AT_ONCE):
            close = service.spec.traffic_distribution
            found += [slice_endpoint(backend, close) for backend in backends[start : start + AT_ONCE]]
            await asyncio.sleep(0)
        return found

    def _wanted(self, ref: Ref, service: Service) -> Wanted:
        labels = {k: v for k, v in (service.metadata.labels or {}).items() if k not in RESERVED}
        labels |= {SERVICE_NAME: ref.name, MANAGED_BY: SLICES_BY}
        if is_headless(service):
            labels[HEADLESS] = ""
        owner = _owner(SERVICES.api_version, SERVICES.kind, ref.name, service.metadata.uid)
        return Wanted(ref.tenant, ref.namespace, ref.name, owner, labels)

    async def _write_endpoints(
        self, ref: Ref, service: Service, subsets: list[EndpointSubset], said: dict[str, str]
    ) -> None:
        labels = {k: v for k, v in (service.metadata.labels or {}).items() if k not in RESERVED}
        labels[ENDPOINTS_MANAGED] = ENDPOINTS_BY
        if is_headless(service):
            labels[HEADLESS] = ""
        known = await find(self._client, Endpoints, ref)
        if known is None:
            meta = ObjectMeta(name=ref.name, namespace=ref.namespace, labels=labels, annotations=said or None)
            made = Endpoints(api_version="v1", kind="Endpoints", metadata=meta, subsets=subsets)
            try:
                self.own.note(await self._client.create(ref.tenant, made))
            except ApiError as error:
                if not error.is_already_exists:
                    raise
            return
        have = known.metadata
        capacity = {k: v for k, v in (have.annotations or {}).items() if k == OVER_CAPACITY}
        if (known.subsets or []) == subsets and have.labels == labels and capacity == said:
            return
        patch = {
            "metadata": {
                "uid": have.uid,
                "resourceVersion": have.resource_version,
                "labels": merge(have.labels, labels),
                "annotations": merge(capacity, said),
            },
            "subsets": msgspec.to_builtins(subsets),
        }
        self.own.note(await self._client.patch(Endpoints, ref, patch))

    async def _from_hand(self, ref: Ref, existing: list[EndpointSlice]) -> None:
        """Slices that say what hand-made Endpoints of a Service without a selector say."""
        source = await find(self._client, Endpoints, ref)
        if source is None or not is_mirrored(source):
            await self._drop(existing)
            return
        labels = {**(source.metadata.labels or {}), SERVICE_NAME: ref.name, MANAGED_BY: MIRRORS_BY}
        owner = _owner(ENDPOINTS.api_version, ENDPOINTS.kind, ref.name, source.metadata.uid)
        wanted = Wanted(ref.tenant, ref.namespace, ref.name, owner, labels, annotations_of(source), MIRROR_LIMIT)
        found, skipped = mirrored(source)
        if skipped:
            said = (
                f"A max of {MIRROR_LIMIT} addresses can be mirrored to EndpointSlices per Endpoints subset. "
                f"{skipped} addresses were skipped"
            )
            self._events.event(source, "Warning", "TooManyAddressesToMirror", said)
        await self._slices.settle(wanted, [Group(m.family, m.ports, m.endpoints) for m in found], existing)

    async def _orphaned(self, ref: Ref) -> None:
        """The Service is gone: its Endpoints go, if a controller wrote them; slices are the garbage collector's."""
        known = await find(self._client, Endpoints, ref)
        if known is None or ENDPOINTS_MANAGED not in (known.metadata.labels or {}):
            return
        try:
            await self._client.delete(Endpoints, ref, uid=known.metadata.uid)
        except ApiError as error:
            if not error.is_not_found:
                raise

    async def _drop(self, slices: Iterable[EndpointSlice]) -> None:
        for found in slices:
            try:
                await self._client.delete(EndpointSlice, ref_of(found), uid=found.metadata.uid)
            except ApiError as error:
                if not error.is_not_found:
                    raise


def _is_by(found: EndpointSlice, manager: str) -> bool:
    return (found.metadata.labels or {}).get(MANAGED_BY) == manager


def _owner(api_version: str, kind: str, name: str, uid: str) -> OwnerReference:
    return OwnerReference(
        api_version=api_version, kind=kind, name=name, uid=uid, controller=True, block_owner_deletion=True
    )
