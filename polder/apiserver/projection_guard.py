"""What a tenant may not do to what it sees of the platform's: nodes, classes; and what nobody may do to built-in objects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from polder.api.errors import forbidden
from polder.api.meta import Raw
from polder.api.nodeview import NODE_LABELS
from polder.apiserver.admission import AdmissionContext
from polder.apiserver.builtin import PRIORITY_CLASSES, content
from polder.apiserver.projection import NODES, SHARED, is_hidden
from polder.base.ids import ROOT
from polder.store.protocol import Key, Store

_OVERLAID: Final = frozenset({"labels", "annotations", "managedFields", "resourceVersion", "generation"})


@dataclass(frozen=True, slots=True)
class PlatformObjects:
    """A checking hook of admission, on the store without projections."""

    store: Store

    async def admit(self, context: AdmissionContext) -> None:
        """Raises ApiError 403."""
        kind = context.resource.kind
        if (
            kind.resource == PRIORITY_CLASSES
            and context.verb == "delete"
            and content(kind.resource, ("", context.name))
        ):
            raise forbidden(kind, context.name, "this is a system priority class and cannot be deleted")
        if context.tenant == ROOT or kind.resource not in SHARED or context.verb not in {"update", "delete"}:
            return
        if not await self._is_platforms(kind.resource, context.tenant, context.name):
            return
        if kind.resource != NODES or context.verb == "delete":
            raise forbidden(kind, context.name, "it is the platform's")
        if context.obj is not None and context.old is not None and _fixed(context.obj) != _fixed(context.old):
            what = "labels, annotations, taints and unschedulable"
            raise forbidden(kind, context.name, f"the node is the platform's: a tenant changes only {what} of it")

    async def _is_platforms(self, resource: str, tenant: str, name: str) -> bool:
        root = await self.store.get(Key(resource, ROOT, "", name))
        if root is None or is_hidden(root.value):
            return False
        return resource == NODES or await self.store.get(Key(resource, tenant, "", name)) is None


def _fixed(node: Raw) -> Raw:
    """What of a node is not the tenant's to change."""
    meta, spec = node["metadata"], node.get("spec") or {}
    labels = {name: (meta.get("labels") or {}).get(name) for name in NODE_LABELS}
    kept = {name: value for name, value in meta.items() if name not in _OVERLAID}
    rest = {name: value for name, value in spec.items() if name not in {"taints", "unschedulable"}}
    return {"meta": _said(kept), "labels": labels, "spec": _said(rest), "status": _said(node.get("status"))}


def _said(value: Any) -> Any:
    """Without what says nothing: typed clients send every field, the empty ones too."""
    if isinstance(value, dict):
        found = {name: _said(inner) for name, inner in value.items()}
        return {name: inner for name, inner in found.items() if inner not in (None, "", 0, False, {}, [])}
    return [_said(inner) for inner in value] if isinstance(value, list) else value
