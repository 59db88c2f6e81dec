"""Charts: definitions, roles, webhooks and what they guard applied in one go, in two tenants at once, with the same names."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from polder.api.kinds import BUILT_IN
from polder.apiserver.authn import NODES
from polder.client.client import ClientSettings
from polder.node.dial import Dials
from polder.node.stream import ServerStream
from tests.contract.charted import GIZMOS, LABEL, Release, chart, endpoints, gizmo, upgraded, webhooks
from tests.contract.conftest import Api, Kubectl, Running
from tests.contract.hooked import Site, site

ADDRESS = "10.0.0.5"
"""The operator's pod in either tenant."""
NAMES = ("acme", "globex")
ACCOUNT = "system:serviceaccount:default:gizmo-operator"


@dataclass
class Two:
    """The tenants, their clients and their operators' webhooks."""

    running: Running
    admin: Api
    hooks: dict[str, Site]
    releases: dict[str, Release]

    @property
    def chart(self) -> list[Any]:
        return chart(self.hooks["acme"].bundle)

    async def both(self, do: Any) -> tuple[Any, Any]:
        one, two = await asyncio.gather(*(do(self.releases[name]) for name in NAMES))
        return one, two


@asynccontextmanager
async def agent(running: Running, hooks: dict[str, Site]) -> AsyncIterator[None]:
    """A node's end of dials, where the same address leads elsewhere in each tenant's space."""

    async def connect(space: str, address: str, port: int, _source: str) -> socket.socket:
        assert (address, port) == (ADDRESS, 8443)
        sock = socket.socket()
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", hooks[space].port))
        return sock

    async def nowhere(*_: str) -> list[str]:
        raise OSError("no such host")

    dials = Dials(lambda tenant: (tenant, "10.0.0.1") if tenant in hooks else None, connect, nowhere)
    certificate, key = running.folder / "n1.crt", running.folder / "n1.key"
    running.leaf("system:node:n1", NODES).write(certificate, key)
    settings = ClientSettings(f"https://127.0.0.1:{running.port}", running.pki.serving_ca, certificate, key)
    stream = ServerStream(settings, {"dial": dials.serve})
    task = asyncio.create_task(stream.run())
    try:
        async with asyncio.timeout(20):
            await stream.wait_connected()
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture(params=["path client", "path server", "debian client"])
async def two(request: Any, running: Running, kubectl_paths: dict[str, str], tmp_path: Path) -> AsyncIterator[Two]:
    which, _, side = request.param.partition(" ")
    admin = running.admin()
    assert (await admin.post("/api/v1/nodes", {"metadata": {"name": "n1"}})).status == 201
    releases = {}
    async with AsyncExitStack() as stack:
        hooks = {}
        for name in NAMES:
            made = await admin.post("/apis/polder.dev/v1alpha1/tenants", {"metadata": {"name": name}})
            assert made.status == 201, made.body
            # one folder: both present the same authority, so that the very same manifest serves both
            hooks[name] = await stack.enter_async_context(site(tmp_path, "gizmo-webhook.default.svc"))
            hooks[name].paths.update(webhooks(name))
            slice_ = endpoints(ADDRESS, "n1")
            path = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
            assert (await admin.at(name).post(path, slice_)).status == 201
            home = tmp_path / f"home-{name}"
            home.mkdir()
            config = running.kubeconfig(await running.tenant_leaf(name), name)
            releases[name] = Release(Kubectl(kubectl_paths[which], home, config), name, side == "server")
        await stack.enter_async_context(agent(running, hooks))
        yield Two(running, admin, hooks, releases)


async def named(api: Api) -> set[tuple[str, str]]:
    """(resource, name) of every object of a tenant whose name has the chart's."""

    async def of(kind: Any) -> set[tuple[str, str]]:
        answer = await api.get(f"{kind.path}/{kind.plural}")
        assert answer.status == 200, (kind.resource, answer.body)
        names = [item["metadata"]["name"] for item in answer.json["items"]]
        return {(kind.plural, name) for name in names if "gizmo" in name}

    stored = [kind for kind in BUILT_IN if kind.stored and kind.group != "polder.dev"]
    return set().union(*await asyncio.gather(*(of(kind) for kind in stored)))


async def test_a_chart_lives_its_life_in_two_tenants_at_once(two: Two) -> None:
    await installed(two)
    await guarded(two)
    await the_same_again(two)
    await upgraded_in_one(two)
    await removed_from_one(two)


