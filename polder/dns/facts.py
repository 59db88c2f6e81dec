"""What names are made of, as the agent tells it to the process: small, without API objects, addresses as bytes (4 or 16)."""

from __future__ import annotations

import msgspec

PortFact = tuple[str, str, int]
"""Name, protocol in lower case, number."""
EndpointFact = tuple[bytes, str]
"""Address, and its hostname if it has one."""


class Fact(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """About one object of a tenant. ``key`` tells facts of one class and tenant apart."""

    tenant: str
    key: str


class Namespace(Fact, frozen=True):
    """A namespace, whose name is the key."""


class Service(Fact, frozen=True):
    """A service, ``namespace/name``. Without addresses it is headless, or another name for ``external``."""

    addresses: tuple[bytes, ...] = ()
    ports: tuple[PortFact, ...] = ()
    external: str = ""


class Slice(Fact, frozen=True):
    """The ready endpoints of an EndpointSlice, ``namespace/name``. ``service`` is a name in the same namespace."""

    service: str = ""
    endpoints: tuple[EndpointFact, ...] = ()
    ports: tuple[PortFact, ...] = ()


class Pod(Fact, frozen=True):
    """The addresses of a Port, ``namespace/name``."""

    addresses: tuple[bytes, ...] = ()


class Gone(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """The fact of that class, tenant and key holds no more."""

    tenant: str
    key: str
    what: str


class Listen(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Two sockets come with this, UDP and TCP: what reaches them is asked by ``tenant``, or where that is empty, by the tenant
    that ``Sources`` gives. They replace those of the same space.
    """

    space: str
    tenant: str
    address: bytes


class Leave(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Close a space's sockets."""

    space: str


class Sources(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Whose questions come from which address, for sockets that several tenants share."""

    tenants: dict[bytes, str]


class Begin(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """All that holds follows, up to ``End``. What upstream servers to ask."""

    upstreams: tuple[str, ...] = ()


class End(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """What was not told since ``Begin`` holds no more."""


AnyFact = Namespace | Service | Slice | Pod
Message = AnyFact | Gone | Listen | Leave | Sources | Begin | End
encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Message).decode
"""Raises msgspec.DecodeError."""
