"""Aggregated APIs against a real TLS server that plays an extension API server: availability, proxying, discovery.

Transcribes the behaviours that upstream's test/e2e/apimachinery/aggregator.go checks, without its container.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from polder.apiserver import aggregation_proxy
from tests.contract.conftest import Api, Running
from tests.contract.hooked import Site, endpoints, expose, site

PATH = "/apis/apiregistration.k8s.io/v1/apiservices"
FLUNDERS = "/apis/wardle.example.com/v1alpha1/namespaces/default/flunders"
RESOURCES = {
    "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "wardle.example.com/v1alpha1", "resources": [
        {"name": "flunders", "singularName": "flunder", "namespaced": True, "kind": "Flunder", "shortNames": ["fl"],
         "verbs": ["create", "get", "list", "watch"]},
        {"name": "flunders/status", "singularName": "", "namespaced": True, "kind": "Flunder", "verbs": ["get"]},
    ],
}  # fmt: skip


@pytest.fixture
async def wardle(running: Running, tmp_path: Path) -> AsyncIterator[Site]:
    """The extension server asks for a certificate of the front proxy's authority."""
    trust = tmp_path / "front-proxy.crt"
    trust.write_bytes(running.pki.authority("front-proxy").bundle)
    async with site(tmp_path, "api.default.svc", client_ca=trust) as found:
        found.paths["/apis/wardle.example.com/v1alpha1"] = lambda *_: RESOURCES
        found.paths[FLUNDERS] = lambda *_: {
            "kind": "FlunderList",
            "apiVersion": "wardle.example.com/v1alpha1",
            "items": [],
        }
        found.paths["/openapi/v3/apis/wardle.example.com/v1alpha1"] = lambda *_: {
            "openapi": "3.0.0",
            "paths": {"x": {}},
        }
        found.paths["/openapi/v2"] = lambda *_: SECOND
        yield found


SECOND = {
    "swagger": "2.0", "info": {"title": "wardle", "version": "1"},
    "paths": {
        "/apis/wardle.example.com/v1alpha1/namespaces/{namespace}/flunders": {"get": {"responses": {"200": {
            "description": "OK", "schema": {"$ref": "#/definitions/Flunder"}}}}},
        "/api/v1/evil": {"get": {"responses": {}}},
    },
    "definitions": {
        "Flunder": {"type": "object", "properties": {"spec": {"$ref": "#/definitions/io.k8s.api.core.v1.PodSpec"}}},
        "io.k8s.api.core.v1.PodSpec": {"type": "object", "properties": {"other": {}}}, "Unused": {"type": "object"},
    },
}  # fmt: skip


def api_service(group: str = "wardle.example.com", version: str = "v1alpha1", **spec: Any) -> Any:
    return {
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": f"{version}.{group}"},
        "spec": {"group": group, "version": version, "groupPriorityMinimum": 2000, "versionPriority": 200, **spec},
    }  # fmt: skip


def service(server: Site, **more: Any) -> Any:
    return {"service": {"namespace": "default", "name": "api", "port": 443}, "caBundle": server.bundle, **more}


async def condition(api: Api, status: str, seconds: float = 8.0, name: str = "v1alpha1.wardle.example.com") -> Any:
    """The Available condition once it has a status."""
    async with asyncio.timeout(seconds):
        while True:
            found = (await api.get(f"{PATH}/{name}")).json.get("status", {}).get("conditions", [])
            if found and found[0]["status"] == status:
                return found[0]
            await asyncio.sleep(0.05)


async def status_of(api: Api, path: str) -> int:
    """The status of a GET of a path that nobody puts in order first."""
    url = URL(f"https://127.0.0.1:{api.server.port}{path}", encoded=True)
    async with api.session.get(url) as found:
        return found.status


async def registered(admin: Api, wardle: Site) -> None:
    await expose(admin, wardle.port, "api")
    assert (await admin.post(PATH, api_service(**service(wardle)))).status == 201
    await condition(admin, "True")


