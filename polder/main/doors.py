"""How many connections the server may have, from its configuration and from what the machine lets a process open."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from polder.apiserver.gate import Doors
from polder.base.errors import PermanentError
from polder.main.config import ServerConfig

FILES: Final = 1024
"""File descriptors for everything else."""
WAYS: Final = 4
"""Descriptors that one connection of each way in takes together: through a tenant's service it takes two."""
LEAST, MOST = 8, 4096


def doors_of(config: ServerConfig, files: int) -> Doors:
    """The bounds of a process that may open so many files. Raises PermanentError naming the field."""
    each = config.connections_per_source
    if not LEAST <= each <= MOST:
        raise PermanentError(f"configuration: connectionsPerSource {each} is not between {LEAST} and {MOST}")
    plain = Doors()
    room = max(min(MOST, (files - FILES) // WAYS), 64)
    return replace(
        plain,
        local=replace(plain.local, connections=room, each=room),
        network=replace(plain.network, connections=room, each=min(each, room)),
        tenants=replace(plain.tenants, connections=room, each=min(plain.tenants.each, room)),
    )
