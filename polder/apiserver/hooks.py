"""What the HTTP core asks of the parts that are given to it: who asks, whether they may, which tenant they mean."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from aiohttp import web

from polder.api.kinds import Kind
from polder.api.meta import Raw
from polder.apiserver.admission import Hook
from polder.apiserver.audit import Auditor
from polder.apiserver.types import Connection, Decision, Identity, RequestInfo
from polder.base.ids import TenantName
from polder.store.protocol import Key, Op

if TYPE_CHECKING:
    from polder.apiserver.aggregation import Aggregation
    from polder.apiserver.outcalls import Outcalls
    from polder.apiserver.resource_metrics import Reports


class Authenticator(Protocol):
    """Who asks."""

    async def authenticate(self, conn: Connection, headers: Mapping[str, str], path: str) -> Identity:
        """``path`` is without the tenant's prefix. Raises ApiError 401."""
        ...


class Impersonation(Protocol):
    """In whose name a request is served."""

    async def apply(self, who: Identity, what: RequestInfo, headers: Mapping[str, str]) -> Identity:
        """The caller, or whom its headers name if it may ask in that name. Raises ApiError 400, 403."""
        ...


class Authorizer(Protocol):
    """Whether they may."""

    async def decide(self, who: Identity, what: RequestInfo) -> Decision:
        """Whether ``who`` may do ``what``; tells nothing of a tenant that ``who`` may not enter. Raises no ApiError."""
        ...

    async def authorize(self, who: Identity, what: RequestInfo) -> Decision:
        """Raises the ApiError of a decision against the caller; a tenant that it may not enter looks the same whether it
        exists or not.
        """
        ...


class Tenancy(Protocol):
    """Which tenant a request means, and how each stands."""

    async def resolve(self, who: Identity, conn: Connection, asked: TenantName | None) -> TenantName:
        """The connection's pin, else what the path asked for, else the credential's home. Raises ApiError."""
        ...

    async def phase(self, tenant: TenantName) -> str:
        """``Active``, ``Terminating``, or empty for a tenant that does not exist."""
        ...


class Share(Protocol):
    """What a node's identity sees of a view over all tenants."""

    def visible(self, node: str, kind: Kind, obj: Raw) -> bool:
        """Whether the object (with its tenant's annotation) is in the node's share."""
        ...

    def changed(self, node: str, kind: Kind) -> Awaitable[None]:
        """Done when objects that are not changing themselves arrive in or leave the node's share of ``kind``."""
        ...

    def listed(self, node: str, resource: str) -> None:
        """The node begins to list the resource: a later watch is good only if its share stood still since."""
        ...


class Bootstrap(Protocol):
    """What stands beside a tenant and in every namespace from the first moment."""

    def tenant(self, value: bytes) -> Sequence[Op]:
        """What to commit beside a new Tenant, whose stored value is given."""
        ...

    async def farewell(self, tenant: TenantName) -> Sequence[Op]:
        """What to commit beside the removal of a Tenant."""
        ...

    def namespace(self, tenant: TenantName, name: str) -> Sequence[Op]:
        """What to commit beside a new Namespace."""
        ...


@dataclass(frozen=True, slots=True)
class Call:
    """One authorized request, as handlers get it."""

    request: web.BaseRequest
    who: Identity
    info: RequestInfo
    connection: Connection
    id: str
    rest: str = ""

    @property
    def query(self) -> Mapping[str, str]:
        """The query's parameters, the first of each name."""
        return self.request.query


Handler = Callable[[Call], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Layers:
    """What the projections are told: who hears of every commit before it is answered, and root's service addresses."""

    wrote: Callable[[Sequence[Key], int], None] | None = None
    root_service_cidr: str = ""


@dataclass(frozen=True, slots=True)
class Parts:
    """What the server is composed of besides its own modules.

    ``checking`` are further hooks of admission, which only look. ``subresources`` maps (resource, subresource), for
    example ``("pods", "log")``, to what serves it, and ``("tokenreviews.authentication.k8s.io", "")`` to what serves a
    kind that is not stored; ``paths`` maps paths that are no resources, for example
    ``/polder/v1/stream``. ``metrics`` gives lines of Prometheus text beside the server's own, ``reports`` what nodes use.
    """

    authenticator: Authenticator
    authorizer: Authorizer
    tenancy: Tenancy
    bootstrap: Bootstrap
    share: Share | None = None
    outcalls: Outcalls | None = None
    checking: Sequence[Hook] = ()
    subresources: Mapping[tuple[str, str], Handler] = field(default_factory=dict)
    paths: Mapping[str, Handler] = field(default_factory=dict)
    impersonation: Impersonation | None = None
    layers: Layers = Layers()
    auditor: Auditor | None = None
    aggregation: Aggregation | None = None
    metrics: Callable[[], Sequence[str]] = tuple
    reports: Reports | None = None
