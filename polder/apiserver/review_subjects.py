"""Whom a review in a tenant is about."""

from __future__ import annotations

from polder.api.meta import Raw
from polder.apiserver.types import Identity, Role
from polder.base.ids import ROOT, TenantName
from polder.system.pki import COMPONENTS, NODE_PREFIX, NODES, PLATFORM_ADMINS, TENANT_ADMINS

_ACCOUNT = "system:serviceaccount:"
_OF_ROOT = {PLATFORM_ADMINS: Role.PLATFORM_ADMIN, COMPONENTS: Role.COMPONENT}


def identity_of(tenant: TenantName, spec: Raw) -> Identity:
    """The identity of the tenant that has this name and these groups. Polder's own groups mean what its certificates do."""
    name, groups = str(spec.get("user") or ""), tuple(spec.get("groups") or ())
    extra = {key: tuple(values or ()) for key, values in (spec.get("extra") or {}).items()}
    role, node = Role.USER, ""
    if name == "system:anonymous":
        role = Role.NONE
    elif name.startswith(_ACCOUNT):
        role = Role.SERVICE_ACCOUNT
    elif tenant != ROOT and TENANT_ADMINS in groups:
        role = Role.TENANT_ADMIN
    elif tenant == ROOT:
        role = next((_OF_ROOT[group] for group in groups if group in _OF_ROOT), role)
        if role is Role.USER and NODES in groups and name.startswith(NODE_PREFIX):
            role, node = Role.NODE, name.removeprefix(NODE_PREFIX)
    return Identity(name, role, tenant, groups, str(spec.get("uid") or ""), node, extra)
