"""The authorizers of a server, composed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from polder.apiserver.abac import Abac
from polder.apiserver.asker import Members
from polder.apiserver.authz import Authorizer, Mode
from polder.apiserver.authz_modes import RbacMode
from polder.apiserver.authz_webhook import Webhook
from polder.apiserver.noderules import NodeRules
from polder.apiserver.rbac import Policies, Rbac
from polder.apiserver.tenancy import Tenants
from polder.store.protocol import Store

MakeMode = Callable[[Rbac], Mode]


@dataclass(frozen=True, slots=True)
class AuthzSettings:
    """The chain in its order, whether nodes are served, and what of the chain must be kept up and ended."""

    modes: Sequence[MakeMode] = (RbacMode,)
    nodes: bool = True
    files: Sequence[Abac] = ()
    webhooks: Sequence[Webhook] = ()


@dataclass(frozen=True, slots=True)
class Authorization:
    """The authorizer, and what feeds it."""

    settings: AuthzSettings
    authorizer: Authorizer
    policies: Policies
    rbac: Rbac

    async def run(self) -> None:
        """Follows roles, bindings and policy files until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.policies.run())
            for file in self.settings.files:
                group.create_task(file.run())

    def reload(self) -> None:
        """Reads policy files again if they changed."""
        for file in self.settings.files:
            file.reload()

    async def close(self) -> None:
        """Ends connections."""
        for webhook in self.settings.webhooks:
            await webhook.close()


def authorization(settings: AuthzSettings, store: Store, nodes: NodeRules, tenants: Tenants) -> Authorization:
    """Composes the frame and the chain."""
    policies = Policies(store)
    rbac = Rbac(policies)
    chain = [make(rbac) for make in settings.modes]
    authorizer = Authorizer(nodes if settings.nodes else None, Members(tenants), chain, settings.files)
    return Authorization(settings, authorizer, policies, rbac)
