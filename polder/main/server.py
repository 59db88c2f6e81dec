"""`polder server`: API server, controllers and scheduler in one process; the latter two reach the former over HTTPS."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from polder.apiserver.identity import IdentityLayer, IdentitySettings
from polder.apiserver.server import ApiServer
from polder.apiserver.settings import ServerSettings
from polder.apiserver.upkeep import Upkeep
from polder.base.clock import Clock, SystemClock
from polder.base.errors import PermanentError
from polder.client.client import Client, ClientSettings
from polder.controllers.run import run_controllers
from polder.loop.leader import Leader, LeaderSettings, LeadershipError
from polder.main.authentication import read_methods
from polder.main.authorization import make_audit, read_modes
from polder.main.config import ServerConfig, load
from polder.main.config_controllers import controller_settings
from polder.main.daemon import run
from polder.main.doors import doors_of
from polder.main.files import open_files
from polder.main.logs import set_up
from polder.main.reauthentication import AuthenticationFile
from polder.main.renewal import ServerCertificates
from polder.main.storage import open_store, server_identity
from polder.scheduler.run import run_scheduler
from polder.scheduler.settings import SchedulerSettings
from polder.store.protocol import Store
from polder.system.pki import ensure_pki

log = logging.getLogger(__name__)

PARTS = ("controllers", "scheduler")
"""The server's own parts that have a certificate each."""
EXIT_STUCK = 70
"""The exit code of a server whose controllers did not end when another was to begin them (EX_SOFTWARE)."""


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

    def __init__(self, config: ServerConfig, store: Store, path: Path | None = None) -> None:
        """``path`` is the configuration's file, where it is one and to be followed."""
        self._config = config
        self._where = listening(config)
        self._pki = ensure_pki(Path(config.pki))
        clock = SystemClock()
        addresses = [host for host in self._where.hosts if host != "0.0.0.0"]  # noqa: S104  # compared, not bound
        self._certificates = ServerCertificates(self._pki, config.names, addresses, clock)
        self._identity = IdentityLayer(self._identity_settings(clock), store, self._pki, clock)
        self._file = AuthenticationFile(path, config, self._identity.authentication) if path is not None else None
        self._audit = make_audit(config.audit, clock)
        parts = self._identity.parts
        paths = {**parts.paths, **Upkeep(store, clock, Path(config.pki).parent).paths}
        parts = replace(parts, paths=paths, auditor=self._audit.auditor if self._audit else None)
        self._api = ApiServer(self._settings(), store, parts, clock)
        self._identity.attach(self._api.serve_socket)
        self._certificates.reload = self._api.reload_certificates
        self._certificates.publish = self._identity.publish

    def _identity_settings(self, clock: Clock) -> IdentitySettings:
        methods, modes = read_methods(self._config.authentication), read_modes(self._config.authorization, clock)
        return IdentitySettings(self._config.pod_cidr, self._config.service_cidr, methods, modes)

    def _settings(self) -> ServerSettings:
        certificate, key = self._certificates.ensure_serving()
        return ServerSettings(
            certificate, key, self._pki.clients_ca, hosts=self._where.hosts, port=self._where.port,
            admission=self._config.admission, doors=doors_of(self._config, open_files()),
        )  # fmt: skip

    def _new_client(self, name: str) -> Client:
        certificate, key = self._certificates.component(name)
        server = f"https://{self._where.hosts[0]}:{self._where.port}"
        return Client(ClientSettings(server, self._pki.serving_ca, certificate, key))

    @asynccontextmanager
    async def _client(self, name: str) -> AsyncIterator[Client]:
        """A client of one of the server's own parts, whose certificate is looked after."""
        client = self._new_client(name)
        self._certificates.clients.append(client)
        try:
            yield client
        finally:
            self._certificates.clients.remove(client)
            await client.close()

    async def run(self) -> None:
        """Serves until cancelled."""
        await self._identity.start()
        await self._api.start()
        try:
            async with asyncio.TaskGroup() as group:
                asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._reload, group)
                if self._file is not None:
                    group.create_task(self._file.run())
                group.create_task(self._identity.run())
                group.create_task(self._certificates.run(PARTS))
                group.create_task(self._lead() if self._config.etcd is not None else self._control())
        finally:
            await self._identity.close()
            await self._api.stop()
            if self._audit is not None:
                await asyncio.to_thread(self._audit.files.close)

    def _reload(self, group: asyncio.TaskGroup) -> None:
        """Reads again what may change while the server runs: policy files, and the configuration of authentication."""
        self._identity.reload()
        if self._file is not None:
            group.create_task(self._file.reload())

    async def _control(self) -> None:
        """What one server of a cluster does: the controllers and the scheduler, until cancelled."""
        async with (
            self._client("controllers") as controllers,
            self._client("scheduler") as scheduler,
            asyncio.TaskGroup() as group,
        ):
            group.create_task(self._controllers(controllers))
            group.create_task(run_scheduler(scheduler, SchedulerSettings()))

    async def _controllers(self, client: Client) -> None:
        """The controllers; from their beginning when pods are to trust other authorities."""
        while True:
            self._certificates.trust_changed.clear()
            settings = controller_settings(self._config.controllers, self._pki.trust)
            running = asyncio.ensure_future(run_controllers(client, settings, self._pki))
            changed = asyncio.ensure_future(self._certificates.trust_changed.wait())
            try:
                await asyncio.wait({running, changed}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (running, changed):
                    task.cancel()
                await asyncio.wait({running, changed})
            if not running.cancelled():
                running.result()

    async def _lead(self) -> None:
        """Several servers share the store: whichever leads runs the controllers and the scheduler."""
        async with self._client("controllers") as client:
            leader = Leader(client, leader_settings(self._config), SystemClock())
            try:
                await leader.run(self._control)
            except LeadershipError as error:
                log.critical("%s", error)
                os._exit(EXIT_STUCK)  # at once: what still runs here may be begun by another server any moment


def leader_settings(config: ServerConfig) -> LeaderSettings:
    """Of the lease's time two thirds are for renewing, the rest for ending. Raises PermanentError naming the field."""
    lease = config.lease_seconds
    if not 1 <= lease <= 3600:
        raise PermanentError(f"configuration: leaseSeconds {lease} is not between 1 and 3600")
    return LeaderSettings("polder-controllers", server_identity(config), lease, lease * 2 / 3, lease / 8)


async def serve(config: ServerConfig, path: Path) -> None:
    """Opens the store and serves until cancelled, by the configuration of that file."""
    store = await open_store(config)
    try:
        await Server(config, store, path).run()
    finally:
        await store.close()


def command(args: argparse.Namespace) -> int:
    """Runs `polder server`."""
    config = load(args.config, ServerConfig)
    set_up(config.log_format)
    run(lambda: serve(config, args.config))
    return 0
