"""What a fragment is named by."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from polder.base.ref import Ref


class Concern(Enum):
    """The kinds of fragment, in the order in which they are compiled: one may build on those before it."""

    NODE = "node"
    ROUTER = "router"
    NETWORK = "network"
    PORT = "port"
    VIP = "vip"
    OUTSIDE = "outside"
    HOSTED = "hosted"
    POLICY = "policy"
    GROUP = "group"

    @property
    def rank(self) -> int:
        """Place in the order of compilation: what others build on comes first."""
        return RANK[self]


RANK = {concern: rank for rank, concern in enumerate(Concern)}


class Key(NamedTuple):
    """One fragment: a concern and what it is about, mostly an object."""

    concern: Concern
    ref: Ref

    def __str__(self) -> str:
        return f"{self.concern.value} {self.ref}"
