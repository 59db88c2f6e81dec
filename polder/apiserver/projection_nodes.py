"""A node as a tenant sees it: root's, through an allow-list of fields, with what the tenant itself put on it.

A tenant's labels, annotations, taints and cordon of a node are an overlay: a small row of the tenant, for its own pods only.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import orjson

from polder.api.meta import Raw
from polder.api.nodeview import NODE_LABELS
from polder.api.quantity import QuantityError, milli, whole
from polder.apiserver.objects import encode

NODE_INFO: Final = ("architecture", "kubeletVersion", "operatingSystem")
ADDRESSES: Final = ("InternalIP", "Hostname")
"""The address too: the tenant's pods are told it (``hostIP``), and within the tenant its own node ports answer there."""
GIB, MIB = 1 << 30, 1 << 20
_OVERLAY: Final = b'{"polder":"overlay",'
"""How a row that is an overlay begins; no object is encoded so."""


@lru_cache(maxsize=1024)
def project_node(value: bytes) -> bytes:
    """The stored form of a node's projection. Pure: equal nodes give equal bytes."""
    raw = orjson.loads(value)
    meta, status = raw["metadata"], raw.get("status") or {}
    labels = meta.get("labels") or {}
    shown: Raw = {
        "name": meta["name"],
        "uid": meta["uid"],
        "creationTimestamp": meta.get("creationTimestamp"),
        "labels": {name: labels[name] for name in NODE_LABELS if name in labels},
    }
    info = status.get("nodeInfo") or {}
    projected: Raw = {
        "capacity": _rounded(status.get("capacity") or {}),
        "allocatable": _rounded(status.get("allocatable") or {}),
        "conditions": [
            {"type": "Ready", "status": c.get("status", "Unknown")}
            for c in status.get("conditions") or []
            if c.get("type") == "Ready"
        ],
        "addresses": [a for a in status.get("addresses") or [] if a.get("type") in ADDRESSES],
        "nodeInfo": {name: info[name] for name in NODE_INFO if name in info},
    }
    return encode({"apiVersion": "v1", "kind": "Node", "metadata": shown, "spec": {}, "status": projected})


def _rounded(quantities: Raw) -> Raw:
    """Sizes rounded down, so that they tell what fits and not which machine it is: whole CPUs, GiB (below: 128 MiB)."""
    shown: Raw = {}
    for name in ("cpu", "memory", "pods"):
        try:
            amount = whole(quantities[name]) if name != "cpu" else milli(quantities[name]) // 1000
        except (KeyError, QuantityError):
            continue
        if name != "memory":
            shown[name] = str(amount)
        elif amount >= GIB:
            shown[name] = f"{amount // GIB}Gi"
        else:
            shown[name] = f"{amount // (128 * MIB) * 128}Mi"
    return shown


def is_overlay(value: bytes | None) -> bool:
    """Whether a row is what a tenant put on a node of the platform."""
    return value is not None and value.startswith(_OVERLAY)


def overlay_of(base: bytes, wanted: bytes) -> bytes:
    """The row that makes of a projected node (``base``) what a tenant wants, as far as it may."""
    was, raw = orjson.loads(base), orjson.loads(wanted)
    meta, spec, fixed = raw["metadata"], raw.get("spec") or {}, was["metadata"].get("labels") or {}
    put: Raw = {
        "labels": {k: v for k, v in (meta.get("labels") or {}).items() if k not in fixed},
        "annotations": meta.get("annotations") or {},
        "taints": spec.get("taints") or [],
        "unschedulable": bool(spec.get("unschedulable")),
        "managedFields": meta.get("managedFields") or [],
    }
    return _OVERLAY + orjson.dumps({key: value for key, value in put.items() if value})[1:] if any(
        put.values()) else _OVERLAY[:-1] + b"}"  # fmt: skip


def overlay_node(name: str, row: bytes) -> bytes:
    """An overlay alone, as the view over all tenants shows it: a Node that has nothing but what the tenant put on it."""
    put = orjson.loads(row)
    meta = {"name": name, "labels": put.get("labels") or {}, "annotations": put.get("annotations") or {}}
    spec = {key: put[key] for key in ("taints", "unschedulable") if put.get(key)}
    return encode({"apiVersion": "v1", "kind": "Node", "metadata": meta, "spec": spec})


@lru_cache(maxsize=1024)
def overlaid(base: bytes, row: bytes) -> bytes:
    """A projected node with a tenant's overlay."""
    raw, put = orjson.loads(base), orjson.loads(row)
    meta = raw["metadata"]
    meta["labels"] = {**(put.get("labels") or {}), **(meta.get("labels") or {})}
    meta["annotations"] = put.get("annotations") or {}
    meta["managedFields"] = put.get("managedFields") or []
    spec = {key: put[key] for key in ("taints", "unschedulable") if put.get(key)}
    return encode({**raw, "metadata": meta, "spec": spec})
