"""What each role may, and that a closed tenant looks the same whether it exists or not."""

from __future__ import annotations

import orjson
import pytest

from polder.api.errors import ApiError
from polder.apiserver.types import Connection, Identity, RequestInfo, Role
from polder.base.ids import EVERY_TENANT, ROOT, TenantName

ACME, GLOBEX = TenantName("acme"), TenantName("globex")
ADMIN = Identity("root-admin", Role.PLATFORM_ADMIN)
TENANT_ADMIN = Identity("admin", Role.TENANT_ADMIN, ACME)
ACCOUNT = Identity(
    "system:serviceaccount:default:default",
    Role.SERVICE_ACCOUNT,
    ACME,
    ("system:serviceaccounts", "system:authenticated"),
)
COMPONENT = Identity("system:polder:scheduler", Role.COMPONENT)
NODE = Identity("system:node:n1", Role.NODE, node="n1")
NOBODY = Identity("system:anonymous", Role.NONE, groups=("system:unauthenticated",))
VERBS = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")
READS = ("get", "list", "watch")


def ask(tenant, verb, resource, group="", **more):
    more.setdefault("namespace", "default")
    path = f"/api/v1/{resource}"
    return RequestInfo(tenant, verb, path, group, "v1", resource, **more)


async def may(world, who, what):
    try:
        await world.authz.authorize(who, what)
    except ApiError as error:
        assert error.code in {401, 403}
        return False
    return True


async def answer(world, who, asked, what):
    """What the server would answer up to and with authorization, as bytes."""
    try:
        tenant = await world.tenancy.resolve(who, Connection(), asked)
        await world.authz.authorize(who, what)
    except ApiError as error:
        return orjson.dumps(error.to_status())
    return orjson.dumps({"allowed": tenant})


@pytest.mark.parametrize("who", [TENANT_ADMIN, ACCOUNT, NODE, NOBODY], ids=lambda w: w.role.value)
async def test_a_closed_tenant_looks_the_same_whether_it_exists_or_not(world, who):
    whats = [ask(GLOBEX, verb, "pods") for verb in VERBS]
    whats += [ask(GLOBEX, verb, "widgets", "example.com", name="x") for verb in VERBS]
    whats += [RequestInfo(GLOBEX, "get", path) for path in ("/api", "/apis", "/openapi/v2", "/healthz", "/nonsense")]
    existing = {await answer(world, who, GLOBEX, what) for what in whats}
    await world.remove_tenant("globex")
    missing = {await answer(world, who, GLOBEX, what) for what in whats}
    assert existing == missing
    if who is NOBODY:  # it may ask each for its health and version
        assert {a for a in existing if b"allowed" in a} == {b'{"allowed":"globex"}'}
        return
    assert len(existing) == 1
    assert b"allowed" not in existing.pop()


async def test_a_missing_tenant_is_told_to_the_platform_only(world):
    for who in (ADMIN, COMPONENT):
        assert orjson.loads(await answer(world, who, TenantName("nobody"), ask(ACME, "get", "pods")))["code"] == 404
    assert await answer(world, ADMIN, ACME, ask(ACME, "get", "pods")) == b'{"allowed":"acme"}'


async def test_which_tenant_is_meant(world):
    resolve = world.tenancy.resolve
    assert await resolve(TENANT_ADMIN, Connection(), None) == ACME
    assert await resolve(ADMIN, Connection(), None) == ROOT
    assert await resolve(ADMIN, Connection(), EVERY_TENANT) == EVERY_TENANT
    assert await resolve(ACCOUNT, Connection(pin=ACME), None) == ACME
    assert await resolve(ACCOUNT, Connection(pin=ACME), ACME) == ACME
    for asked in (GLOBEX, ROOT, EVERY_TENANT, TenantName("nobody")):
        with pytest.raises(ApiError) as caught:
            await resolve(ACCOUNT, Connection(pin=ACME), asked)
        assert caught.value.code == 403


async def test_the_platform_reads_everything_and_writes_where_a_tenant_is_named(world):
    for verb in VERBS:
        assert await may(world, ADMIN, ask(ACME, verb, "secrets"))
        assert await may(world, COMPONENT, ask(EVERY_TENANT, verb, "pods"))
        assert await may(world, ADMIN, ask(EVERY_TENANT, verb, "pods")) == (verb in READS)


