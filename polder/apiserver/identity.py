"""Identity, composed: what the HTTP core is given to know who asks and what they may, and the nodes' streams.

The HTTP core needs these parts, and the entry of tenants' connections needs the HTTP core: ``attach`` closes the ring.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from dataclasses import dataclass, field
from functools import partial

from polder.api.meta import Raw
from polder.apiserver.agentcerts import AgentCertificates
from polder.apiserver.aggregation import Aggregation, ProxyPairs
from polder.apiserver.authn_build import AuthnSettings, Known
from polder.apiserver.authn_handlers import CredentialHandlers
from polder.apiserver.authn_reload import Authentication
from polder.apiserver.authz import CERTIFICATES_PATH, STREAM_PATH
from polder.apiserver.authz_build import AuthzSettings, authorization
from polder.apiserver.bootstrap import Bootstrap
from polder.apiserver.dial import Dialer
from polder.apiserver.discards import DISCARD_PATH, Discards
from polder.apiserver.entry import Contexts, Entry, ServeSocket
from polder.apiserver.hooks import Handler, Layers, Parts
from polder.apiserver.impersonation import Impersonation
from polder.apiserver.internal_tokens import ACCOUNT_TOKEN_PATH, AccountTokens
from polder.apiserver.mentions import ChangeFeed
from polder.apiserver.node_reports import NodeReports
from polder.apiserver.noderestriction import NodeRestriction
from polder.apiserver.noderules import NodeRules
from polder.apiserver.outcalls import Outcalls
from polder.apiserver.projection_guard import PlatformObjects
from polder.apiserver.proxytrust import ProxyTrust, proxy_trust
from polder.apiserver.rbac_guard import Escalation
from polder.apiserver.reaching import Reaching
from polder.apiserver.reviews import AccessReviews
from polder.apiserver.share import Share
from polder.apiserver.signing_key_steps import KEYS_PATH, KeySteps
from polder.apiserver.stream import NodeStreams
from polder.apiserver.tenancy import Tenancy, Tenants
from polder.apiserver.token_requests import TokenRequests
from polder.apiserver.tokens import Tokens
from polder.base.clock import Clock
from polder.base.ids import TenantName
from polder.client.mux import Stream
from polder.store.protocol import Store
from polder.system.pki import Pki


@dataclass(frozen=True, slots=True)
class IdentitySettings:
    """The platform's own ranges, and how callers show who they are."""

    root_pod_cidr: str = "10.1.0.0/16"
    root_service_cidr: str = "10.97.0.0/16"
    authentication: AuthnSettings = field(default_factory=AuthnSettings)
    authorization: AuthzSettings = field(default_factory=AuthzSettings)


class IdentityLayer:
    """Gives ``parts`` to an ApiServer, is given its ``serve_socket``, and runs beside it."""

    def __init__(self, settings: IdentitySettings, store: Store, pki: Pki, clock: Clock) -> None:
        self._store = store
        self._serve: ServeSocket | None = None
        self.tenants = Tenants(store, settings.root_pod_cidr, settings.root_service_cidr)
        self.tokens = Tokens(store, self.tenants, clock)
        self.share = Share(store)
        self.bootstrap = Bootstrap(clock, lambda: pki.trust, store, partial(proxy_trust, pki))
        self._proxies = ProxyTrust(store, pki, self.tenants, self.bootstrap.proxy_trust)
        self._rules = NodeRules(store, self.share)
        self._entry = Entry(Contexts(pki, clock), self.tenants, self.share, self._serve_socket)
        self._changes = ChangeFeed(store, self.share.mentioning)
        self.streams = NodeStreams({"api": self._enter, "changes": self._changes.serve})
        self._dialer = Dialer(self.streams, self.share.present)
        self.outcalls = Outcalls(store, self._dialer.connect)
        self.authentication = Authentication(
            Known(store, pki, self.tenants, self.tokens, clock), settings.authentication
        )
        chain = self.authentication.authenticator
        requests = TokenRequests(store, self.tenants, self.tokens.keys, clock)
        handlers = CredentialHandlers(chain, self.tokens, requests, self._rules, clock)
        self._authorization = authorization(settings.authorization, store, self._rules, self.tenants)
        authorizer = self._authorization.authorizer
        reaching = Reaching(store, self.streams, authorizer, self.outcalls)
        self._certificates = AgentCertificates(store, pki, self._is_connected, self.streams.drop, clock)
        self.parts = Parts(
            chain,
            authorizer,
            Tenancy(self.tenants, authorizer),
            self.bootstrap,
            self.share,
            self.outcalls,
            (self._rules, NodeRestriction(), Escalation(authorizer, self._authorization.rbac), PlatformObjects(store)),
            {**handlers.resources(), **AccessReviews(authorizer).handlers(), **reaching.handlers()},
            {**handlers.paths(), **self._paths()},
            Impersonation(authorizer),
            Layers(self._authorization.policies.wrote, settings.root_service_cidr),
            aggregation=Aggregation(store, self.outcalls, ProxyPairs(pki, clock)),
            metrics=self.authentication.metrics,
            reports=NodeReports(self.streams.open, clock),
        )

    def _paths(self) -> dict[str, Handler]:
        """Polder's own: nodes' streams and certificates, its controllers' questions, its administrators' steps."""
        return {
            STREAM_PATH: self.streams.serve,
            CERTIFICATES_PATH: self._certificates.serve,
            DISCARD_PATH: Discards(self.streams.open).serve,
            ACCOUNT_TOKEN_PATH: AccountTokens(self._store, self.tokens).serve,
            KEYS_PATH: KeySteps(self._store, self.tokens).serve,
        }

    def attach(self, serve: ServeSocket) -> None:
        """Says where connections that come in through a tenant's service are served."""
        self._serve = serve

    async def start(self) -> None:
        """Makes what root needs, and learns the nodes' shares. Call it before the server listens."""
        await self.bootstrap.ensure_root(self._store, self.tenants)
        await self.publish()
        await self.share.load()

    async def publish(self) -> None:
        """Tells extension API servers by which authority our proxy is known: at the start, and when it is rolled over."""
        await self._proxies.publish()

    async def run(self) -> None:
        """Follows the nodes' shares and the tenants' roles until cancelled. What it raises is a defect: the process should
        end.
        """
        async with asyncio.TaskGroup() as group:
            group.create_task(self.share.run())
            group.create_task(self._changes.run())
            group.create_task(self._authorization.run())
            group.create_task(self._certificates.run())

    def reload(self) -> None:
        """Reads policy files again if they changed."""
        self._authorization.reload()

    async def close(self) -> None:
        """Ends the calls out of the server and the nodes' streams."""
        await self.authentication.close()
        await self._authorization.close()
        await self.outcalls.close()
        await self._dialer.close()
        await self.streams.close()

    async def _serve_socket(self, sock: socket.socket, context: ssl.SSLContext, pin: TenantName) -> None:
        assert self._serve is not None, "attach comes before start"
        await self._serve(sock, context, pin)

    def _is_connected(self, node: str) -> bool:
        return node in self.streams.nodes

    async def _enter(self, node: str, header: Raw, stream: Stream) -> None:
        await self._entry.handle(node, header, stream)
