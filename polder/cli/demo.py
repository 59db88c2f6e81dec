"""`polder demo`: two tenants with everything the same, and a table of what reaches what."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import orjson

from polder.api.core import Pod
from polder.api.errors import ApiError
from polder.api.meta import Raw
from polder.api.polder import ADDRESS_ANNOTATION, Tenant
from polder.base.errors import PermanentError, RetryableError
from polder.base.ids import ROOT, TenantName
from polder.base.ref import Ref
from polder.cli.demo_objects import (
    BINDINGS,
    NAMES,
    PODS_SEE_PODS,
    SERVICE,
    SERVICE_ADDRESS,
    SERVICES,
    TENANTS,
    WEB_SERVICE,
    Place,
    places,
    pod,
    tenant,
)
from polder.cli.output import Output
from polder.client.client import Client

NO_REACH = "no reach"
TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount/token"  # noqa: S105  # a path, not a secret
FETCH = "timeout 2 wget -q -O -"  # busybox's own -T crashes in Debian's static build
NOWHERE = TenantName("no-such-tenant")

Exec = Callable[[Place, Sequence[str]], Awaitable[str]]
"""Runs a command in a pod's container and returns what it printed, empty if it failed."""


@dataclass(frozen=True, slots=True)
class Scene:
    """What the demo works with. ``admins`` are the tenants' own administrators; ``hosts`` are addresses of nodes and
    host with a port that is open there; ``outside`` is a web server beyond the cluster.
    """

    platform: Client
    admins: Mapping[TenantName, Client]
    nodes: list[str]
    hosts: Mapping[str, tuple[str, int]]
    outside: str
    execute: Exec


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that was tried."""

    what: str
    source: str
    target: str
    expected: str
    seen: str

    @property
    def ok(self) -> bool:
        """Whether it went as it must."""
        return self.expected == self.seen


async def ensure_tenants(platform: Client) -> None:
    """Creates the two tenants where they are missing."""
    for name in TENANTS:
        await _create(platform, ROOT, tenant(name))


async def ensure_objects(scene: Scene) -> None:
    """Each tenant's administrator lets the tenant's pods see the pods beside them, and makes a service of its web pod."""
    for admin in scene.admins.values():
        await _ensure(admin, BINDINGS, PODS_SEE_PODS)
        await _ensure(admin, SERVICES, WEB_SERVICE)


async def _ensure(admin: Client, path: str, body: Raw) -> None:
    """Asked first: a Service that is there holds the address that it would be made with."""
    try:
        await admin.raw("GET", f"{path}/{body['metadata']['name']}")
    except ApiError as error:
        if not error.is_not_found:
            raise
        await admin.raw("POST", path, orjson.dumps(body))


async def ensure_pods(scene: Scene) -> list[Place]:
    """Creates the pods where they are missing and waits until every one runs. Raises RetryableError; PermanentError if
    a pod of somebody else has the name.
    """
    standing = places(scene.nodes)
    for place in standing:
        if not await _create(scene.platform, place.tenant, pod(place)):
            await _check_ours(scene.platform, place)
    for _ in range(240):
        waiting = [place for place in standing if not await _running(scene.platform, place)]
        if not waiting:
            return standing
        await asyncio.sleep(0.25)
    names = ", ".join(map(str, waiting))
    raise RetryableError(f"these pods do not run after 60 s: {names}; see `kubectl describe pod` in their tenant")


async def _create(client: Client, owner: TenantName, obj: Tenant | Pod) -> bool:
    """False if the name is taken."""
    try:
        await client.create(owner, obj)
    except ApiError as error:
        if not error.is_already_exists:
            raise
        return False
    return True


async def _check_ours(client: Client, place: Place) -> None:
    """Another pod of this name (the README's session has such) would answer otherwise, which would look like a fault."""
    found, wanted = await client.get(Pod, Ref(place.tenant, "default", place.name)), pod(place)
    address = (found.metadata.annotations or {}).get(ADDRESS_ANNOTATION)
    there, asked = found.spec, wanted.spec
    same = address == place.address and there.node_selector == asked.node_selector
    if not same or there.containers[0].command != asked.containers[0].command:
        raise PermanentError(
            f"tenant {place.tenant} has a pod default/{place.name} that is not the demo's: "
            f"delete it, or the tenant, and run the demo again"
        )


async def _running(client: Client, place: Place) -> bool:
    found = await client.get(Pod, Ref(place.tenant, "default", place.name))
    return found.status.phase == "Running" and bool(found.status.pod_ip)


async def pod_rows(scene: Scene, standing: Iterable[Place]) -> list[Row]:
    """Every pair of pods: within a tenant the target itself answers, across tenants it never does."""
    standing = list(standing)
    pairs = [(a, b) for a in standing for b in standing if a != b]
    return list(await asyncio.gather(*(_pair(scene, a, b) for a, b in pairs)))


async def _pair(scene: Scene, source: Place, target: Place) -> Row:
    """By HTTP, where the answer says who gave it, and by ICMP."""
    script = f"{FETCH} http://{target.address}/; ping -c 1 -W 1 {target.address}"
    answer, _, pinged = (await scene.execute(source, ["sh", "-c", script])).partition("PING")
    reached = answer.strip() == str(target) and "1 packets received" in pinged
    expected = "reach" if source.tenant == target.tenant else NO_REACH
    return Row("pod", str(source), f"{target} ({target.address})", expected, "reach" if reached else NO_REACH)


async def host_rows(scene: Scene, standing: Iterable[Place]) -> list[Row]:
    """No pod reaches a node, the host or the API server's own address; each reaches the outside."""
    sources = [place for place in standing if place.name == "client"]
    tries = [_host(scene, source, name) for source in sources for name in scene.hosts]
    return list(await asyncio.gather(*tries, *(_egress(scene, source) for source in sources)))


async def _host(scene: Scene, source: Place, name: str) -> Row:
    address, port = scene.hosts[name]
    script = f"nc -w 1 {address} {port} </dev/null && echo open || ping -c 1 -W 1 {address}"
    opened = await scene.execute(source, ["sh", "-c", script])
    seen = "reach" if "open" in opened or "1 packets received" in opened else NO_REACH
    return Row("host", str(source), f"{name} ({address})", NO_REACH, seen)


async def _egress(scene: Scene, source: Place) -> Row:
    answer = await scene.execute(source, ["sh", "-c", f"{FETCH} http://{scene.outside}/"])
    seen = "reach" if answer.strip() == "outside" else NO_REACH
    return Row("egress", str(source), f"outside ({scene.outside})", "reach", seen)


async def service_rows(scene: Scene, standing: Iterable[Place]) -> list[Row]:
    """Both tenants have a service of the same name and address: each is answered by the tenant's own pod."""
    sources = [place for place in standing if place.name == "client"]
    return list(await asyncio.gather(*(_service(scene, source) for source in sources)))


async def _service(scene: Scene, source: Place) -> Row:
    for _ in range(20):
        answer = (await scene.execute(source, ["sh", "-c", f"{FETCH} http://{SERVICE_ADDRESS}/"])).strip()
        if answer:
            break
        await asyncio.sleep(0.25)  # its endpoints are on their way
    return Row("service", str(source), f"{SERVICE} ({SERVICE_ADDRESS})", f"{source.tenant}/web", answer or NO_REACH)


async def api_rows(scene: Scene) -> list[Row]:
    """Each administrator lists its own pods; the other tenant's API answers exactly as one that does not exist."""
    rows = []
    for name, admin in scene.admins.items():
        own = await _names(admin, "/api/v1/pods")
        wanted = ",".join(sorted(p.name for p in places(scene.nodes) if p.tenant == name))
        rows.append(Row("api", f"{name} admin", "own pods", wanted, own))
        other = next(t for t in scene.admins if t != name)
        foreign, absent = await _answer(admin, other), await _answer(admin, NOWHERE)
        same = "denied, as if it did not exist"
        seen = same if foreign and foreign.replace(other, NOWHERE) == absent else f"{foreign} / {absent}"
        rows.append(Row("api", f"{name} admin", f"{other}'s pods", same, seen))
    return rows


async def _names(client: Client, path: str) -> str:
    return _pod_names(await client.raw("GET", path))


async def _answer(client: Client, owner: TenantName) -> str:
    try:
        await client.raw("GET", f"/tenants/{owner}/api/v1/pods")
    except ApiError as error:
        return f"{error.code} {error.reason}: {error}"
    return ""


async def in_cluster_rows(scene: Scene, standing: Iterable[Place]) -> list[Row]:
    """From inside, the `kubernetes` service lists the pod's own tenant, with no path, by the pod's own token."""
    standing = list(standing)
    rows = []
    script = (
        f'timeout 5 wget -q -O - --no-check-certificate --header "Authorization: Bearer $(cat {TOKEN})" '
        "https://$KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT/api/v1/namespaces/default/pods"
    )
    for source in (p for p in standing if p.name == "client"):
        printed = await scene.execute(source, ["sh", "-c", script])
        wanted = ",".join(sorted(p.name for p in standing if p.tenant == source.tenant))
        rows.append(Row("in-cluster api", str(source), "kubernetes.default", wanted, _pod_names(printed)))
    return rows


def _pod_names(printed: str | bytes) -> str:
    """The demo's pods in a list, of whichever tenant; pods that a user added are left out."""
    try:
        items = orjson.loads(printed)["items"]
    except (orjson.JSONDecodeError, KeyError):
        return "no answer"
    return ",".join(sorted(name for item in items if (name := item["metadata"]["name"]) in NAMES))


async def run(scene: Scene, out: Output, *, json: bool) -> bool:
    """The whole demo. Returns whether everything went as expected."""
    with out.step("two tenants, acme and globex, with the same names and addresses"):
        await ensure_objects(scene)
        standing = await ensure_pods(scene)
    with out.step("trying what reaches what"):
        rows = [
            *await pod_rows(scene, standing),
            *await service_rows(scene, standing),
            *await host_rows(scene, standing),
            *await in_cluster_rows(scene, standing),
            *await api_rows(scene),
        ]
    show(standing, rows, out, json=json)
    return all(row.ok for row in rows)


def show(standing: Sequence[Place], rows: Sequence[Row], out: Output, *, json: bool) -> None:
    """Prints the pods and the table."""
    if json:
        out.json({"rows": [_document(row) for row in rows], "ok": all(row.ok for row in rows)})
        return
    out.heading("Pods: the same names at the same addresses")
    out.table(["tenant", "pod", "address", "node"], [[p.tenant, p.name, p.address, p.node] for p in standing])
    out.heading("What reaches what")
    table = [[r.what, r.source, r.target, r.expected, r.seen, "ok" if r.ok else "WRONG"] for r in rows]
    out.table(["what", "from", "to", "expected", "seen", ""], table, mark=5)
    wrong = sum(not row.ok for row in rows)
    out.line()
    out.line(f"{len(rows)} tried, {wrong} not as expected")


def _document(row: Row) -> dict[str, object]:
    return {
        "what": row.what,
        "from": row.source,
        "to": row.target,
        "expected": row.expected,
        "seen": row.seen,
        "ok": row.ok,
    }
