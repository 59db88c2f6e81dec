"""The HTTP side: errors as Status, limits, health, discovery, connections that are pinned or slow."""

from __future__ import annotations

import asyncio
import io
import json
import socket
import ssl
import time
from typing import Any

import yaml

from polder.base.ids import TenantName

MAPS = "/api/v1/namespaces/default/configmaps"
TENANTS = "/apis/polder.dev/v1alpha1/tenants"


def is_status(answer: Any, code: int, reason: str) -> bool:
    body = answer.json
    return (answer.status, body["kind"], body["status"], body["code"], body["reason"]) == (
        code, "Status", "Failure", code, reason,
    )  # fmt: skip


async def test_every_error_is_a_status(admin: Any) -> None:
    assert is_status(await admin.get("/nonsense"), 404, "NotFound")
    assert is_status(await admin.get("/api/v1/nonsense"), 404, "NotFound")
    assert is_status(await admin.get("/apis/none.io/v1/things"), 404, "NotFound")
    assert is_status(await admin.get("/api/v2/pods"), 404, "NotFound")
    assert is_status(await admin.get(f"{MAPS}/none"), 404, "NotFound")
    assert is_status(await admin.get("/api/v1/namespaces/default/nodes"), 404, "NotFound")
    assert is_status(await admin.get("/api/v1/configmaps/x"), 404, "NotFound")
    assert is_status(await admin.call("OPTIONS", MAPS), 405, "MethodNotAllowed")
    assert is_status(await admin.call("BREW", MAPS), 400, "BadRequest")
    assert is_status(await admin.post(f"{MAPS}/x", {}), 405, "MethodNotAllowed")
    assert is_status(await admin.post("/api/v1/configmaps", {"metadata": {"name": "x"}}), 405, "MethodNotAllowed")
    assert is_status(await admin.at("*").get(f"{MAPS}/x"), 405, "MethodNotAllowed")


async def test_bodies_that_cannot_be_read(admin: Any, running: Any) -> None:
    before = await running.store.revision()
    for body, said in (
        (b'{"metadata": {"name": "x"', "line 1"),
        (b'{"metadata":\n {"name": }}', "line 2"),
        (b"", "no body"),
        (b"[]", "array"),
        (b'"x"', "string"),
        (b"\xff\xfe", "line 1"),
        (b'{"data":' + b"[" * 500 + b"]" * 500 + b"}", "deep"),
        (b'{"data":' + b"[" * 5000, "decoding"),
    ):
        refused = await admin.post(MAPS, body)
        assert is_status(refused, 400, "BadRequest") and said in refused.json["message"], (body[:30], refused.body)
    for body, said in (
        (b"metadata: {name: x\nkind: [", "line"),
        (b"a: &a [x]\nb: *a", "aliases"),
        (b"a: " + b"[" * 3000, "deep"),
        (b"\x00", "YAML"),
        (b"a: b: c", "line 1"),
        (b"- x", "array"),
        (b"? [a]\n: b", "scalar"),
    ):
        refused = await admin.post(MAPS, body, Content_Type="application/yaml")
        assert is_status(refused, 400, "BadRequest") and said in refused.json["message"], (body[:30], refused.body)
    for body in (
        b"",
        b"k8s\x00",
        b"k8s\x00\x0a\xff",
        b"nonsense",
        b"k8s\x00\x0a\x0f\x0a\x02v1\x12\x09ConfigMap\x12\x05\x0a",
    ):
        refused = await admin.post(MAPS, body, Content_Type="application/vnd.kubernetes.protobuf")
        assert is_status(refused, 400, "BadRequest"), body
    assert is_status(await admin.post(MAPS, b"x", Content_Type="text/plain"), 415, "UnsupportedMediaType")
    assert await running.store.revision() == before


async def test_yaml_bodies(admin: Any) -> None:
    body = b"metadata:\n  name: x\ndata:\n  a: '2020-01-01'\n"
    made = await admin.post(MAPS, body, Content_Type="application/yaml")
    assert made.status == 201 and made.json["data"] == {"a": "2020-01-01"}


async def test_large_bodies(admin: Any) -> None:
    fits = {"metadata": {"name": "fits"}, "data": {"x": "y" * 900_000}}
    assert (await admin.post(MAPS, fits)).status == 201
    big = json.dumps({"metadata": {"name": "big"}, "data": {"x": "y" * 10_000_000}}).encode()
    assert is_status(await admin.post(MAPS, io.BytesIO(big)), 413, "RequestEntityTooLarge")

    async def pieces() -> Any:
        for at in range(0, len(big), 65536):
            yield big[at : at + 65536]

    url = f"https://127.0.0.1:{admin.server.port}{MAPS}"
    async with admin.session.post(url, data=pieces(), headers={"Content-Type": "application/json"}) as chunked:
        assert chunked.status == 413
    assert (await admin.get(f"{MAPS}/big")).status == 404


