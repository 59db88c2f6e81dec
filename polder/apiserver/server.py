"""The API server, composed of its parts."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Mapping

from polder.apiserver.admission_parts import registered_admission
from polder.apiserver.admit import standard_chain
from polder.apiserver.aggregation_checks import Checks
from polder.apiserver.aggregation_discovery import RemoteDocuments
from polder.apiserver.aggregation_proxy import Proxy
from polder.apiserver.catalog import Catalog
from polder.apiserver.compaction import Compaction
from polder.apiserver.crdapis import CrdApis
from polder.apiserver.crdcleanup import CrdCleanup
from polder.apiserver.crdconvert import Converter
from polder.apiserver.crdregistry import CrdRegistry
from polder.apiserver.custom import Services
from polder.apiserver.deletes import Deleter
from polder.apiserver.discovery import Discovery
from polder.apiserver.dispatch import Dispatcher, Verbs
from polder.apiserver.evictions import Evictions
from polder.apiserver.fairness import Fairness
from polder.apiserver.hooks import Handler, Parts
from polder.apiserver.internal_garbage import GarbageFeed
from polder.apiserver.internal_owners import Owners
from polder.apiserver.internal_paths import InternalPaths
from polder.apiserver.listener import Listener, make_tls_context
from polder.apiserver.metrics import Metrics
from polder.apiserver.openapi_paths import OpenApi
from polder.apiserver.patches import Patcher
from polder.apiserver.projection import Projected
from polder.apiserver.quota_recount import Recount
from polder.apiserver.reads import Reader
from polder.apiserver.resource_metrics import ResourceMetrics
from polder.apiserver.scales import Scales
from polder.apiserver.settings import ServerSettings
from polder.apiserver.subresources import Subresources
from polder.apiserver.system_paths import SystemPaths
from polder.apiserver.watches import Watches
from polder.apiserver.workshop import Workshop
from polder.apiserver.writes import Writer
from polder.base.clock import Clock
from polder.base.ids import TenantName
from polder.store.protocol import Store

log = logging.getLogger(__name__)


class ApiServer:
    """Serves the Kubernetes API of every tenant from one store."""

    def __init__(self, settings: ServerSettings, store: Store, parts: Parts, clock: Clock) -> None:
        store = Projected(store, parts.layers.wrote, parts.layers.root_service_cidr)
        self._settings = settings
        self._workshop = Workshop()
        crds = CrdRegistry(store, Services(self._workshop, Converter(parts.outcalls)))
        catalog = Catalog(crds)
        metrics = Metrics()
        reader = Reader(store, clock, parts.share)
        self._registered = registered_admission(store, parts, crds, clock, settings.admission)
        writer = Writer(
            store,
            clock,
            standard_chain(store, parts, clock, self._registered, self._workshop, settings.admission),
            settings,
            parts.authorizer,
        )
        deleter = Deleter(writer, reader)
        self._compaction = Compaction(store, clock, settings.history, settings.compact_interval)
        self._chores: list[asyncio.Task[None]] = []
        self._watches = Watches(store, reader, clock, settings.bookmark_interval)
        self._cleanup = CrdCleanup(deleter, self._watches.end_of)
        self._apis = CrdApis(writer)
        patcher = Patcher(writer)
        below = (Scales(writer), Evictions(deleter))
        measured = ResourceMetrics(store, parts.reports, clock).handlers() if parts.reports is not None else {}
        subresources = Subresources(writer, reader, patcher, *below, {**parts.subresources, **measured})
        verbs = Verbs(reader, writer, patcher, deleter, self._watches, subresources)
        owners = Owners(store, crds)
        self._garbage = GarbageFeed(owners)
        self._internal = InternalPaths(owners, self._garbage, Recount(store))
        self._system = SystemPaths(store, self._watches, metrics, settings.git_version, parts.metrics)
        self._aggregation = parts.aggregation
        proxy = Proxy(parts.aggregation) if parts.aggregation is not None else None
        self._checks = Checks(store, parts.aggregation, clock) if parts.aggregation is not None else None
        remote = RemoteDocuments(parts.aggregation, clock) if parts.aggregation is not None else None
        paths = self._paths(catalog, remote)
        handler = Dispatcher(parts, catalog, verbs, paths, metrics, Fairness(), proxy).handle
        self._listener = Listener(handler, settings.doors)
        self.port = 0
        self._context: ssl.SSLContext | None = None

    def _paths(self, catalog: Catalog, remote: RemoteDocuments | None) -> Mapping[str, Handler]:
        discovery = Discovery(catalog, remote)
        system, documents = self._system, OpenApi(catalog, remote)
        return {
            "/": discovery.paths,
            "/api": discovery.core,
            "/apis": discovery.groups,
            "/openapi/v2": documents.v2,
            "/openapi/v3": documents.v3,
            "/version": system.version,
            "/healthz": system.health,
            "/livez": system.health,
            "/readyz": system.health,
            "/metrics": system.prometheus,
            "/polder": self._internal.serve,
        }

    async def start(self) -> None:
        """Listens; ``port`` says where. Raises OSError where the address is taken or a file is missing."""
        self._context = context = await asyncio.to_thread(make_tls_context, self._settings)
        if self._registered is not None:
            await self._registered.registrations.load()
        if self._aggregation is not None:
            await self._aggregation.registered.load()
        self.port = self._settings.port
        for host in self._settings.hosts:
            self.port = await self._listener.start(host, self.port, context)
        chores = [self._cleanup.run(), self._apis.run(), self._compaction.run()]
        if self._registered is not None:
            chores.append(self._registered.registrations.run())
        if self._aggregation is not None and self._checks is not None:
            chores += [self._aggregation.registered.run(), self._checks.run()]
        for chore in chores:
            task = asyncio.create_task(chore)
            task.add_done_callback(_report)
            self._chores.append(task)
        log.info("API server listens on %s port %d", " and ".join(self._settings.hosts), self.port)

    def reload_certificates(self) -> None:
        """Shows the serving certificate, and trusts the authorities, that the files hold now, on connections that begin from
        now on. An authority that is trusted no more is refused by ``authn_x509``. Raises OSError.
        """
        if self._context is not None:
            self._context.load_cert_chain(self._settings.certificate, self._settings.key)
            self._context.load_verify_locations(self._settings.client_ca)

    async def serve_socket(self, sock: socket.socket, context: ssl.SSLContext, pin: TenantName) -> None:
        """Serves one accepted connection, pinned to a tenant. Returns after the handshake; raises OSError."""
        await self._listener.serve_socket(sock, context, pin)

    async def stop(self) -> None:
        """Ends watches, lets running requests finish within ``stop_timeout`` seconds, closes all connections."""
        self._system.stopping = True
        self._listener.stop_accepting()
        self._watches.end_all()
        self._garbage.end_all()
        for chore in self._chores:
            chore.cancel()
        await asyncio.gather(*self._chores, return_exceptions=True)
        await self._listener.stop(self._settings.stop_timeout)
        await self._workshop.close()


def _report(task: asyncio.Task[None]) -> None:
    """A chore runs as long as the server: an end of its own is a defect."""
    if not task.cancelled() and (problem := task.exception()) is not None:
        log.error("a chore of the API server ended", exc_info=problem)
