"""Tokens of service accounts: what they are bound to, how long they last, and the older form that a Secret holds."""

from __future__ import annotations

import base64
from datetime import timedelta

import orjson
import pytest

from polder.api.errors import ApiError
from polder.apiserver.token_claims import ACCOUNT_KIND, Bound, TokenError
from polder.base.ids import TenantName
from polder.store.protocol import Delete, Key
from tests.unit.identity.asking import OPEN, bearer, refused_token

ACME = TenantName("acme")
DAY = timedelta(days=1)


def claims_of(token):
    return orjson.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))


async def account(world, tenant="acme", name="default"):
    entry = await world.store.get(Key("serviceaccounts", tenant, "default", name))
    return Bound(ACCOUNT_KIND, name, orjson.loads(entry.value)["metadata"]["uid"])


def reference(kind, name, uid=""):
    return {"boundObjectRef": {"apiVersion": "v1", "kind": kind, "name": name, **({"uid": uid} if uid else {})}}


async def test_a_pods_token_tells_the_pods_node(world):
    node = await world.put("nodes", "root", "", "n1")
    pod = await world.pod("acme", "web", "n1")
    token = await world.token("acme", **reference("Pod", "web", pod))
    who = await world.authn.authenticate(OPEN, bearer(token))
    prefix = "authentication.kubernetes.io/"
    found = {key.removeprefix(prefix): value for key, value in who.extra.items()}
    assert found.pop("credential-id")[0].startswith("JTI=")
    assert found == {"pod-name": ("web",), "pod-uid": (pod,), "node-name": ("n1",), "node-uid": (node,)}
    await world.store.commit([Delete(Key("nodes", "root", "", "n1"))])
    await world.authn.authenticate(OPEN, bearer(token))  # the node is told along; the pod is what it is bound to


async def test_a_token_bound_to_a_node_or_a_secret_dies_with_it(world):
    await world.put("nodes", "root", "", "n1")
    await world.put("secrets", "acme", "default", "s")
    for kind, key in (("Node", Key("nodes", "root", "", "n1")), ("Secret", Key("secrets", "acme", "default", "s"))):
        token = await world.token("acme", **reference(kind, key.name))
        await world.authn.authenticate(OPEN, bearer(token))
        await world.store.commit([Delete(key)])
        await refused_token(world.authn, token)


async def test_what_is_being_deleted_is_believed_for_a_minute(world):
    stamp = world.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ")
    uid = await world.pod("acme", "web", "n1")
    token = await world.token("acme", **reference("Pod", "web"))
    entry = await world.store.get(Key("pods", "acme", "default", "web"))
    raw = orjson.loads(entry.value)
    raw["metadata"]["deletionTimestamp"] = stamp
    from polder.apiserver.objects import encode
    from polder.store.protocol import Put

    await world.store.commit([Put(entry.key, encode(raw))])
    assert (await world.authn.authenticate(OPEN, bearer(token))).extra["authentication.kubernetes.io/pod-uid"] == (uid,)
    world.clock.ahead = timedelta(seconds=62)
    await refused_token(world.authn, token)


async def test_a_pods_own_token_works_longer_than_it_says(world):
    await world.pod("acme", "web", "n1")
    spec = {**reference("Pod", "web"), "expirationSeconds": 3607}
    answer = await world.requests.issue(ACME, "default", "default", {"spec": spec})
    claims = claims_of(answer["status"]["token"])
    assert claims["exp"] - claims["iat"] == 365 * 24 * 3600
    assert claims["kubernetes.io"]["warnafter"] - claims["iat"] == 3607
    assert answer["spec"]["expirationSeconds"] == 3607
    world.clock.ahead = timedelta(hours=2)
    await world.authn.authenticate(OPEN, bearer(answer["status"]["token"]))
    for change in ({"expirationSeconds": 3608}, {"audiences": ["vault"]}, {"boundObjectRef": None}):
        found = claims_of(
            (await world.requests.issue(ACME, "default", "default", {"spec": {**spec, **change}}))["status"]["token"]
        )
        assert found["exp"] - found["iat"] == {**spec, **change}["expirationSeconds"]
        assert "warnafter" not in found["kubernetes.io"]


async def test_a_request_names_what_its_path_names(world):
    uid = (await account(world)).uid
    for meta, code in (({"name": "x"}, 422), ({"namespace": "x"}, 422), ({"uid": "x"}, 409), ({"uid": uid}, 200)):
        try:
            answer = await world.requests.issue(ACME, "default", "default", {"metadata": meta})
            found = 200
            assert answer["metadata"]["uid"] == uid
        except ApiError as error:
            found = error.code
        assert found == code, meta


async def legacy(world, name="held", **more):
    token = await world.tokens.legacy(ACME, "default", name, await account(world))
    await world.put(
        "secrets", "acme", "default", name, **{"type": "kubernetes.io/service-account-token",
        "data": {"token": base64.b64encode(token.encode()).decode()}, **more})  # fmt: skip
    return token


async def annotate(world, name, **meta):
    from polder.apiserver.objects import encode
    from polder.store.protocol import Put

    entry = await world.store.get(Key("secrets", "acme", "default", name))
    raw = orjson.loads(entry.value)
    raw["metadata"].update(meta)
    await world.store.commit([Put(entry.key, encode(raw))])


HELD = {"annotations": {"kubernetes.io/service-account.name": "default"}}


async def test_a_secrets_token_is_good_while_the_secret_holds_it(world):
    token = await legacy(world)
    await refused_token(world.authn, token)  # the Secret does not say whose it is
    await annotate(world, "held", **HELD)
    who = await world.authn.authenticate(OPEN, bearer(token))
    assert (who.name, who.home) == ("system:serviceaccount:default:default", "acme")
    key = Key("secrets", "acme", "default", "held")
    labels = orjson.loads((await world.store.get(key)).value)["metadata"]["labels"]
    assert labels == {"kubernetes.io/legacy-token-last-used": f"{world.clock.now():%Y-%m-%d}"}
    revision = await world.store.revision()
    await world.authn.authenticate(OPEN, bearer(token))
    assert await world.store.revision() == revision, "noted once a day"
    world.clock.ahead = 4000 * DAY
    await world.authn.authenticate(OPEN, bearer(token))
    await world.store.commit([Delete(key)])
    await refused_token(world.authn, token)


async def test_a_secrets_token_that_is_not_the_secrets(world):
    token = await legacy(world)
    for meta in (
        {"annotations": {"kubernetes.io/service-account.name": "other"}}, {**HELD, "labels": {
            "kubernetes.io/legacy-token-invalid-since": "2026-01-01"}},
        {**HELD, "labels": {}, "deletionTimestamp": "2026-01-01T00:00:00Z"},
    ):  # fmt: skip
        await annotate(world, "held", **meta)
        await refused_token(world.authn, token)
    token = await legacy(world, "kind", type="Opaque")
    await annotate(world, "kind", **HELD)
    await refused_token(world.authn, token)
    await legacy(world, "again")
    await annotate(world, "again", **HELD)
    with pytest.raises(TokenError):
        await world.tokens.verify(token)
    with pytest.raises(TokenError, match="another audience"):
        good = await legacy(world, "good")
        await annotate(world, "good", **HELD)
        await world.tokens.verify(good, ("vault",))


async def test_five_minutes_of_skew_between_servers(world):
    world.clock.ahead = timedelta(minutes=5)
    token = await world.token("acme")
    world.clock.ahead = timedelta(seconds=1)
    await world.authn.authenticate(OPEN, bearer(token))
    world.clock.ahead = timedelta(minutes=-1)
    await refused_token(world.authn, token)
