"""What the tests of custom kinds share: definitions with one change, and their paths."""

from __future__ import annotations

import asyncio
import copy
from typing import Any

Raw = dict[str, Any]
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
GROUP = "tests.example.com"


def version(name: str = "v1", spec: Raw | None = None, *, storage: bool = True, **more: Any) -> Raw:
    """One version whose schema has ``spec`` and a status."""
    properties = {"spec": spec or {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                  "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}  # fmt: skip
    root = {"type": "object", "properties": properties}
    return {"name": name, "served": True, "storage": storage, "schema": {"openAPIV3Schema": root}, **more}


def crd(*versions: Raw, plural: str = "widgets", kind: str = "Widget", **spec: Any) -> Raw:
    """A definition."""
    names = {"plural": plural, "kind": kind, **spec.pop("names", {})}
    body = {"group": GROUP, "scope": "Namespaced", "names": names, "versions": list(versions) or [version()], **spec}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{body['group']}"},
        "spec": body,
    }


def path(name: str = "", *, api: str = "v1", plural: str = "widgets", sub: str = "") -> str:
    """Where widgets are."""
    found = f"/apis/{GROUP}/{api}/namespaces/default/{plural}"
    return found + (f"/{name}" if name else "") + (f"/{sub}" if sub else "")


def widget(name: str, spec: Raw | None = None, *, api: str = "v1", kind: str = "Widget", **more: Any) -> Raw:
    """A custom object."""
    meta = {"name": name, **more.pop("metadata", {})}
    return {"apiVersion": f"{GROUP}/{api}", "kind": kind, "metadata": meta, "spec": spec or {}, **more}


def without(obj: Raw, *names: str) -> Raw:
    """A copy without some of its spec."""
    found = copy.deepcopy(obj)
    for name in names:
        found["spec"].pop(name, None)
    return found


async def define(api: Any, definition: Raw) -> Raw:
    """Creates a definition that is good."""
    made = await api.post(CRDS, definition)
    assert made.status == 201, made.body
    return dict(made.json)


async def redefine(api: Any, change: Any, name: str = f"widgets.{GROUP}") -> Raw:
    """Changes the stored definition by ``change(definition)``."""
    found = (await api.get(f"{CRDS}/{name}")).json
    change(found)
    put = await api.put(f"{CRDS}/{name}", found)
    assert put.status == 200, put.body
    return dict(put.json)


async def answers(api: Any, where: str, status: int) -> None:
    """Waits for what happens after an answer."""
    async with asyncio.timeout(10):
        while True:
            if (await api.get(where)).status == status:
                return
            await asyncio.sleep(0.05)


def integer(**more: Any) -> Raw:
    return {"type": "integer", **more}


def fields(**properties: Any) -> Raw:
    return {"type": "object", "properties": properties}
