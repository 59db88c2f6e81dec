"""A tenant's signing key is replaced in steps, and no token ends before its key does."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from polder.apiserver.tokens import TokenError, Tokens
from polder.base.clock import SystemClock
from polder.base.ids import TenantName
from polder.main.signing_keys import ask, rows
from tests.contract.conftest import Api, Running
from tests.contract.controlled import client_of

PATH = "/polder/v1/signing-keys?tenant=acme"
ACCOUNT = "/api/v1/namespaces/default/serviceaccounts/default/token"
SELF = "/apis/authentication.k8s.io/v1/selfsubjectreviews"


@pytest.fixture
async def acme(admin: Api) -> Api:
    assert (await admin.post("/apis/polder.dev/v1alpha1/tenants", {"metadata": {"name": "acme"}})).status == 201
    return admin.at("acme")


async def token(acme: Api) -> str:
    return str((await acme.post(ACCOUNT, {"spec": {}})).json["status"]["token"])


def kid(found: str) -> str:
    head = found.partition(".")[0]
    return str(json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))["kid"])


async def good(running: Running, *found: str) -> list[bool]:
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    return [(await running.client(token=one).post(SELF, body)).status == 201 for one in found]


async def published(acme: Api) -> set[str]:
    return {key["kid"] for key in (await acme.get("/openid/v1/jwks")).json["keys"]}


async def step(admin: Api, query: str = "") -> Any:
    answer = await admin.post(PATH + query, {})
    assert answer.status == 200, answer.body
    return answer.json


async def test_a_key_is_replaced_and_no_token_ends_before_it(admin: Api, running: Running, acme: Api) -> None:
    first = await token(acme)
    other = Tokens(running.store, running.identity.tenants, SystemClock())  # another server, which knows the first key
    await other.verify(first)
    assert await published(acme) == {kid(first)}
    assert (await admin.get(PATH)).json == {"tenant": "acme", "stage": "finished", "signs": kid(first), "verify": []}

    said = await step(admin)
    assert (said["stage"], said["signs"]) == ("introduced", kid(first)) and len(said["verify"]) == 1
    assert await published(acme) == {kid(first), *said["verify"]}, "before it signs"
    assert kid(await token(acme)) == kid(first)

    assert (await step(admin))["stage"] == "switched"
    second = await token(acme)
    assert kid(second) == said["verify"][0]
    assert await good(running, first, second) == [True, True]
    assert (await other.verify(second)).who.home == TenantName("acme")
    assert await published(acme) == {kid(first), kid(second)}

    assert await step(admin) == {"tenant": "acme", "stage": "finished", "signs": kid(second), "verify": []}
    assert await good(running, first, second) == [False, True], "also where it was seen to be good before"
    assert await published(acme) == {kid(second)}
    with pytest.raises(TokenError, match="key was replaced"):
        await other.verify(first)


async def test_a_key_of_tokens_without_an_end_is_not_dropped_by_mistake(
    admin: Api, running: Running, acme: Api
) -> None:
    name = {"kubernetes.io/service-account.name": "default"}
    body = {"metadata": {"name": "kept", "annotations": name}, "type": "kubernetes.io/service-account-token"}
    assert (await acme.post("/api/v1/namespaces/default/secrets", body)).status == 201
    uid = (await acme.get("/api/v1/namespaces/default/serviceaccounts/default")).json["metadata"]["uid"]
    asked = f"/polder/v1/account-token?namespace=default&secret=kept&account=default&uid={uid}"
    made = await running.component().at("acme").post(asked, {})
    assert made.status == 200, made.body
    held = made.body.decode()
    data = {"data": {"token": base64.b64encode(held.encode()).decode()}}
    await acme.patch("/api/v1/namespaces/default/secrets/kept", data)
    assert await good(running, held) == [True]
    await step(admin)
    await step(admin)
    refused = await admin.post(PATH, {})
    assert refused.status == 409 and "default/kept" in refused.json["message"], refused.body
    assert await good(running, held) == [True]
    assert (await step(admin, "&force=true"))["stage"] == "finished"
    assert await good(running, held) == [False]


async def test_the_path_is_the_platforms_administrators(admin: Api, running: Running, acme: Api) -> None:
    mine = await running.tenant_admin("acme")
    for api in (mine, acme, running.component(), running.node("n1"), running.client()):
        for path in (PATH, PATH.replace("acme", "nobody")):
            assert (await api.get(path)).status in (401, 403, 404)
            assert (await api.post(path, {})).status in (401, 403, 404)
    assert (await admin.get(PATH.replace("acme", "nobody"))).status == 404
    assert (await admin.get(PATH)).json["stage"] == "finished"


async def test_the_command(running: Running, acme: Api, capsys: pytest.CaptureFixture[str]) -> None:
    client = client_of(running)
    running.admin_leaf().write(running.folder / "k.crt", running.folder / "k.key")
    try:
        assert [row[:2] for row in await rows(client, [])] == [["root", "finished"], ["acme", "finished"]]
        assert (await ask(client, "POST", "acme"))["stage"] == "introduced"
        assert [row[1] for row in await rows(client, ["acme"])] == ["introduced"]
    finally:
        await client.close()
