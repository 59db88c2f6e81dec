"""Making the EndpointSlices of one owner what they should be, with as few writes as it takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from polder.api.discovery import Endpoint, EndpointPort, EndpointSlice
from polder.api.errors import ApiError
from polder.api.kinds import kind_of
from polder.api.meta import TENANT_ANNOTATION, ObjectMeta, OwnerReference, ref_of
from polder.base.ids import TenantName
from polder.client.client import Client
from polder.controllers.endpoints_pure import SLICE_LIMIT
from polder.controllers.own_writes import OwnWrites

SLICES = kind_of(EndpointSlice)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What all slices of an owner have in common; ``annotations`` None leaves those that slices have."""

    tenant: TenantName
    namespace: str
    name: str
    owner: OwnerReference
    labels: dict[str, str]
    annotations: dict[str, str] | None = None
    limit: int = SLICE_LIMIT
    """Endpoints of one slice."""


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


Place = tuple[tuple[str, ...], str, str]
"""What makes two endpoints one: addresses, hostname, and what is behind them."""


def _place(endpoint: Endpoint) -> Place:
    return (
        tuple(endpoint.addresses),
        endpoint.hostname or "",
        endpoint.target_ref.uid if endpoint.target_ref is not None else "",
    )


@dataclass(slots=True)
class Share:
    """The endpoints of one slice; ``slice`` is None for a new one. ``changes``: whether it is to be written anyway."""

    slice: EndpointSlice | None
    endpoints: list[Endpoint]
    changes: bool = True


def spread(group: Group, existing: Sequence[EndpointSlice], limit: int = SLICE_LIMIT) -> list[Share]:
    """Which endpoints each slice has. Those that stand stay where they are; others go where something changes anyway, then
    into one slice that has room for all of them, else into new ones: one change is a write of one slice.
    """
    left = {_place(e): e for e in group.endpoints}
    if not left:  # one slice says that there is nothing
        return [Share(found, []) for found in existing[:1]]
    shares = []
    for found in existing:
        had = found.endpoints or []
        kept = [left.pop(place) for place in map(_place, had) if place in left]
        shares.append(Share(found, kept, kept != had))
    rest = list(left.values())
    for share in shares:
        if share.changes and share.endpoints:
            rest = _fill(share, rest, limit)
    fitting = [s for s in shares if s.endpoints and len(s.endpoints) + len(rest) <= limit]
    if rest and fitting:
        rest = _fill(max(fitting, key=lambda s: len(s.endpoints)), rest, limit)
    empty = iter([share for share in shares if not share.endpoints])
    while rest:
        target = next(empty, None)
        if target is None:
            shares.append(target := Share(None, []))
        rest = _fill(target, rest, limit)
    return shares


def _fill(share: Share, rest: list[Endpoint], limit: int) -> list[Endpoint]:
    """Puts in what fits; what does not is returned."""
    room = limit - len(share.endpoints)
    share.endpoints.extend(rest[:room])
    return rest[room:]


def merge(have: Mapping[str, str] | None, wanted: Mapping[str, str]) -> dict[str, str | None]:
    """The merge patch that makes one map of the other."""
    return {**{name: None for name in have or () if name not in wanted}, **wanted}


class Slices:
    """Writes slices."""

    def __init__(self, client: Client, own: OwnWrites) -> None:
        self._client = client
        self._own = own

    async def settle(self, wanted: Wanted, groups: Iterable[Group], existing: Sequence[EndpointSlice]) -> None:
        """Creates, changes and deletes. Raises ApiError, a conflict if somebody changed a slice meanwhile."""
        by_key: dict[bytes, list[EndpointSlice]] = {}
        for known in sorted(existing, key=lambda s: s.metadata.name):
            by_key.setdefault(_key(known), []).append(known)
        unused: list[EndpointSlice] = []
        new: list[tuple[Group, list[Endpoint]]] = []
        for group in groups:
            held = by_key.pop(group.key, [])
            plan = spread(group, held, wanted.limit)
            kept = set()
            for share in plan:
                if share.slice is None:
                    new.append((group, share.endpoints))
                elif share.endpoints or not group.endpoints:
                    kept.add(share.slice.metadata.uid)
                    await self._change(wanted, group, share.slice, share.endpoints)
            unused += [found for found in held if found.metadata.uid not in kept]
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
            owner_references=[wanted.owner], annotations=wanted.annotations or None,
        )  # fmt: skip
        made = EndpointSlice(
            api_version=SLICES.api_version, kind=SLICES.kind, metadata=meta, address_type=group.family,
            endpoints=endpoints, ports=group.ports,
        )  # fmt: skip
        self._own.note(await self._client.create(wanted.tenant, made))

    async def _change(self, wanted: Wanted, group: Group, found: EndpointSlice, endpoints: list[Endpoint]) -> None:
        meta = found.metadata
        same = (found.endpoints or []) == endpoints and (found.ports or []) == group.ports
        annotations = {k: v for k, v in (meta.annotations or {}).items() if k != TENANT_ANNOTATION}
        told = annotations if wanted.annotations is None else wanted.annotations
        owned = [o.uid for o in meta.owner_references or ()] == [wanted.owner.uid]
        if same and owned and meta.labels == wanted.labels and annotations == told:
            return
        patch = {
            "metadata": {
                "uid": meta.uid,
                "resourceVersion": meta.resource_version,
                "labels": merge(meta.labels, wanted.labels),
                "annotations": merge(annotations, told),
                "ownerReferences": [msgspec.to_builtins(wanted.owner)],
            },
            "endpoints": msgspec.to_builtins(endpoints),
            "ports": msgspec.to_builtins(group.ports),
        }
        self._own.note(await self._client.patch(EndpointSlice, ref_of(found), patch))

    async def _delete(self, found: EndpointSlice) -> None:
        try:
            await self._client.delete(EndpointSlice, ref_of(found), uid=found.metadata.uid)
        except ApiError as error:
            if not error.is_not_found:
                raise