async def test_slow_bodies_end(admin: Any) -> None:
    async def slow() -> Any:
        yield b'{"metadata":'
        await asyncio.sleep(5)
        yield b"{}}"

    url = f"https://127.0.0.1:{admin.server.port}{MAPS}"
    async with admin.session.post(url, data=slow(), headers={"Content-Type": "application/json"}) as answer:
        assert answer.status == 408
        assert (await answer.json())["kind"] == "Status"


async def test_nobody_may_ask_for_health_and_nothing_else(running: Any) -> None:
    nobody = running.client()
    for path in ("/healthz", "/livez", "/readyz"):
        found = await nobody.get(path)
        assert (found.status, found.body) == (200, b"ok")
    assert b"[+]store ok" in (await nobody.get("/readyz?verbose")).body
    for path in (MAPS, "/api/v1/nothings", "/apis/no.such.group/v1/things", "/apis", "/metrics"):
        assert is_status(await nobody.get(path), 403, "Forbidden")
    wrong = running.client(token="nonsense")
    assert is_status(await wrong.get("/healthz"), 401, "Unauthorized")


async def test_version_and_discovery(admin: Any) -> None:
    version = (await admin.get("/version")).json
    assert (version["major"], version["minor"], version["gitVersion"]) == ("1", "36", "v1.36.0+polder")
    assert (await admin.get("/api")).json["versions"] == ["v1"]
    core = (await admin.get("/api/v1")).json
    names = {r["name"]: r for r in core["resources"]}
    assert {"pods", "pods/status", "pods/binding", "pods/log", "namespaces/finalize", "serviceaccounts/token"} <= set(
        names
    )
    assert names["pods"]["shortNames"] == ["po"] and "watch" in names["pods"]["verbs"]
    assert (await admin.get("/apis/polder.dev")).json["preferredVersion"]["version"] == "v1alpha1"
    accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"
    merged = await admin.get("/apis", Accept=accept)
    assert merged.json["kind"] == "APIGroupDiscoveryList"
    assert "as=APIGroupDiscoveryList" in merged.headers["Content-Type"]
    for item in merged.json["items"]:
        for version in item["versions"]:
            legacy = (await admin.get(f"/apis/{item['metadata']['name']}/{version['version']}")).json["resources"]
            assert {r["resource"] for r in version["resources"]} == {r["name"] for r in legacy if "/" not in r["name"]}
    assert (await admin.get("/api", Accept=accept)).json["items"][0]["versions"][0]["version"] == "v1"
    assert (await admin.get("/apis", Accept="application/json")).json["kind"] == "APIGroupList"
    assert is_status(await admin.get("/apis/none.io"), 404, "NotFound")


async def test_openapi_of_each_tenant(admin: Any) -> None:
    await admin.post(TENANTS, {"metadata": {"name": "acme"}})
    index = (await admin.at("acme").get("/openapi/v3")).json["paths"]
    assert index["api/v1"]["serverRelativeURL"].startswith("/tenants/acme/openapi/v3/api/v1?hash=")
    core = await admin.get("/openapi/v3/api/v1")
    assert "io.k8s.api.core.v1.Pod" in core.json["components"]["schemas"]
    again = await admin.get("/openapi/v3/api/v1", If_None_Match=core.headers["ETag"])
    assert (again.status, again.body) == (304, b"")
    old = await admin.get("/openapi/v2")
    assert "io.k8s.api.core.v1.Pod" in old.json["definitions"]
    proto = await admin.get("/openapi/v2", Accept="application/com.github.proto-openapi.spec.v2@v1.0+protobuf")
    assert proto.headers["Content-Type"] == "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
    assert is_status(await admin.get("/openapi/v2", Accept="image/png"), 406, "NotAcceptable")
    assert (await admin.get("/openapi/v3/apis/none.io/v1")).status == 404


async def test_metrics_name_no_tenant(admin: Any) -> None:
    await admin.post(TENANTS, {"metadata": {"name": "acme"}})
    await admin.at("acme").get(MAPS)
    text = (await admin.get("/metrics")).body.decode()
    assert 'apiserver_request_total{verb="list",resource="configmaps",code="200"} 1' in text
    assert "polder_store_revision" in text and "acme" not in text


async def test_requests_are_named_in_answers(admin: Any) -> None:
    one, two = await admin.get(MAPS), await admin.get("/nonsense")
    assert one.headers["Audit-Id"] != two.headers["Audit-Id"]
    assert one.headers["Content-Type"] == two.headers["Content-Type"] == "application/json"


