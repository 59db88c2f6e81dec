"""Whether an identity may: a fixed frame that nothing can grant away, and within it an ordered chain of authorizers.

The frame:

- Nobody reaches into a tenant that is not its own, but the platform's administrators and components, a node where it has
  something to do, a tenant's members (``Tenant.spec.members``), and whom the platform's ABAC file lets in.
- Platform administrators and components may do everything, but only read in the view over all tenants. A tenant's
  administrator may do everything in its own tenant, as may there whoever the tenant made a ``system:masters``.
- What Polder writes (``POLDER_WRITTEN``, ``NEVER``) is written by Polder alone, and the server's own paths are the platform's.
- A node may do what the Node authorizer says, in its share, and nothing else.

Everybody else asks the chain: the first authorizer with an opinion decides; where none has one, the answer is no.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from polder.api.errors import ApiError, forbidden_path
from polder.api.kinds import PLATFORM_ONLY, POLDER_WRITTEN
from polder.api.meta import Raw
from polder.api.rbac import PolicyRule
from polder.apiserver.asker import Asker, Members
from polder.apiserver.authn_bootstrap import JOIN_GROUP
from polder.apiserver.noderules import NodeRules
from polder.apiserver.tenancy import closed
from polder.apiserver.types import Decision, Identity, RequestInfo, Role
from polder.base.ids import EVERY_TENANT, ROOT

READ: Final = frozenset({"get", "list", "watch"})
DISCOVERY: Final = (
    "/api", "/apis", "/openapi", "/version", "/healthz", "/livez", "/readyz", "/openid", "/.well-known",
)  # fmt: skip
"""What a tenant's API has besides resources; all other paths tell of the whole server."""
STREAM_PATH: Final = "/polder/v1/stream"
OWN_PATHS: Final = "/polder/"
"""Polder's own questions, backups among them, which are about every tenant: for the platform, whatever else is granted."""
CERTIFICATES_PATH: Final = "/polder/v1/certificates"
NEVER: Final = frozenset({"pods/binding", "networks.polder.dev/status"})
"""Written by Polder alone: which node a pod is on, and which VXLAN identifier a network has."""
MASTERS: Final = "system:masters"
_PLATFORM: Final = frozenset({Role.PLATFORM_ADMIN, Role.COMPONENT})
_ALLOWED, _NO_OPINION, _DENIED = Decision(True), Decision(False), Decision(False, True)


class Mode(Protocol):
    """One authorizer of the chain."""

    async def decide(self, asker: Asker, what: RequestInfo) -> Decision:
        """Allowed, expressly denied, or no opinion."""
        ...

    async def rules(self, asker: Asker, namespace: str) -> tuple[list[PolicyRule], str]:
        """What it allows in a namespace, as rules, and why that is not all that can be said (else empty)."""
        ...


class Doors(Protocol):
    """What lets somebody into a tenant, besides membership."""

    def enters(self, who: Identity, tenant: str) -> bool:
        """Whether it names both."""
        ...


def resource_of(what: RequestInfo) -> str:
    """The qualified name of the resource asked for."""
    return f"{what.resource}.{what.group}" if what.group else what.resource


def place_of(what: RequestInfo) -> str:
    """The namespace that rights are looked for in: a namespace itself is in itself."""
    if what.resource == "namespaces" and not what.group and what.name:
        return what.name
    return what.namespace


def denied(who: Identity, what: RequestInfo, why: str = "") -> ApiError:
    """403 in upstream's words."""
    if not what.is_resource:
        return forbidden_path(who.name, what.verb, what.path)
    target = what.resource + (f"/{what.subresource}" if what.subresource else "")
    namespace = place_of(what)
    place = f' in the namespace "{namespace}"' if namespace else " at the cluster scope"
    sentence = f'User "{who.name}" cannot {what.verb} resource "{target}" in API group "{what.group}"{place}'
    name = f' "{what.name}"' if what.name else ""
    message = f"{resource_of(what)}{name} is forbidden: {sentence}{f': {why}' if why else ''}"
    details: Raw = {"kind": what.resource}
    if what.name:
        details["name"] = what.name
    if what.group:
        details["group"] = what.group
    return ApiError(403, "Forbidden", message, details)


