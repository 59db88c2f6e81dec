"""What the server serves itself is never another's, and it is no aggregated API of its own."""

from __future__ import annotations

from typing import Final

from polder.api.errors import Field, forbidden, invalid
from polder.apiserver.admission import AdmissionContext
from polder.apiserver.aggregation import OWN_GROUPS
from polder.apiserver.builtin_apis import API_SERVICES

_KUBERNETES: Final = ("default", "kubernetes")


class ApiServices:
    """Checks APIServices when they are written."""

    async def admit(self, context: AdmissionContext) -> None:
        """Raises ApiError 403, 422."""
        if not context.concerns(API_SERVICES, "create", "update") or context.obj is None:
            return
        spec = context.obj.get("spec") or {}
        service = spec.get("service")
        if not service:
            return
        if (service.get("namespace"), service.get("name")) == _KUBERNETES:
            problem = (Field("spec") / "service").forbidden("the API server cannot be an aggregated API of itself")
            raise invalid(context.resource.kind, context.name, [problem])
        group = str(spec.get("group") or "")
        if group in OWN_GROUPS:
            named = f'"{group}"' if group else "core"
            why = f"spec.service: the group {named} is served by this server and cannot be given to another"
            raise forbidden(context.resource.kind, context.name, why)
