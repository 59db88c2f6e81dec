"""Mirrors of static pods, on a real API server with a node's credential: what a node may make, keep and take away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from polder.api.core import Pod, PodStatus
from polder.api.errors import ApiError
from polder.api.staticpods import MIRROR
from polder.apiserver.authn import NODES, PLATFORM_ADMINS, ROOT_URN
from polder.base.clock import SystemClock
from polder.base.ids import EVERY_TENANT, ROOT, NodeName
from polder.base.ref import Ref
from polder.client.client import Client
from polder.client.informer import Informer
from polder.node.pods.manifests import Folder
from polder.node.pods.mirrors import Mirrors, NodeCluster
from polder.node.pods.nodepods import NodePods
from tests.unit.node.test_manifests import TEXT, WEB
from tests.unit.node.test_nodepods import Node

DEFAULT = f"/tenants/{ROOT}/api/v1/namespaces/default"
PODS = f"{DEFAULT}/pods"
PATIENCE = 20.0


@dataclass
class Place:
    admin: Client
    node: Client
    uid: str
    """The Node's."""
    folder: Path

    def mirror(self, **meta: Any) -> dict[str, Any]:
        owner = {"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": self.uid, "controller": True}
        base = {"name": "web-n1", "annotations": {MIRROR: "0" * 32}, "ownerReferences": [owner]}
        spec = {"nodeName": "n1", "hostNetwork": True, "containers": [{"name": "a", "image": "i"}]}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": {**base, **meta}, "spec": spec}

    async def make(self, body: dict[str, Any], tenant: str = "root") -> dict[str, Any]:
        path = f"/tenants/{tenant}/api/v1/namespaces/default/pods"
        made: dict[str, Any] = json.loads(await self.node.raw("POST", path, json.dumps(body).encode()))
        return made


@pytest.fixture
async def place(typed: Callable[..., Client], tmp_path: Path) -> Place:
    admin, node = typed("admin", PLATFORM_ADMINS, ROOT_URN), typed("system:node:n1", NODES)
    body = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}}
    uid = json.loads(await node.raw("POST", "/api/v1/nodes", json.dumps(body).encode()))["metadata"]["uid"]
    folder = tmp_path / "manifests"
    folder.mkdir()
    return Place(admin, node, uid, folder)


async def refused(place: Place, body: dict[str, Any], tenant: str = "root") -> ApiError:
    with pytest.raises(ApiError) as error:
        await place.make(body, tenant)
    return error.value


async def test_a_node_makes_and_deletes_its_own_mirrors_alone(place: Place) -> None:
    made = await place.make(place.mirror())
    spec = made["spec"]
    assert "serviceAccountName" not in spec
    assert not spec.get("volumes"), "it is nobody, and has no token"
    assert (await refused(place, place.mirror(annotations={}))).code == 422
    assert (await refused(place, place.mirror(name="db-0"))).code == 422
    other = place.mirror(name="other-n1")
    assert (await refused(place, {**other, "spec": {**other["spec"], "nodeName": "n2"}})).code == 422
    secret = [{"name": "v", "secret": {"secretName": "s"}}]
    denied = await refused(place, {**other, "spec": {**other["spec"], "volumes": secret}})
    assert denied.code == 422
    assert "spec.volumes[0].secret" in str(denied)
    wrong = [{**place.mirror()["metadata"]["ownerReferences"][0], "uid": "another"}]
    assert (await refused(place, place.mirror(name="other-n1", ownerReferences=wrong))).code == 422
    foreign = place.mirror(name="theirs-n2")
    await place.admin.raw("POST", PODS, json.dumps({**foreign, "spec": {**foreign["spec"], "nodeName": "n2"}}).encode())
    with pytest.raises(ApiError) as error:
        await place.node.delete(Pod, Ref(ROOT, "default", "theirs-n2"), grace=0)
    assert error.value.is_forbidden
    await place.node.delete(Pod, WEB, uid=made["metadata"]["uid"], grace=0)


async def test_a_node_makes_none_in_a_tenant(place: Place) -> None:
    body = {"apiVersion": "polder.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": "acme"}}
    await place.admin.raw("POST", "/apis/polder.dev/v1alpha1/tenants", json.dumps(body).encode())
    assert (await refused(place, place.mirror(), "acme")).code == 403
    bound = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": place.mirror()["spec"]}
    bound["spec"]["hostNetwork"] = False
    path = "/tenants/acme/api/v1/namespaces/default/pods"
    await place.admin.raw("POST", path, json.dumps(bound).encode())
    assert (await refused(place, place.mirror(), "acme")).code == 403, "nor where it has a pod"


async def test_a_mirror_gives_its_node_nothing_to_read(place: Place) -> None:
    made = await place.make(place.mirror())
    with pytest.raises(ApiError) as error:
        await place.node.raw("GET", f"{DEFAULT}/serviceaccounts/default")
    assert error.value.is_forbidden
    reference = {"apiVersion": "v1", "kind": "Pod", "name": "web-n1", "uid": made["metadata"]["uid"]}
    wanted = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"boundObjectRef": reference}}
    path = f"{DEFAULT}/serviceaccounts/default/token"
    with pytest.raises(ApiError) as error:
        await place.node.raw("POST", path, json.dumps(wanted).encode())
    assert error.value.is_forbidden


async def test_nobody_makes_a_mirror_that_has_secrets(place: Place) -> None:
    body = place.mirror()
    body["spec"]["imagePullSecrets"] = [{"name": "s"}]
    with pytest.raises(ApiError) as error:
        await place.admin.raw("POST", PODS, json.dumps(body).encode())
    assert "spec.imagePullSecrets" in str(error.value)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not holds():  # noqa: ASYNC110  what is looked at is a cache
            await asyncio.sleep(0.02)


async def test_a_mirror_is_made_again_and_goes_after_its_pod(place: Place) -> None:
    api: Informer[Pod] = Informer(place.node, Pod, EVERY_TENANT, fields="spec.nodeName=n1")
    pods, runtime = NodePods(api, Folder(place.folder, "n1"), SystemClock()), Node()
    cluster = NodeCluster(place.node, NodeName("n1"), SystemClock(), pods)
    file = place.folder / "web.yaml"
    file.write_text(TEXT)
    await pods.look(runtime, runtime)
    one = pods.statics[WEB]
    runtime.has(one.uid)
    tasks = [asyncio.create_task(api.run())]
    tasks.append(asyncio.create_task(Mirrors(place.node, pods, NodeName("n1")).run(runtime.runs)))
    try:
        await cluster.write_status(one.pod, PodStatus(phase="Running"))
        first = pods.mirror_of(one.uid)
        assert first is not None
        assert (await place.admin.get(Pod, WEB)).status.phase == "Running"
        await place.admin.delete(Pod, WEB)
        await until(lambda: (now := pods.mirror_of(one.uid)) is not None and now.metadata.uid != first.metadata.uid)
        await cluster.forget(one.pod)
        file.unlink()
        await pods.look(runtime, runtime)
        assert WEB in pods.mirrors, "the pod is still ending"
        runtime.left(one.uid)
        await until(lambda: WEB not in pods.mirrors)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
