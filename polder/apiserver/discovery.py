"""Discovery: /api, /apis and below, in the legacy and the aggregated form; one document per tenant's set of kinds.

Source: Kubernetes documentation, "The Kubernetes API: API discovery"; apidiscovery.k8s.io/v2.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from aiohttp import web

from polder.api.connections import CONNECTIONS
from polder.api.errors import no_such_path
from polder.api.kinds import BUILT_IN, STORED_FORM, Kind
from polder.api.meta import Raw
from polder.apiserver.aggregation_discovery import RemoteDocuments
from polder.apiserver.answers import raw_answer
from polder.apiserver.catalog import Catalog, Resource
from polder.apiserver.hooks import Call
from polder.apiserver.negotiate import clauses
from polder.base.ids import ROOT

_STATUS_VERBS = ("get", "patch", "update")
_SCALE = ("autoscaling", "v1", "Scale", _STATUS_VERBS)
_SUBRESOURCES: dict[tuple[str, str], tuple[str, str, str, tuple[str, ...]]] = {
    ("pods", "binding"): ("", "v1", "Binding", ("create",)),
    ("pods", "eviction"): ("policy", "v1", "Eviction", ("create",)),
    ("pods", "log"): ("", "v1", "Pod", ("get",)),
    ("namespaces", "finalize"): ("", "v1", "Namespace", ("update",)),
    ("serviceaccounts", "token"): ("authentication.k8s.io", "v1", "TokenRequest", ("create",)),
    **{where: ("", "v1", found.options, found.verbs) for where, found in CONNECTIONS.items()},
}
_PATHS = (
    "/.well-known/openid-configuration", "/api", "/api/v1", "/apis", "/healthz", "/livez", "/openapi/v2", "/openapi/v3",
    "/openid/v1/jwks", "/readyz", "/version",
)  # fmt: skip
_ORDER = tuple(dict.fromkeys(kind.group for kind in BUILT_IN))


@dataclass(frozen=True, slots=True)
class Discovery:
    """Says what there is."""

    catalog: Catalog
    remote: RemoteDocuments | None = None

    async def core(self, call: Call) -> web.StreamResponse:
        """``/api`` and ``/api/v1``."""
        found = await self._kinds(call)
        if call.info.path.rstrip("/") == "/api":
            if aggregated := _aggregated_version(call):
                return _aggregate([r for r in found if not r.kind.group], aggregated)
            address = {"clientCIDR": "0.0.0.0/0", "serverAddress": call.request.headers.get("Host", "")}
            versions = {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [address]}
            return raw_answer(versions)
        return _resources(found, call.info.path.removeprefix("/api/"))

    async def groups(self, call: Call) -> web.StreamResponse:
        """``/apis``, ``/apis/GROUP`` and ``/apis/GROUP/VERSION``."""
        found = [r for r in await self._kinds(call) if r.kind.group]
        rest = call.info.path.removeprefix("/apis").strip("/")
        if not rest:
            if aggregated := _aggregated_version(call):
                return _aggregate(found, aggregated)
            groups = [_group(name, found) for name in _group_names(found)]
            return raw_answer({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
        if "/" in rest:
            return _resources(found, rest)
        if rest not in _group_names(found):
            raise no_such_path()
        return raw_answer({"kind": "APIGroup", "apiVersion": "v1", **_group(rest, found)})

    async def paths(self, call: Call) -> web.StreamResponse:
        """``/``: what there is to ask for."""
        found = await self._kinds(call)
        groups = [name for name in _group_names(found) if name]
        below = [f"/apis/{name}{rest}" for name in groups for rest in ("", *(f"/{v}" for v in _versions(name, found)))]
        return raw_answer({"paths": sorted([*_PATHS, *below, *(["/metrics"] if call.info.tenant == ROOT else [])])})

    async def _kinds(self, call: Call) -> list[Resource]:
        found = await self.catalog.all(call.info.tenant)
        if self.remote is None or not (call.info.path.startswith("/apis") or call.info.path == "/"):
            return found
        return [*found, *await self.remote.resources(call.info.tenant)]


def _resources(found: Iterable[Resource], api_version: str) -> web.StreamResponse:
    """The legacy APIResourceList of one group version. Raises ApiError 404."""
    rows = [row for r in found if r.kind.api_version == api_version for row in _legacy_rows(r.kind)]
    rows.sort(key=lambda row: str(row["name"]))
    if not rows:
        raise no_such_path()
    body = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version, "resources": rows}
    return raw_answer(body)


def _group_names(found: Sequence[Resource]) -> list[str]:
    """Built-in groups in a fixed order, then the others by name."""
    names = {r.kind.group for r in found}
    return sorted(names, key=lambda n: (_ORDER.index(n) if n in _ORDER else len(_ORDER), n))


def _versions(group: str, found: Iterable[Resource]) -> list[str]:
    """The versions of a group, the preferred first."""
    return sorted(dict.fromkeys(r.kind.version for r in found if r.kind.group == group), key=version_priority)


def version_priority(version: str) -> tuple[int, int, int, str]:
    """Sorts Kubernetes versions, GA before beta before alpha, newest first, others last."""
    for rank, stage in enumerate(("", "beta", "alpha")):
        major, found, minor = version[1:].partition(stage) if stage else (version[1:], "", "0")
        if version.startswith("v") and major.isdigit() and minor.isdigit() and bool(found) == bool(stage):
            return rank, -int(major), -int(minor), ""
    return 3, 0, 0, version


def _group(name: str, found: Sequence[Resource]) -> Raw:
    versions = [{"groupVersion": f"{name}/{v}", "version": v} for v in _versions(name, found)]
    return {"name": name, "versions": versions, "preferredVersion": versions[0]}


def _legacy_rows(kind: Kind) -> list[Raw]:
    row: Raw = {
        "name": kind.plural,
        "singularName": kind.singular,
        "namespaced": kind.namespaced,
        "kind": kind.kind,
        "verbs": list(kind.verbs),
    }
    if kind.short:
        row["shortNames"] = list(kind.short)
    if kind.categories:
        row["categories"] = list(kind.categories)
    if kind.stored:
        row["storageVersionHash"] = _storage_hash(STORED_FORM.get(kind.resource, kind))
    return [row, *(_legacy_subresource(kind, name) for name in kind.subresources)]


def _storage_hash(kind: Kind) -> str:
    digest = hashlib.sha256(f"{kind.group}/{kind.version}/{kind.kind}".encode()).digest()
    return base64.b64encode(digest[:8]).decode()


def _subresource(kind: Kind, name: str) -> tuple[str, str, str, tuple[str, ...]]:
    """Group, version, kind and verbs."""
    if name == "scale":
        return _SCALE
    return _SUBRESOURCES.get((kind.qualified, name), (kind.group, kind.version, kind.kind, _STATUS_VERBS))


def _legacy_subresource(kind: Kind, name: str) -> Raw:
    group, version, named, verbs = _subresource(kind, name)
    row: Raw = {
        "name": f"{kind.plural}/{name}",
        "singularName": "",
        "namespaced": kind.namespaced,
        "kind": named,
        "verbs": list(verbs),
    }
    if group != kind.group:
        row |= {"group": group, "version": version}
    return row


# --- aggregated -------------------------------------------------------------------------------------------------------


def _aggregated_version(call: Call) -> str:
    """``v2`` or ``v2beta1`` if the caller prefers APIGroupDiscoveryList."""
    for clause in clauses(call.request.headers.get("Accept", "")):
        if clause.media != "application/json":
            continue
        if not clause.params.get("as"):
            return ""
        wanted = (clause.params.get("as"), clause.params.get("g"))
        if wanted == ("APIGroupDiscoveryList", "apidiscovery.k8s.io") and clause.params.get("v") in {"v2", "v2beta1"}:
            return clause.params["v"]
    return ""


def _aggregate(found: Sequence[Resource], version: str) -> web.StreamResponse:
    items = [_aggregated_group(name, found) for name in _group_names(found)]
    api_version = f"apidiscovery.k8s.io/{version}"
    answer = raw_answer({"kind": "APIGroupDiscoveryList", "apiVersion": api_version, "metadata": {}, "items": items})
    kind = "as=APIGroupDiscoveryList"
    answer.headers["Content-Type"] = f"application/json;g=apidiscovery.k8s.io;v={version};{kind}"
    answer.headers["Vary"] = "Accept"
    return answer


def _aggregated_group(name: str, found: Sequence[Resource]) -> Raw:
    versions = []
    for version in _versions(name, found):
        kinds = [r.kind for r in found if (r.kind.group, r.kind.version) == (name, version)]
        rows = [_aggregated_row(kind) for kind in sorted(kinds, key=lambda kind: kind.plural)]
        versions.append({"version": version, "resources": rows, "freshness": "Current"})
    return {
        "metadata": {"name": name, "creationTimestamp": None} if name else {"creationTimestamp": None},
        "versions": versions,
    }


def _aggregated_row(kind: Kind) -> Raw:
    row: Raw = {
        "resource": kind.plural,
        "responseKind": {"group": kind.group, "version": kind.version, "kind": kind.kind},
        "scope": "Namespaced" if kind.namespaced else "Cluster",
        "singularResource": kind.singular,
        "verbs": list(kind.verbs),
    }
    if kind.short:
        row["shortNames"] = list(kind.short)
    if kind.categories:
        row["categories"] = list(kind.categories)
    if kind.subresources:
        row["subresources"] = [_aggregated_subresource(kind, name) for name in kind.subresources]
    return row


def _aggregated_subresource(kind: Kind, name: str) -> Raw:
    group, version, named, verbs = _subresource(kind, name)
    return {
        "subresource": name,
        "responseKind": {"group": group, "version": version, "kind": named},
        "verbs": list(verbs),
    }
