"""No answer names or confirms another tenant: every verb of every kind, "exists elsewhere" against "exists nowhere".

Two servers stand beside each other: in one, ``globex`` has an object of (nearly) every kind; the other has no ``globex``. Whoever
is no party of globex asks both the same questions and gets the same bytes, but for UIDs, times and revisions.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from polder.api.kinds import BUILT_IN, Kind
from tests.contract.conftest import Api, Running
from tests.contract.conftest import running as running_fixture

TENANTS = "/apis/polder.dev/v1alpha1/tenants"
GLOBEX = "globex"
TOKEN = "/api/v1/namespaces/default/serviceaccounts/default/token"
VERBS = ("get", "list", "watch", "create", "update", "patch", "apply", "delete", "deletecollection")
CALLERS = ("tenant-admin", "account", "account-with-everything", "nobody", "node", "user")
NAME = "theirs"
_CHANGING = re.compile(
    rb'"(uid|creationTimestamp|resourceVersion|lastTransitionTime|time|continue|clusterIP|expirationTimestamp)":("[^"]*"|null)'
    rb'|resource version: \d+|"serverAddress":"[^"]*"|"ca[.]crt":"[^"]*"|(JTI|X509SHA256)=[-0-9a-f]*'
)


@dataclass
class Side:
    """One server and its callers."""

    server: Running
    callers: dict[str, Api]


@asynccontextmanager
async def started(folder: Path) -> AsyncIterator[Running]:
    folder.mkdir()  # noqa: ASYNC240 - on a disk of the test's own
    made = running_fixture.__wrapped__(folder)  # type: ignore[attr-defined]
    try:
        yield await anext(made)
    finally:
        await anext(made, None)


def crd(name: str = "widgets") -> Any:
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}
    names = {"plural": name, "singular": name[:-1], "kind": name[:-1].title()}
    return {
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{name}.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": names, "versions": [version]},
    }  # fmt: skip


async def everything_else(admin: Api) -> None:
    """What globex has: objects of the kinds that need no more than a name, a network, a definition, a node with a name of its
    own, a request for a certificate."""
    globex = admin.at(GLOBEX)
    for namespace in (NAME,):
        assert (await globex.post("/api/v1/namespaces", {"metadata": {"name": namespace}})).status == 201
    spec = {"request": "", "signerName": "example.com/x", "usages": ["client auth"]}
    network = {"metadata": {"name": NAME}, "spec": {"cidr": "10.9.0.0/16"}}
    for path, body in (
        ("/apis/polder.dev/v1alpha1/namespaces/default/networks", network),
        ("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", crd()),
        ("/apis/certificates.k8s.io/v1/certificatesigningrequests", {"metadata": {"name": NAME}, "spec": spec}),
        *((f"/api/v1/namespaces/{place}/{plural}", {"metadata": {"name": NAME}})
          for place in ("default", NAME) for plural in ("configmaps", "secrets", "serviceaccounts")),
        ("/api/v1/nodes", {"metadata": {"name": NAME}}),
        ("/apis/rbac.authorization.k8s.io/v1/clusterroles", {"metadata": {"name": NAME}}),
        ("/apis/storage.k8s.io/v1/storageclasses", {"metadata": {"name": NAME}, "provisioner": "a.b/c"}),
        ("/apis/polder.dev/v1alpha1/namespaces/default/ports", {"metadata": {"name": NAME}, "spec": {
            "network": f"default/{NAME}", "node": "n9"}}),
    ):  # fmt: skip
        answer = await globex.post(path, body)
        assert answer.status in {201, 400, 422}, (path, answer.body)
    segment = {"vni": 77, "tenant": GLOBEX, "network": "default/theirs", "networkUid": "u"}
    assert (
        await admin.post("/apis/polder.dev/v1alpha1/segments", {"metadata": {"name": "vni-77"}, "spec": segment})
    ).status == 201


async def callers(server: Running) -> dict[str, Api]:
    admin = server.admin()
    acme = await server.tenant_admin("acme")
    token = (await acme.post(TOKEN, {"spec": {}})).json["status"]["token"]
    await acme.post("/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "top"}})
    ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}
    subject = {"kind": "ServiceAccount", "name": "top", "namespace": "default"}
    made = await acme.post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
                           {"metadata": {"name": "top"}, "roleRef": ref, "subjects": [subject]})  # fmt: skip
    assert made.status == 201
    top = (await acme.post(TOKEN.replace("/default/token", "/top/token"), {"spec": {}})).json["status"]["token"]
    user = (await admin.post(TOKEN, {"spec": {}})).json["status"]["token"]
    return {
        "tenant-admin": acme, "account": server.client(token=token), "account-with-everything": server.client(token=top),
        "nobody": server.client(), "node": server.node("n1"), "user": server.client(token=user),
    }  # fmt: skip


@pytest.fixture
async def sides(tmp_path: Path) -> AsyncIterator[tuple[Side, Side]]:
    async with AsyncExitStack() as ends:
        found = []
        for number, tenants in enumerate((("acme", GLOBEX), ("acme",))):
            server = await ends.enter_async_context(started(tmp_path / f"s{number}"))
            admin = server.admin()
            for name in tenants:
                assert (await admin.post(TENANTS, {"metadata": {"name": name}})).status == 201
            assert (await admin.post("/api/v1/nodes", {"metadata": {"name": "n1"}})).status == 201
            if GLOBEX in tenants:
                await everything_else(admin)
            found.append(Side(server, await callers(server)))
        yield found[0], found[1]


def path_of(kind: Kind, name: str = "", namespace: str = "default") -> str:
    place = f"/namespaces/{namespace}" if kind.namespaced else ""
    return f"{kind.path}{place}/{kind.plural}{f'/{name}' if name else ''}"


def questions(verb: str, prefix: str) -> Iterator[tuple[str, str, Any]]:
    """Method, path and body, for every kind that there is, one that globex defined, and places that it alone has."""
    widgets = Kind("example.com", "v1", "Widget", "widgets", "widget")
    names = {"tenants": GLOBEX, "segments": "vni-77"}
    for kind in (*BUILT_IN, widgets):
        name = names.get(kind.plural, NAME)
        for namespace in (("default",) if prefix else ("default", NAME)) if kind.namespaced else ("",):
            one, all_ = prefix + path_of(kind, name, namespace), prefix + path_of(kind, "", namespace)
            body = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": name}}
            method, path, sent = {
                "get": ("GET", one, None), "list": ("GET", all_, None),
                "watch": ("GET", f"{all_}?watch=1&timeoutSeconds=9", None),
                "create": ("POST", f"{all_}?dryRun=All", body), "update": ("PUT", f"{one}?dryRun=All", body),
                "patch": ("PATCH", f"{one}?dryRun=All", {"metadata": {"labels": {"a": "b"}}}),
                "apply": ("PATCH", f"{one}?dryRun=All&fieldManager=me", body),
                "delete": ("DELETE", f"{one}?dryRun=All", None), "deletecollection": ("DELETE", f"{all_}?dryRun=All", None),
            }[verb]  # fmt: skip
            yield method, path, sent
        for subresource in kind.subresources:
            if verb == "get":
                yield "GET", f"{prefix}{path_of(kind, name)}/{subresource}", None
    if verb == "get":
        for path in ("/", "/api", "/apis", "/apis/example.com/v1", "/openapi/v2", "/openapi/v3", "/version", "/metrics",
                     "/healthz", "/readyz?verbose", "/nonsense", "/openid/v1/jwks", "/polder/v1/stream",
                     "/.well-known/openid-configuration"):  # fmt: skip
            yield "GET", f"{prefix}{path}", None


async def answered(caller: Api, method: str, path: str, body: Any) -> tuple[int, bytes]:
    kind = {"PATCH": "application/apply-patch+yaml" if "fieldManager" in path else "application/merge-patch+json"}
    headers = {"Content_Type": kind.get(method, "application/json")}
    if "watch=1" in path:
        async with caller.watch(path) as stream:
            if stream.status == 200:
                return 200, b""  # what streams, the lists say; a watch of nothing has nothing to compare
            return stream.status, _CHANGING.sub(b"", await stream.read())
    answer = await caller.call(method, path, body, **headers)
    return answer.status, _CHANGING.sub(b"", answer.body)


@pytest.mark.parametrize("verb", VERBS)
async def test_every_question_has_the_same_answer(sides: tuple[Side, Side], verb: str) -> None:
    theirs, nowhere = sides
    different = []
    for who in CALLERS:
        for prefix in ("", f"/tenants/{GLOBEX}", "/tenants/*"):
            if (prefix, who, verb) == ("/tenants/*", "node", "watch"):
                continue  # the node lists the same and is told the rest as it arrives
            for method, path, body in questions(verb, prefix):
                if path.startswith("/openid/v1/jwks"):
                    continue  # each server has keys of its own
                one, other = await asyncio.gather(
                    *(answered(side.callers[who], method, path, body) for side in (theirs, nowhere))
                )
                if one != other:
                    different.append((who, method, path, one, other))
                assert b"theirs" not in one[1].replace(path.encode(), b"") or b"theirs" in other[1], (
                    who,
                    method,
                    path,
                    one,
                )
    assert not different, json.dumps([d[:3] for d in different[:20]]) + repr(different[0])


async def test_the_comparison_sees_a_difference(sides: tuple[Side, Side]) -> None:
    path = f"/tenants/{GLOBEX}/api/v1/namespaces/default/configmaps/{NAME}"
    one, other = [await answered(side.server.admin(), "GET", path, None) for side in sides]
    assert one != other
