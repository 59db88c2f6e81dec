"""What the API server is told at its start. Read from configuration by ``polder/main``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from polder.apiserver.admission_names import DEFAULT
from polder.apiserver.gate import Doors

BODY_LIMIT = 3 * 1024 * 1024
"""Bytes of a request's body, as upstream's limit."""


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Where the server listens and with what. Times in seconds.

    ``client_ca`` is a bundle of authorities whose client certificates are looked at; one that is shown and does not
    verify ends the handshake. ``port`` 0 takes a free one, the same for all ``hosts``. Changes are kept for ``history``
    seconds at least, for watches and later pages of lists. ``admission`` names the plug-ins that are on, ``doors``
    bounds connections.
    """

    certificate: Path
    key: Path
    client_ca: Path
    hosts: tuple[str, ...] = ("127.0.0.1",)
    port: int = 6443
    bookmark_interval: float = 30.0
    body_limit: int = BODY_LIMIT
    read_timeout: float = 60.0
    stop_timeout: float = 5.0
    history: float = 300.0
    compact_interval: float = 60.0
    git_version: str = "v1.36.0+polder"
    admission: tuple[str, ...] = DEFAULT
    doors: Doors = field(default_factory=Doors)
