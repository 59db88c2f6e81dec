"""The nftables text of policies, in a table of its own in each space of a tenant that has any.

The table's two ways are base chains behind the router's own: what that accepts is asked here once more, what leaves a pod in
``egress`` (also towards the router itself: the service entry, DNS), what reaches a pod in ``ingress``. Connections that stand
pass. A pod's address leads by a verdict map to the chain of those policies that select it; an address in no map is free. So a
packet costs two lookups and the rules of its own policies, however many others there are. Groups are sets, shared by all
policies that name the same selector; a pod that enters or leaves one is one element. Addresses alone are matched (a bridged frame
shows the bridge as both interfaces); anti-spoofing makes them trustworthy, and translation of services is done before.

Chains and sets with a dot in their names are items of their own; the table's text has those without.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import collapse_addresses, ip_network
from typing import NamedTuple

from polder.sdn.topology.policies import ACCEPT, DENY, INGRESS, Peer, PolicyRule, Ports

POLICY_TABLE = "policies"
FAMILIES = ("4", "6")
_IP = {"4": "ip", "6": "ip6"}
_TYPE = {"4": "ipv4_addr", "6": "ipv6_addr"}
PRODUCT = 64
"""Rules of one policy rule, above which its ports get a chain of their own."""
DROP = "counter drop"
"""How a rule drops: counted, and shown with the policy's name by ``polder policy``."""

TEXT = """\
 map ingress4 { type ipv4_addr : verdict; }
 map ingress6 { type ipv6_addr : verdict; }
 map egress4 { type ipv4_addr : verdict; }
 map egress6 { type ipv6_addr : verdict; }
 set self4 { type ipv4_addr . ipv4_addr; }
 set self6 { type ipv6_addr . ipv6_addr; }
 chain known {
  ct state established,related accept
  icmpv6 type { nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert, mld2-listener-report } accept
  ip saddr . ip daddr @self4 accept
  ip6 saddr . ip6 daddr @self6 accept
 }
 chain leave {
  jump known
  ip saddr vmap @egress4
  ip6 saddr vmap @egress6
 }
 chain egress {
  type filter hook forward priority 10; policy accept;
  jump leave
 }
 chain egress_to_router {
  type filter hook input priority 10; policy accept;
  jump leave
 }
 chain ingress {
  type filter hook forward priority 11; policy accept;
  jump known
  ip daddr vmap @ingress4
  ip6 daddr vmap @ingress6
 }
"""
"""The table without what comes and goes singly. A pod reaches itself by its own service whatever policies say (``self``)."""


def family_of(address: str) -> str:
    """The ending of names for an address or block."""
    return "6" if ":" in address else "4"


def group_set(group: str, family: str, *, named: bool = False) -> str:
    """The set of a group's addresses, or of addresses with the ports that have some name there."""
    return f"{'n' if named else 'g'}.{group}{family}"


def set_type(family: str, *, named: bool = False) -> str:
    """The type of such a set."""
    return f"{_TYPE[family]} . inet_proto . inet_service" if named else _TYPE[family]


def ports_key(ports: Ports, address: str) -> str:
    """An element of a set of named ports."""
    return f"{address} . {ports.protocol.lower()} . {ports.first}"


class Matches(NamedTuple):
    """What one policy rule is about, whom and which ports, as matches with the families they are of (empty: both)."""

    whom: list[tuple[str, str]]
    which: list[tuple[str, str]]

    @property
    def many(self) -> bool:
        """Whether peers times ports would be too many; ``split`` has their sum."""
        return min(len(self.whom), len(self.which)) > 1 and len(self.whom) * len(self.which) > PRODUCT

    def lines(self, verdict: str) -> list[str]:
        """One nft rule for each family, peer and protocol."""
        return [
            " ".join(part for part in (peer, port, verdict) if part)
            for family, peer in self.whom
            for only, port in self.which
            if not only or not family or only == family
        ]

    def split(self, verdict: str, chain: str) -> tuple[list[str], list[str]]:
        """The same in two steps: the rules that lead from the peers to ``chain``, and those of ``chain``, about the ports."""
        peers = [" ".join(part for part in (peer, f"jump {chain}") if part) for _, peer in self.whom]
        return peers, [f"{port} {verdict}" for _, port in self.which]


def matches_of(rule: PolicyRule, direction: str) -> Matches:
    """The matches of a rule: long lists of blocks take some time."""
    return Matches(_whom(rule, direction), _ports(rule.ports))


def _whom(rule: PolicyRule, direction: str) -> list[tuple[str, str]]:
    return [("", "")] if rule.anyone else list(_peers(rule.peers, "saddr" if direction == INGRESS else "daddr"))


def verdict_of(action: str, beyond: str) -> str:
    """What a rule's action is in nft; ``beyond`` is what follows where this tier passes."""
    return "accept" if action == ACCEPT else DROP if action == DENY else beyond


def _peers(peers: Iterable[Peer], side: str) -> Iterable[tuple[str, str]]:
    """Matches with their families."""
    for group in sorted({peer.group for peer in peers if peer.group}):
        for family in FAMILIES:
            yield family, f"{_IP[family]} {side} @{group_set(group, family)}"
    whole = [peer.block for peer in peers if peer.block and not peer.without]
    for family in FAMILIES:
        blocks = _collapsed([one for one in whole if family_of(one) == family])
        if blocks:
            yield family, f"{_IP[family]} {side} {blocks}"
    for peer in sorted(peer for peer in peers if peer.block and peer.without):
        family = family_of(peer.block)
        word = f"{_IP[family]} {side}"
        yield family, f"{word} {peer.block} {word} != {_collapsed(peer.without)}"


def _collapsed(blocks: Iterable[str]) -> str:
    """An nft set of blocks of one family, none of which lies in another."""
    found = [str(one) for one in collapse_addresses(ip_network(text) for text in blocks)]  # type: ignore[type-var]
    return f"{{ {', '.join(found)} }}" if found else ""


def _ports(ports: Iterable[Ports]) -> list[tuple[str, str]]:
    """A match for each protocol, and for each name in each family; one empty match for no ports at all."""
    known = list(ports)
    if not known:
        return [("", "")]
    found: list[tuple[str, str]] = []
    for protocol in sorted({one.protocol for one in known if not one.name}):
        some = [one for one in known if one.protocol == protocol and not one.name]
        if any(not one.last for one in some):
            found.append(("", f"meta l4proto {protocol.lower()}"))
        else:
            found.append(("", f"{protocol.lower()} dport {{ {', '.join(_ranges(some))} }}"))
    for one in sorted({one for one in known if one.name}):
        match = "daddr . meta l4proto . th dport"
        found += [(family, f"{_IP[family]} {match} @{group_set(one.group, family, named=True)}") for family in FAMILIES]
    return found


def _ranges(ports: Iterable[Ports]) -> list[str]:
    """Ports and ranges, none of which meets another."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted((one.first, one.last) for one in ports):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], last))
        else:
            merged.append((first, last))
    return [str(first) if first == last else f"{first}-{last}" for first, last in merged]