async def through(running: Any, tenant: str, request: str) -> tuple[int, Any]:
    """One request over a socket pair whose other end is handed to the server, pinned."""
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setblocking(False)
    context = ssl.create_default_context(cafile=str(running.pki.serving_ca))
    leaf = running.pki.issue_serving(["kubernetes"], ["10.96.0.1"])
    leaf.write(running.folder / "pin.crt", running.folder / "pin.key")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(running.folder / "pin.crt", running.folder / "pin.key")
    served = asyncio.create_task(running.api.serve_socket(theirs, server, TenantName(tenant)))
    reader, writer = await asyncio.open_connection(sock=ours, ssl=context, server_hostname="kubernetes")
    await served
    writer.write(f"GET {request}\r\nHost: kubernetes\r\nConnection: close\r\n\r\n".encode())
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


async def token_of(admin: Any, tenant: str) -> str:
    made = await admin.at(tenant).post("/api/v1/namespaces/default/serviceaccounts/default/token", {"spec": {}})
    assert made.status == 201, made.body
    return str(made.json["status"]["token"])


async def test_a_pinned_connection_is_its_tenants(admin: Any, running: Any) -> None:
    for name in ("acme", "globex"):
        await admin.post(TENANTS, {"metadata": {"name": name}})
        await admin.at(name).post(MAPS, {"metadata": {"name": f"of-{name}"}})
    ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}
    account = {"kind": "ServiceAccount", "name": "default", "namespace": "default"}
    path = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings"
    await admin.at("acme").post(path, {"metadata": {"name": "b"}, "roleRef": ref, "subjects": [account]})
    token = await token_of(admin, "acme")
    head = f"HTTP/1.1\r\nAuthorization: Bearer {token}"
    code, found = await through(running, "acme", f"{MAPS} {head}")
    assert code == 200 and [o["metadata"]["name"] for o in found["items"]] == ["kube-root-ca.crt", "of-acme"]
    assert (await through(running, "globex", f"{MAPS} {head}"))[0] == 401
    assert (await through(running, "acme", f"{MAPS} HTTP/1.1"))[0] == 403
    assert (await through(running, "acme", f"/tenants/globex{MAPS} {head}"))[0] in {401, 403}


async def test_stopping_ends_watches_and_connections(running: Any) -> None:
    admin = running.admin()
    async with admin.watch(f"{MAPS}?watch=1") as stream:
        await stream.content.readline()
        stopping = asyncio.create_task(running.api.stop())
        while await asyncio.wait_for(stream.content.readline(), 5):
            pass
        await asyncio.wait_for(stopping, 5)


async def test_people_get_lines_and_programs_do_not(admin: Any) -> None:
    path = "/api/v1/namespaces/default"
    for query, agent, lines in (
        ("?pretty=true", "x", True),
        ("?pretty=1", "kubectl/v1", True),
        ("", "curl/8.5", True),
        ("?pretty=false", "curl/8.5", False),
        ("", "kubectl/v1.36", False),
    ):
        found = await admin.get(path + query, User_Agent=agent)
        assert (b"\n" in found.body, found.json["kind"]) == (lines, "Namespace"), (query, agent)


async def test_a_large_answer_in_another_form_holds_up_nobody(admin: Any) -> None:
    path = "/api/v1/namespaces/default/podtemplates"
    env = [{"name": f"VARIABLE_{number}", "value": "some text"} for number in range(400)]
    for number in range(40):
        spec = {"containers": [{"name": "c", "image": "x", "env": env}]}
        made = await admin.post(path, {"metadata": {"name": f"t{number}"}, "template": {"spec": spec}})
        assert made.status == 201, made.body
    for media in ("application/yaml", "application/vnd.kubernetes.protobuf"):
        waits: list[float] = []

        async def ask(waits: list[float] = waits) -> None:
            while True:
                began = time.monotonic()
                await asyncio.sleep(0.001)
                waits.append(time.monotonic() - began)

        asking, began = asyncio.create_task(ask()), time.monotonic()
        answer = await admin.get(path, Accept=media)
        took = time.monotonic() - began
        asking.cancel()
        assert (answer.status, answer.headers["Content-Type"]) == (200, media)
        assert max(waits) < max(took / 2, 1), "the loop, which is the server's too, stood still"
    listed = (await admin.get(path)).json
    lines = (await admin.get(path, Accept="application/yaml")).body.decode()
    assert lines == yaml.dump(listed, Dumper=yaml.CSafeDumper, allow_unicode=True)
    found = yaml.load((await admin.get(f"{path}/t1", Accept="application/yaml")).body, Loader=yaml.CSafeLoader)
    assert found["template"]["spec"]["containers"][0]["env"] == env
