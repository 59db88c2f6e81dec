"""Real TLS servers on loopback that play webhooks and extension API servers, and objects that lead to them."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from polder.system.pki import Pki, ensure_pki, server_context
from tests.contract.conftest import Answer as Answered
from tests.contract.conftest import Api

Answer = Callable[[web.BaseRequest, Any], Awaitable[Any] | Any]
"""From a request and its JSON body to what is answered: a JSON value or a response."""


@dataclass
class Site:
    """A server of one test: what it was asked, and how it answers by path."""

    port: int
    pki: Pki
    paths: dict[str, Answer] = field(default_factory=dict)
    asked: list[tuple[str, Any]] = field(default_factory=list)
    requests: list[web.BaseRequest] = field(default_factory=list)
    connections: set[Any] = field(default_factory=set)

    @property
    def bundle(self) -> str:
        return base64.b64encode(self.pki.serving_ca.read_bytes()).decode()

    def url(self, path: str = "/") -> dict[str, Any]:
        return {"url": f"https://localhost:{self.port}{path}", "caBundle": self.bundle}

    def service(self, path: str = "/", port: int = 443, name: str = "hook") -> dict[str, Any]:
        where = {"namespace": "default", "name": name, "path": path, "port": port}
        return {"service": where, "caBundle": self.bundle}

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        said = json.loads(body) if body else None
        self.asked.append((request.path, said))
        self.requests.append(request)
        self.connections.add(id(request.transport))
        handler = self.paths.get(request.path)
        if handler is None:
            return web.Response(status=404)
        found = handler(request, said)
        if asyncio.iscoroutine(found):
            found = await found
        return found if isinstance(found, web.StreamResponse) else web.json_response(found)


def own_address() -> str:
    """An address of this machine that is no loopback address: EndpointSlices hold no other."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])


@asynccontextmanager
async def site(folder: Path, *names: str, client_ca: Path | None = None) -> AsyncIterator[Site]:
    """Serves under certificates for ``localhost`` and ``names``."""
    pki = await asyncio.to_thread(ensure_pki, folder / "site")
    leaf = pki.issue_serving(["localhost", *names], ["127.0.0.1"])
    context = server_context(leaf, client_ca or pki.clients_ca)
    context.verify_mode = ssl.CERT_OPTIONAL
    found = Site(0, pki)
    runner = web.ServerRunner(web.Server(found.answer), shutdown_timeout=0.1)
    await runner.setup()
    place = web.TCPSite(runner, "0.0.0.0", 0, ssl_context=context)
    await place.start()
    found.port = runner.addresses[0][1]
    try:
        yield found
    finally:
        await runner.cleanup()


async def expose(api: Api, port: int, name: str = "hook", namespace: str = "default", service_port: int = 443) -> None:
    """A service and an EndpointSlice that lead to a port of this machine."""
    meta = {"name": name, "namespace": namespace}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {
        "clusterIP": "None", "ports": [{"name": "https", "port": service_port, "targetPort": port}]}}  # fmt: skip
    made = await api.post(f"/api/v1/namespaces/{namespace}/services", service)
    assert made.status == 201, made.body
    await endpoints(api, port, name, namespace)


async def endpoints(
    api: Api, port: int, name: str = "hook", namespace: str = "default", *, ready: bool = True, part: str = "1"
) -> None:
    """The EndpointSlice alone."""
    slice_ = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": f"{name}-{part}", "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
        "endpoints": [{"addresses": [own_address()], "conditions": {"ready": ready}}],
    }
    made = await api.post(f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices", slice_)
    assert made.status == 201, made.body


# --- webhooks ------------------------------------------------------------------------------------------------------

GROUP = "/apis/admissionregistration.k8s.io/v1"
MAPS = "/api/v1/namespaces/default/configmaps"


def allow(**more: Any) -> Any:
    """An answerer that admits."""

    def answer(_: web.BaseRequest, review: Any) -> Any:
        return reply(review, allowed=True, **more)

    return answer


def deny(message: str = "", **result: Any) -> Any:
    def answer(_: web.BaseRequest, review: Any) -> Any:
        status = {**({"message": message} if message else {}), **result}
        return reply(review, allowed=False, **({"status": status} if status else {}))

    return answer


def patch(*operations: Any) -> Any:
    def answer(_: web.BaseRequest, review: Any) -> Any:
        encoded = base64.b64encode(json.dumps(operations).encode()).decode()
        return reply(review, allowed=True, patchType="JSONPatch", patch=encoded)

    return answer


def reply(review: Any, **response: Any) -> Any:
    return {
        "apiVersion": review["apiVersion"],
        "kind": "AdmissionReview",
        "response": {"uid": review["request"]["uid"], **response},
    }


def add(key: str, value: str) -> Any:
    return {"op": "add", "path": f"/data/{key}", "value": value}


RULE = {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"], "operations": ["CREATE", "UPDATE"]}


def hook(name: str, client: Any, **more: Any) -> Any:
    return {
        "name": name,
        "clientConfig": client,
        "rules": [RULE],
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "timeoutSeconds": 2,
        **more,
    }


async def register(api: Api, kind: str, name: str, *webhooks: Any) -> None:
    configuration = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": f"{kind}WebhookConfiguration",
        "metadata": {"name": name},
        "webhooks": list(webhooks),
    }
    made = await api.post(f"{GROUP}/{kind.lower()}webhookconfigurations", configuration)
    assert made.status == 201, made.body


def config_map(name: str = "m", **more: Any) -> Any:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "1"}, **more}


def message(answer: Answered) -> str:
    return str(answer.json["message"])
