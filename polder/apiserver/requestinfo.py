"""What a path means: tenant prefix, group, version, namespace, resource, name, subresource, verb.

Source: Kubernetes API concepts, "Resource URIs"; the prefix ``/tenants/NAME`` is Polder's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from urllib.parse import unquote

from polder.apiserver.types import RequestInfo
from polder.base.ids import TenantName

_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch"}
_NAMESPACE_SUBRESOURCES = frozenset({"status", "finalize"})
_GROUP_DEPTH = {"api": 2, "apis": 3}


@dataclass(frozen=True, slots=True)
class ParsedPath:
    """A path before it is known which tenant it means. ``tenant`` is what the path says, None if it says nothing.

    ``path`` is without the tenant's prefix; ``rest`` is what follows the subresource (a proxy's path).
    """

    tenant: TenantName | None
    path: str
    verb: str
    group: str = ""
    version: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    rest: str = ""

    def info(self, tenant: TenantName) -> RequestInfo:
        """The same for one tenant."""
        return RequestInfo(
            tenant, self.verb, self.path, self.group, self.version, self.resource, self.subresource, self.namespace,
            self.name,
        )  # fmt: skip


def parse(method: str, path: str, query: Mapping[str, str]) -> ParsedPath:
    """Splits a raw (still percent-encoded) path. Never fails: what is no resource path has an empty ``resource``."""
    tenant, path = _split_tenant(path)
    plain = ParsedPath(tenant, path, method.lower())
    parts = [unquote(p) for p in path.strip("/").split("/")]
    depth = _GROUP_DEPTH.get(parts[0], 0)
    if not depth or len(parts) <= depth:
        return plain
    group, version = ("", parts[1]) if depth == 2 else (parts[1], parts[2])
    rest = parts[depth:]
    legacy_watch = rest[0] == "watch"
    if legacy_watch:
        rest = rest[1:]
    if not rest or not all(rest[:4]):
        return plain
    found = replace(_split_resource(plain, group, rest), group=group, version=version)
    if not group and found.resource == "bindings":  # the older way to bind; the pod's name is in the body
        found = replace(found, resource="pods", subresource="binding")
    return replace(found, verb=_verb(method, found, query, legacy_watch))


def _split_tenant(path: str) -> tuple[TenantName | None, str]:
    """Takes ``/tenants/NAME`` off the front."""
    if not path.startswith("/tenants/"):
        return None, path
    name, slash, rest = path[len("/tenants/") :].partition("/")
    if not name:
        return None, path
    return TenantName(unquote(name)), slash + rest or "/"


def _split_resource(plain: ParsedPath, group: str, rest: list[str]) -> ParsedPath:
    """Namespace, resource, name and subresource; ``namespaces`` itself is a resource of the core group."""
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2 and not (rest[2] in _NAMESPACE_SUBRESOURCES and not group):
        namespace, rest = rest[1], rest[2:]
    padded = [*rest, "", "", ""]
    return replace(
        plain,
        namespace=namespace,
        resource=padded[0],
        name=padded[1],
        subresource=padded[2],
        rest="/".join(rest[3:]),
    )


def _verb(method: str, found: ParsedPath, query: Mapping[str, str], legacy_watch: bool) -> str:
    """The Kubernetes verb of a resource request."""
    if method in {"GET", "HEAD"}:
        if legacy_watch:
            return "watch"
        if found.name:
            return "get"
        return "watch" if is_true(query.get("watch")) else "list"
    if method == "DELETE":
        return "delete" if found.name else "deletecollection"
    return _VERBS.get(method, method.lower())


def is_true(value: str | None) -> bool:
    """A boolean query parameter: present and empty counts as true, as upstream's conversion does."""
    return value is not None and value.lower() not in {"0", "false", "f"}
