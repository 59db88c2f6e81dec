"""What the API serves about credentials: tokens of accounts, the keys that they are checked by, and who holds what."""

from __future__ import annotations

from dataclasses import dataclass

from aiohttp import web

from polder.api.errors import bad_request, method_not_allowed, unavailable
from polder.api.kinds import Kind
from polder.api.meta import Raw
from polder.apiserver.answers import raw_answer
from polder.apiserver.authn import Authenticator
from polder.apiserver.body import media_type, parse_object, read_body
from polder.apiserver.hooks import Call, Handler
from polder.apiserver.noderules import NodeRules
from polder.apiserver.token_claims import ACCOUNT_KIND, ALGORITHM, AUDIENCE, ISSUER, TokenError
from polder.apiserver.token_requests import TokenRequests
from polder.apiserver.tokens import Tokens
from polder.apiserver.types import Connection, user_info
from polder.base.clock import Clock, stamp
from polder.base.ids import EVERY_TENANT, ROOT

BODY_LIMIT = 64 * 1024
BODY_TIME = 30.0
GROUP = "authentication.k8s.io"
REVIEW = Kind(GROUP, "v1", "TokenReview", "tokenreviews", "tokenreview", False)
SELF = Kind(GROUP, "v1", "SelfSubjectReview", "selfsubjectreviews", "selfsubjectreview", False)
JWKS_PATH = "/openid/v1/jwks"
OPENID_PATH = "/.well-known/openid-configuration"


@dataclass(frozen=True, slots=True)
class CredentialHandlers:
    """Handlers of subresources, reviews and paths."""

    chain: Authenticator
    tokens: Tokens
    requests: TokenRequests
    rules: NodeRules
    clock: Clock

    def resources(self) -> dict[tuple[str, str], Handler]:
        """By resource and subresource."""
        return {
            ("serviceaccounts", "token"): self.token,
            (REVIEW.qualified, ""): self.token_review,
            (SELF.qualified, ""): self.self_review,
        }

    def paths(self) -> dict[str, Handler]:
        """By path."""
        return {JWKS_PATH: self.key_set, OPENID_PATH: self.openid}

    async def token(self, call: Call) -> web.StreamResponse:
        """``serviceaccounts/token``."""
        info = call.info
        if info.verb != "create":
            raise method_not_allowed(ACCOUNT_KIND, f"{info.verb} of token")
        request = await _body(call)
        await self.rules.check_token(call.who, info, request.get("spec") or {})
        return raw_answer(await self.requests.issue(info.tenant, info.namespace, info.name, request), 201)

    async def token_review(self, call: Call) -> web.StreamResponse:
        """Whose a token is. It is nobody's unless it is of the tenant that is asked: no other is confirmed here."""
        tenant, request = call.info.tenant, await _review(call, REVIEW)
        spec = request.get("spec") or {}
        token, audiences = spec.get("token"), spec.get("audiences") or [AUDIENCE]
        if not isinstance(token, str) or not token:
            raise bad_request("token is required for TokenReview in authentication")
        if not isinstance(audiences, list) or not all(isinstance(a, str) for a in audiences):
            raise bad_request("spec.audiences must be a list of texts")
        where = Connection(pin=None if tenant == ROOT else tenant, peer=call.connection.peer)
        found = await self.chain.review(token, tuple(audiences), where)
        status: Raw = {"user": {}, "error": "invalid bearer token"}
        if found is not None and found.who.home == tenant:
            accepted = [a for a in audiences if a in found.audiences]
            status = {"authenticated": True, "user": user_info(found.who), "audiences": accepted}
        return _answer(REVIEW, {"creationTimestamp": None}, {"spec": spec, "status": status})

    async def self_review(self, call: Call) -> web.StreamResponse:
        """Who the caller is."""
        await _review(call, SELF)
        meta = {"creationTimestamp": stamp(self.clock.now())}
        return _answer(SELF, meta, {"status": {"userInfo": user_info(call.who)}})

    async def key_set(self, call: Call) -> web.StreamResponse:
        """``/openid/v1/jwks``."""
        try:
            answer = raw_answer(await self.tokens.key_set(call.info.tenant))
        except TokenError as error:
            raise unavailable(str(error)) from error
        answer.headers["Content-Type"] = "application/jwk-set+json"
        return answer

    async def openid(self, call: Call) -> web.StreamResponse:
        """``/.well-known/openid-configuration``."""
        del call  # the same for every tenant: each is its own issuer behind its own service
        return raw_answer(
            {
                "issuer": ISSUER,
                "jwks_uri": f"{ISSUER}{JWKS_PATH}",
                "response_types_supported": ["id_token"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": [ALGORITHM],
            }
        )


async def _body(call: Call) -> Raw:
    """A request whose parts are objects where they must be. Raises ApiError 400."""
    sent = parse_object(await read_body(call.request, BODY_LIMIT, BODY_TIME), media_type(call.request))
    spec = sent.get("spec")
    if not isinstance(spec, dict | None):
        raise bad_request("spec must be an object")
    if not isinstance((spec or {}).get("boundObjectRef"), dict | None):
        raise bad_request("spec.boundObjectRef must be an object")
    return sent


async def _review(call: Call, kind: Kind) -> Raw:
    """The body of a review. Raises ApiError 400, 405."""
    info = call.info
    if info.verb != "create" or info.name:
        raise method_not_allowed(kind, info.verb)
    if info.tenant == EVERY_TENANT:
        raise bad_request(f"a {kind.kind} is for one tenant: name it in the path")
    request = await _body(call)
    named = (request.get("apiVersion") or kind.api_version, request.get("kind") or kind.kind)
    if named != (kind.api_version, kind.kind):
        raise bad_request(f"{named[1]} in version {named[0]} cannot be handled as a {kind.kind}")
    return request


def _answer(kind: Kind, meta: Raw, rest: Raw) -> web.StreamResponse:
    return raw_answer({"kind": kind.kind, "apiVersion": kind.api_version, "metadata": meta, **rest}, 201)
