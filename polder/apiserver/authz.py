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
from polder.apiserver.types import Identity, RequestInfo, Role
from polder.base.ids import EVERY_TENANT

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
        if who.role is Role.NONE:
            if what.is_resource or what.path not in OPEN_PATHS or what.verb not in {"get", "head"}:
                raise unauthorized()
            return
        if who.role is Role.NODE and not await self._nodes.enters(who, what.tenant):
            raise closed(who, what.tenant)
        if not what.is_resource:
            self._check_path(who, what)
        elif who.role is Role.PLATFORM_ADMIN:
            if what.tenant == EVERY_TENANT and what.verb not in READ:
                raise denied(who, what, "the view over all tenants is for reading; name a tenant")
        elif who.role is Role.TENANT_ADMIN:
            self._check_tenant_admin(who, what)
        elif who.role is Role.SERVICE_ACCOUNT:
            if what.verb not in READ or resource_of(what) == "secrets":
                raise denied(who, what)
        elif who.role is Role.NODE and not await self._nodes.may(who, what):
            raise denied(who, what)

    def _check_path(self, who: Identity, what: RequestInfo) -> None:
        """Paths that are no resources: discovery and health are for all, the stream for nodes."""
        stream = what.path == STREAM_PATH
        if stream and who.role is Role.NODE:
            return
        known = any(what.path == p or what.path.startswith(f"{p}/") for p in DISCOVERY)
        everything = who.role in {Role.PLATFORM_ADMIN, Role.COMPONENT} and not stream
        if not everything and not (known and what.verb in {"get", "head"}):
            raise denied(who, what)

    def _check_tenant_admin(self, who: Identity, what: RequestInfo) -> None:
        if what.verb in READ:
            return
        resource = resource_of(what)
        if resource in POLDER_WRITTEN or resource in PLATFORM_ONLY:
            raise denied(who, what, "this kind is written by the platform only")
        if f"{resource}/{what.subresource}" in TENANT_NEVER:
            raise denied(who, what, "this part is written by the platform only")
