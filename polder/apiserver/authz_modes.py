"""The authorizers of the chain that need nothing outside: RBAC, AlwaysAllow, AlwaysDeny."""

from __future__ import annotations

from dataclasses import dataclass

from polder.api.rbac import Attributes, PolicyRule, RoleRef
from polder.apiserver.asker import Asker
from polder.apiserver.authz import EVERYTHING, place_of
from polder.apiserver.rbac import Rbac
from polder.apiserver.types import Decision, RequestInfo


def attributes(what: RequestInfo) -> Attributes:
    """What of a request rules look at."""
    return Attributes(what.verb, what.group, what.resource, what.subresource, what.name, what.path)


@dataclass(frozen=True, slots=True)
class RbacMode:
    """Roles and bindings; a member's role counts as one more cluster-wide binding."""

    rbac: Rbac

    async def decide(self, asker: Asker, what: RequestInfo) -> Decision:
        """See ``Mode``."""
        asked = attributes(what)
        if asker.role:
            rules = await self.rbac.role(asker.tenant, "", _ref(asker))
            if rules is not None and rules.allow(asked):
                return Decision(True, False, f"a member of the tenant, as {asker.role}")
        return await self.rbac.decide(asker.tenant, place_of(what), asker.keys, asked)

    async def rules(self, asker: Asker, namespace: str) -> tuple[list[PolicyRule], str]:
        """See ``Mode``."""
        found = await self.rbac.rules(asker.tenant, namespace, asker.keys)
        if asker.role:
            rules = await self.rbac.role(asker.tenant, "", _ref(asker))
            found += [rule for rule in rules.rules if rule not in found] if rules else []
        return found, ""


def _ref(asker: Asker) -> RoleRef:
    return RoleRef(kind="ClusterRole", name=asker.role)


@dataclass(frozen=True, slots=True)
class AlwaysAllow:
    """Allows whatever the frame leaves open."""

    async def decide(self, asker: Asker, what: RequestInfo) -> Decision:
        """See ``Mode``."""
        del asker, what
        return Decision(True)

    async def rules(self, asker: Asker, namespace: str) -> tuple[list[PolicyRule], str]:
        """See ``Mode``."""
        del asker, namespace
        return list(EVERYTHING), ""


@dataclass(frozen=True, slots=True)
class AlwaysDeny:
    """Has no good word for anybody; the authorizers before it are asked first."""

    async def decide(self, asker: Asker, what: RequestInfo) -> Decision:
        """See ``Mode``."""
        del asker, what
        return Decision(False, False, "Everything is forbidden.")

    async def rules(self, asker: Asker, namespace: str) -> tuple[list[PolicyRule], str]:
        """See ``Mode``."""
        del asker, namespace
        return [], ""