async def test_own_groups_are_local_and_available(running: Running, admin: Api) -> None:
    tenant = {"apiVersion": "polder.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": "acme"}}
    assert (await admin.post("/apis/polder.dev/v1alpha1/tenants", tenant)).status == 201
    for api in (admin, await running.tenant_admin("acme")):
        items = {item["metadata"]["name"]: item for item in (await api.get(PATH)).json["items"]}
        assert {"v1.", "v1.apps", "v2.autoscaling", "v1.storage.k8s.io"} <= items.keys()
        for item in items.values():
            assert "service" not in item["spec"]
            said = item["status"]["conditions"][0]
            assert (said["type"], said["status"], said["reason"]) == ("Available", "True", "Local")
        assert items["v1."]["spec"] == {"version": "v1", "groupPriorityMinimum": 18000, "versionPriority": 1}
        assert (await api.delete(f"{PATH}/v1.apps")).status == 200
        assert (await api.get(f"{PATH}/v1.apps")).status == 200, "it is back at once"


async def test_requests_are_passed_on_with_who_asks(running: Running, admin: Api, wardle: Site) -> None:
    await registered(admin, wardle)
    said = await condition(admin, "True")
    assert (said["reason"], said["message"]) == ("Passed", "all checks passed")
    wardle.requests.clear()
    answer = await admin.get(
        f"{FLUNDERS}?labelSelector=a%3Db&limit=5", X_Remote_User="evil", X_Remote_Group="system:masters"
    )
    assert answer.status == 200
    assert answer.json["kind"] == "FlunderList"
    [request] = wardle.requests
    assert request.rel_url.raw_query_string == "labelSelector=a%3Db&limit=5"
    assert request.headers.getall("X-Remote-User") == ["admin"]
    assert "system:masters" not in request.headers.getall("X-Remote-Group")
    assert "Authorization" not in request.headers
    assert request.headers["Host"] == "api.default.svc"
    shown = request.transport.get_extra_info("peercert")
    assert (("commonName", "system:polder:front-proxy:root"),) in shown["subject"]


async def test_bodies_statuses_and_streams_pass(admin: Api, wardle: Site) -> None:
    await registered(admin, wardle)
    release = asyncio.Event()

    async def create(request: web.BaseRequest, body: Any) -> web.StreamResponse:
        if request.query.get("watch"):
            response = web.StreamResponse(headers={"Content-Type": "application/json"})
            response.enable_chunked_encoding()
            await response.prepare(request)
            await response.write(b'{"type":"ADDED"}\n')
            await release.wait()
            await response.write(b'{"type":"DELETED"}\n')
            return response
        return web.json_response(
            {"got": body, "by": request.method}, status=418, headers={"X-Odd": "1", "Set-Cookie": "a=b"}
        )

    wardle.paths[FLUNDERS] = create
    answer = await admin.post(FLUNDERS, {"kind": "Flunder"})
    assert (answer.status, answer.json) == (418, {"got": {"kind": "Flunder"}, "by": "POST"})
    assert answer.headers["X-Odd"] == "1"
    assert "Set-Cookie" not in answer.headers
    async with admin.watch(f"{FLUNDERS}?watch=true") as stream:
        assert json.loads(await stream.content.readline()) == {"type": "ADDED"}
        release.set()
        assert json.loads(await stream.content.readline()) == {"type": "DELETED"}
        assert await stream.content.read() == b""


async def test_a_redirect_is_not_passed_on(admin: Api, wardle: Site) -> None:
    """Who follows it would ask something else, with their own credential: of the server itself, or of what is near them."""
    await registered(admin, wardle)
    wardle.paths[FLUNDERS] = lambda *_: web.Response(status=307, headers={"Location": "/api/v1/namespaces"})
    answer = await admin.call("DELETE", FLUNDERS)
    assert answer.status == 502
    assert "Location" not in answer.headers
    assert "the backend attempted to redirect this request, which is not permitted" in answer.json["message"]


