"""Which network a pod is on: its own annotation, else its namespace's, else the tenant's default; several namespaces on one."""

from __future__ import annotations

import asyncio
import json

import pytest

from polder.base.ids import TenantName
from polder.base.ref import Ref
from tests.system.site import Site
from tests.system.test_ipv6_pods import added

pytestmark = pytest.mark.system
ANNOTATION = "polder.dev/network"


async def prefer(site: Site, network: str) -> None:
    """The default network of acme's namespace ``default`` from now on; the agents that have acme see it."""
    body = {"metadata": {"annotations": {ANNOTATION: network or None}}}
    path = "/tenants/acme/api/v1/namespaces/default"
    await site.admin.raw("PATCH", path, json.dumps(body).encode(), content_type="application/merge-patch+json")
    at = Ref(TenantName("acme"), "", "default")
    for _ in range(200):
        seen = [one for node in site.nodes.values() if (one := node.live._namespaces.get(at)) is not None]
        if all((one.metadata.annotations or {}).get(ANNOTATION, "") == network for one in seen):
            return
        await asyncio.sleep(0.02)
    raise AssertionError("the agents do not see the namespace's annotation")


async def test_a_namespaces_default_network_holds_for_pods_that_say_nothing(site: Site) -> None:
    await site.create_network("acme", "front", "10.5.0.0/24", "fd00:5::/64")
    await site.create_network("acme", "back", "fd00:6::/64")
    old, at_old, _ = await added(site, "acme", "old", "n1")
    await prefer(site, "default/front")
    one, at_one, _ = await added(site, "acme", "one", "n1")
    two, at_two, _ = await added(site, "acme", "two", "n2", network="default/back")
    await prefer(site, "default/back")
    three, at_three, _ = await added(site, "acme", "three", "n1")
    await prefer(site, "")
    four, at_four, _ = await added(site, "acme", "four", "n2")
    assert [at_old[0][:5], at_four[0][:5]] == ["10.0.", "10.0."]
    assert (at_one[0][:7], at_one[1][:7]) == ("10.5.0.", "fd00:5:")
    assert (at_two[0][:7], at_three[0][:7]) == ("fd00:6:", "fd00:6:"), "a pod's own annotation counts first"
    for pod, address in ((three, at_two[0]), (one, at_two[0]), (two, at_one[1]), (one, at_old[0]), (four, at_old[0])):
        assert await asyncio.to_thread(pod.host.ping, address), address
    assert await asyncio.to_thread(old.host.ping, at_one[0]), "who was there stays where it was"
