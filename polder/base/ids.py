"""Names that must not be mixed up, and the one tenant that is the platform."""

from __future__ import annotations

from typing import NewType

TenantName = NewType("TenantName", str)
NodeName = NewType("NodeName", str)
Uid = NewType("Uid", str)
Revision = NewType("Revision", int)

ROOT = TenantName("root")
"""The platform's own logical cluster."""
EVERY_TENANT = TenantName("*")
"""In a list or watch: all tenants at once (platform, controllers, scheduler, nodes' shares)."""
