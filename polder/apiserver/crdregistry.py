"""The custom kinds of each tenant."""

from __future__ import annotations

from collections.abc import Iterable

from polder.apiserver.catalog import Resource
from polder.base.ids import TenantName


class CrdRegistry:
    """Knows which CustomResourceDefinitions each tenant has."""

    async def find(self, tenant: TenantName, group: str, version: str, plural: str) -> Resource | None:
        """One that is established and served, or None."""
        return None

    async def all(self, tenant: TenantName) -> Iterable[Resource]:
        """Every served version of every established one."""
        return ()
