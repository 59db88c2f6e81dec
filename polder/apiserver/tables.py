"""meta.k8s.io Tables: what ``kubectl get`` prints. Columns of each kind are in ``columns``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from polder.api.meta import Raw
from polder.apiserver.catalog import Resource
from polder.apiserver.columns import Column, columns_of

__all__ = ["Options", "bookmark", "partial", "table"]


@dataclass(frozen=True, slots=True)
class Options:
    """``include``: what of the object each row carries (None, Metadata, Object); the version of meta.k8s.io."""

    include: str = "Metadata"
    version: str = "v1"


def partial(obj: Raw, version: str = "v1") -> Raw:
    """PartialObjectMetadata."""
    return {"kind": "PartialObjectMetadata", "apiVersion": f"meta.k8s.io/{version}", "metadata": obj["metadata"]}


def table(resource: Resource, objs: Sequence[Raw], meta: Raw, now: datetime, options: Options) -> Raw:
    """A Table of objects."""
    columns = columns_of(resource)
    return {
        "kind": "Table",
        "apiVersion": f"meta.k8s.io/{options.version}",
        "metadata": meta,
        "columnDefinitions": [_definition(c) for c in columns],
        "rows": [_row(columns, obj, now, options) for obj in objs],
    }


def bookmark(obj: Raw, revision: str, version: str) -> Raw:
    """The Table of a bookmark: a row without cells that carries the revision."""
    return {
        "kind": "Table",
        "apiVersion": f"meta.k8s.io/{version}",
        "metadata": {"resourceVersion": revision},
        "columnDefinitions": None,
        "rows": [{"cells": [], "object": obj}],
    }


def _definition(column: Column) -> Raw:
    return {
        "name": column.name,
        "type": column.type,
        "format": column.format,
        "description": column.description,
        "priority": column.priority,
    }


def _row(columns: Sequence[Column], obj: Raw, now: datetime, options: Options) -> Raw:
    cells: list[Any] = [column.cell(obj, now) for column in columns]
    row: Raw = {"cells": cells}
    if options.include == "Object":
        row["object"] = obj
    elif options.include != "None":
        row["object"] = partial(obj, options.version)
    return row
