"""`polder server`: API server, controllers and scheduler in one process; the latter two reach the former over HTTPS."""

from __future__ import annotations

import argparse
import asyncio
import logging
from collections.abc import Awaitable
from dataclasses import dataclass
from pathlib import Path

from polder.apiserver.authn import COMPONENTS, Authenticator, parse_static_tokens
from polder.apiserver.authz import Authorizer
from polder.apiserver.bootstrap import Bootstrap
from polder.apiserver.entry import Contexts, Entry
from polder.apiserver.hooks import Parts
from polder.apiserver.logs import Logs
from polder.apiserver.noderules import NodeRules
from polder.apiserver.server import ApiServer
from polder.apiserver.settings import ServerSettings
from polder.apiserver.share import Share
from polder.apiserver.stream import NodeStreams
from polder.apiserver.tenancy import Tenancy, Tenants
from polder.apiserver.tokens import Tokens
from polder.base.clock import SystemClock
from polder.base.errors import PermanentError
from polder.client.client import Client, ClientSettings
from polder.controllers.run import run_controllers
from polder.controllers.settings import ControllerSettings
from polder.main.config import ServerConfig, load
from polder.main.daemon import run
from polder.main.logs import set_up
from polder.scheduler.run import run_scheduler
from polder.scheduler.settings import SchedulerSettings
from polder.store.protocol import Store
from polder.store.sqlite import open_sqlite
from polder.system.pki import Pki, ensure_pki

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Listening:
    """Where to listen: the addresses, and the one port of all of them."""

    hosts: tuple[str, ...]
    port: int


def listening(config: ServerConfig) -> Listening:
    """Raises PermanentError naming the field."""
    hosts, ports = [], set()
    for entry in config.listen:
        host, _, port = entry.rpartition(":")
        if not host or not port.isdigit():
            raise PermanentError(f"configuration: listen {entry!r} is not ADDRESS:PORT")
        hosts.append(host)
        ports.add(int(port))
    if len(ports) != 1:
        raise PermanentError("configuration: listen needs one port, the same for every address")
    return Listening(tuple(hosts), ports.pop())


class Server:
    """The composition: every part made once, from the configuration."""

    def __init__(self, config: ServerConfig, store: Store) -> None:
        self._config = config
        self._where = listening(config)
        self._pki = ensure_pki(Path(config.pki))
        self._clock = SystemClock()
        self._store = store
        self._tenants = Tenants(store, config.pod_cidr, config.service_cidr)
        self._tokens = Tokens(store, self._tenants, self._clock)
        self._share = Share(store)
        self._bootstrap = Bootstrap(self._clock, self._pki.serving_ca.read_text())
        entry = Entry(Contexts(self._pki, self._clock), self._tenants, self._share, self._serve_socket)
        self._streams = NodeStreams({"api": entry.handle})
        self._api = ApiServer(self._settings(), store, self._parts(), self._clock)

    async def _serve_socket(self, *args: object) -> None:
        await self._api.serve_socket(*args)  # type: ignore[arg-type]  # the entry is made before the server it enters

    def _settings(self) -> ServerSettings:
        """Renews the serving certificate: its names follow the configuration."""
        certificate, key = self._pki.directory / "server.crt", self._pki.directory / "server.key"
        addresses = [host for host in self._where.hosts if host != "0.0.0.0"]  # noqa: S104  # compared, not bound
        self._pki.issue_serving(self._config.names, addresses).write(certificate, key)
        return ServerSettings(certificate, key, self._pki.clients_ca, hosts=self._where.hosts, port=self._where.port)

    def _parts(self) -> Parts:
        static = {}
        if self._config.token_file:
            static = parse_static_tokens(Path(self._config.token_file).read_text())
        rules = NodeRules(self._store, self._share)
        return Parts(
            authenticator=Authenticator(self._tenants, self._tokens, self._clock, static),
            authorizer=Authorizer(rules),
            tenancy=Tenancy(self._tenants, self._share),
            bootstrap=self._bootstrap,
            share=self._share,
            checking=(rules,),
            subresources={("pods", "log"): Logs(self._store, self._streams).serve},
            paths={"/polder/v1/stream": self._streams.serve},
        )

    def _client(self, name: str) -> Client:
        certificate, key = component_credentials(self._pki, name)
        server = f"https://{self._where.hosts[0]}:{self._where.port}"
        return Client(ClientSettings(server, self._pki.serving_ca, certificate, key))

    async def run(self) -> None:
        """Serves until cancelled."""
        await self._bootstrap.ensure_root(self._store, self._tenants)
        share = asyncio.ensure_future(self._share.run())
        await self._api.start()
        clients = {name: self._client(name) for name in ("controllers", "scheduler")}
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_forever(share))
                settings = ControllerSettings(root_ca=self._pki.serving_ca.read_text())
                group.create_task(run_controllers(clients["controllers"], settings))
                group.create_task(run_scheduler(clients["scheduler"], SchedulerSettings()))
        finally:
            share.cancel()
            for client in clients.values():
                await client.close()
            await self._streams.close()
            await self._api.stop()


async def _forever(task: Awaitable[None]) -> None:
    await task


def component_credentials(pki: Pki, name: str) -> tuple[Path, Path]:
    """Certificate and key of one of the server's own parts, made if missing."""
    certificate, key = pki.directory / f"{name}.crt", pki.directory / f"{name}.key"
    if not (certificate.exists() and key.exists()):
        pki.issue_client(f"system:polder:{name}", [COMPONENTS]).write(certificate, key)
    return certificate, key


async def serve(config: ServerConfig) -> None:
    """Opens the store and serves until cancelled."""
    path = Path(config.store)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    store = open_sqlite(path)
    try:
        await Server(config, store).run()
    finally:
        await store.close()


def command(args: argparse.Namespace) -> int:
    """Runs `polder server`."""
    config = load(args.config, ServerConfig)
    set_up(config.log_format)
    run(lambda: serve(config))
    return 0
