"""The nouns of policy: who is selected, and what rules say of whom. Frozen, free of API objects.

Groups are named by what selects them (``group_id``), so that equal selectors of different policies are one group.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass

INGRESS, EGRESS = "ingress", "egress"
DIRECTIONS = (INGRESS, EGRESS)
ADMIN, NETWORK, BASELINE, DEFAULT = "admin", "network", "baseline", "default"
TIERS = (ADMIN, NETWORK, BASELINE, DEFAULT)
"""In the order in which they are asked. ``default`` is what a namespace says where no policy has spoken."""
ACCEPT, DENY, PASS = "accept", "deny", "pass"


@dataclass(frozen=True, slots=True, order=True)
class Ports:
    """Destination ports of one protocol (TCP, UDP, SCTP; empty only beside a ``name``): ``first`` to ``last``, all of them where
    both are 0, or the port that the receiving pod calls ``name``.
    """

    protocol: str
    first: int = 0
    last: int = 0
    name: str = ""

    @property
    def group(self) -> str:
        """The group of those that have a port of the name; empty without one."""
        return group_id(f"port {self.protocol}/{self.name}") if self.name else ""


@dataclass(frozen=True, slots=True, order=True)
class Peer:
    """The members of a group, or a block of addresses without some of its parts."""

    group: str = ""
    block: str = ""
    without: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, order=True)
class PolicyRule:
    """What happens to what comes from (goes to) ``peers`` on ``ports``. ``anyone`` leaves the peers open; no ports are all
    protocols. ``name`` is what its author calls it.
    """

    action: str
    peers: tuple[Peer, ...] = ()
    ports: tuple[Ports, ...] = ()
    anyone: bool = False
    name: str = ""


@dataclass(frozen=True, slots=True, order=True)
class Policy:
    """Rules for the members of ``subject``. ``name`` is namespace/name, ``/name`` for one of the whole tenant, ``namespace/``
    for a namespace's default. Lower ``priority`` first. Of tier ``network`` it isolates in the directions ``isolates``: what none
    of them accepts is dropped.
    """

    tenant: str
    name: str
    tier: str
    subject: str
    priority: int = 0
    isolates: tuple[str, ...] = ()
    ingress: tuple[PolicyRule, ...] = ()
    egress: tuple[PolicyRule, ...] = ()

    def rules(self, direction: str) -> tuple[PolicyRule, ...]:
        """The rules of one direction."""
        return self.ingress if direction == INGRESS else self.egress

    def concerns(self, direction: str) -> bool:
        """Whether it has a say in a direction."""
        return direction in self.isolates if self.tier == NETWORK else bool(self.rules(direction))

    @property
    def order(self) -> tuple[int, int, str]:
        """Place among policies."""
        return TIERS.index(self.tier), self.priority, self.name

    @property
    def title(self) -> str:
        """What people call it."""
        if self.tier == DEFAULT:
            return f"the default of namespace {self.name.removesuffix('/')}"
        kind = "NetworkPolicy" if self.tier == NETWORK else "ClusterNetworkPolicy"
        return f"{kind} {self.name.removeprefix('/')}"


@dataclass(frozen=True, slots=True, order=True)
class GroupMember:
    """A port (``namespace/name``) in a group, with the network that it is on; empty for an address of the router's own. ``ports``
    are set in a group of named ports.
    """

    port: str
    network: str
    addresses: tuple[str, ...]
    ports: tuple[Ports, ...] = ()


@dataclass(frozen=True, slots=True, order=True)
class Group:
    """Whom a selector selects, or who calls a port by some name (``named``). ``name`` is a slash and the group's id. It is a
    ``peer`` where a rule names it; else it only says whom policies are for.
    """

    tenant: str
    name: str
    peer: bool = False
    named: bool = False
    members: tuple[GroupMember, ...] = ()

    @property
    def id(self) -> str:
        """By which policies name it."""
        return self.name.removeprefix("/")


def group_id(text: str) -> str:
    """The name of a group, by the canonical text of its selector: 80 bits."""
    digest = hashlib.blake2b(text.encode(), digest_size=10).digest()
    return base64.b32encode(digest).decode().lower()
