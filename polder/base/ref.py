"""References that always carry the tenant."""

from __future__ import annotations

from dataclasses import dataclass

from polder.base.ids import TenantName


@dataclass(frozen=True, slots=True, order=True)
class Ref:
    """One object of one tenant; the namespace is empty for a cluster-scoped kind."""

    tenant: TenantName
    namespace: str
    name: str

    def __str__(self) -> str:
        """For messages: ``acme:default/web``, or ``root:node-1`` where there is no namespace."""
        inside = f"{self.namespace}/{self.name}" if self.namespace else self.name
        return f"{self.tenant}:{inside}"
