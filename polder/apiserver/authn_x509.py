"""Client certificates: the platform's own forms, and users of one tenant each.

By the authority of agents: O ``system:nodes``, CN ``system:node:NAME``. By the authority of clients: O
``polder:platform-admins`` (URI ``urn:polder:tenant:root``), O ``polder:tenant-admins`` (URI ``urn:polder:tenant:NAME:UID``),
O ``polder:components`` (CN ``system:polder:NAME``, no URI); with such a URI and any other subject a user of that tenant,
of ``root`` a user of the platform: CN is the name, every O a group. The URI carries the tenant's UID, so that a credential
of a deleted tenant is worthless to its successor.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from polder.apiserver.authn_method import (
    AUTHENTICATED,
    CREDENTIAL_ID,
    NODE_ADDRESSES,
    CredentialError,
    Shown,
    Verified,
    check_groups,
    check_tenant,
)
from polder.apiserver.noderecord import is_good
from polder.apiserver.tenancy import Tenants
from polder.apiserver.types import Identity, Role
from polder.base.clock import Clock
from polder.base.ids import ROOT, TenantName
from polder.store.protocol import Store
from polder.system.pki import (
    AGENTS,
    CLIENTS,
    COMPONENTS,
    NODE_PREFIX,
    NODES,
    PLATFORM_ADMINS,
    ROOT_URN,
    TENANT_ADMINS,
    URN,
    ClientName,
    Pki,
    PkiError,
    parse_client,
)

COMPONENT_PREFIX = "system:polder:"


@dataclass(frozen=True, slots=True)
class Certificates:
    """The method. TLS has verified the chain; which authority it was, and that it still is one, is looked at here."""

    pki: Pki
    store: Store
    tenants: Tenants
    clock: Clock

    async def authenticate(self, shown: Shown) -> Verified | None:
        """The certificate's holder."""
        der = shown.connection.certificate
        if der is None:
            return None
        try:
            issuer, name = self.pki.issuer(der), parse_client(der)
        except PkiError as error:
            raise CredentialError(str(error)) from error
        if self.clock.now() >= name.not_after:
            raise CredentialError("it is expired")  # TLS looks at this only when the connection begins
        if issuer == AGENTS:
            return Verified(await self._node(name, _mark(der)), shown.audiences)
        if issuer != CLIENTS:
            raise CredentialError("it is by no authority of people, tenants and components")
        return Verified(await self._client(name, _mark(der)), shown.audiences)

    async def _client(self, name: ClientName, extra: dict[str, tuple[str, ...]]) -> Identity:
        groups, common = (*name.organizations, AUTHENTICATED), name.common_name
        urns = [uri for uri in name.uris if uri.casefold().startswith(URN)]
        if not common or len(urns) > 1:
            raise CredentialError("its subject is none that this server gives out")
        if name.organizations == (COMPONENTS,) and common.startswith(COMPONENT_PREFIX) and not name.uris:
            return Identity(common, Role.COMPONENT, ROOT, groups, extra=extra)
        if not urns:
            raise CredentialError("it is tied to no tenant")
        home = await self._home(urns[0])
        if name.organizations == (PLATFORM_ADMINS,) and home == ROOT:
            return Identity(common, Role.PLATFORM_ADMIN, ROOT, groups, extra=extra)
        if name.organizations == (TENANT_ADMINS,) and home != ROOT:
            return Identity(common, Role.TENANT_ADMIN, home, groups, extra=extra)
        check_groups(name.organizations)
        return Identity(common, Role.USER, home, groups, extra=extra)

    async def _node(self, name: ClientName, extra: dict[str, tuple[str, ...]]) -> Identity:
        node = name.common_name.removeprefix(NODE_PREFIX)
        if name.organizations != (NODES,) or not node or node == name.common_name or name.uris:
            raise CredentialError("its subject is no node's")
        if not await is_good(self.store, node, name.key):
            raise CredentialError(f"it is not the certificate that node {node} was given last")
        if name.addresses:
            extra = {**extra, NODE_ADDRESSES: name.addresses}
        return Identity(name.common_name, Role.NODE, ROOT, (NODES, AUTHENTICATED), node=node, extra=extra)

    async def _home(self, urn: str) -> TenantName:
        if urn == ROOT_URN:
            return ROOT
        tenant, _, uid = urn.removeprefix(URN).partition(":")
        await check_tenant(self.tenants, TenantName(tenant), uid)
        return TenantName(tenant)


def _mark(der: bytes) -> dict[str, tuple[str, ...]]:
    return {CREDENTIAL_ID: (f"X509SHA256={hashlib.sha256(der).hexdigest()}",)}
