"""Images under pull secrets: a real containerd and a small registry that lets one user in."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio
from aiohttp import web

from polder.api.core import Pod, Secret
from polder.api.meta import ObjectMeta
from polder.base.ids import TenantName
from polder.base.ref import Ref
from polder.node.archive import archive, toolbox
from polder.node.keyring import CONFIG_JSON
from polder.system.net.netns import open_netns
from polder.system.net.sockets import listening_socket
from tests.system.pods_kit import NodeKit, make_pod, node_kit

HOST = "127.0.0.1:5000"
USER, PASSWORD = "reader", "s3cret"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node() -> AsyncIterator[NodeKit]:
    async with node_kit() as kit, registry(kit):
        yield kit


pytestmark = [pytest.mark.system, pytest.mark.asyncio(loop_scope="module")]


def blobs() -> tuple[bytes, dict[str, bytes]]:
    """The manifest of the toolbox, and what it names by digest. (OCI image and distribution specifications.)"""
    with tarfile.open(fileobj=io.BytesIO(archive(toolbox()))) as tar:
        read = {member.name: tar.extractfile(member).read() for member in tar if member.isfile()}  # type: ignore[union-attr]
    saved = json.loads(read["manifest.json"])[0]
    config, layers = read[saved["Config"]], [read[name] for name in saved["Layers"]]

    def described(kind: str, data: bytes) -> dict[str, object]:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": digest, "size": len(data)}

    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": described("config.v1+json", config),
        "layers": [described("layer.v1.tar", layer) for layer in layers],
    }
    whole = json.dumps(manifest).encode()
    found = {f"sha256:{hashlib.sha256(data).hexdigest()}": data for data in (config, *layers, whole)}
    return whole, found


@asynccontextmanager
async def registry(kit: NodeKit) -> AsyncIterator[None]:
    manifest, named = blobs()
    right = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()

    async def serve(request: web.Request) -> web.Response:
        private = request.path.startswith("/v2/private/") or request.path == "/v2/"
        if private and request.headers.get("Authorization") != right:
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="test"'})
        name = request.path.rsplit("/", 1)[-1]
        if "/manifests/" not in request.path:
            return web.Response(body=named[name]) if name in named else web.Response(status=404)
        digest = f"sha256:{hashlib.sha256(manifest).hexdigest()}"
        kind = {"Docker-Content-Digest": digest, "Content-Type": "application/vnd.oci.image.manifest.v1+json"}
        return web.Response(body=manifest, headers=kind)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", serve)
    runner = web.AppRunner(app)
    await runner.setup()
    with open_netns(Path(f"/run/netns/{kit.netns}")) as space:
        sock = await asyncio.to_thread(listening_socket, space, "127.0.0.1", 5000)
    await web.SockSite(runner, sock).start()
    try:
        yield
    finally:
        await runner.cleanup()


def pod_of(tenant: str, name: str, image: str = "private/app:1", secret: str = "") -> Pod:
    spec = {"imagePullSecrets": [{"name": secret}]} if secret else {}
    box = {"image": f"{HOST}/{image}", "imagePullPolicy": "IfNotPresent"}
    return make_pod(name, "sleep 1000", tenant=tenant, container=box, **spec)


def know(node: NodeKit, tenant: str, name: str, password: str) -> None:
    config = {"auths": {HOST: {"username": USER, "password": password}}}
    data = {".dockerconfigjson": base64.b64encode(json.dumps(config).encode()).decode()}
    where = Ref(TenantName(tenant), "default", name)
    node.cluster.secrets[where] = Secret(metadata=ObjectMeta(name=name), type=CONFIG_JSON, data=data)


def waits_for(reason: str):  # type: ignore[no-untyped-def]
    def seen(pod: Pod | None) -> bool:
        found = (pod.status.container_statuses if pod else None) or []
        return any(s.state and s.state.waiting and s.state.waiting.reason == reason for s in found)

    return seen


def runs(pod: Pod | None) -> bool:
    return pod is not None and pod.status.phase == "Running"


async def test_a_private_image_is_for_who_may_have_it_though_it_is_on_the_node(node: NodeKit) -> None:
    know(node, "acme", "right", PASSWORD)
    know(node, "other", "wrong", "guess")
    know(node, "other", "right", PASSWORD)
    pods = [
        node.cluster.apply(pod_of("acme", "without")),
        node.cluster.apply(pod_of("acme", "missing", secret="gone")),
    ]
    for pod in pods:
        await node.cluster.until(pod, waits_for("ImagePullBackOff"))
    assert "FailedToRetrieveImagePullSecret" in node.cluster.reasons(pods[1])
    pods.append(node.cluster.apply(pod_of("acme", "with", secret="right")))
    await node.cluster.until(pods[-1], runs)
    for name, secret in (("nosy", ""), ("guessing", "wrong")):
        pods.append(node.cluster.apply(pod_of("other", name, secret=secret)))
        await node.cluster.until(pods[-1], waits_for("ErrImagePull"))
    pods.append(node.cluster.apply(pod_of("other", "entitled", secret="right")))
    await node.cluster.until(pods[-1], runs)
    assert not any(PASSWORD in words for _, _, words in node.cluster.events)
    for pod in pods:
        node.cluster.delete(pod)
    for pod in pods:
        await node.cluster.until(pod, lambda p: p is None)


async def test_a_public_image_is_for_everybody(node: NodeKit) -> None:
    pods = [node.cluster.apply(pod_of(tenant, f"of-{tenant}", "public/app:1")) for tenant in ("acme", "other")]
    for pod in pods:
        await node.cluster.until(pod, runs)
        node.cluster.delete(pod)
    for pod in pods:
        await node.cluster.until(pod, lambda p: p is None)