async def test_a_tenant_admin_does_everything_at_home_but_what_polder_writes(world):
    for verb in VERBS:
        for resource, group in (("pods", ""), ("secrets", ""), ("networks", "polder.dev"), ("widgets", "x.org")):
            assert await may(world, TENANT_ADMIN, ask(ACME, verb, resource, group))
        for resource in ("routers", "ports", "addresses", "tenants", "segments"):
            assert await may(world, TENANT_ADMIN, ask(ACME, verb, resource, "polder.dev")) == (verb in READS)
        assert await may(world, TENANT_ADMIN, ask(ACME, verb, "nodes")), (
            "its own are inert, on others it puts an overlay"
        )
        for tenant in (ROOT, GLOBEX, EVERY_TENANT):
            assert not await may(world, TENANT_ADMIN, ask(tenant, verb, "pods"))
    status = ask(ACME, "patch", "networks", "polder.dev", name="default", subresource="status")
    assert not await may(world, TENANT_ADMIN, status)
    assert not await may(world, TENANT_ADMIN, ask(ACME, "update", "ports", "polder.dev", subresource="status"))
    assert not await may(world, TENANT_ADMIN, ask(ACME, "create", "pods", name="web", subresource="binding"))
    assert await may(world, TENANT_ADMIN, RequestInfo(ACME, "get", "/apis"))
    assert not await may(world, TENANT_ADMIN, RequestInfo(ACME, "get", "/metrics"))
    assert not await may(world, TENANT_ADMIN, RequestInfo(ACME, "get", "/polder/v1/stream"))


async def test_roots_cluster_admin_is_not_the_platform(world):
    """Backups and Polder's own questions are about every tenant."""
    masters = Identity("root-user", Role.USER, ROOT, ("system:masters",))
    assert await may(world, masters, ask(ROOT, "delete", "secrets"))
    assert await may(world, masters, RequestInfo(ROOT, "get", "/metrics"))
    for path in ("/polder/v1/backup", "/polder/v1/restore", "/polder/v1/dependents", "/polder/v1/stream"):
        for verb in ("get", "post"):
            assert not await may(world, masters, RequestInfo(ROOT, verb, path))
    assert await may(world, ADMIN, RequestInfo(ROOT, "get", "/polder/v1/backup"))
    for tenant in (ACME, GLOBEX, EVERY_TENANT):
        assert not await may(world, masters, ask(tenant, "get", "pods"))


async def test_a_service_account_may_what_every_authenticated_user_may_and_no_more(world):
    for verb in VERBS:
        for resource in ("pods", "secrets", "nodes", "configmaps"):
            assert not await may(world, ACCOUNT, ask(ACME, verb, resource))
        assert not await may(world, ACCOUNT, ask(GLOBEX, verb, "pods"))
    assert await may(
        world, ACCOUNT, ask(ACME, "create", "selfsubjectaccessreviews", "authorization.k8s.io", namespace="")
    )
    for path in ("/api", "/apis/apps/v1", "/openapi/v3", "/version", "/openid/v1/jwks"):
        assert await may(world, ACCOUNT, RequestInfo(ACME, "get", path))
    for path in ("/metrics", "/polder/v1/stream", "/nonsense"):
        assert not await may(world, ACCOUNT, RequestInfo(ACME, "get", path))
    assert not await may(world, ACCOUNT, ask(ACME, "create", "serviceaccounts", name="default", subresource="token"))


async def test_nobody_asks_for_health_and_version_alone(world):
    for path in ("/healthz", "/livez", "/readyz", "/version"):
        assert await may(world, NOBODY, RequestInfo(ROOT, "get", path))
        assert not await may(world, NOBODY, RequestInfo(ROOT, "post", path))
    for path in ("/", "/api", "/apis", "/metrics", "/healthz/x", "/openapi/v2", "/polder/v1/stream"):
        with pytest.raises(ApiError) as caught:
            await world.authz.authorize(NOBODY, RequestInfo(ROOT, "get", path))
        assert caught.value.code == 403
    for verb in VERBS:
        assert not await may(world, NOBODY, ask(ROOT, verb, "pods"))


