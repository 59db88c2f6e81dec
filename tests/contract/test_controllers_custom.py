"""Custom kinds under the controllers: garbage collection, namespaces and tenants that hold them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from polder.api.core import ConfigMap, Namespace
from polder.api.errors import ApiError
from polder.api.meta import ObjectMeta, OwnerReference
from polder.api.polder import Tenant
from polder.base.ids import ROOT, TenantName
from polder.base.ref import Ref
from polder.controllers.run import run_controllers
from polder.controllers.settings import ControllerSettings
from tests.contract.controlled import ACME, GLOBEX, CuttableClient, add_tenant, client_of, find, gone, until

SETTINGS = ControllerSettings(root_ca="CA", recheck=0.1)
SHOPS = "/apis/acme.dev/v1/namespaces/default/shops"


@pytest.fixture
async def client(running: Any) -> AsyncIterator[CuttableClient]:
    found = client_of(running)
    part = asyncio.create_task(run_controllers(found, SETTINGS))
    yield found
    part.cancel()
    assert isinstance((await asyncio.gather(part, return_exceptions=True))[0], asyncio.CancelledError)
    await found.close()


async def define(client: CuttableClient, tenant: TenantName) -> None:
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "shops.acme.dev"},
        "spec": {
            "group": "acme.dev",
            "scope": "Namespaced",
            "names": {"plural": "shops", "singular": "shop", "kind": "Shop", "listKind": "ShopList"},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": schema}],
        },
    }
    path = f"/tenants/{tenant}/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    await client.raw("POST", path, json.dumps(definition).encode())

    async def served() -> bool:
        return await shop(client, tenant, "none") is None and await is_served(client, tenant)

    await until(served)


async def is_served(client: CuttableClient, tenant: TenantName) -> bool:
    try:
        await client.raw("GET", f"/tenants/{tenant}{SHOPS}")
    except ApiError:
        return False
    return True


async def add_shop(client: CuttableClient, tenant: TenantName, name: str, **metadata: Any) -> dict[str, Any]:
    body = {"apiVersion": "acme.dev/v1", "kind": "Shop", "metadata": {"name": name, **metadata}}
    found: dict[str, Any] = json.loads(await client.raw("POST", f"/tenants/{tenant}{SHOPS}", json.dumps(body).encode()))
    return found


async def shop(client: CuttableClient, tenant: TenantName, name: str) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(await client.raw("GET", f"/tenants/{tenant}{SHOPS}/{name}"))
    except ApiError as error:
        if error.is_not_found:
            return None
        raise
    return found


async def test_custom_objects_own_and_are_owned(client: CuttableClient) -> None:
    for tenant in (ACME, GLOBEX):
        await add_tenant(client, tenant)
        await define(client, tenant)
        owner = await add_shop(client, tenant, "owner")
        reference = OwnerReference(api_version="acme.dev/v1", kind="Shop", name="owner", uid=owner["metadata"]["uid"])
        meta = ObjectMeta(name="child", namespace="default", owner_references=[reference])
        child = await client.create(tenant, ConfigMap(metadata=meta))
        grand = {"apiVersion": "v1", "kind": "ConfigMap", "name": "child", "uid": child.metadata.uid}
        await add_shop(client, tenant, "grandchild", ownerReferences=[grand])
    await asyncio.sleep(0.5)
    for tenant in (ACME, GLOBEX):
        assert await find(client, ConfigMap, Ref(tenant, "default", "child")) is not None
    await client.raw("DELETE", f"/tenants/acme{SHOPS}/owner")
    await until(lambda: gone(client, ConfigMap, Ref(ACME, "default", "child")))

    async def grandchild_gone() -> bool:
        return await shop(client, ACME, "grandchild") is None

    await until(grandchild_gone)
    assert await find(client, ConfigMap, Ref(GLOBEX, "default", "child")) is not None, "another tenant's equal names"
    assert await shop(client, GLOBEX, "grandchild") is not None


async def test_a_namespace_goes_with_its_custom_objects(client: CuttableClient) -> None:
    await add_tenant(client, ACME)
    await define(client, ACME)
    await client.create(ACME, Namespace(metadata=ObjectMeta(name="mall")))
    body = {"apiVersion": "acme.dev/v1", "kind": "Shop", "metadata": {"name": "one"}}
    path = "/tenants/acme/apis/acme.dev/v1/namespaces/mall/shops"
    await client.raw("POST", path, json.dumps(body).encode())
    await client.delete(Namespace, Ref(ACME, "", "mall"))
    await until(lambda: gone(client, Namespace, Ref(ACME, "", "mall")))
    assert json.loads(await client.raw("GET", "/tenants/acme/apis/acme.dev/v1/shops"))["items"] == []


async def test_a_tenant_goes_with_its_own_kinds_whoever_held_them(client: CuttableClient) -> None:
    for tenant in (ACME, GLOBEX):
        await add_tenant(client, tenant)
        await define(client, tenant)
        await add_shop(client, tenant, "held", finalizers=["operator.dev/stopped-first"])
    await client.delete(Tenant, Ref(ROOT, "", "acme"))
    await until(lambda: gone(client, Tenant, Ref(ROOT, "", "acme")))
    assert await shop(client, GLOBEX, "held") is not None
    await add_tenant(client, ACME)
    assert not await is_served(client, ACME)
    await define(client, ACME)
    assert await shop(client, ACME, "held") is None