async def test_the_platforms_own_controllers_are_not_held_up(
    admin: Api, wardle: Site, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their workers serve other tenants too."""
    monkeypatch.setattr(aggregation_proxy, "HURRIED", 0.5)
    await registered(admin, wardle)
    release = asyncio.Event()

    async def trickle(request: web.BaseRequest, _: Any) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while not release.is_set():
            await response.write(b" " * (1 << 20 if request.query.get("much") else 1))
            await asyncio.sleep(0.05)
        return response

    wardle.paths[FLUNDERS] = trickle
    controller, loop = running.component(), asyncio.get_running_loop()
    for path in (FLUNDERS, f"{FLUNDERS}?much=1"):
        began = loop.time()
        with pytest.raises(aiohttp.ClientError):
            await controller.get(path)
        assert loop.time() - began < 4
    release.set()


async def test_what_was_asked_of_the_right_is_what_is_passed_on(admin: Api, wardle: Site) -> None:
    await registered(admin, wardle)
    for odd in ("a%2Fstatus", "..", "%2e%2e", "a/%2F"):
        wardle.requests.clear()
        answer = await status_of(admin, f"{FLUNDERS}/{odd}")
        assert (answer, wardle.requests) == (400, []), odd


async def test_an_apiservice_goes_with_its_owner(admin: Api, wardle: Site, running: Running) -> None:
    await expose(admin, wardle.port, "api")
    made = api_service(**service(wardle))
    owner = {"apiVersion": "v1", "kind": "Namespace", "name": "default", "uid": "1234"}
    made["metadata"]["ownerReferences"] = [owner]
    assert (await admin.post(PATH, made)).status == 201
    await condition(admin, "True")
    assert [key.name for key in await running.store.by_term("owner/1234")] == ["v1alpha1.wardle.example.com"]


async def test_discovery_and_openapi_have_it_in_them(admin: Api, wardle: Site) -> None:
    assert (await admin.get("/apis/wardle.example.com")).status == 404
    await registered(admin, wardle)
    group = (await admin.get("/apis/wardle.example.com")).json
    assert group["preferredVersion"]["groupVersion"] == "wardle.example.com/v1alpha1"
    assert "wardle.example.com" in {g["name"] for g in (await admin.get("/apis")).json["groups"]}
    assert (await admin.get("/apis/wardle.example.com/v1alpha1")).json == RESOURCES
    accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    found = (await admin.get("/apis", Accept=accept)).json["items"]
    [ours] = [item for item in found if item["metadata"]["name"] == "wardle.example.com"]
    [row] = ours["versions"][0]["resources"]
    assert (row["resource"], row["scope"], row["shortNames"]) == ("flunders", "Namespaced", ["fl"])
    assert row["subresources"][0]["subresource"] == "status"
    second = (await admin.get("/openapi/v2")).json
    operation = second["paths"]["/apis/wardle.example.com/v1alpha1/namespaces/{namespace}/flunders"]["get"]
    assert operation["responses"]["200"]["schema"] == {"$ref": "#/definitions/Flunder"}
    assert second["definitions"]["Flunder"]["properties"]["spec"] == {
        "$ref": "#/definitions/io.k8s.api.core.v1.PodSpec_v2"
    }
    assert second["definitions"]["io.k8s.api.core.v1.PodSpec_v2"] == {"type": "object", "properties": {"other": {}}}
    assert "containers" in second["definitions"]["io.k8s.api.core.v1.PodSpec"]["properties"], "ours is as it was"
    assert {"Unused"} & second["definitions"].keys() == set()
    assert "/api/v1/evil" not in second["paths"]
    proto = await admin.get("/openapi/v2", Accept="application/com.github.proto-openapi.spec.v2@v1.0+protobuf")
    assert (proto.status, b"wardle.example.com" in proto.body) == (200, True)
    index = (await admin.get("/openapi/v3")).json["paths"]
    assert "apis/wardle.example.com/v1alpha1" in index
    assert (await admin.get("/openapi/v3/apis/wardle.example.com/v1alpha1")).json["paths"] == {"x": {}}


async def test_a_document_that_cannot_be_read_takes_nothing_away(admin: Api, wardle: Site) -> None:
    await registered(admin, wardle)
    deep: Any = {}
    for _ in range(800):
        deep = {"a": deep}
    for said in (
        [],
        {"paths": 7},
        {"paths": {"/apis/wardle.example.com/v1alpha1/x": {"get": 1}}, "definitions": deep},
        "x",
    ):
        wardle.paths["/openapi/v2"] = lambda *_, said=said: web.json_response(said)
        for accept in ("application/json", "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"):
            answer = await admin.get("/openapi/v2", Accept=accept)
            assert (answer.status, b"PodSpec" in answer.body) == (200, True)


async def test_what_does_not_answer_is_not_available_and_says_why(admin: Api, wardle: Site) -> None:
    assert (await admin.post(PATH, api_service(**service(wardle)))).status == 201
    said = await condition(admin, "False")
    assert (said["reason"], said["message"]) == ("ServiceNotFound", 'service/api in "default" is not present')
    refused = await admin.get(FLUNDERS)
    assert (refused.status, refused.json["message"]) == (503, "service unavailable")
    await expose(admin, wardle.port, "api")
    await admin.delete("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/api-1")
    await admin.patch(f"{PATH}/v1alpha1.wardle.example.com", {"metadata": {"labels": {"look": "again"}}})
    async with asyncio.timeout(8):
        while (await condition(admin, "False"))["reason"] != "MissingEndpoints":  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    await endpoints(admin, wardle.port, "api")
    wardle.paths["/apis/wardle.example.com/v1alpha1"] = lambda *_: web.Response(status=500)
    await admin.patch(f"{PATH}/v1alpha1.wardle.example.com", {"metadata": {"labels": {"look": "3"}}})
    async with asyncio.timeout(8):
        while (said := await condition(admin, "False"))["reason"] != "FailedDiscoveryCheck":  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert said["message"].endswith("bad status from https://api.default.svc:443/apis/wardle.example.com/v1alpha1: 500")


async def test_the_certificate_of_the_other_server_is_checked(admin: Api, wardle: Site, running: Running) -> None:
    await expose(admin, wardle.port, "api")
    wrong = service(wardle, caBundle="LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCg==")
    assert (await admin.post(PATH, api_service(**wrong))).status == 201
    assert (await condition(admin, "False"))["reason"] == "FailedDiscoveryCheck"
    unchecked = {"spec": {"insecureSkipTLSVerify": True, "caBundle": None}}
    assert (await admin.patch(f"{PATH}/v1alpha1.wardle.example.com", unchecked)).status == 200
    await condition(admin, "True")


async def test_own_groups_cannot_be_given_away(admin: Api, wardle: Site) -> None:
    for group in ("apps", "rbac.authorization.k8s.io", "polder.dev", "apiregistration.k8s.io"):
        for version in ("v1", "v9"):
            body = api_service(group, version, **service(wardle))
            name = f"{version}.{group}"
            there = (await admin.get(f"{PATH}/{name}")).status == 200
            answer = await (admin.patch(f"{PATH}/{name}", body) if there else admin.post(PATH, body))
            assert answer.status == 403, (name, answer.body)
            assert "is served by this server" in answer.json["message"]
    core = api_service("", "v1", **service(wardle))
    assert (await admin.patch(f"{PATH}/v1.", core)).status == 403
    myself = {"service": {"namespace": "default", "name": "kubernetes", "port": 443}, "insecureSkipTLSVerify": True}
    refused = await admin.post(PATH, api_service(**myself))
    assert refused.status == 422
    assert "cannot be an aggregated API of itself" in refused.json["message"]


async def test_rules_of_apiservices(admin: Api) -> None:
    bad = api_service(groupPriorityMinimum=0, versionPriority=1001)
    bad["metadata"]["name"] = "v2.wardle.example.com"
    refused = await admin.post(PATH, bad)
    assert refused.status == 422
    assert {cause["field"] for cause in refused.json["details"]["causes"]} == {
        "metadata.name", "spec.groupPriorityMinimum", "spec.versionPriority",
    }  # fmt: skip


async def test_upgrades_are_refused_clearly(admin: Api, wardle: Site) -> None:
    await registered(admin, wardle)
    refused = await admin.get(FLUNDERS, Upgrade="websocket", Connection="Upgrade")
    assert refused.status == 501
    assert "upgrading a connection to an aggregated API is not supported" in refused.json["message"]


async def test_who_may_not_is_refused_here_and_another_tenant_knows_nothing(
    running: Running, admin: Api, wardle: Site
) -> None:
    await registered(admin, wardle)
    tenant = {"apiVersion": "polder.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": "acme"}}
    assert (await admin.post("/apis/polder.dev/v1alpha1/tenants", tenant)).status == 201
    acme = await running.tenant_admin("acme")
    assert (await acme.get(FLUNDERS)).status == 404
    assert (await acme.get("/apis/wardle.example.com")).status == 404
    wardle.asked.clear()
    nobody = running.client()
    assert (await nobody.get(FLUNDERS)).status in {401, 403}
    assert wardle.asked == []
