"""Tokens of an issuer that is a real HTTPS server, and what forged ones get."""

from __future__ import annotations

import base64
import hmac
import time
from collections import Counter
from datetime import timedelta

import orjson
import pytest
from aiohttp import web
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

from polder.apiserver.authn_build import UseOidc, UseServiceAccounts
from polder.apiserver.oidc import Issuer, TenantChoice
from polder.apiserver.oidc_claims import Mapper, MappingError, Mappings, Rule, Source
from polder.apiserver.oidc_keys import Place
from polder.apiserver.types import Role
from polder.base.errors import PermanentError
from polder.base.ids import ROOT
from polder.main import config_authn
from polder.main.config_oidc import issuers_of
from polder.system.pki import PublicKey, server_context
from tests.unit.identity.asking import OPEN, bearer, refused_token

RSA = rsa.generate_private_key(65537, 2048)
RSA2 = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def number(value):
    return b64(value.to_bytes((value.bit_length() + 7) // 8, "big"))


def jwk(key, kid, **more):
    public = key.public_key().public_numbers()
    if isinstance(key, rsa.RSAPrivateKey):
        return {"kty": "RSA", "kid": kid, "n": number(public.n), "e": number(public.e), **more}
    return {"kty": "EC", "crv": "P-256", "kid": kid, "x": b64(public.x.to_bytes(32, "big")),
            "y": b64(public.y.to_bytes(32, "big")), **more}  # fmt: skip


def sign(key, header, claims):
    message = f"{b64(orjson.dumps(header))}.{b64(orjson.dumps(claims))}".encode()
    if isinstance(key, bytes):
        mark = hmac.digest(key, message, "sha256")
    elif isinstance(key, rsa.RSAPrivateKey):
        pad = padding.PSS(padding.MGF1(hashes.SHA256()), 32) if header["alg"] == "PS256" else padding.PKCS1v15()
        mark = key.sign(message, pad, hashes.SHA256())
    else:
        r, s = utils.decode_dss_signature(key.sign(message, ec.ECDSA(hashes.SHA256())))
        mark = r.to_bytes(32, "big") + s.to_bytes(32, "big")
    return f"{message.decode()}.{b64(mark)}"


class Provider:
    """Serves a discovery document and keys, and counts who asks."""

    def __init__(self, pki):
        self.keys, self.asked, self.pki, self.down = [jwk(RSA, "one"), jwk(EC, "two")], Counter(), pki, False
        self.document = {}

    async def start(self):
        context = server_context(self.pki.issue_serving(["localhost"], ["127.0.0.1"]), self.pki.clients_ca)
        app = web.Application()
        app.router.add_get("/{path:.*}", self.answer)
        self.runner = web.AppRunner(app)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        port = site._server.sockets[0].getsockname()[1]
        self.url = f"https://127.0.0.1:{port}"
        self.document = {"issuer": self.url, "jwks_uri": f"{self.url}/keys"}

    async def answer(self, request):
        self.asked[request.path] += 1
        if self.down:
            return web.Response(status=503)
        if request.path == "/keys":
            return web.json_response({"keys": self.keys})
        return web.json_response(self.document)

    def issuer(self, **more):
        place = Place(self.url, self.pki.serving_ca.read_text())
        mappings = Mappings(Source("email"), Source("groups", "corp:"), Source("sub"))
        return Issuer(**{"place": place, "audiences": frozenset({"polder"}), "mappings": mappings, **more})

    def token(self, key=RSA, header=None, **claims):
        now = int(time.time())
        body = {"iss": self.url, "aud": "polder", "exp": now + 300, "iat": now, "email": "ann@example.com", "sub": "7",
                "groups": ["dev"], **claims}  # fmt: skip
        plain = {"alg": "RS256", "kid": "one"} if key is RSA else {"alg": "ES256", "kid": "two"}
        return sign(key, plain if header is None else header, {k: v for k, v in body.items() if v is not None})


@pytest.fixture
async def provider(pki):
    made = Provider(pki)
    await made.start()
    yield made
    await made.runner.cleanup()


@pytest.fixture
def oidc(chain_of, provider):
    return lambda *issuers: chain_of(UseServiceAccounts(), UseOidc(issuers or (provider.issuer(),)))


async def test_a_user_of_an_issuer_is_the_platforms(provider, oidc):
    authn = oidc()
    for token in (provider.token(), provider.token(EC), provider.token(aud=["x", "polder"]),
                  provider.token(header={"alg": "PS256", "kid": "one"}), provider.token(header={"alg": "RS256"})):  # fmt: skip
        who = await authn.authenticate(OPEN, bearer(token))
        assert (who.name, who.role, who.home, who.uid) == ("ann@example.com", Role.USER, ROOT, "7")
        assert who.groups == ("corp:dev", "system:authenticated")
    assert provider.asked["/keys"] == 1, "keys are kept"


async def test_what_is_not_the_issuers_word_is_refused(provider, oidc):
    authn = oidc()
    good = provider.token()
    await authn.authenticate(OPEN, bearer(good))
    head, body, mark = good.split(".")
    public = RSA.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    unsigned = b64(orjson.dumps({"alg": "none", "kid": "one"}))
    for forged in (
        f"{unsigned}.{body}.", f"{unsigned}.{body}.{mark}", f"{head}.{body}.", f"{head}.{body}.{mark[:-4]}AAAA",
        sign(public, {"alg": "HS256", "kid": "one"}, orjson.loads(base64.urlsafe_b64decode(body + "=="))),
        provider.token(RSA2, {"alg": "RS256", "kid": "one"}), provider.token(EC, {"alg": "ES256", "kid": "one"}),
        provider.token(RSA, {"alg": "RS256", "kid": "two"}), provider.token(RSA, {"alg": "RS512", "kid": "one"}),
        provider.token(RSA, {"alg": "RS256", "kid": ["one"]}), provider.token(RSA, {"alg": "RS256", "kid": "one", "crit": []}),
        provider.token(RSA, {"alg": "RS256", "kid": "one", "jwk": jwk(RSA2, "one")}) [:-3] + "AAA",
        provider.token(aud="other"), provider.token(aud=None), provider.token(aud=[]), provider.token(aud=5),
        provider.token(exp=int(time.time()) - 1), provider.token(exp=None), provider.token(exp="2999"),
        provider.token(exp=True), provider.token(nbf=int(time.time()) + 400), provider.token(iss="https://127.0.0.1:1"),
        provider.token(email=None), provider.token(email=""), provider.token(email=["a"]),
        provider.token(email_verified=False), provider.token(email_verified="true"), provider.token(groups=[1]),
        provider.token(email="system:admin"), provider.token(sub=None),
    ):  # fmt: skip
        await refused_token(authn, forged)
    assert (await authn.authenticate(OPEN, bearer(provider.token(nbf=int(time.time()) + 290)))).name, (
        "five minutes of skew"
    )


async def test_an_issuer_may_be_kept_to_some_algorithms(provider, oidc):
    authn = oidc(provider.issuer(algorithms=frozenset({"ES256"})))
    await authn.authenticate(OPEN, bearer(provider.token(EC)))
    await refused_token(authn, provider.token())


async def test_a_key_checks_what_it_is_for_and_nothing_else():
    message = b"message"
    mark = RSA.sign(message, padding.PKCS1v15(), hashes.SHA256())
    plain, bound = PublicKey(jwk(RSA, "one")), PublicKey(jwk(RSA, "one", alg="PS256", use="sig"))
    assert plain.verify("RS256", message, mark)
    for key, algorithm in (
        (plain, "RS512"),
        (plain, "ES256"),
        (plain, "HS256"),
        (plain, "none"),
        (plain, ""),
        (bound, "RS256"),
    ):
        assert not key.verify(algorithm, message, mark)
    r, s = utils.decode_dss_signature(EC.sign(message, ec.ECDSA(hashes.SHA256())))
    pair = r.to_bytes(32, "big") + s.to_bytes(32, "big")
    curve = PublicKey(jwk(EC, "two"))
    assert curve.verify("ES256", message, pair)
    for algorithm, given in (
        ("ES384", pair),
        ("EdDSA", pair),
        ("ES256", pair[:-1]),
        ("ES256", EC.sign(message, ec.ECDSA(hashes.SHA256()))),
    ):
        assert not curve.verify(algorithm, message, given)


async def test_groups_of_the_clusters_own_parts_are_left_out(provider, oidc):
    mappings = Mappings(Source("sub"), Source("groups"))
    authn = oidc(provider.issuer(mappings=mappings))
    token = provider.token(groups=["system:masters", "polder:platform-admins", "dev"])
    assert (await authn.authenticate(OPEN, bearer(token))).groups == ("dev", "system:authenticated")


async def test_a_new_key_is_found_and_one_that_is_withdrawn_forgotten(world, provider, oidc):
    authn = oidc()
    await authn.authenticate(OPEN, bearer(provider.token()))
    provider.keys = [jwk(RSA2, "three")]
    fresh = provider.token(RSA2, {"alg": "RS256", "kid": "three"})
    await refused_token(authn, fresh)  # asked a moment ago
    assert provider.asked["/keys"] == 1
    world.clock.ahead = timedelta(seconds=11)
    await authn.authenticate(OPEN, bearer(fresh))
    await refused_token(authn, provider.token())
    for _ in range(20):
        await refused_token(authn, provider.token(RSA, {"alg": "RS256", "kid": "made up"}))
    assert provider.asked["/keys"] == 2, "however many unknown keys are named"


async def test_an_issuer_that_is_away_is_believed_for_a_while(world, provider, oidc):
    authn = oidc()
    await authn.authenticate(OPEN, bearer(provider.token()))
    provider.down = True
    world.clock.ahead = timedelta(seconds=1000)
    await authn.authenticate(OPEN, bearer(provider.token(exp=int(time.time()) + 9000)))
    world.clock.ahead = timedelta(seconds=3700)
    await refused_token(authn, provider.token(exp=int(time.time()) + 9000))


async def test_a_withdrawn_key_is_forgotten_when_keys_are_old(world, provider, oidc):
    authn = oidc()
    long = provider.token(exp=int(time.time()) + 9000)
    await authn.authenticate(OPEN, bearer(long))
    provider.keys = [jwk(RSA2, "three")]
    world.clock.ahead = timedelta(seconds=601)
    await refused_token(authn, long)


async def test_what_an_issuer_serves_is_not_trusted_blindly(provider, oidc):
    for document in ({"issuer": "https://elsewhere", "jwks_uri": f"{provider.url}/keys"},
                     {"issuer": provider.url, "jwks_uri": "http://127.0.0.1/keys"}, {"issuer": provider.url}, {}):  # fmt: skip
        provider.document = document
        await refused_token(oidc(), provider.token())
    provider.document = {"issuer": provider.url, "jwks_uri": f"{provider.url}/keys"}
    odd = [
        {"kty": "oct", "k": "AAAA", "kid": "one"},
        {"kid": "one"},
        jwk(RSA, "one", use="enc"),
        jwk(RSA, "one", alg="ES256"),
    ]
    provider.keys = odd
    await refused_token(oidc(), provider.token())
    provider.keys = [{"filler": "x" * 300_000}, jwk(RSA, "one")]
    await refused_token(oidc(), provider.token())
    provider.keys = [*odd, jwk(RSA, "one")]
    await oidc().authenticate(OPEN, bearer(provider.token()))


async def test_the_issuers_certificate_is_checked(provider, oidc):
    await refused_token(oidc(provider.issuer(place=Place(provider.url))), provider.token())
    assert not provider.asked


async def test_an_issuer_or_a_claim_says_which_tenants_its_users_are(world, provider, oidc):
    acme = await world.tenants.get("acme")
    authn = oidc(provider.issuer(tenant=TenantChoice("acme", acme.uid)))
    assert (await authn.authenticate(OPEN, bearer(provider.token()))).home == "acme"
    by_claim = oidc(provider.issuer(tenant=TenantChoice(claim="org")))
    assert (await by_claim.authenticate(OPEN, bearer(provider.token(org="globex")))).home == "globex"
    assert (await by_claim.authenticate(OPEN, bearer(provider.token(org=f"acme:{acme.uid}")))).home == "acme"
    for org in ("nobody", "root", "", None, 5, "acme:1", "*"):
        await refused_token(by_claim, provider.token(org=org))
    await world.remove_tenant("acme")
    await refused_token(authn, provider.token())
    await world.add_tenant("acme")
    await refused_token(authn, provider.token())


async def test_mappings_and_rules_in_cel(provider, oidc):
    mappings = Mappings(
        Source(expression='claims.given + "." + claims.sub'),
        Source(expression='claims.roles.filter(r, r != "guest").map(r, "role:" + r)'),
        Source(expression="claims.sub"),
        (("acme.com/team", "claims.?team.orValue('none')"),),
        (Rule(expression="claims.hd == 'example.com'", message="wrong domain"), Rule("tier", "gold")),
        (Rule(expression="!user.username.startsWith('root.')"),),
    )
    authn = oidc(provider.issuer(mappings=mappings))
    claims = {"given": "ann", "roles": ["guest", "dev"], "hd": "example.com", "tier": "gold"}
    who = await authn.authenticate(OPEN, bearer(provider.token(**claims)))
    assert (who.name, who.uid, who.groups) == ("ann.7", "7", ("role:dev", "system:authenticated"))
    assert who.extra == {"acme.com/team": ("none",)}
    for wrong in ({"hd": "other"}, {"tier": "tin"}, {"given": "root"}, {"given": None}, {"roles": 5}, {"hd": None}):
        await refused_token(authn, provider.token(**{**claims, **wrong}))


def configured(**issuer):
    jwt = {
        "issuer": {"url": "https://i", "audiences": ["a"]},
        "claimMappings": {"username": {"claim": "sub", "prefix": ""}},
    }
    import msgspec

    return issuers_of(msgspec.convert({"type": "OpenIDConnect", "jwt": [{**jwt, **issuer}]}, config_authn.Method))


def test_a_configuration_that_cannot_be_meant_is_refused_by_name():
    assert configured()[0].place.issuer == "https://i"
    for wrong, says in (
        ({"issuer": {"url": "http://i", "audiences": ["a"]}}, "no https URL"),
        ({"issuer": {"url": "https://i", "audiences": []}}, "audiences is empty"),
        ({"issuer": {"url": "https://kubernetes.default.svc", "audiences": ["a"]}}, "own issuer"),
        ({"issuer": {"url": "https://i", "audiences": ["a"], "signingAlgorithms": ["none"]}}, "signingAlgorithms"),
        ({"issuer": {"url": "https://i", "audiences": ["a"], "discoveryURL": "http://x"}}, "discoveryURL"),
        ({"claimMappings": {"username": {}}}, "username needs"),
        ({"claimMappings": {"username": {"claim": "sub"}}}, "prefix is missing"),
        ({"claimMappings": {"username": {"claim": "sub", "expression": "claims.sub"}}}, "one or the other"),
        ({"claimMappings": {"username": {"expression": "claims.("}}}, "claimMappings.username"),
        ({"claimMappings": {"username": {"expression": "nonsense.sub"}}}, "undeclared"),
        ({"claimValidationRules": [{"claim": "a", "expression": "true"}]}, "one of them"),
        ({"claimValidationRules": [{"expression": "'text'"}]}, "bool"),
        ({"tenant": {"claim": "org", "name": "acme"}}, "one or the other"),
    ):
        with pytest.raises(PermanentError, match=says):
            configured(**wrong)
    with pytest.raises(MappingError):
        Mapper(Mappings(Source(expression="claims.sub"), user_rules=(Rule(expression="1"),)))
