"""The life of namespaces under the whole of the controllers, in root and in a tenant.

Transcribes test/e2e/apimachinery/{namespace,namespace_deletion,resource_quota}.go and test/e2e/auth's of what each one has.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.contract.conftest import Api
from tests.contract.controlled import controlled, until

SPACES = "/api/v1/namespaces"
HELD = ["example.com/held"]


@pytest.fixture
async def api(running: Any, either: Api) -> AsyncIterator[Api]:
    async with controlled(running, tenants=()):
        yield either


async def create(api: Api, path: str, obj: Any) -> Any:
    made = await api.post(path, obj)
    assert made.status == 201, made.body
    return made.json


def pod(name: str, **meta: Any) -> Any:
    return {"metadata": {"name": name, **meta}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}}


async def conditions(api: Api, name: str) -> dict[str, Any]:
    status = (await api.get(f"{SPACES}/{name}")).json["status"]
    return {found["type"]: found for found in status.get("conditions") or []}


async def marked(api: Api, path: str) -> bool:
    return "deletionTimestamp" in (await api.get(path)).json["metadata"]


async def test_pods_go_before_everything_else(api: Api) -> None:
    """A pod that is held keeps the rest of its namespace as it is, and the namespace says so."""
    await create(api, SPACES, {"metadata": {"name": "shop"}})
    one = f"{SPACES}/shop"
    await create(api, f"{one}/pods", pod("held", finalizers=HELD))
    await create(api, f"{one}/configmaps", {"metadata": {"name": "needed", "finalizers": HELD}})
    deleted = await api.delete(one)
    assert deleted.json["status"]["phase"] == "Terminating"
    await until(lambda: marked(api, f"{one}/pods/held"))

    async def says() -> bool:
        return bool((await conditions(api, "shop")).get("NamespaceContentRemaining", {}).get("status") == "True")

    await until(says)
    remaining = (await conditions(api, "shop"))["NamespaceContentRemaining"]
    assert "pods. has 1 resource instances" in remaining["message"] or "pods has 1" in remaining["message"]
    assert not await marked(api, f"{one}/configmaps/needed")
    refused = await api.post(f"{one}/configmaps", {"metadata": {"name": "late"}})
    assert refused.status == 403 and "because it is being terminated" in refused.json["message"]
    await api.patch(f"{one}/pods/held", {"metadata": {"finalizers": None}})
    await until(lambda: marked(api, f"{one}/configmaps/needed"))
    await api.patch(f"{one}/configmaps/needed", {"metadata": {"finalizers": None}})
    await ended(api, "shop")


async def ended(api: Api, name: str) -> None:
    async def gone() -> bool:
        return (await api.get(f"{SPACES}/{name}")).status == 404

    await until(gone)


async def test_a_namespace_made_anew_is_empty(api: Api) -> None:
    """Pods and services of the one before are not in it."""
    for round_ in range(2):
        await create(api, SPACES, {"metadata": {"name": "shop"}})
        for plural in ("pods", "services"):
            assert (await api.get(f"{SPACES}/shop/{plural}")).json["items"] == [], round_
        await create(api, f"{SPACES}/shop/pods", pod("p"))
        service = {"metadata": {"name": "s"}, "spec": {"selector": {"a": "b"}, "ports": [{"port": 80}]}}
        await create(api, f"{SPACES}/shop/services", service)
        assert (await api.delete(f"{SPACES}/shop")).status == 200
        await ended(api, "shop")


async def test_every_namespace_gets_its_account_and_the_authority(api: Api) -> None:
    """And gets them back when they are taken away or changed."""
    await create(api, SPACES, {"metadata": {"name": "shop"}})
    authority = f"{SPACES}/shop/configmaps/kube-root-ca.crt"

    async def there(path: str) -> bool:
        return (await api.get(path)).status == 200

    await until(lambda: there(f"{SPACES}/shop/serviceaccounts/default"))
    await until(lambda: there(authority))
    assert (await api.delete(authority)).status == 200
    await until(lambda: there(authority))
    data = (await api.get(authority)).json["data"]
    assert list(data) == ["ca.crt"]
    await api.patch(authority, {"data": {"ca.crt": "", "more": "x"}})

    async def restored() -> bool:
        return bool((await api.get(authority)).json["data"] == data)

    await until(restored)


async def test_a_namespaces_status_finalizers_and_labels_are_written(api: Api) -> None:
    """Each by its own way; the label with its name is the server's."""
    made = await create(api, SPACES, {"metadata": {"name": "shop"}})
    assert made["metadata"]["labels"]["kubernetes.io/metadata.name"] == "shop"
    assert made["spec"]["finalizers"] == ["kubernetes"] and made["status"]["phase"] == "Active"
    condition = {"type": "Seen", "status": "True", "reason": "Test", "message": "by a test"}
    patched = await api.patch(f"{SPACES}/shop/status", {"status": {"conditions": [condition]}})
    assert patched.status == 200 and patched.json["status"]["conditions"][0]["type"] == "Seen", patched.body
    own = {**patched.json, "spec": {"finalizers": ["kubernetes", *HELD]}}
    finalized = await api.put(f"{SPACES}/shop/finalize", own)
    assert finalized.status == 200 and set(finalized.json["spec"]["finalizers"]) == {"kubernetes", *HELD}
    assert (await api.delete(f"{SPACES}/shop")).status == 200

    async def mine_alone() -> bool:
        return bool((await api.get(f"{SPACES}/shop")).json["spec"].get("finalizers") == HELD)

    await until(mine_alone)
    left = (await api.get(f"{SPACES}/shop")).json
    assert (await api.put(f"{SPACES}/shop/finalize", {**left, "spec": {"finalizers": []}})).status == 200
    await ended(api, "shop")
