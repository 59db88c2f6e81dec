"""Subresources that are connections into what runs: their options' kinds, methods and query parameters (core/v1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_UPGRADES: Final = ("get", "post")
_HTTP: Final = ("delete", "get", "head", "options", "patch", "post", "put")
_STREAMS: Final = ("container", "stderr", "stdin", "stdout", "tty")
BOOLEANS: Final = frozenset({"stderr", "stdin", "stdout", "tty"})
_VERBS: Final = {"delete": "delete", "get": "get", "patch": "patch", "post": "create", "put": "update"}


@dataclass(frozen=True, slots=True)
class Connection:
    """One subresource: the kind of its options, the methods it takes, what its query says."""

    options: str
    methods: tuple[str, ...]
    query: tuple[str, ...]

    @property
    def verbs(self) -> tuple[str, ...]:
        """As discovery lists them."""
        return tuple(sorted({_VERBS[method] for method in self.methods if method in _VERBS}))


CONNECTIONS: Final[Mapping[tuple[str, str], Connection]] = {
    ("pods", "attach"): Connection("PodAttachOptions", _UPGRADES, _STREAMS),
    ("pods", "exec"): Connection("PodExecOptions", _UPGRADES, ("command", *_STREAMS)),
    ("pods", "portforward"): Connection("PodPortForwardOptions", _UPGRADES, ("ports",)),
    ("pods", "proxy"): Connection("PodProxyOptions", _HTTP, ("path",)),
    ("services", "proxy"): Connection("ServiceProxyOptions", _HTTP, ("path",)),
    ("nodes", "proxy"): Connection("NodeProxyOptions", _HTTP, ("path",)),
}
"""By (resource of the core group, subresource)."""
