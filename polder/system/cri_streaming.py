"""The runtime's streaming requests (CRI Exec, Attach): where, on this machine's loopback, it waits for one connection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from polder._generated import api_pb2 as pb
from polder.system.cri import CriClient
from polder.system.cri_types import RuntimeFailureError


@dataclass(frozen=True, slots=True)
class Streams:
    """What of a process is connected."""

    stdin: bool
    stdout: bool
    stderr: bool
    tty: bool


@dataclass(frozen=True, slots=True)
class Waiting:
    """Where the runtime waits; the path holds a token that is good once, for a minute."""

    host: str
    port: int
    path: str


async def prepare_exec(cri: CriClient, container: str, command: Sequence[str], streams: Streams) -> Waiting:
    """Has a command ready to run in a container. Raises RuntimeFailureError."""
    request = pb.ExecRequest(
        container_id=container,
        cmd=command,
        tty=streams.tty,
        stdin=streams.stdin,
        stdout=streams.stdout,
        stderr=streams.stderr,
    )
    return _waiting((await cri.ask("Exec", request)).url)


async def prepare_attach(cri: CriClient, container: str, streams: Streams) -> Waiting:
    """Has a container's own process ready to be connected to. Raises RuntimeFailureError."""
    request = pb.AttachRequest(
        container_id=container, tty=streams.tty, stdin=streams.stdin, stdout=streams.stdout, stderr=streams.stderr
    )
    return _waiting((await cri.ask("Attach", request)).url)


def _waiting(url: str) -> Waiting:
    parts = urlsplit(url)
    if parts.scheme != "http" or parts.hostname not in {"127.0.0.1", "::1", "localhost"} or not parts.port:
        raise RuntimeFailureError(f"the runtime waits at {url!r}, which is not on this machine's loopback")
    return Waiting(parts.hostname, parts.port, parts.path)
