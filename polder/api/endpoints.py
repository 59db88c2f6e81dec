"""Endpoints (v1): the older form of what EndpointSlices say, which clients still read and write."""

from __future__ import annotations

from polder.api.core import ObjectReference
from polder.api.meta import Object, Struct


class EndpointAddress(Struct, frozen=True, kw_only=True):
    """One address behind a Service."""

    ip: str
    hostname: str = ""
    node_name: str | None = None
    target_ref: ObjectReference | None = None


class EndpointsPort(Struct, frozen=True, kw_only=True):
    """A port of all addresses of a subset."""

    port: int
    name: str = ""
    protocol: str = "TCP"
    app_protocol: str | None = None


class EndpointSubset(Struct, frozen=True, kw_only=True):
    """Addresses that have the same ports."""

    addresses: list[EndpointAddress] | None = None
    not_ready_addresses: list[EndpointAddress] | None = None
    ports: list[EndpointsPort] | None = None


class Endpoints(Object, frozen=True, kw_only=True):
    """What is behind the Service of the same name."""

    subsets: list[EndpointSubset] | None = None
