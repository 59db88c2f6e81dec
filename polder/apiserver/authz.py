"""Whether an identity may: fixed rights by role. (There is no RBAC yet; what it would grant is refused.)

- Platform administrators may do everything, but read only in the view over all tenants.
- Polder's components may do everything.
- A tenant's administrator may do everything in its own tenant but write what Polder writes, see ``TENANT_NEVER``.
- A node may do what ``NodeRules`` says, in its share.
- A service account may read everything but Secrets in its own tenant.
- Nobody may ask for health and version.
"""

from __future__ import annotations

from polder.api.errors import ApiError, forbidden_path, unauthorized
from polder.api.kinds import PLATFORM_ONLY, POLDER_WRITTEN
from polder.api.meta import Raw
from polder.apiserver.noderules import NodeRules
from polder.apiserver.tenancy import check_entry, closed
from polder.apiserver.types import Decision, Identity, RequestInfo, Role
from polder.base.ids import EVERY_TENANT, TenantName

READ = frozenset({"get", "list", "watch"})
OPEN_PATHS = frozenset({"/healthz", "/livez", "/readyz", "/version"})
DISCOVERY = ("/api", "/apis", "/openapi", "/version", "/healthz", "/livez", "/readyz", "/openid", "/.well-known")
STREAM_PATH = "/polder/v1/stream"
TENANT_NEVER = frozenset({"pods/binding", "networks.polder.dev/status"})
"""Written by Polder alone, even in a tenant: which node a pod is on, and which VXLAN identifier a network has."""


def resource_of(what: RequestInfo) -> str:
    """The store's name of the resource asked for."""
    return f"{what.resource}.{what.group}" if what.group else what.resource


def denied(who: Identity, what: RequestInfo, why: str = "") -> ApiError:
    """403 in upstream's words."""
    if not what.is_resource:
        return forbidden_path(who.name, what.verb, what.path)
    target = what.resource + (f"/{what.subresource}" if what.subresource else "")
    place = f' in the namespace "{what.namespace}"' if what.namespace else " at the cluster scope"
    sentence = f'User "{who.name}" cannot {what.verb} resource "{target}" in API group "{what.group}"{place}'
    name = f' "{what.name}"' if what.name else ""
    message = f"{resource_of(what)}{name} is forbidden: {sentence}{f': {why}' if why else ''}"
    details: Raw = {"kind": what.resource}
    if what.name:
        details["name"] = what.name
    if what.group:
        details["group"] = what.group
    return ApiError(403, "Forbidden", message, details)


class Authorizer:
    """Decides by role."""

    def __init__(self, nodes: NodeRules) -> None:
        self._nodes = nodes

    async def authorize(self, who: Identity, what: RequestInfo) -> None:
        """Returns if the request may go on. Raises ApiError 401 (nobody), 403."""
        check_entry(who, what.tenant)
        if who.role is Role.NODE and not await self._nodes.enters(who, what.tenant):
            raise closed(who, what.tenant)
        decision = await self.decide(who, what)
        if not decision.allowed:
            raise unauthorized() if who.role is Role.NONE else denied(who, what, decision.reason)

    async def decide(self, who: Identity, what: RequestInfo) -> Decision:
        """See ``hooks.Authorizer``."""
        if not await self._reaches(who, what.tenant):
            return Decision(False, True)
        if who.role is Role.NONE:
            health = what.path in OPEN_PATHS and what.verb in {"get", "head"}
            return Decision(not what.is_resource and health)
        if not what.is_resource:
            return Decision(self._may_path(who, what))
        if who.role is Role.PLATFORM_ADMIN:
            if what.tenant == EVERY_TENANT and what.verb not in READ:
                return Decision(False, True, "the view over all tenants is for reading; name a tenant")
            return Decision(True)
        if who.role is Role.TENANT_ADMIN:
            return self._tenant_admin(what)
        if who.role is Role.SERVICE_ACCOUNT:
            return Decision(what.verb in READ and resource_of(what) != "secrets")
        if who.role is Role.NODE:
            return Decision(await self._nodes.may(who, what))
        return Decision(who.role is Role.COMPONENT)

    async def _reaches(self, who: Identity, tenant: TenantName) -> bool:
        try:
            check_entry(who, tenant)
        except ApiError:
            return False
        return who.role is not Role.NODE or await self._nodes.enters(who, tenant)

    def _may_path(self, who: Identity, what: RequestInfo) -> bool:
        """Paths that are no resources: discovery and health are for all, the stream for nodes."""
        stream = what.path == STREAM_PATH
        if stream and who.role is Role.NODE:
            return True
        known = any(what.path == p or what.path.startswith(f"{p}/") for p in DISCOVERY)
        everything = who.role in {Role.PLATFORM_ADMIN, Role.COMPONENT} and not stream
        return everything or (known and what.verb in {"get", "head"})

    def _tenant_admin(self, what: RequestInfo) -> Decision:
        resource = resource_of(what)
        if what.verb not in READ and (resource in POLDER_WRITTEN or resource in PLATFORM_ONLY):
            return Decision(False, True, "this kind is written by the platform only")
        if what.verb not in READ and f"{resource}/{what.subresource}" in TENANT_NEVER:
            return Decision(False, True, "this part is written by the platform only")
        return Decision(True)
