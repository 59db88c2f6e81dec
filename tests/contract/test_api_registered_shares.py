"""What one tenant registers costs the others nothing: no calls, no wait, no memory that stays."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.contract.conftest import Api, Running
from tests.contract.hooked import GROUP, MAPS, config_map, hook, register, reply, site


async def tenant(running: Running, admin: Api, name: str) -> Api:
    body = {"apiVersion": "polder.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": name}}
    assert (await admin.post("/apis/polder.dev/v1alpha1/tenants", body)).status == 201
    return await running.tenant_admin(name)


async def test_slow_webhooks_and_heavy_policies_of_one_do_not_hold_up_another(
    running: Running, admin: Api, tmp_path: Path
) -> None:
    acme, globex = await tenant(running, admin, "acme"), await tenant(running, admin, "globex")
    ten = "[0,1,2,3,4,5,6,7,8,9]"
    heavy = "true"
    for depth in range(5):
        heavy = f"{ten}.all(x{depth}, {heavy})"
    spec = {
        "matchConstraints": {"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["*"],
                                                "resources": ["configmaps"]}]},
        "validations": [{"expression": heavy}],
    }  # fmt: skip
    policy = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
              "metadata": {"name": "p"}, "spec": spec}  # fmt: skip
    assert (await acme.post(f"{GROUP}/validatingadmissionpolicies", policy)).status == 201
    binding = {**policy, "kind": "ValidatingAdmissionPolicyBinding",
               "spec": {"policyName": "p", "validationActions": ["Deny"]}}  # fmt: skip
    assert (await acme.post(f"{GROUP}/validatingadmissionpolicybindings", binding)).status == 201
    busy = [asyncio.ensure_future(acme.post(MAPS, config_map(f"m{number}"))) for number in range(8)]
    await asyncio.sleep(0.05)
    longest = 0.0
    for number in range(10):
        began = asyncio.get_running_loop().time()
        assert (await globex.post(MAPS, config_map(f"m{number}"))).status == 201
        longest = max(longest, asyncio.get_running_loop().time() - began)
    assert longest < 1.0, "the other tenant's writes go on while the evaluations run in a thread"
    assert {answer.status for answer in await asyncio.gather(*busy)} == {201}
    async with site(tmp_path) as slow:
        release = asyncio.Event()

        async def wait(_: web.BaseRequest, review: Any) -> Any:
            await release.wait()
            return reply(review, allowed=True)

        slow.paths["/"] = wait
        await register(admin, "Validating", "v", hook("v.example.com", slow.url(), timeoutSeconds=20))
        waiting = [asyncio.ensure_future(admin.post(MAPS, config_map(f"w{number}"))) for number in range(60)]
        await asyncio.sleep(0.2)
        began = asyncio.get_running_loop().time()
        assert (await globex.post(MAPS, config_map("now"))).status == 201
        assert asyncio.get_running_loop().time() - began < 1.0
        release.set()
        assert {answer.status for answer in await asyncio.gather(*waiting)} == {201}


async def test_a_tenant_that_registered_nothing_is_not_looked_up(running: Running, admin: Api) -> None:
    acme = await tenant(running, admin, "acme")
    rows = running.api._registered
    assert rows is not None
    assert not rows.registrations.any("acme")  # type: ignore[arg-type]
    await register(
        acme, "Validating", "v", hook("v.example.com", {"url": "https://203.0.113.1/"}, failurePolicy="Ignore")
    )
    assert rows.registrations.any("acme")  # type: ignore[arg-type]
    assert (await acme.delete(f"{GROUP}/validatingwebhookconfigurations/v")).status == 200
    assert (await acme.post(MAPS, config_map())).status == 201
    async with asyncio.timeout(5):
        while rows.registrations.any("acme"):  # type: ignore[arg-type]
            await acme.post(MAPS, config_map())
            await asyncio.sleep(0.05)
