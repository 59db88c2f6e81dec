"""A small API server of ConfigMaps with real TLS and client certificates, which can be told to misbehave.

Differs from ours: it keeps JSON as it comes, knows no selectors but records them, and its history is a list.
"""

import asyncio
from contextlib import asynccontextmanager

import orjson
import pytest
from aiohttp import web

from polder.client.client import Client, ClientSettings
from polder.system.pki import ensure_pki, server_context


class FakeApi:
    def __init__(self):
        self.revision = 10
        self.oldest = 0
        self.objects = {}
        self.log = []
        self.changed = asyncio.Condition()
        self.requests = []
        self.page = 0
        self.transports = set()
        self.expire_continue = False
        self.lists = self.watches = self.redirect = 0

    async def put(self, tenant, name, annotations=None, **data):
        self.revision += 1
        key = (tenant, name)
        kind = "MODIFIED" if key in self.objects else "ADDED"
        self.objects[key] = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "data": data,
            "futureField": {"x": [1]},
            "metadata": {
                "name": name,
                "namespace": "default",
                "uid": f"u-{tenant}-{name}",
                "resourceVersion": str(self.revision),
                "annotations": annotations or {},
            },
        }
        await self._log(kind, tenant, self.objects[key])

    async def remove(self, tenant, name):
        self.revision += 1
        obj = self.objects.pop((tenant, name))
        obj = {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(self.revision)}}
        await self._log("DELETED", tenant, obj)

    async def bookmark(self):
        self.revision += 1
        await self._log("BOOKMARK", None, {"kind": "ConfigMap", "metadata": {"resourceVersion": str(self.revision)}})

    async def raw_line(self, kind, obj):
        self.revision += 1
        await self._log(kind, None, obj)

    async def _log(self, kind, tenant, obj):
        async with self.changed:
            self.log.append((self.revision, kind, tenant, obj))
            self.changed.notify_all()

    def drop_connections(self):
        for transport in self.transports:
            transport.abort()

    def shown(self, view, tenant, obj):
        if view != "*" or tenant is None:
            return obj
        meta = obj["metadata"]
        return {**obj, "metadata": {**meta, "annotations": {**meta["annotations"], "polder.dev/tenant": tenant}}}

    async def handle(self, request):
        self.transports.add(request.transport)
        body = await request.read()
        self.requests.append((request.method, request.path, dict(request.query), dict(request.headers), body))
        if self.redirect and request.path.endswith("/moved"):
            where = "/tenants/victim/api/v1/namespaces/default/secrets"
            return web.Response(status=self.redirect, headers={"Location": where})
        view, rest = request.match_info["tenant"], request.match_info["rest"]
        if request.query.get("watch"):
            return await self.watch(request, view)
        if request.method != "GET":
            sent = orjson.loads(body)
            return web.json_response({"metadata": {"name": "x", "namespace": "default"}, "data": {"sent": str(sent)}})
        if not rest.endswith("configmaps"):
            found = self.objects.get((view, rest.rpartition("/")[2]))
            return web.json_response(found) if found else status(404, "NotFound", "gone")
        return self.list(request, view)

    def list(self, request, view):
        self.lists += 1
        items = [self.shown(view, t, o) for (t, _), o in sorted(self.objects.items()) if view in (t, "*")]
        meta = {"resourceVersion": str(self.revision)}
        start = int(request.query.get("continue", 0))
        if start and self.expire_continue:
            return status(410, "Expired", "too old")
        if self.page and "limit" in request.query and start + self.page < len(items):
            meta["continue"] = str(start + self.page)
            items = items[: start + self.page]
        return web.json_response({"kind": "ConfigMapList", "metadata": meta, "items": items[start:]})

    async def watch(self, request, view):
        self.watches += 1
        since = int(request.query["resourceVersion"])
        response = web.StreamResponse()
        await response.prepare(request)
        if since < self.oldest:
            error = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
            await response.write(orjson.dumps({"type": "ERROR", "object": error}) + b"\n")
            return response
        position = 0
        while True:
            async with self.changed:
                while len(self.log) <= position:
                    await self.changed.wait()
            revision, kind, tenant, obj = self.log[position]
            position += 1
            if revision > since and (tenant is None or view in (tenant, "*")):
                line = orjson.dumps({"type": kind, "object": self.shown(view, tenant, obj)}) + b"\n"
                await response.write(line[: len(line) // 2])
                await asyncio.sleep(0)
                await response.write(line[len(line) // 2 :])


def status(code, reason, message):
    return web.json_response({"kind": "Status", "code": code, "reason": reason, "message": message}, status=code)


@pytest.fixture(scope="session")
def pki(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pki")
    made = ensure_pki(folder)
    made.issue_client("system:polder:test", ["polder:components"]).write(folder / "client.crt", folder / "client.key")
    return made, folder


@asynccontextmanager
async def serving(api, pki, port=0):
    app = web.Application(client_max_size=64 << 20)
    app.router.add_route("*", "/tenants/{tenant}/{rest:.*}", api.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    context = server_context(pki[0].issue_serving(["localhost"], ["127.0.0.1"]), pki[0].clients_ca)
    site = web.TCPSite(runner, "127.0.0.1", port, ssl_context=context)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        api.drop_connections()
        await runner.cleanup()


def client_of(port, pki, **more):
    usual = {
        "ca_file": pki[0].serving_ca,
        "cert_file": pki[1] / "client.crt",
        "key_file": pki[1] / "client.key",
    }
    return Client(ClientSettings(f"https://127.0.0.1:{port}", **{**usual, **more}))


@pytest.fixture
async def api(pki):
    made = FakeApi()
    async with serving(made, pki) as port:
        made.port = port
        yield made


@pytest.fixture
async def client(api, pki):
    made = client_of(api.port, pki)
    yield made
    await made.close()


@pytest.fixture
def serve(pki):
    """Serves a fake API on a port: ``async with serve(api, port)``."""
    return lambda api, port: serving(api, pki, port)


@pytest.fixture
def connect(pki):
    return lambda port, **more: client_of(port, pki, **more)
