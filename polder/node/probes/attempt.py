"""One attempt of a probe or hook, whatever its kind."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from functools import partial

from polder.api.lifecycle import ExecAction, GrpcAction, Hook, HttpGetAction, Probe, TcpSocketAction
from polder.api.podspec import Container
from polder.base.errors import PermanentError
from polder.base.ids import ROOT
from polder.node.pods.environment import expand_all
from polder.node.probes import grpc, http
from polder.node.probes.outcome import OUTPUT_LIMIT, SUCCESS, AttemptError, Outcome, Result, failure
from polder.node.probes.reach import Place, Reach, words
from polder.node.starts import Starts
from polder.system.cri import CriClient
from polder.system.cri_types import ExecTimeoutError, RuntimeFailureError

EACH = 6
"""Commands that are being started at a time for one tenant, of the eight in all."""
LONGEST_EXEC = 3600
"""Seconds: a runtime is never asked to wait longer for a command."""
TRIES = 3
"""For an attempt that could not be made (upstream's figure)."""


@dataclass(frozen=True, slots=True)
class Target:
    """What is asked: a container that runs, its spec, its pod's address, the place from where it is asked, and whose it is."""

    id: str
    container: Container
    address: str
    place: Place
    tenant: str = ROOT


@dataclass(frozen=True, slots=True)
class Means:
    """What attempts are made with; commands are started a few at a time, a few of each tenant."""

    cri: CriClient
    reach: Reach
    starts: Starts = field(default_factory=lambda: Starts(EACH))

    async def probe(self, target: Target, spec: Probe) -> Outcome:
        """One attempt of a probe. Raises AttemptError for what could not be made, tried three times."""
        for left in reversed(range(TRIES)):
            try:
                return await self._probe(target, spec)
            except AttemptError:
                if not left:
                    raise
        raise AttemptError("the probe was not tried")

    async def _probe(self, target: Target, spec: Probe) -> Outcome:
        seconds = max(1, spec.timeout_seconds)
        if spec.exec is not None:
            return await self.run(target, spec.exec, seconds)
        if spec.http_get is not None:
            return await self.get(target, spec.http_get, seconds, _agent("probe"))
        if spec.tcp_socket is not None:
            return await self.connect(target, spec.tcp_socket, seconds)
        if spec.grpc is not None:
            return await self.check(target, spec.grpc, seconds)
        raise AttemptError(f"missing probe handler for container {target.container.name}")

    async def hook(self, target: Target, spec: Hook, seconds: float) -> Outcome:
        """One run of a hook, for at most so many seconds. Raises AttemptError."""
        if spec.exec is not None:
            return await self.run(target, spec.exec, seconds)
        if spec.http_get is not None:
            return await self._call(target, spec.http_get, seconds)
        if spec.sleep is not None:
            await asyncio.sleep(min(spec.sleep.seconds, seconds))
            return SUCCESS
        raise AttemptError("invalid handler: neither exec, httpGet nor sleep")

    async def run(self, target: Target, action: ExecAction, seconds: float) -> Outcome:
        """A command in the container; variables of its spec that have plain values are put in."""
        plain = {one.name: one.value for one in target.container.env or [] if one.value_from is None}
        try:
            argv = expand_all(action.command, plain)
        except PermanentError as error:
            raise AttemptError(str(error)) from error
        try:
            async with self.starts.turn(target.tenant):
                done = await self.cri.exec_sync(target.id, list(argv), max(1, min(round(seconds), LONGEST_EXEC)))
        except ExecTimeoutError:
            return failure(f'command timed out: "{" ".join(argv)}" timed out after {seconds:g}s')
        except RuntimeFailureError as error:
            raise AttemptError(str(error)) from error
        said = (done.stdout[:OUTPUT_LIMIT] + done.stderr)[:OUTPUT_LIMIT].decode(errors="replace")
        return Outcome(Result.FAILURE if done.exit_code else Result.SUCCESS, said)

    async def get(self, target: Target, action: HttpGetAction, seconds: float, agent: str) -> Outcome:
        """A GET."""
        request = self._request(target, action)
        try:
            async with asyncio.timeout(seconds):
                return await http.get(partial(self.reach.connect, target.place), request, agent)
        except TimeoutError:
            return failure(
                f'Get "{request.url}": context deadline exceeded (Client.Timeout exceeded while awaiting headers)'
            )

    async def _call(self, target: Target, action: HttpGetAction, seconds: float) -> Outcome:
        """A hook's GET: whatever is answered counts as heard. HTTPS falls back to HTTP where nobody speaks TLS."""
        request = self._request(target, action)
        for tried in (request, replace(request, scheme="http")):
            try:
                async with asyncio.timeout(seconds):
                    await http.fetch(
                        partial(self.reach.connect, target.place), tried, _agent("lifecycle"), anywhere=True
                    )
            except http.GetError as error:
                if error.plain:
                    continue
                return failure(str(error))
            except TimeoutError:
                return failure(f'Get "{tried.url}": context deadline exceeded')
            return SUCCESS
        return failure(f'Get "{request.url}": nobody answers')

    def _request(self, target: Target, action: HttpGetAction) -> http.Request:
        headers = [(header.name, header.value) for header in action.http_headers or []]
        port = port_of(target.container, action.port)
        return http.make_request(action.scheme, action.host or target.address, port, action.path, headers)

    async def connect(self, target: Target, action: TcpSocketAction, seconds: float) -> Outcome:
        """A connection, closed at once."""
        host, port = action.host or target.address, port_of(target.container, action.port)
        try:
            async with asyncio.timeout(seconds):
                (await self.reach.connect(target.place, host, port)).close()
        except TimeoutError:
            return failure(f"dial tcp {host}:{port}: i/o timeout")
        except OSError as error:
            return failure(f"dial tcp {host}:{port}: {words(error)}")
        return SUCCESS

    async def check(self, target: Target, action: GrpcAction, seconds: float) -> Outcome:
        """A call of the health service."""
        authority = f"{target.address}:{action.port}"
        connected = False
        try:
            async with asyncio.timeout(seconds):
                sock = await self.reach.connect(target.place, target.address, action.port)
                connected = True
                return await grpc.check(sock, authority, action.service, _agent("probe"))
        except TimeoutError:
            if connected:
                return failure(f"timeout: health rpc did not complete within {seconds:g}s")
            why = "context deadline exceeded"
            return failure(f'timeout: failed to connect service "{authority}" within {seconds:g}s: {why}')
        except OSError as error:
            return failure(f'error: failed to connect service at "{authority}": {words(error)}')


def port_of(container: Container, port: int | str) -> int:
    """A port by number or by name. Raises AttemptError."""
    if isinstance(port, str):
        found = next((p.container_port for p in container.ports or [] if p.name == port), None)
        if found is None and port.isascii() and port.isdigit():
            found = int(port)
        if found is None:
            raise AttemptError(f"couldn't find port: {port} in {container.name}")
        port = found
    if not 0 < port < 65536:
        raise AttemptError(f"invalid port number: {port}")
    return port


def _agent(purpose: str) -> str:
    return f"kube-{purpose}/1.36"
