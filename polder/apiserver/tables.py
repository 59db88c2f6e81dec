"""meta.k8s.io Tables: what ``kubectl get`` prints. The columns of each kind are ``polder.api``'s."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from polder.api.columns import Column
from polder.api.convert import convert, stored_form
from polder.api.meta import Raw
from polder.api.tables import cells, columns_of, definition
from polder.apiserver.catalog import Resource

__all__ = ["Options", "bookmark", "heading", "partial", "rows", "table"]


@dataclass(frozen=True, slots=True)
class Options:
    """``include``: what of the object each row carries (None, Metadata, Object); the version of meta.k8s.io; whether the
    first column is the tenant.
    """

    include: str = "Metadata"
    version: str = "v1"
    tenants: bool = False


def partial(obj: Raw, version: str = "v1") -> Raw:
    """PartialObjectMetadata."""
    return {"kind": "PartialObjectMetadata", "apiVersion": f"meta.k8s.io/{version}", "metadata": obj["metadata"]}


def table(resource: Resource, objs: Sequence[Raw], meta: Raw, now: datetime, options: Options) -> Raw:
    """A Table of objects."""
    return {**heading(resource, options), "metadata": meta, "rows": rows(resource, objs, now, options)}


def heading(resource: Resource, options: Options) -> Raw:
    """A Table without metadata and rows."""
    columns = _columns(resource, options)
    return {
        "kind": "Table",
        "apiVersion": f"meta.k8s.io/{options.version}",
        "columnDefinitions": [definition(c) for c in columns],
    }


def rows(resource: Resource, objs: Sequence[Raw], now: datetime, options: Options) -> list[Raw]:
    """The rows of objects."""
    columns = _columns(resource, options)
    form = resource.kind if resource.custom is not None else stored_form(resource.kind)
    return [_row(cells(columns, convert(obj, form), now), obj, options) for obj in objs]


def _columns(resource: Resource, options: Options) -> Sequence[Column]:
    declared = resource.custom.columns if resource.custom is not None else None
    return columns_of(resource.kind, declared, tenants=options.tenants)


def bookmark(obj: Raw, revision: str, version: str) -> Raw:
    """The Table of a bookmark: a row without cells that carries the revision."""
    return {
        "kind": "Table",
        "apiVersion": f"meta.k8s.io/{version}",
        "metadata": {"resourceVersion": revision},
        "columnDefinitions": None,
        "rows": [{"cells": [], "object": obj}],
    }


def _row(shown: Sequence[Any], obj: Raw, options: Options) -> Raw:
    row: Raw = {"cells": shown}
    if options.include == "Object":
        row["object"] = obj
    elif options.include != "None":
        row["object"] = partial(obj, options.version)
    return row
