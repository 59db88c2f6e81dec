"""Identity, composed: what the HTTP core is given to know who asks and what they may, and the nodes' streams.

The HTTP core needs these parts, and the entry of tenants' connections needs the HTTP core: ``attach`` closes the ring.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field

from aiohttp import web

from polder.api.errors import method_not_allowed, unavailable
from polder.api.meta import Raw
from polder.apiserver.answers import raw_answer
from polder.apiserver.authn import Authenticator, StaticUser
from polder.apiserver.authz import STREAM_PATH, Authorizer
from polder.apiserver.body import media_type, parse_object, read_body
from polder.apiserver.bootstrap import Bootstrap
from polder.apiserver.dial import Dialer
from polder.apiserver.entry import Contexts, Entry, ServeSocket
from polder.apiserver.hooks import Call, Parts
from polder.apiserver.logs import Logs
from polder.apiserver.noderules import NodeRules
from polder.apiserver.outcalls import Outcalls
from polder.apiserver.share import Share
from polder.apiserver.stream import NodeStreams
from polder.apiserver.tenancy import Tenancy, Tenants
from polder.apiserver.tokens import ACCOUNT_KIND, ISSUER, TokenError, Tokens
from polder.base.clock import Clock
from polder.base.ids import TenantName
from polder.client.mux import Stream
from polder.store.protocol import Store
from polder.system.pki import Pki

TOKEN_BODY_LIMIT = 64 * 1024
TOKEN_BODY_TIME = 30.0
JWKS_PATH = "/openid/v1/jwks"
OPENID_PATH = "/.well-known/openid-configuration"


@dataclass(frozen=True, slots=True)
class IdentitySettings:
    """The platform's own ranges, and its static tokens by digest (``authn.parse_static_tokens``)."""

    root_pod_cidr: str = "10.1.0.0/16"
    root_service_cidr: str = "10.97.0.0/16"
    static_tokens: Mapping[bytes, StaticUser] = field(default_factory=dict)


class IdentityLayer:
    """Gives ``parts`` to an ApiServer, is given its ``serve_socket``, and runs beside it."""

    def __init__(self, settings: IdentitySettings, store: Store, pki: Pki, clock: Clock) -> None:
        self._store = store
        self._serve: ServeSocket | None = None
        self.tenants = Tenants(store, settings.root_pod_cidr, settings.root_service_cidr)
        self.tokens = Tokens(store, self.tenants, clock)
        self.share = Share(store)
        self.bootstrap = Bootstrap(clock, pki.serving_ca.read_text())
        self._rules = NodeRules(store, self.share)
        self._entry = Entry(Contexts(pki, clock), self.tenants, self.share, self._serve_socket)
        self.streams = NodeStreams({"api": self._enter})
        self._dialer = Dialer(self.streams, self.share.present)
        self.outcalls = Outcalls(store, self._dialer.connect)
        self.parts = Parts(
            Authenticator(self.tenants, self.tokens, clock, settings.static_tokens),
            Authorizer(self._rules),
            Tenancy(self.tenants, self.share),
            self.bootstrap,
            self.share,
            self.outcalls,
            (self._rules,),
            {("serviceaccounts", "token"): self._token, ("pods", "log"): Logs(store, self.streams).serve},
            {STREAM_PATH: self.streams.serve, JWKS_PATH: self._key_set, OPENID_PATH: self._openid},
        )

    def attach(self, serve: ServeSocket) -> None:
        """Says where connections that come in through a tenant's service are served."""
        self._serve = serve

    async def start(self) -> None:
        """Makes what root needs, and learns the nodes' shares. Call it before the server listens."""
        await self.bootstrap.ensure_root(self._store, self.tenants)
        await self.share.load()

    async def run(self) -> None:
        """Follows the nodes' shares until cancelled. What it raises is a defect: the process should end."""
        await self.share.run()

    async def close(self) -> None:
        """Ends the calls out of the server and the nodes' streams."""
        await self.outcalls.close()
        await self._dialer.close()
        await self.streams.close()

    async def _serve_socket(self, sock: socket.socket, context: ssl.SSLContext, pin: TenantName) -> None:
        assert self._serve is not None, "attach comes before start"
        await self._serve(sock, context, pin)

    async def _enter(self, node: str, header: Raw, stream: Stream) -> None:
        await self._entry.handle(node, header, stream)

    async def _token(self, call: Call) -> web.StreamResponse:
        """``serviceaccounts/token``."""
        info = call.info
        if info.verb != "create":
            raise method_not_allowed(ACCOUNT_KIND, f"{info.verb} of token")
        body = await read_body(call.request, TOKEN_BODY_LIMIT, TOKEN_BODY_TIME)
        request = parse_object(body, media_type(call.request))
        await self._rules.check_token(call.who, info, request.get("spec") or {})
        return raw_answer(await self.tokens.issue(info.tenant, info.namespace, info.name, request), 201)

    async def _key_set(self, call: Call) -> web.StreamResponse:
        try:
            return raw_answer(await self.tokens.key_set(call.info.tenant))
        except TokenError as error:
            raise unavailable(str(error)) from error

    async def _openid(self, call: Call) -> web.StreamResponse:
        del call  # the same for every tenant: each is its own issuer behind its own service
        return raw_answer(
            {
                "issuer": ISSUER,
                "jwks_uri": f"{ISSUER}{JWKS_PATH}",
                "response_types_supported": ["id_token"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["ES256"],
            }
        )
