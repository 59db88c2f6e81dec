"""What policies say of a packet, from the same parts that the kernel's rules are made of: a pure walk, rule by rule.

It is the meaning that a backend has to keep, told in words: ``polder trace`` prints it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from polder.sdn.topology.policies import (
    ACCEPT,
    ADMIN,
    BASELINE,
    DEFAULT,
    EGRESS,
    INGRESS,
    NETWORK,
    PASS,
    Group,
    Peer,
    Policy,
    PolicyRule,
    Ports,
)
from polder.sdn.topology.types import Part, Port


@dataclass(frozen=True, slots=True)
class Packet:
    """The first packet of a connection, as it leaves the sender after a service's address was translated."""

    source: str
    destination: str
    protocol: str = "TCP"
    port: int = 0


@dataclass(frozen=True, slots=True)
class Decision:
    """What one end's policies say. ``rule`` is the number of the rule from 1, 0 where no rule said it. ``passed`` are the rules
    that left it to others.
    """

    direction: str
    allowed: bool
    reason: str
    policy: str = ""
    rule: int = 0
    passed: tuple[str, ...] = ()


class Walk:
    """The policies of one tenant, asked packet by packet."""

    def __init__(self, parts: Iterable[Part]) -> None:
        known = list(parts)
        self._policies = sorted((one for one in known if isinstance(one, Policy)), key=lambda one: one.order)
        self._subjects: dict[str, set[str]] = {}
        self._members: dict[str, set[str]] = {}
        self._named: dict[str, set[tuple[str, str, int]]] = {}
        self._owners = {a: one.name for one in known if isinstance(one, Port) for a in one.addresses}
        for group in (one for one in known if isinstance(one, Group)):
            for member in group.members:
                self._subjects.setdefault(member.port, set()).add(group.id)
                self._members.setdefault(group.id, set()).update(member.addresses)
                rows = {(a, one.protocol, one.first) for a in member.addresses for one in member.ports}
                self._named.setdefault(group.id, set()).update(rows)

    def owner(self, address: str) -> str:
        """The port that has an address; empty for what is no pod's."""
        return self._owners.get(address, "")

    def decide(self, packet: Packet) -> list[Decision]:
        """What the sender's end says, then the receiver's; each only for a pod."""
        ends = ((EGRESS, self.owner(packet.source)), (INGRESS, self.owner(packet.destination)))
        if ends[0][1] and ends[0][1] == ends[1][1]:
            return [Decision(EGRESS, True, "a pod reaches itself whatever policies say")]
        return [self._judge(direction, port, packet) for direction, port in ends if port]

    def _judge(self, direction: str, port: str, packet: Packet) -> Decision:
        groups = self._subjects.get(port, set())
        mine = [one for one in self._policies if one.subject in groups and one.concerns(direction)]
        passed: list[str] = []
        for tier in (ADMIN, NETWORK, BASELINE, DEFAULT):
            some = [one for one in mine if one.tier == tier]
            decision = self._ask(some, direction, packet, passed)
            if decision is not None:
                return decision
            if tier == NETWORK and some:
                names = ", ".join(one.title for one in some)
                reason = f"isolated by {names}, no rule of which accepts it"
                return Decision(direction, False, reason, names, passed=tuple(passed))
        return Decision(direction, True, "no policy decides, so it is free", passed=tuple(passed))

    def _ask(self, policies: Sequence[Policy], direction: str, packet: Packet, passed: list[str]) -> Decision | None:
        for policy in policies:
            for number, rule in enumerate(policy.rules(direction), 1):
                if not self._fits(rule, direction, packet):
                    continue
                named = f" ({rule.name})" if rule.name else ""
                where = f"{direction} rule {number}{named} of {policy.title}"
                if rule.action == PASS:
                    passed.append(where)
                    return None
                allowed = rule.action == ACCEPT
                reason = f"{where} {'accepts' if allowed else 'denies'} it"
                return Decision(direction, allowed, reason, policy.title, number, tuple(passed))
        return None

    def _fits(self, rule: PolicyRule, direction: str, packet: Packet) -> bool:
        other = packet.source if direction == INGRESS else packet.destination
        known = rule.anyone or any(self._is(peer, other) for peer in rule.peers)
        return known and (not rule.ports or any(self._meets(one, packet) for one in rule.ports))

    def _is(self, peer: Peer, address: str) -> bool:
        if peer.group:
            return address in self._members.get(peer.group, ())
        return _within(address, peer.block) and not any(_within(address, one) for one in peer.without)

    def _meets(self, ports: Ports, packet: Packet) -> bool:
        if ports.name:
            return (packet.destination, packet.protocol, packet.port) in self._named.get(ports.group, ())
        if ports.protocol != packet.protocol:
            return False
        return not ports.last or ports.first <= packet.port <= ports.last


def _within(address: str, block: str) -> bool:
    one, whole = ip_address(address), ip_network(block)
    return one.version == whole.version and one in whole