@dataclass(frozen=True, slots=True)
class Authorizer:
    """The frame around the chain."""

    nodes: NodeRules | None
    members: Members
    chain: Sequence[Mode]
    doors: Sequence[Doors] = ()

    async def authorize(self, who: Identity, what: RequestInfo) -> Decision:
        """Why the request may go on. Raises ApiError 403."""
        if not await self.enters(who, what.tenant):
            raise closed(who, what.tenant)
        decision = await self._decide(who, what)
        if not decision.allowed:
            raise denied(who, what, decision.reason)
        return decision

    async def decide(self, who: Identity, what: RequestInfo) -> Decision:
        """See ``hooks.Authorizer``."""
        return await self._decide(who, what) if await self.enters(who, what.tenant) else _DENIED

    async def enters(self, who: Identity, tenant: str) -> bool:
        """Whether somebody reaches into a tenant at all, whether it exists or not. Whoever is nobody reaches into each: what
        it may there is the same everywhere, unless a tenant says otherwise.
        """
        if who.role in _PLATFORM:
            return True
        if who.role is Role.NODE:
            return self.nodes is not None and (tenant == EVERY_TENANT or await self.nodes.enters(who, tenant))
        if tenant in {who.home, EVERY_TENANT} or who.role is Role.NONE:
            return tenant != EVERY_TENANT
        if who.role is Role.TENANT_ADMIN:
            return False
        return bool(await self.members.role(who, tenant)) or any(door.enters(who, tenant) for door in self.doors)

    async def _decide(self, who: Identity, what: RequestInfo) -> Decision:
        if who.role is Role.NODE:
            return await self._node(who, what)
        fixed = self._frame(who, what)
        if fixed is not None:
            return fixed
        decision = await self._ask(await self.members.asker(who, what.tenant), what)
        if decision.allowed or decision.denied or who.home != what.tenant:
            return decision
        asker = await self.members.inside(who, what.tenant)  # last, for few need it: names of the tenant's own
        return await self._ask(asker, what) if asker is not None else decision

    async def _ask(self, asker: Asker, what: RequestInfo) -> Decision:
        """What the chain says."""
        if asker.role == "admin":
            return Decision(True, False, "a member of the tenant, as admin")
        reasons = []
        for mode in self.chain:
            decision = await mode.decide(asker, what)
            if decision.allowed or decision.denied:
                return decision
            if decision.reason:
                reasons.append(decision.reason)
        return Decision(False, False, "\n".join(reasons)) if reasons else _NO_OPINION

    def _frame(self, who: Identity, what: RequestInfo) -> Decision | None:
        """What is decided before the chain is asked."""
        if not what.is_resource and what.path == STREAM_PATH:
            return _DENIED
        if what.path == CERTIFICATES_PATH and what.tenant == ROOT and _joins(who, what):
            return _ALLOWED
        if who.role in _PLATFORM:
            if who.role is Role.PLATFORM_ADMIN and what.tenant == EVERY_TENANT and _writes(what):
                return Decision(False, True, "the view over all tenants is for reading; name a tenant")
            return _ALLOWED
        if not what.is_resource:
            if what.path.startswith(OWN_PATHS) or (what.tenant != ROOT and not _is_tenants(what.path)):
                return _DENIED
        elif _writes(what):
            resource = resource_of(what)
            if resource in POLDER_WRITTEN or (resource in PLATFORM_ONLY and what.tenant != ROOT):
                return Decision(False, True, "this kind is written by the platform only")
            if f"{resource}/{what.subresource}" in NEVER:
                return Decision(False, True, "this part is written by the platform only")
        if who.home == what.tenant and (who.role is Role.TENANT_ADMIN or MASTERS in who.groups):
            return _ALLOWED
        return None

    async def _node(self, who: Identity, what: RequestInfo) -> Decision:
        if self.nodes is None:
            return _DENIED
        if what.is_resource:
            return Decision(await self.nodes.may(who, what))
        own = what.path in {STREAM_PATH, CERTIFICATES_PATH}
        return Decision(own or (_is_tenants(what.path) and what.verb in {"get", "head"}))

    async def rules(self, who: Identity, tenant: str, namespace: str) -> tuple[list[PolicyRule], list[str]]:
        """What ``who``, who has entered the tenant, may in a namespace of it, and which authorizers cannot list that."""
        if who.role in _PLATFORM or (who.home == tenant and (who.role is Role.TENANT_ADMIN or MASTERS in who.groups)):
            return list(EVERYTHING), []
        asker = await self.members.inside(who, tenant) or await self.members.asker(who, tenant)
        if asker.role == "admin":
            return list(EVERYTHING), []
        if who.role is Role.NODE:
            return [], ["node authorizer does not support user rule resolution"]
        found: list[PolicyRule] = []
        problems = []
        for mode in self.chain:
            rules, problem = await mode.rules(asker, namespace)
            found += rules
            if problem:
                problems.append(problem)
        return found, problems


EVERYTHING: Final = (
    PolicyRule(verbs=("*",), api_groups=("*",), resources=("*",)),
    PolicyRule(verbs=("*",), non_resource_urls=("*",)),
)


def _writes(what: RequestInfo) -> bool:
    return what.is_resource and what.verb not in READ


def _joins(who: Identity, what: RequestInfo) -> bool:
    """Whether somebody who is no node yet asks for the authorities, which are public, or to join with a token for that."""
    return what.verb == "get" or (what.verb == "post" and who.home == ROOT and JOIN_GROUP in who.groups)


def _is_tenants(path: str) -> bool:
    return path == "/" or any(path == p or path.startswith(f"{p}/") for p in DISCOVERY)
