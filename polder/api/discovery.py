"""The discovery.k8s.io/v1 and coordination.k8s.io/v1 kinds that Polder's components read and write."""

from __future__ import annotations

from polder.api.core import ObjectReference
from polder.api.meta import Object, Struct


class HintedFor(Struct, frozen=True, kw_only=True):
    """A zone, or a node, whose clients should come to an endpoint."""

    name: str


class EndpointHints(Struct, frozen=True, kw_only=True):
    """Whose clients should come to an endpoint."""

    for_zones: list[HintedFor] | None = None
    for_nodes: list[HintedFor] | None = None


class Endpoint(Struct, frozen=True, kw_only=True):
    """One backend."""

    addresses: list[str]
    conditions: dict[str, bool] | None = None
    hostname: str | None = None
    node_name: str | None = None
    target_ref: ObjectReference | None = None
    zone: str | None = None
    hints: EndpointHints | None = None


class EndpointPort(Struct, frozen=True, kw_only=True):
    """One port of the backends."""

    port: int | None = None
    name: str | None = None
    protocol: str | None = None
    app_protocol: str | None = None


class EndpointSlice(Object, frozen=True, kw_only=True):
    """discovery.k8s.io/v1 EndpointSlice."""

    address_type: str = ""
    endpoints: list[Endpoint] | None = None
    ports: list[EndpointPort] | None = None


class LeaseSpec(Struct, frozen=True, kw_only=True):
    """coordination.k8s.io/v1 LeaseSpec."""

    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    acquire_time: str | None = None
    renew_time: str | None = None
    lease_transitions: int | None = None


class Lease(Object, frozen=True, kw_only=True):
    """coordination.k8s.io/v1 Lease."""

    spec: LeaseSpec = LeaseSpec()
