"""What a request is: who asks, and what for. Shared by routing, identity and the handlers."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from polder.api.meta import Raw
from polder.base.ids import ROOT, TenantName


class Role(Enum):
    """What a credential is; fixed rights follow from it in authz.py. ``USER`` and ``SERVICE_ACCOUNT`` have none."""

    PLATFORM_ADMIN = "platform-admin"
    TENANT_ADMIN = "tenant-admin"
    COMPONENT = "component"
    NODE = "node"
    SERVICE_ACCOUNT = "service-account"
    USER = "user"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks: always (tenant, user). ``home`` is the tenant of the credential; ``node`` is set for a node's credential.

    A user whose home is ``root`` is the platform's: what it is in another tenant, that tenant's members say. A user of
    another home is nothing outside it, whatever its name and groups. ``impersonator`` is who asked in this one's name;
    rights are this one's alone, the audit names both.
    """

    name: str
    role: Role
    home: TenantName = ROOT
    groups: tuple[str, ...] = ()
    uid: str = ""
    node: str = ""
    extra: dict[str, tuple[str, ...]] = field(default_factory=dict)
    impersonator: Identity | None = None


def user_info(who: Identity) -> Raw:
    """An identity as authentication.k8s.io/v1 UserInfo."""
    found: Raw = {"username": who.name}
    if who.uid:
        found["uid"] = who.uid
    if who.groups:
        found["groups"] = list(who.groups)
    if who.extra:
        found["extra"] = {key: list(values) for key, values in who.extra.items()}
    return found


@dataclass(frozen=True, slots=True)
class Connection:
    """Where a request came in: the verified client certificate (DER) if one was shown, the tenant that the connection is
    pinned to if it entered through that tenant's ``kubernetes`` service, and the peer's address.
    """

    certificate: bytes | None = None
    pin: TenantName | None = None
    peer: str = ""


@dataclass(frozen=True, slots=True)
class Requirement:
    """One clause of a selector as authorizers see it; ``operator`` is In, NotIn, Exists or DoesNotExist."""

    key: str
    operator: str
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    """What an authorizer says: allowed, expressly denied (nobody later is asked), or neither (no opinion).

    ``reason`` is for the caller's eyes and the audit, in upstream's words where upstream has some.
    """

    allowed: bool
    denied: bool = False
    reason: str = ""


@dataclass(frozen=True, slots=True)
class RequestInfo:
    """What a request asks. ``tenant`` may be ``*``. ``verb`` is Kubernetes' (get, list, watch, create, update, patch, delete,
    deletecollection); for a path that is no resource, ``path`` alone is set and the verb is the lower-case method.
    ``fields`` and ``labels`` are the selectors of a list, watch or deletecollection, as far as authorizers may rely on them.
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
    fields: tuple[Requirement, ...] = ()
    labels: tuple[Requirement, ...] = ()

    @property
    def is_resource(self) -> bool:
        """Whether it names a resource of the API."""
        return bool(self.resource)
