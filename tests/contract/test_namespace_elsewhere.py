"""A namespace in deletion whose tenant named servers that do not answer: its rounds end, and say who did not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from polder.base.ids import ROOT
from polder.base.ref import Ref
from polder.controllers.namespace import NamespaceController
from polder.controllers.settings import ControllerSettings
from tests.contract.conftest import Api, Running
from tests.contract.controlled import CuttableClient, HandClock, client_of, until
from tests.contract.hooked import Site, expose, site
from tests.contract.test_api_aggregation import PATH, api_service, service

SILENT = 16
MALL = "/api/v1/namespaces/mall"


class Held:
    """The things of one namespace on an extension API server."""

    def __init__(self) -> None:
        self.names = ["one", "two"]

    def __call__(self, request: web.BaseRequest, _: Any) -> Any:
        if request.method == "DELETE":
            self.names.clear()
        items = [{"metadata": {"name": name, "namespace": "mall", "uid": name}} for name in self.names]
        return {"kind": "ThingList", "apiVersion": "live.dev/v1", "metadata": {}, "items": items}


@pytest.fixture
async def server(running: Running, tmp_path: Path) -> AsyncIterator[Site]:
    trust = tmp_path / "front-proxy.crt"
    trust.write_bytes(running.pki.authority("front-proxy").bundle)
    async with site(tmp_path, "api.default.svc", client_ca=trust) as found:
        yield found


@pytest.fixture
async def client(running: Running) -> AsyncIterator[CuttableClient]:
    found = client_of(running)
    yield found
    await found.close()


def resources(group: str) -> Any:
    verbs = ["list", "delete", "deletecollection"]
    things = {"name": "things", "singularName": "thing", "namespaced": True, "kind": "Thing", "verbs": verbs}
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": f"{group}/v1", "resources": [things]}


async def hang(request: web.BaseRequest, _: Any) -> Any:
    """Well, as long as it is only checked."""
    if "aggregator" not in request.headers["X-Remote-User"]:
        await asyncio.sleep(3600)
    return {}


async def register(admin: Api, server: Site, groups: list[str]) -> None:
    await expose(admin, server.port, "api")
    for group in groups:
        assert (await admin.post(PATH, api_service(group, "v1", **service(server)))).status == 201

    async def available() -> bool:
        items = (await admin.get(PATH)).json["items"]
        conditions = {i["spec"].get("group"): (i.get("status") or {}).get("conditions") for i in items}
        return all(said and said[0]["status"] == "True" for said in (conditions[group] for group in groups))

    await until(available, 20)
    assert (await admin.post("/api/v1/namespaces", {"metadata": {"name": "mall"}})).status == 201
    assert (await admin.delete(MALL)).status == 200


async def condition(admin: Api, kind: str) -> Any:
    return next(c for c in (await admin.get(MALL)).json["status"]["conditions"] if c["type"] == kind)


async def test_servers_that_do_not_answer_hold_no_round_up(admin: Api, server: Site, client: CuttableClient) -> None:
    held, silent = Held(), [f"silent{n:02}.dev" for n in range(SILENT)]
    server.paths["/apis/live.dev/v1"] = lambda *_: resources("live.dev")
    server.paths["/apis/live.dev/v1/namespaces/mall/things"] = held
    for group in silent:
        server.paths[f"/apis/{group}/v1"] = hang
    await register(admin, server, ["live.dev", *silent])
    clock = HandClock()
    controller = NamespaceController(client, ControllerSettings("CA", clock, recheck=0.1, drain_round=1.0))
    pauses = []
    for _ in range(40):
        began = time.monotonic()
        pauses.append(await controller.reconcile(Ref(ROOT, "", "mall")))
        assert time.monotonic() - began < 3.0
        clock.ahead += 30.0
        if not held.names and len(pauses) > 3:
            break
    assert held.names == [], "the one that answers gets its turn"
    said = await condition(admin, "NamespaceDeletionDiscoveryFailure")
    assert said["status"] == "True" and said["reason"] == "DiscoveryFailed"
    # The one that answers may not have had its turn in the last round.
    assert any(f"{n} failing: " in said["message"] for n in (SILENT, SILENT + 1)), said
    assert "silent00.dev/v1, silent01.dev/v1" in said["message"]
    assert pauses[0] < 5 and pauses[1] >= 25 and pauses[3] == 60, pauses
    for group in silent:
        assert (await admin.delete(f"{PATH}/v1.{group}")).status == 200
    assert await controller.reconcile(Ref(ROOT, "", "mall")) is None
    assert (await admin.get(MALL)).status == 404


async def test_what_is_no_answer_is_said_and_tried_again(admin: Api, server: Site, client: CuttableClient) -> None:
    held = Held()
    server.paths["/apis/live.dev/v1"] = lambda *_: resources("live.dev")
    server.paths["/apis/live.dev/v1/namespaces/mall/things"] = lambda *_: web.Response(text="nonsense")
    server.paths["/apis/bad.dev/v1"] = lambda *_: web.Response(text="[]")
    await register(admin, server, ["live.dev", "bad.dev"])
    controller = NamespaceController(client, ControllerSettings("CA", recheck=0.1, drain_round=3.0))
    pause = await controller.reconcile(Ref(ROOT, "", "mall"))
    assert pause is not None
    said = await condition(admin, "NamespaceDeletionContentFailure")
    assert (said["status"], said["reason"]) == ("True", "ContentDeletionFailed")
    assert said["message"].startswith("things.live.dev: ")
    assert "bad.dev/v1" in (await condition(admin, "NamespaceDeletionDiscoveryFailure"))["message"]
    server.paths["/apis/live.dev/v1/namespaces/mall/things"] = held
    assert (await admin.delete(f"{PATH}/v1.bad.dev")).status == 200
    assert await controller.reconcile(Ref(ROOT, "", "mall")) is None
    assert held.names == []
    assert (await admin.get(MALL)).status == 404
