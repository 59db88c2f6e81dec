"""What a tenant may not do to what it sees of the platform's: nodes, classes; and what nobody may do to built-in objects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from polder.api.errors import forbidden
from polder.api.meta import Raw
from polder.api.nodeview import FIXED_LABELS, TOPOLOGY_LABELS
from polder.apiserver.admission import AdmissionContext
from polder.apiserver.builtin import PRIORITY_CLASSES, content
from polder.apiserver.objects import decode_entry
from polder.apiserver.projection import NODES, SHARED, is_hidden
from polder.base.ids import ROOT
from polder.store.protocol import Entry, Key, Store

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
        platforms = await self._platforms(kind.resource, context.tenant, context.name)
        if platforms is None:
            return
        if kind.resource != NODES or context.verb == "delete":
            raise forbidden(kind, context.name, "it is the platform's")
        if context.obj is None or context.old is None:
            return
        fixed = _fixed_labels(decode_entry(platforms))
        if _fixed(context.obj, fixed) != _fixed(context.old, fixed):
            what = "labels, annotations, taints and unschedulable"
            raise forbidden(kind, context.name, f"the node is the platform's: a tenant changes only {what} of it")

    async def _platforms(self, resource: str, tenant: str, name: str) -> Entry | None:
        """Root's row, if that is what the tenant sees under the name."""
        root = await self.store.get(Key(resource, ROOT, "", name))
        if root is None or is_hidden(root.value):
            return None
        hides = resource != NODES and await self.store.get(Key(resource, tenant, "", name)) is not None
        return None if hides else root


def _fixed_labels(node: Raw) -> tuple[str, ...]:
    """The labels that are not the tenants' to change: where a node is only as far as the platform says it."""
    return (*FIXED_LABELS, *(name for name in TOPOLOGY_LABELS if name in (node["metadata"].get("labels") or {})))


def _fixed(node: Raw, names: tuple[str, ...]) -> Raw:
    """What of a node is not the tenant's to change."""
    meta, spec = node["metadata"], node.get("spec") or {}
    labels = {name: (meta.get("labels") or {}).get(name) for name in names}
    kept = {name: value for name, value in meta.items() if name not in _OVERLAID}
    rest = {name: value for name, value in spec.items() if name not in {"taints", "unschedulable"}}
    return {"meta": _said(kept), "labels": labels, "spec": _said(rest), "status": _said(node.get("status"))}


def _said(value: Any) -> Any:
    """Without what says nothing: typed clients send every field, the empty ones too."""
    if isinstance(value, dict):
        found = {name: _said(inner) for name, inner in value.items()}
        return {name: inner for name, inner in found.items() if inner not in (None, "", 0, False, {}, [])}
    return [_said(inner) for inner in value] if isinstance(value, list) else value
