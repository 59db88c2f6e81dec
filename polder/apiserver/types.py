"""What a request is: who asks, and what for. Shared by routing, identity and the handlers."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from polder.base.ids import ROOT, TenantName


class Role(Enum):
    """What a credential is; rights follow from it in authz.py."""

    PLATFORM_ADMIN = "platform-admin"
    TENANT_ADMIN = "tenant-admin"
    COMPONENT = "component"
    NODE = "node"
    SERVICE_ACCOUNT = "service-account"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks. ``home`` is the tenant of the credential; ``node`` is set for a node's credential."""

    name: str
    role: Role
    home: TenantName = ROOT
    groups: tuple[str, ...] = ()
    uid: str = ""
    node: str = ""
    extra: dict[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Connection:
    """Where a request came in: the verified client certificate (DER) if one was shown, the tenant that the connection is
    pinned to if it entered through that tenant's ``kubernetes`` service, and the peer's address.
    """

    certificate: bytes | None = None
    pin: TenantName | None = None
    peer: str = ""


@dataclass(frozen=True, slots=True)
class RequestInfo:
    """What a request asks. ``tenant`` may be ``*``. ``verb`` is Kubernetes' (get, list, watch, create, update, patch, delete,
    deletecollection); for a path that is no resource, ``path`` alone is set and the verb is the lower-case method.
    """

    tenant: TenantName
    verb: str
    path: str
    group: str = ""
    version: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""

    @property
    def is_resource(self) -> bool:
        """Whether it names a resource of the API."""
        return bool(self.resource)
