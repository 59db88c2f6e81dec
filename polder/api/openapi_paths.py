"""The operations of each kind, as OpenAPI documents list them; clients read from them what a verb takes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from polder.api.connections import BOOLEANS, CONNECTIONS, Connection
from polder.api.kinds import Kind
from polder.api.meta import Raw
from polder.api.openapi_schemas import Dialect, reference
from polder.api.schemas import META

JSON: Final = "application/json"
ANSWERS: Final = (JSON, "application/yaml")
STREAMS: Final = (*ANSWERS, "application/json;stream=watch")
PATCHES: Final = (
    "application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml",
    "application/strategic-merge-patch+json",
)  # fmt: skip
_VERBS: Final = {"post": "create", "put": "update"}
"""Verbs that an operation's action calls otherwise."""
_PATCH: Final = f"{META}.Patch"
_DELETE: Final = f"{META}.DeleteOptions"
_STATUS: Final = f"{META}.Status"
EXTRA_DEFINITIONS: Final = (_PATCH, _DELETE, _STATUS)

_WRITE: Final = ("dryRun", "fieldManager", "fieldValidation", "pretty")
_LIST: Final = (
    "allowWatchBookmarks", "continue", "fieldSelector", "labelSelector", "limit", "pretty", "resourceVersion",
    "resourceVersionMatch", "sendInitialEvents", "timeoutSeconds", "watch",
)  # fmt: skip
_DELETES: Final = ("dryRun", "gracePeriodSeconds", "orphanDependents", "pretty", "propagationPolicy")
_LOG: Final = (
    "container", "follow", "limitBytes", "pretty", "previous", "sinceSeconds", "sinceTime", "tailLines", "timestamps",
)  # fmt: skip
_INTEGERS: Final = frozenset(
    {"gracePeriodSeconds", "limit", "limitBytes", "sinceSeconds", "tailLines", "timeoutSeconds"}
)
_BOOLEANS: Final = frozenset(
    {"allowWatchBookmarks", "follow", "force", "ignoreStoreReadErrorWithClusterBreakingPotential", "orphanDependents"}
    | {"previous", "sendInitialEvents", "timestamps", "watch"}
    | BOOLEANS
)
_SUBRESOURCES: Final = {
    "binding": ("io.k8s.api.core.v1.Binding", ("", "v1", "Binding")),
    "eviction": ("io.k8s.api.policy.v1.Eviction", ("policy", "v1", "Eviction")),
    "token": ("io.k8s.api.authentication.v1.TokenRequest", ("authentication.k8s.io", "v1", "TokenRequest")),
}
"""Subresources that are created: the body's definition and kind."""
_SCALE: Final = ("io.k8s.api.autoscaling.v1.Scale", ("autoscaling", "v1", "Scale"))
_APPLIED: Final = ("dryRun", "fieldManager", "fieldValidation", "force", "pretty")


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path. ``body`` and ``answer`` name definitions; an empty answer is text."""

    method: str
    path: str
    action: str
    gvk: tuple[str, str, str]
    id: str
    query: tuple[str, ...]
    answer: str
    body: str = ""
    custom: bool = False

    @property
    def consumes(self) -> tuple[str, ...]:
        """The media types of the body."""
        if self.method == "patch":
            return PATCHES[:3] if self.custom else PATCHES
        return (JSON, "application/yaml")

    @property
    def produces(self) -> tuple[str, ...]:
        """The media types of the answer."""
        return ("text/plain",) if not self.answer else STREAMS if self.action == "list" else ANSWERS


def operations(kind: Kind, name: str, *, custom: bool) -> Iterator[Operation]:
    """Every operation of a kind whose definition is ``name``."""
    gvk = (kind.group, kind.version, kind.kind)
    base = f"{kind.path}/namespaces/{{namespace}}/{kind.plural}" if kind.namespaced else f"{kind.path}/{kind.plural}"
    scope = "Namespaced" if kind.namespaced else ""
    stem = _stem(kind)

    one = kind.kind
    item = f"{base}/{{name}}"
    if "list" in kind.verbs:
        yield Operation("get", base, "list", gvk, f"list{stem}{scope}{one}", _LIST, f"{name}List", custom=custom)
    if kind.namespaced and "list" in kind.verbs:
        every = f"{kind.path}/{kind.plural}"
        yield Operation(
            "get", every, "list", gvk, f"list{stem}{one}ForAllNamespaces", _LIST, f"{name}List", custom=custom
        )
    for method, path, action, verb, query, answer, body in (
        ("post", base, "post", "create", _WRITE, name, name),
        ("delete", base, "deletecollection", "deleteCollection", (*_DELETES, *_LIST[1:5]), _STATUS, _DELETE),
        ("get", item, "get", "read", ("pretty",), name, ""),
        ("put", item, "put", "replace", _WRITE, name, name),
        ("patch", item, "patch", "patch", _APPLIED, name, _PATCH),
        ("delete", item, "delete", "delete", _DELETES, _STATUS, _DELETE),
    ):
        if _VERBS.get(action, action) not in kind.verbs:
            continue
        yield Operation(method, path, action, gvk, f"{verb}{stem}{scope}{one}", query, answer, body, custom)
    for sub in kind.subresources:
        yield from _subresource(kind, name, f"{item}/{sub}", f"{stem}{scope}{one}{sub.title()}", custom=custom)


def _stem(kind: Kind) -> str:
    group = "".join(part.title() for part in kind.group.removesuffix(".k8s.io").replace("-", ".").split("."))
    return f"{group or 'Core'}{kind.version.title()}"


def _subresource(kind: Kind, name: str, path: str, stem: str, *, custom: bool) -> Iterator[Operation]:
    gvk, sub = (kind.group, kind.version, kind.kind), path.rpartition("/")[2]
    if (kind.qualified, sub) in CONNECTIONS:
        yield from _connection(CONNECTIONS[kind.qualified, sub], path, stem)
    elif sub in _SUBRESOURCES:
        body, theirs = _SUBRESOURCES[sub]
        yield Operation("post", path, "post", theirs, f"create{stem}", _WRITE, body, body)
    elif sub == "log":
        yield Operation("get", path, "get", gvk, f"read{stem}", _LOG, "")
    elif sub == "finalize":
        yield Operation("put", path, "put", gvk, f"replace{stem}", _WRITE, name, name)
    else:
        if sub == "scale":
            name, gvk = _SCALE
        yield Operation("get", path, "get", gvk, f"read{stem}", ("pretty",), name, custom=custom)
        yield Operation("put", path, "put", gvk, f"replace{stem}", _WRITE, name, name, custom)
        yield Operation("patch", path, "patch", gvk, f"patch{stem}", _APPLIED, name, _PATCH, custom)


def _connection(found: Connection, path: str, stem: str) -> Iterator[Operation]:
    theirs = ("", "v1", found.options)
    for method in found.methods:
        yield Operation(method, path, "connect", theirs, f"connect{method.title()}{stem}", found.query, "")


def _query_type(name: str) -> str:
    return "integer" if name in _INTEGERS else "boolean" if name in _BOOLEANS else "string"


def _gvk(operation: Operation) -> Raw:
    group, version, kind = operation.gvk
    return {"group": group, "kind": kind, "version": version}


def _common(operation: Operation) -> Raw:
    return {
        "operationId": operation.id,
        "tags": [operation.path.strip("/").partition("/")[0]],
        "x-kubernetes-action": operation.action,
        "x-kubernetes-group-version-kind": _gvk(operation),
    }


def _path_parameters(path: str) -> list[str]:
    return [name for name in ("name", "namespace") if f"{{{name}}}" in path]


def paths_v2(found: Iterator[Operation]) -> Raw:
    """The ``paths`` of a Swagger 2 document."""
    paths: Raw = {}
    for operation in found:
        parameters: list[Raw] = []
        if operation.body:
            schema = reference(operation.body, Dialect.V2)
            required = operation.method != "delete"
            parameters.append({"in": "body", "name": "body", "required": required, "schema": schema})
        parameters += [
            {"in": "query", "name": name, "type": _query_type(name), "uniqueItems": True} for name in operation.query
        ]
        good: Raw = {"description": "OK"}
        good["schema"] = reference(operation.answer, Dialect.V2) if operation.answer else {"type": "string"}
        item = paths.setdefault(operation.path, {})
        item[operation.method] = {
            **_common(operation),
            "schemes": ["https"],
            "consumes": list(operation.consumes) if operation.body else ["*/*"],
            "produces": list(operation.produces),
            "parameters": parameters,
            "responses": {"200": good, "401": {"description": "Unauthorized"}},
        }
        item["parameters"] = [
            {"in": "path", "name": name, "required": True, "type": "string", "uniqueItems": True}
            for name in _path_parameters(operation.path)
        ]
    return paths


def paths_v3(found: Iterator[Operation]) -> Raw:
    """The ``paths`` of an OpenAPI 3 document; an empty list is left out, since clients that decode and encode it lose it."""
    paths: Raw = {}
    for operation in found:
        schema = reference(operation.answer, Dialect.V3) if operation.answer else {"type": "string"}
        query = [
            {"in": "query", "name": name, "schema": {"type": _query_type(name), "uniqueItems": True}}
            for name in operation.query
        ]
        made = {
            **_common(operation),
            **({"parameters": query} if query else {}),
            "responses": {
                "200": {"description": "OK", "content": {media: {"schema": schema} for media in operation.produces}},
                "401": {"description": "Unauthorized"},
            },
        }
        if operation.body:
            body = {"schema": reference(operation.body, Dialect.V3)}
            made["requestBody"] = {"content": dict.fromkeys(operation.consumes, body)}
        item = paths.setdefault(operation.path, {})
        item[operation.method] = made
        placed = [
            {"in": "path", "name": name, "required": True, "schema": {"type": "string", "uniqueItems": True}}
            for name in _path_parameters(operation.path)
        ]
        if placed:
            item["parameters"] = placed
    return paths
