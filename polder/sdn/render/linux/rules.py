"""The nftables text of a space's inet table (syntax of nft 1.0.6). Sets are declared empty; elements are items of their own.

``docs/`` and DESIGN.md give the reasons; each rule here was tried with packets (tests/system).
"""

from __future__ import annotations

from collections.abc import Sequence

from polder.sdn.render.linux.names import TRANSIT_RANGE, TRANSIT_RANGE6, UP
from polder.sdn.render.linux.service_rules import FOREIGN
from polder.sdn.topology.addressing import six
from polder.sdn.topology.types import Router

EGRESS_CONNECTIONS = 16384
"""Connections that one tenant may have to the outside at one time on one node: the node's table of connections is shared."""
EGRESS_RATE, EGRESS_BURST = 1000, 16384
"""How many it may open in a second, and at once: those that have ended stay in that table for up to two minutes, uncounted."""
SHARES = 64
"""Lists in which they are counted. The kernel goes through a whole list for a new connection, so with one alone a few hundred
packets in a second would take most of a processor.
"""
EGRESS_PORTS = "16384-32767"
"""Source ports of one tenant for one destination: a quarter of what the node's egress address has."""
KNOWN, GATEWAYS, LANDING, CHECKS, LOCAL = "known", "gateways", "landing", "checks", "local"
"""Names of the sets for IPv4; those for IPv6 end in 6 (``set_for``)."""
ENTRY_PORT = 443
DNS_PORT = 53


def set_for(name: str, address: str) -> str:
    """The name of the set for the family of an address or prefix."""
    return f"{name}6" if ":" in address else name


def space_rules(router: Router, address: str, machine: Sequence[str] = ()) -> str:
    """inet table of a router's space. ``address`` is its transit address on this node, ``machine`` are the node's own addresses
    where it may ask the router's pods itself (``from_node``).
    """
    entry = _resolver_accept(router.dns)
    if router.entry:
        entry += f'  iifname "br-*" {_ip(router.entry)} daddr {router.entry} tcp dport {ENTRY_PORT} accept\n'
    local = f" set {LOCAL} {{ type ipv4_addr; }}\n set {LOCAL}6 {{ type ipv6_addr; }}\n" if machine else ""
    return f"""\
{_sets()}{local} set {LANDING} {{ type ipv4_addr . inet_proto . inet_service; }}
 set {LANDING}6 {{ type ipv6_addr . inet_proto . inet_service; }}
 set {CHECKS} {{ type inet_service; }}
 set {GATEWAYS} {{ type ipv4_addr; }}
 set {GATEWAYS}6 {{ type ipv6_addr; }}
 chain input {{
  type filter hook input priority filter; policy drop;
  iifname "lo" accept
  icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept
  ct state established,related accept
  ct state invalid drop
{entry}  ip daddr {address} tcp dport @{CHECKS} accept
  iifname "br-*" ip daddr @{GATEWAYS} icmp type echo-request accept
  iifname "br-*" ip6 daddr @{GATEWAYS}6 icmpv6 type echo-request accept
 }}
{_outward()}{_forward(router, machine)}{_egress(address, machine)}{_resolver_untracked(router.dns)}"""


def _forward(router: Router, machine: Sequence[str]) -> str:
    """To the tenant's routers on other nodes go no TCP connections, only what belongs to one of theirs (a dial of the
    server's, what
    came from outside): that may have come over the network's bridge while nothing was tracked, so the flags have to tell. The
    other router takes nothing else (``input``). From outside comes only what is for a service or a pod's port of the machine: the
    node's guard lets in what is for the tenant's addresses, and here all else ends.

    Neighbour discovery is accepted before connections are asked for: it is not tracked.
    """
    services = "".join(
        f'  iifname "br-*" {_ip(text)} daddr {text} drop\n'
        for text in (router.service_cidr, router.service_cidr6, *router.further)
        if text
    )
    own = "".join(f'  iifname "{UP}" oifname "br-*" {_ip(one)} saddr {one} accept\n' for one in machine)
    return f"""\
 chain forward {{
  type filter hook forward priority filter; policy drop;
  oifname "br-*" ip daddr {TRANSIT_RANGE} ct state established,related accept
  oifname "br-*" ip6 daddr {TRANSIT_RANGE6} ct state established,related accept
  oifname "br-*" ip daddr {TRANSIT_RANGE} tcp flags & (syn | ack) != syn accept
  oifname "br-*" ip6 daddr {TRANSIT_RANGE6} tcp flags & (syn | ack) != syn accept
{_unknown()}  iifname "br-*" oifname "br-*" accept
  ct state established,related accept
  ct state invalid drop
{services}  iifname "br-*" oifname "{UP}" goto outward
  iifname "{UP}" oifname "br-*" ct status dnat accept
  iifname "{UP}" oifname "br-*" ip daddr . meta l4proto . th dport @{LANDING} accept
  iifname "{UP}" oifname "br-*" ip6 daddr . meta l4proto . th dport @{LANDING}6 accept
{own} }}
"""


