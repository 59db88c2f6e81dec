"""Making the EndpointSlices of one owner what they should be, with as few writes as it takes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from polder.api.discovery import Endpoint, EndpointPort, EndpointSlice
from polder.api.errors import ApiError
from polder.api.kinds import kind_of
from polder.api.meta import ObjectMeta, OwnerReference, ref_of
from polder.base.ids import TenantName
from polder.client.client import Client
from polder.controllers.endpoints_pure import SLICE_LIMIT

SLICES = kind_of(EndpointSlice)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What all slices of an owner have in common."""

    tenant: TenantName
    namespace: str
    name: str
    owner: OwnerReference
    labels: dict[str, str]


@dataclass(frozen=True, slots=True)
class Group:
    """Endpoints that have one address type and the same ports."""

    family: str
    ports: list[EndpointPort]
    endpoints: list[Endpoint]

    @property
    def key(self) -> bytes:
        """What two slices must have in common to hold the same group."""
        return msgspec.json.encode([self.family, self.ports])


def _key(found: EndpointSlice) -> bytes:
    return Group(found.address_type, found.ports or [], []).key


def spread(group: Group, existing: Sequence[EndpointSlice]) -> list[tuple[EndpointSlice | None, list[Endpoint]]]:
    """Which endpoints each slice has: those that stand stay where they are, the rest fill up; None is a new slice."""
    left = {tuple(e.addresses): e for e in group.endpoints}
    plan: list[tuple[EndpointSlice | None, list[Endpoint]]] = []
    if not left:  # one slice says that there is nothing
        return [(found, []) for found in existing[:1]]
    for found in existing:
        kept = [left.pop(tuple(e.addresses)) for e in found.endpoints or () if tuple(e.addresses) in left]
        plan.append((found, kept))
    rest = list(left.values())
    for _, kept in plan:
        room = SLICE_LIMIT - len(kept) if kept else 0
        kept.extend(rest[:room])
        rest = rest[room:]
    empty = iter([kept for found, kept in plan if found is not None and not kept])
    while rest:
        target = next(empty, None)
        if target is None:
            plan.append((None, rest[:SLICE_LIMIT]))
        else:
            target += rest[:SLICE_LIMIT]
        rest = rest[SLICE_LIMIT:]
    return plan


class Slices:
    """Writes slices."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def settle(self, wanted: Wanted, groups: Iterable[Group], existing: Sequence[EndpointSlice]) -> None:
        """Creates, changes and deletes. Raises ApiError, a conflict if somebody changed a slice meanwhile."""
        by_key: dict[bytes, list[EndpointSlice]] = {}
        for known in sorted(existing, key=lambda s: s.metadata.name):
            by_key.setdefault(_key(known), []).append(known)
        unused: list[EndpointSlice] = []
        new: list[tuple[Group, list[Endpoint]]] = []
        for group in groups:
            held = by_key.pop(group.key, [])
            plan = spread(group, held)
            keeps = [(found, e) for found, e in plan if found is not None and (e or not group.endpoints)]
            for found, endpoints in keeps:
                await self._change(wanted, group, found, endpoints)
            kept = {found.metadata.uid for found, _ in keeps}
            unused += [found for found in held if found.metadata.uid not in kept]
            new += [(group, endpoints) for found, endpoints in plan if found is None]
            if not plan:
                new.append((group, []))
        unused += [known for held in by_key.values() for known in held]
        for group, endpoints in new:
            reused = next((s for s in unused if s.address_type == group.family), None)
            if reused is None:
                await self._create(wanted, group, endpoints)
            else:
                unused.remove(reused)
                await self._change(wanted, group, reused, endpoints)
        for known in unused:
            await self._delete(known)

    async def _create(self, wanted: Wanted, group: Group, endpoints: list[Endpoint]) -> None:
        meta = ObjectMeta(
            generate_name=f"{wanted.name}-", namespace=wanted.namespace, labels=wanted.labels,
            owner_references=[wanted.owner],
        )  # fmt: skip
        made = EndpointSlice(
            api_version=SLICES.api_version, kind=SLICES.kind, metadata=meta, address_type=group.family,
            endpoints=endpoints, ports=group.ports,
        )  # fmt: skip
        await self._client.create(wanted.tenant, made)

    async def _change(self, wanted: Wanted, group: Group, found: EndpointSlice, endpoints: list[Endpoint]) -> None:
        meta = found.metadata
        same = (found.endpoints or []) == endpoints and (found.ports or []) == group.ports
        if same and meta.labels == wanted.labels and [o.uid for o in meta.owner_references or ()] == [wanted.owner.uid]:
            return
        labels = {**{name: None for name in meta.labels or () if name not in wanted.labels}, **wanted.labels}
        patch = {
            "metadata": {
                "uid": meta.uid,
                "resourceVersion": meta.resource_version,
                "labels": labels,
                "ownerReferences": [msgspec.to_builtins(wanted.owner)],
            },
            "endpoints": msgspec.to_builtins(endpoints),
            "ports": msgspec.to_builtins(group.ports),
        }
        await self._client.patch(EndpointSlice, ref_of(found), patch)

    async def _delete(self, found: EndpointSlice) -> None:
        try:
            await self._client.delete(EndpointSlice, ref_of(found), uid=found.metadata.uid)
        except ApiError as error:
            if not error.is_not_found:
                raise
