"""Tokens that a service of the operator's knows, over real HTTPS."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from aiohttp import web

from polder.apiserver.authn_build import AuthnSettings, UseServiceAccounts, UseWebhook
from polder.apiserver.authn_webhook import WebhookSettings
from polder.apiserver.types import Role
from polder.base.ids import ROOT
from polder.system.pki import server_context
from tests.unit.identity.asking import OPEN, bearer, refused_token


class Service:
    def __init__(self):
        self.seen, self.status, self.delay = [], {}, 0.0

    async def answer(self, request):
        self.seen.append((request.headers.get("Authorization"), await request.json()))
        await asyncio.sleep(self.delay)
        if isinstance(self.status, bytes):
            return web.Response(body=self.status)
        known = {"authenticated": False}
        if self.seen[-1][1]["spec"]["token"] == "opaque":
            known = self.status
        return web.json_response({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "status": known})


@pytest.fixture
async def service(pki):
    made = Service()
    app = web.Application()
    app.router.add_post("/review", made.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    context = server_context(pki.issue_serving(["localhost"], ["127.0.0.1"]), pki.clients_ca)
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    made.url = f"https://127.0.0.1:{site._server.sockets[0].getsockname()[1]}/review"
    user = {"username": "ann", "uid": "7", "groups": ["dev"], "extra": {"acme.com/team": ["red"]}}
    made.status = {"authenticated": True, "user": user}
    yield made
    await runner.cleanup()


@pytest.fixture
def authn(world, chain_of, service):
    def make(**more):
        settings = WebhookSettings(service.url, world.pki.serving_ca.read_text(), bearer="ours", **more)
        return chain_of(UseServiceAccounts(), UseWebhook(settings))

    return make


async def test_the_service_says_who_and_is_not_asked_again_for_a_while(world, service, authn):
    chain = authn()
    for _ in range(3):
        who = await chain.authenticate(OPEN, bearer("opaque"))
        assert (who.name, who.role, who.home, who.uid) == ("ann", Role.USER, ROOT, "7")
        assert who.groups == ("dev", "system:authenticated")
        assert who.extra == {"acme.com/team": ("red",)}
        await refused_token(chain, "other")
    assert len(service.seen) == 2
    authorization, review = service.seen[0]
    assert authorization == "Bearer ours"
    assert review["spec"] == {"token": "opaque", "audiences": ["https://kubernetes.default.svc"]}
    service.status = {"authenticated": False}
    world.clock.ahead = timedelta(seconds=121)
    await refused_token(chain, "opaque")


async def test_the_clusters_own_tokens_go_nowhere(world, service, authn):
    chain, token = authn(), await world.token("acme")
    assert (await chain.authenticate(OPEN, bearer(token))).home == "acme"
    await refused_token(chain, token[:-6] + "AAAAAA")
    assert service.seen == []


async def test_its_users_may_be_one_tenants(world, authn):
    chain = authn(tenant="acme")
    assert (await chain.authenticate(OPEN, bearer("opaque"))).home == "acme"
    await world.remove_tenant("acme")
    await refused_token(chain, "opaque")


@pytest.mark.parametrize(
    "status",
    [
        b"nonsense", b"[]", b'{"status":{"authenticated":"yes"}}', b"x" * 300_000,
        {"authenticated": True, "user": {}}, {"authenticated": True, "user": {"username": "a"}, "audiences": ["other"]},
        {"authenticated": True, "user": {"username": "a", "groups": ["polder:platform-admins"]}},
        {"authenticated": False, "user": {"username": "a"}},
    ],
)  # fmt: skip
async def test_an_answer_that_is_not_good_is_no_user(service, authn, status):
    service.status = status
    await refused_token(authn(), "opaque")


async def test_a_service_that_is_slow_or_away_is_no_user(world, service, authn):
    service.delay = 1
    await refused_token(authn(timeout=0.1), "opaque")
    settings = WebhookSettings("https://127.0.0.1:1/review", world.pki.serving_ca.read_text())
    chain = world.known.chain(AuthnSettings((UseWebhook(settings),)))
    await refused_token(chain, "opaque")
    await chain.close()