async def test_a_node_reads_what_its_pods_mention_and_nothing_else(world):
    pod = {
        "serviceAccountName": "runner",
        "imagePullSecrets": [{"name": "pull"}],
        "containers": [
            {"name": "a", "env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "env", "key": "k"}}}],
             "envFrom": [{"configMapRef": {"name": "all"}}]}
        ],
        "volumes": [
            {"name": "s", "secret": {"secretName": "vol"}},
            {"name": "p", "projected": {"sources": [{"configMap": {"name": "kube-root-ca.crt"}}]}},
        ],
    }  # fmt: skip
    await world.pod("acme", "web", "n1", **pod)
    await world.pod("globex", "web", "n2", volumes=[{"name": "s", "secret": {"secretName": "vol"}}])
    for name in ("pull", "env", "vol"):
        assert await may(world, NODE, ask(ACME, "get", "secrets", name=name))
    for name in ("all", "kube-root-ca.crt"):
        assert await may(world, NODE, ask(ACME, "get", "configmaps", name=name))
    assert await may(world, NODE, ask(ACME, "get", "serviceaccounts", name="runner"))
    assert not await may(world, NODE, ask(ACME, "get", "serviceaccounts", name="default"))
    assert not await may(world, NODE, ask(ACME, "get", "secrets", name="other"))
    assert not await may(world, NODE, ask(ACME, "get", "secrets", name="vol", namespace="kube-system"))
    assert not await may(world, NODE, ask(GLOBEX, "get", "secrets", name="vol"))
    for verb in ("list", "watch", "update", "delete"):
        assert not await may(world, NODE, ask(ACME, verb, "secrets"))
        assert not await may(world, NODE, ask(EVERY_TENANT, verb, "secrets"))


async def test_a_node_writes_for_its_own_pods(world):
    await world.pod("acme", "mine", "n1")
    await world.pod("acme", "other", "n2")
    for verb, sub in (("patch", "status"), ("update", "status"), ("delete", "")):
        assert await may(world, NODE, ask(ACME, verb, "pods", name="mine", subresource=sub))
        assert not await may(world, NODE, ask(ACME, verb, "pods", name="other", subresource=sub))
    for verb in ("update", "patch", "create"):
        assert not await may(world, NODE, ask(ACME, verb, "pods", name="mine"))
    assert await may(world, NODE, ask(ACME, "get", "pods", name="mine"))
    assert not await may(world, NODE, ask(ACME, "get", "pods", name="other"))
    assert await may(world, NODE, ask(ACME, "create", "events"))
    assert not await may(world, NODE, ask(GLOBEX, "create", "events"))
    assert not await may(world, NODE, ask(EVERY_TENANT, "deletecollection", "pods"))
    assert await may(world, NODE, ask(ACME, "create", "serviceaccounts", name="default", subresource="token"))
    assert not await may(world, NODE, ask(ACME, "create", "serviceaccounts", name="x", subresource="token"))


async def test_a_node_keeps_its_own_node_lease_ports_and_addresses(world):
    await world.pod("acme", "web", "n1")
    for name, own in (("n1", True), ("n2", False)):
        for sub in ("", "status"):
            assert await may(world, NODE, ask(ROOT, "patch", "nodes", name=name, subresource=sub, namespace="")) == own
        lease = ask(ROOT, "update", "leases", "coordination.k8s.io", name=name, namespace="kube-node-lease")
        assert await may(world, NODE, lease) == own
    assert not await may(world, NODE, ask(ROOT, "delete", "nodes", name="n1", namespace=""))
    for resource in ("ports", "addresses"):
        await world.put(f"{resource}.polder.dev", "acme", "default", "mine", spec={"node": "n1"})
        await world.put(f"{resource}.polder.dev", "acme", "default", "other", spec={"node": "n2"})
        assert await may(world, NODE, ask(ACME, "create", resource, "polder.dev"))
        assert not await may(world, NODE, ask(GLOBEX, "create", resource, "polder.dev"))
        for verb in ("patch", "update", "delete"):
            assert await may(world, NODE, ask(ACME, verb, resource, "polder.dev", name="mine"))
            assert not await may(world, NODE, ask(ACME, verb, resource, "polder.dev", name="other"))
        assert not await may(world, NODE, ask(ACME, "deletecollection", resource, "polder.dev"))
    assert not await may(world, NODE, ask(ACME, "patch", "networks", "polder.dev", name="default"))


async def test_a_node_lists_its_share_over_all_tenants(world):
    for resource, group in (
        ("pods", ""), ("nodes", ""), ("services", ""), ("tenants", "polder.dev"), ("networks", "polder.dev"),
        ("routers", "polder.dev"), ("ports", "polder.dev"),
    ):  # fmt: skip
        for verb in ("list", "watch"):
            assert await may(world, NODE, ask(EVERY_TENANT, verb, resource, group, namespace=""))
            assert not await may(world, NODE, ask(ACME, verb, resource, group)), "unfiltered, so refused"
    assert await may(world, NODE, RequestInfo(ROOT, "get", "/polder/v1/stream"))
    assert not await may(world, ADMIN, RequestInfo(ROOT, "get", "/polder/v1/stream"))
