"""A service account of another tenant is a member for as long as that very tenant lives, not for whoever has its name next."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from polder.controllers.run import run_controllers
from polder.controllers.settings import ControllerSettings
from polder.store.protocol import Delete, Key, Prefix, Put
from tests.contract.conftest import Answer, Api, Running
from tests.contract.controlled import client_of, until

TENANTS = "/apis/polder.dev/v1alpha1/tenants"
MAPS = "/api/v1/namespaces/default/configmaps"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
ACCOUNT = {"kind": "ServiceAccount", "name": "default", "namespace": "default", "role": "edit", "tenant": "acme"}


async def add(admin: Api, name: str) -> str:
    made = await admin.post(TENANTS, {"metadata": {"name": name}})
    assert made.status == 201, made.body
    return str(made.json["metadata"]["uid"])


@pytest.fixture
async def acme(admin: Api) -> str:
    await add(admin, "globex")
    return await add(admin, "acme")


async def write(api: Api, *members: Any) -> Answer:
    return await api.patch(f"{TENANTS}/globex", {"spec": {"members": list(members)}})


async def stored(admin: Api) -> list[Any]:
    return list((await admin.get(f"{TENANTS}/globex")).json["spec"]["members"])


async def account_of_acme(running: Running) -> Api:
    """A client with a token of acme's ``default/default``."""
    path = "/api/v1/namespaces/default/serviceaccounts/default/token"
    token = (await running.admin().at("acme").post(path, {"spec": {}})).json
    return running.client(token=token["status"]["token"])


async def replace_acme(running: Running) -> str:
    """Another tenant gets the name; returns its UID."""
    for entry in (await running.store.list(Prefix("", "acme"))).entries:
        await running.store.commit([Delete(entry.key)])
    await running.store.commit([Delete(Key("tenants.polder.dev", "root", "", "acme"))])
    return await add(running.admin(), "acme")


async def test_a_successor_of_the_name_inherits_nothing(admin: Api, running: Running, acme: str) -> None:
    assert (await write(admin, ACCOUNT)).status == 200
    assert await stored(admin) == [{**ACCOUNT, "tenantUid": acme}]
    first = await account_of_acme(running)
    assert (await first.at("globex").get(MAPS)).status == 200
    successor = await replace_acme(running)
    second = await account_of_acme(running)
    assert (await second.get("/api/v1/namespaces/default")).status == 403, "its token is good at home"
    assert (await second.at("globex").get(MAPS)).status == 403
    # Writing the same list once more, as ``kubectl apply`` does, is no invitation; naming the UID is.
    assert (await write(admin, {**ACCOUNT, "role": "admin"})).status == 200
    assert (await stored(admin))[0]["tenantUid"] == acme
    assert (await second.at("globex").get(MAPS)).status == 403
    assert (await write(admin, {**ACCOUNT, "tenantUid": successor})).status == 200
    assert (await second.at("globex").get(MAPS)).status == 200


async def test_a_member_that_was_written_without_a_uid_gives_nothing(admin: Api, running: Running, acme: str) -> None:
    await write(admin, ACCOUNT)
    key = Key("tenants.polder.dev", "root", "", "globex")
    entry = await running.store.get(key)
    assert entry is not None
    old = entry.value.replace(b'"tenantUid":"' + acme.encode() + b'"', b'"tenantUid":""')
    await running.store.commit([Put(key, old)])
    pod = await account_of_acme(running)
    assert (await pod.at("globex").get(MAPS)).status == 403
    assert (await admin.patch(f"{TENANTS}/globex", {"metadata": {"labels": {"a": "b"}}})).status == 200
    assert (await pod.at("globex").get(MAPS)).status == 403, "nobody has chosen this tenant"
    await write(admin)
    await write(admin, ACCOUNT)
    assert (await pod.at("globex").get(MAPS)).status == 200


async def test_what_cannot_be(admin: Api, acme: str) -> None:
    for member, where in (
        ({**ACCOUNT, "tenant": "nobody"}, "spec.members[0].tenant"),
        ({**ACCOUNT, "tenantUid": "another"}, "spec.members[0].tenantUid"),
        ({**ACCOUNT, "tenant": "", "tenantUid": acme}, "spec.members[0].tenantUid"),
        ({"kind": "User", "name": "jane", "role": "view", "tenantUid": acme}, "spec.members[0].tenantUid"),
    ):
        refused = await write(admin, member)
        assert refused.status == 422 and where in refused.json["message"], refused.body
    assert (await write(admin, {**ACCOUNT, "tenant": "globex"})).status == 200, "its own, by name"
    assert "tenantUid" not in (await stored(admin))[0]
    assert (await write(admin, {**ACCOUNT, "tenant": "root"})).status == 200


async def test_who_may_not_read_tenants_learns_of_none(admin: Api, running: Running, acme: str) -> None:
    rules = [
        {"apiGroups": ["polder.dev"], "resources": ["tenants"], "verbs": ["get", "patch"], "resourceNames": ["globex"]}
    ]
    role = {"metadata": {"name": "globex"}, "rules": rules}
    assert (await admin.post(f"{RBAC}/clusterroles", role)).status == 201
    ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "globex"}
    subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "clerk"}
    binding = {"metadata": {"name": "globex"}, "roleRef": ref, "subjects": [subject]}
    assert (await admin.post(f"{RBAC}/clusterrolebindings", binding)).status == 201
    clerk = running.client(running.pki.issue_client("clerk", [], "urn:polder:tenant:root"))
    answers = []
    for name in ("acme", "nope"):
        refused = await write(clerk, {**ACCOUNT, "tenant": name})
        assert refused.status == 403, refused.body
        answers.append(refused.body.replace(name.encode(), b"NAME"))
    assert answers[0] == answers[1]
    await write(admin, ACCOUNT)
    assert (await write(clerk, {**ACCOUNT, "role": "view"})).status == 200, "what stands there already stays"


async def test_the_tenant_says_which_members_give_nothing(admin: Api, running: Running, acme: str) -> None:
    client = client_of(running)
    part = asyncio.create_task(run_controllers(client, ControllerSettings(root_ca="CA", recheck=0.1)))

    async def condition() -> Any:
        status = (await admin.get(f"{TENANTS}/globex")).json["status"]
        found = [c for c in status.get("conditions") or () if c["type"] == "MembersResolved"]
        return found[0] if found else None

    async def says(status: str) -> bool:
        said = await condition()
        return said is not None and said["status"] == status

    try:
        await write(admin, {"kind": "User", "name": "jane", "role": "view"}, ACCOUNT)
        await until(lambda: says("True"))
        successor = await replace_acme(running)
        await until(lambda: says("False"))
        said = await condition()
        assert said["reason"] == "TenantGone" and "spec.members[1]" in said["message"]
        await write(admin, {**ACCOUNT, "tenantUid": successor})
        await until(lambda: says("True"))
    finally:
        part.cancel()
        await asyncio.gather(part, return_exceptions=True)
        await client.close()