async def installed(two: Two) -> None:
    first, second = await two.both(lambda release: release.apply(two.chart))
    assert sorted(first) == sorted(second) and len(first) == len(two.chart)
    assert all(line.endswith(("created", "serverside-applied")) for line in first), first
    await two.both(
        lambda r: r.kubectl("wait", "--for=condition=Established", "crd/gizmos.charts.example.com", "--timeout=20s")
    )
    states = await two.both(lambda release: release.state(two.chart))
    assert states[0].keys() == states[1].keys() and len(states[0]) == len(two.chart)
    assert not {uid for uid, _ in states[0].values()} & {uid for uid, _ in states[1].values()}
    for release in two.releases.values():
        can = await release.kubectl("auth", "can-i", "update", "gizmos.charts.example.com", "--as", ACCOUNT)
        assert can.strip() == "yes"


async def guarded(two: Two) -> None:
    """The webhooks of each tenant are asked about that tenant's objects, and nobody else's."""
    await two.both(lambda r: r.apply([gizmo(note=r.tenant, ports=[{"name": "a", "number": 1}])]))
    for name, other in (NAMES, NAMES[::-1]):
        found = (await two.admin.at(name).get(f"{GIZMOS}/one")).json
        assert (found["spec"]["by"], found["spec"]["note"], found["spec"]["replicas"]) == (name, name, 1)
        asked = [(path, review["request"]["object"]["spec"]["note"]) for path, review in two.hooks[name].asked]
        assert asked == [("/mutate", name), ("/check", name)], asked
        release = two.releases[name]
        said = await release.refused([gizmo("two", note=other)])
        assert f'admission webhook "check.charts.example.com" denied the request: {name} wants no other\'s' in said
        assert "more replicas than most" in await release.refused([gizmo("two", replicas=6)])
        await release.kubectl("scale", "gizmo/one", "--replicas=3")
        columns = [line.split() for line in (await release.kubectl("get", "gz")).splitlines()]
        assert [row[:3] for row in columns] == [["NAME", "REPLICAS", "BY"], ["one", "3", name]]


async def the_same_again(two: Two) -> None:
    before = await two.both(lambda release: release.state(two.chart))
    again = await two.both(lambda release: release.apply(two.chart))
    # kubectl sends a budget's selector whatever it is, since it is replaced whole, and so says that of it
    wanted = (
        ("serverside-applied",)
        if two.releases["acme"].server_side
        else ("unchanged", "poddisruptionbudget.policy/gizmo-operator configured")
    )
    assert [line for lines in again for line in lines if not line.endswith(wanted)] == []
    assert await two.both(lambda release: release.state(two.chart)) == before, "nothing was written"


async def upgraded_in_one(two: Two) -> None:
    acme, globex = two.releases["acme"], two.releases["globex"]
    before = await globex.state(two.chart)
    objects = upgraded(two.chart)
    prune = () if acme.server_side else ("--prune", "-l", LABEL, acme.prunes("networking.k8s.io/v1/NetworkPolicy"))
    said = await acme.apply(objects, *prune)
    if acme.server_side:
        await acme.kubectl("delete", "networkpolicy", "gizmo-operator")
    else:
        changed = {line.split()[0].partition("/")[2] for line in said if line.endswith("configured")}
        assert changed == {"gizmos.charts.example.com", "gizmo-operator"}, said
        assert {"configmap/gizmo-more created", "networkpolicy.networking.k8s.io/gizmo-operator pruned"} <= set(said)
    state = await acme.state(objects)
    old = {key for key in before if key in state}
    assert len(old) == len(before) - 1 and len(state) == len(before)
    await acme.apply([gizmo(note="acme", color="red")])
    assert (await two.admin.at("acme").get(f"{GIZMOS}/one")).json["spec"]["color"] == "red"
    assert "color" in await globex.refused([gizmo(note="globex", color="red")])
    assert await globex.state(two.chart) == before, "the other tenant has seen nothing of it"


async def removed_from_one(two: Two) -> None:
    acme, globex = two.releases["acme"], two.releases["globex"]
    before = await globex.state([*two.chart, gizmo()])
    await acme.kubectl("delete", "-f", "-", "--timeout=30s", stdin=yaml.safe_dump_all(upgraded(two.chart)))
    assert await named(two.admin.at("acme")) == {("endpointslices", "gizmo-webhook-1")}
    assert (await two.admin.at("acme").get(GIZMOS)).status == 404
    assert await globex.state([*two.chart, gizmo()]) == before
    asked = len(two.hooks["acme"].asked)
    await globex.apply([gizmo("late", note="globex")])
    assert (await two.admin.at("globex").get(f"{GIZMOS}/late")).json["spec"]["by"] == "globex"
    assert len(two.hooks["acme"].asked) == asked
