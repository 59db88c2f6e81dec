"""What a fragment is named by."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from polder.api import core
from polder.api import polder as api
from polder.api.meta import Object
from polder.base.ref import Ref


class Concern(Enum):
    """The kinds of fragment, in the order in which they are compiled."""

    NODE = "node"
    ROUTER = "router"
    NETWORK = "network"
    PORT = "port"

    @property
    def rank(self) -> int:
        """Place in the order of compilation: what others build on comes first."""
        return RANK[self]


RANK = {concern: rank for rank, concern in enumerate(Concern)}


class Key(NamedTuple):
    """One fragment: a concern and the object that it is about."""

    concern: Concern
    ref: Ref

    def __str__(self) -> str:
        return f"{self.concern.value} {self.ref}"


CONCERN_OF: dict[type[Object], Concern] = {
    core.Node: Concern.NODE,
    api.Router: Concern.ROUTER,
    api.Network: Concern.NETWORK,
    api.Port: Concern.PORT,
}
"""Kinds with a fragment of their own; a Tenant feeds its routers, a Port with ``routerOf`` that tenant's routers."""
