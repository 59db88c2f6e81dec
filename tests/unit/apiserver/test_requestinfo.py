from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polder.apiserver.requestinfo import is_true, parse
from polder.base.ids import TenantName

NAMES = ("tenant", "verb", "group", "version", "resource", "subresource", "namespace", "name")

CASES = [
    ("GET", "/api/v1/pods", "", (None, "list", "", "v1", "pods", "", "", "")),
    ("GET", "/api/v1/pods", "watch=1", (None, "watch", "", "v1", "pods", "", "", "")),
    ("GET", "/api/v1/pods", "watch=false", (None, "list", "", "v1", "pods", "", "", "")),
    ("GET", "/api/v1/namespaces/d/pods/p", "", (None, "get", "", "v1", "pods", "", "d", "p")),
    ("GET", "/api/v1/namespaces/d/pods/p/log", "", (None, "get", "", "v1", "pods", "log", "d", "p")),
    ("GET", "/api/v1/namespaces", "", (None, "list", "", "v1", "namespaces", "", "", "")),
    ("GET", "/api/v1/namespaces/d", "", (None, "get", "", "v1", "namespaces", "", "", "d")),
    ("PUT", "/api/v1/namespaces/d/finalize", "", (None, "update", "", "v1", "namespaces", "finalize", "", "d")),
    ("PATCH", "/api/v1/namespaces/d/status", "", (None, "patch", "", "v1", "namespaces", "status", "", "d")),
    ("POST", "/api/v1/namespaces/d/pods", "", (None, "create", "", "v1", "pods", "", "d", "")),
    ("DELETE", "/api/v1/namespaces/d/pods/p", "", (None, "delete", "", "v1", "pods", "", "d", "p")),
    ("DELETE", "/api/v1/namespaces/d/pods", "", (None, "deletecollection", "", "v1", "pods", "", "d", "")),
    ("POST", "/api/v1/namespaces/d/bindings", "", (None, "create", "", "v1", "pods", "binding", "d", "")),
    ("GET", "/apis/g.io/v2/things/t/status", "", (None, "get", "g.io", "v2", "things", "status", "", "t")),
    ("GET", "/apis/g.io/v1/namespaces/d/things", "", (None, "list", "g.io", "v1", "things", "", "d", "")),
    ("GET", "/api/v1/watch/namespaces/d/pods/p", "", (None, "watch", "", "v1", "pods", "", "d", "p")),
    ("GET", "/api/v1/watch/pods", "", (None, "watch", "", "v1", "pods", "", "", "")),
    ("GET", "/tenants/acme/api/v1/pods", "", ("acme", "list", "", "v1", "pods", "", "", "")),
    ("GET", "/tenants/*/api/v1/pods", "", ("*", "list", "", "v1", "pods", "", "", "")),
    ("GET", "/tenants/%2A/api/v1/pods", "", ("*", "list", "", "v1", "pods", "", "", "")),
    ("GET", "/tenants/acme", "", ("acme", "get", "", "", "", "", "", "")),
    ("GET", "/tenants/acme/tenants/globex/api/v1/pods", "", ("acme", "get", "", "", "", "", "", "")),
    ("GET", "/tenants//api/v1/pods", "", (None, "get", "", "", "", "", "", "")),
    ("GET", "/api", "", (None, "get", "", "", "", "", "", "")),
    ("GET", "/api/v1", "", (None, "get", "", "", "", "", "", "")),
    ("GET", "/apis/g.io/v1", "", (None, "get", "", "", "", "", "", "")),
    ("GET", "/api/v1/watch", "", (None, "get", "", "", "", "", "", "")),
    ("GET", "/api/v1//pods", "", (None, "get", "", "", "", "", "", "")),
    ("HEAD", "/healthz", "", (None, "head", "", "", "", "", "", "")),
]


@pytest.mark.parametrize(("method", "path", "query", "wanted"), CASES)
def test_paths(method: str, path: str, query: str, wanted: tuple[str | None, ...]) -> None:
    pairs = dict(part.split("=") for part in query.split("&") if part)
    found = parse(method, path, pairs)
    assert tuple(getattr(found, name) for name in NAMES) == wanted


def test_an_encoded_slash_is_part_of_a_name() -> None:
    found = parse("GET", "/api/v1/namespaces/d/pods/a%2Fb", {})
    assert (found.name, found.subresource) == ("a/b", "")


def test_the_rest_of_a_proxied_path() -> None:
    found = parse("GET", "/api/v1/namespaces/d/pods/p/proxy/x/y", {})
    assert (found.subresource, found.rest) == ("proxy", "x/y")


@given(st.text(alphabet="/%apistentwchvx12*-.A0 ", max_size=60), st.sampled_from(["GET", "POST", "X"]))
def test_any_path_is_read(path: str, method: str) -> None:
    found = parse(method, "/" + path, {})
    assert found.info(TenantName("t")).is_resource == bool(found.resource)


@pytest.mark.parametrize(
    ("text", "wanted"), [(None, False), ("", True), ("1", True), ("true", True), ("0", False), ("False", False)]
)
def test_booleans(text: str | None, wanted: bool) -> None:
    assert is_true(text) is wanted
