"""The authorizers of a server, composed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from polder.apiserver.asker import Members
from polder.apiserver.authz import Authorizer, Doors, Mode
from polder.apiserver.authz_modes import RbacMode
from polder.apiserver.noderules import NodeRules
from polder.apiserver.rbac import Policies, Rbac
from polder.apiserver.tenancy import Tenants
from polder.store.protocol import Store


@dataclass(frozen=True, slots=True)
class AuthzSettings:
    """The chain after the Node authorizer. RBAC stands where ``rbac`` says; the others are given ready made."""

    before: Sequence[Mode] = ()
    rbac: bool = True
    after: Sequence[Mode] = ()
    doors: Sequence[Doors] = ()


@dataclass(frozen=True, slots=True)
class Authorization:
    """The authorizer, and what feeds it."""

    authorizer: Authorizer
    policies: Policies
    rbac: Rbac


def authorization(settings: AuthzSettings, store: Store, nodes: NodeRules, tenants: Tenants) -> Authorization:
    """Composes the frame and the chain."""
    policies = Policies(store)
    rbac = Rbac(policies)
    modes = [*settings.before, *([RbacMode(rbac)] if settings.rbac else []), *settings.after]
    return Authorization(Authorizer(nodes, Members(tenants), modes, settings.doors), policies, rbac)