def _outward() -> str:
    """New connections to the outside. The list is drawn by the addresses and, where there are ports, by those too; the mark means
    nothing beyond.
    """
    draws = "".join(
        f"  meta mark set jhash {ip} saddr . {ip} daddr{ports} mod {SHARES}\n"
        for ip in ("ip", "ip6")
        for ports in ("", " . th sport . th dport")
    )
    return f"""\
 set outward {{ type mark; size {SHARES}; flags dynamic; }}
 chain outward {{
  limit rate over {EGRESS_RATE}/second burst {EGRESS_BURST} packets drop
{draws}  add @outward {{ meta mark ct count over {EGRESS_CONNECTIONS // SHARES} }} drop
  meta mark set 0
  accept
 }}
"""


def _egress(address: str, machine: Sequence[str]) -> str:
    """What leaves has the router's address on this node, and so has what came from outside, or from the node, and goes to another
    node's pod: the answer has to come back here, where the connection is known.
    """
    own = "".join(
        f'  oifname "br-*" {_ip(one)} saddr {one} {_ip(one)} daddr != @{set_for(LOCAL, one)} '
        f"snat {_ip(one)} to {six(address) if ':' in one else address}\n"
        for one in machine
    )
    return f"""\
 chain postrouting {{
  type nat hook postrouting priority srcnat; policy accept;
  oifname "{UP}" meta nfproto ipv4 meta l4proto {{ tcp, udp }} snat ip to {address}:{EGRESS_PORTS}
  oifname "{UP}" meta nfproto ipv4 snat ip to {address}
  oifname "{UP}" meta nfproto ipv6 meta l4proto {{ tcp, udp }} snat ip6 to [{six(address)}]:{EGRESS_PORTS}
  oifname "{UP}" meta nfproto ipv6 snat ip6 to {six(address)}
  oifname "br-*" meta mark {FOREIGN:#x} meta nfproto ipv4 snat ip to {address}
  oifname "br-*" meta mark {FOREIGN:#x} meta nfproto ipv6 snat ip6 to {six(address)}
{own} }}
"""


def _resolver_accept(address: str) -> str:
    """What the tenant's resolver is asked."""
    if not address:
        return ""
    return f'  iifname "br-*" {_ip(address)} daddr {address} meta l4proto {{ tcp, udp }} th dport {DNS_PORT} accept\n'


def _resolver_untracked(address: str) -> str:
    """Questions over UDP are not noted as connections: each would hold one of the host's for half a minute."""
    if not address:
        return ""
    return f"""\
 chain resolver_asked {{
  type filter hook prerouting priority raw; policy accept;
  iifname "br-*" {_ip(address)} daddr {address} udp dport {DNS_PORT} notrack
 }}
 chain resolver_answers {{
  type filter hook output priority raw; policy accept;
  {_ip(address)} saddr {address} udp sport {DNS_PORT} notrack
 }}
"""


DIRECT_TABLE = "direct"
DIRECT = """\
 chain prerouting {
  type filter hook prerouting priority raw; policy accept;
  iifname "br-*" fib daddr oifname "br-*" notrack
 }
"""
"""Stands in a router's space while its rules do not see what is bridged: of a connection between two networks and nodes it sees
one direction there, and what it would note of that is wrong once it sees both (``ct state invalid``)."""


def isolated_rules() -> str:
    """inet table of an isolated network's space: traffic between known addresses, nothing for the space itself but
    questions for the next hop.
    """
    return f"""\
{_sets()} chain input {{
  type filter hook input priority filter; policy drop;
  icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept
 }}
 chain forward {{
  type filter hook forward priority filter; policy drop;
{_unknown()}  iifname "br-*" oifname "br-*" accept
  ct state established,related accept
  ct state invalid drop
 }}
"""


def _sets() -> str:
    return f" set {KNOWN} {{ type ipv4_addr; }}\n set {KNOWN}6 {{ type ipv6_addr; }}\n"


def _unknown() -> str:
    """What is for no port. For groups, only what a bridge hands on within a network is there at all: routers forward none."""
    return f"""\
  iifname "br-*" oifname "br-*" ip daddr 224.0.0.0/4 accept
  iifname "br-*" oifname "br-*" ip6 daddr ff00::/8 accept
  oifname "br-*" ip daddr != @{KNOWN} drop
  oifname "br-*" ip6 daddr != @{KNOWN}6 drop
"""


def _ip(text: str) -> str:
    return "ip6" if ":" in text else "ip"
