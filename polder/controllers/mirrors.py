"""From hand-made Endpoints to EndpointSlices: pure. Follows upstream's endpointslice-mirroring controller."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from polder.api.discovery import Endpoint, EndpointPort
from polder.api.endpoints import EndpointAddress, Endpoints, EndpointsPort, EndpointSubset
from polder.api.meta import TENANT_ANNOTATION

MIRROR_LIMIT = 1000
"""Addresses of one subset that are mirrored, and endpoints of one mirrored slice."""
SKIP_MIRROR = "endpointslice.kubernetes.io/skip-mirror"
LEADER = "control-plane.alpha.kubernetes.io/leader"
LAST_CHANGE = "endpoints.kubernetes.io/last-change-trigger-time"
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_NOT_COPIED = frozenset({LAST_CHANGE, LAST_APPLIED, TENANT_ANNOTATION})

_Place = tuple[str, str]
"""An address and the UID of what is behind it."""
_Number = tuple[str, str, int, str | None]
"""Name, protocol, number, application protocol of a port."""


@dataclass(frozen=True, slots=True)
class Mirror:
    """The endpoints of one address family that have the same ports."""

    family: str
    ports: list[EndpointPort]
    endpoints: list[Endpoint]


def is_mirrored(source: Endpoints) -> bool:
    """Whether slices are to say the same: not where a label forbids it, and not for what only elects a leader."""
    labels, annotations = source.metadata.labels or {}, source.metadata.annotations or {}
    return labels.get(SKIP_MIRROR) != "true" and LEADER not in annotations


def annotations_of(source: Endpoints) -> dict[str, str]:
    """The annotations that slices take over."""
    return {k: v for k, v in (source.metadata.annotations or {}).items() if k not in _NOT_COPIED}


def repacked(subsets: Iterable[EndpointSubset]) -> list[EndpointSubset]:
    """The canonical form: ports that have the same addresses in one subset, each address once; not ready wins."""
    known: dict[_Place, EndpointAddress] = {}
    by_port: dict[_Number | None, dict[_Place, bool]] = {}
    for subset in subsets:
        told = [(a, True) for a in subset.addresses or ()] + [(a, False) for a in subset.not_ready_addresses or ()]
        numbers: Sequence[_Number | None] = [_number(p) for p in subset.ports or ()] or [None]
        for address, ready in told:
            place = (address.ip, address.target_ref.uid if address.target_ref is not None else "")
            known.setdefault(place, address)
            for number in numbers:
                states = by_port.setdefault(number, {})
                states[place] = ready and states.get(place, True)
    packed: dict[tuple[tuple[_Place, bool], ...], list[_Number]] = {}
    for number, states in by_port.items():
        packed.setdefault(tuple(sorted(states.items())), []).extend([number] if number is not None else [])
    return [
        EndpointSubset(
            addresses=[known[place] for place, ready in states if ready] or None,
            not_ready_addresses=[known[place] for place, ready in states if not ready] or None,
            ports=[
                EndpointsPort(name=n, protocol=p, port=at, app_protocol=app)
                for n, p, at, app in sorted(found, key=repr)
            ]
            or None,
        )
        for states, found in sorted(packed.items())
    ]


def _number(port: EndpointsPort) -> _Number:
    return port.name, port.protocol, port.port, port.app_protocol


def mirrored(source: Endpoints) -> tuple[list[Mirror], int]:
    """What slices say of hand-made Endpoints, and how many addresses they leave out for being too many in a subset."""
    found: list[Mirror] = []
    skipped = 0
    for subset in repacked(source.subsets or ()):
        told = [(a, True) for a in subset.addresses or ()] + [(a, False) for a in subset.not_ready_addresses or ()]
        skipped += max(len(told) - MIRROR_LIMIT, 0)
        ports = [
            EndpointPort(name=p.name, protocol=p.protocol, port=p.port, app_protocol=p.app_protocol)
            for p in subset.ports or ()
        ]
        for family in ("IPv4", "IPv6"):
            endpoints = [
                _endpoint(address, ready)
                for address, ready in told[:MIRROR_LIMIT]
                if (":" in address.ip) == (family == "IPv6")
            ]
            if endpoints:
                found.append(Mirror(family, ports, endpoints))
    return found, skipped


def _endpoint(address: EndpointAddress, ready: bool) -> Endpoint:
    return Endpoint(
        addresses=[address.ip],
        conditions={"ready": ready},
        hostname=address.hostname or None,
        node_name=address.node_name,
        target_ref=address.target_ref,
    )
