"""The nftables text of each table (syntax of nft 1.0.6). Sets are declared empty; elements are items of their own.

``docs/`` and DESIGN.md give the reasons; each rule here was tried with packets (tests/system).
"""

from __future__ import annotations

from polder.sdn.render.linux.facts import NodeFacts
from polder.sdn.render.linux.names import (
    LINK_LOCAL_RANGE,
    TRANSIT_RANGE,
    UP,
    transit_pattern,
)
from polder.sdn.topology.types import Router

EGRESS_CONNECTIONS = 16384
"""Connections that one tenant may have to the outside at one time on one node: the node's table of connections is shared."""
EGRESS_PORTS = "16384-32767"
"""Source ports of one tenant for one destination: a quarter of what the node's egress address has."""
KNOWN, GATEWAYS, PORTS4, NODES, PROTECTED, TRANSIT = "known", "gateways", "ports4", "nodes", "protected", "transit"
"""Names of the sets."""
NEAR = "near"
"""Name of the map by which a frame within a network is bridged though its sender gave it to the gateway."""
ENTRY_PORT = 443


def space_rules(router: Router, address: str) -> str:
    """inet table of a router's space. ``address`` is its transit address on this node. To the tenant's routers on other nodes go
    no TCP connections, only what belongs to one of theirs (a dial of the server's): that came over the network's bridge, where
    nothing is tracked, so the flags have to tell. The other router takes nothing else (``input``).
    """
    services = f'  iifname "br-*" ip daddr {router.service_cidr} drop\n' if router.service_cidr else ""
    entry = f'  iifname "br-*" ip daddr {router.entry} tcp dport {ENTRY_PORT} accept\n' if router.entry else ""
    return f"""\
 set {KNOWN} {{ type ipv4_addr; }}
 set {GATEWAYS} {{ type ipv4_addr; }}
 chain input {{
  type filter hook input priority filter; policy drop;
  iifname "lo" accept
  ct state established,related accept
  ct state invalid drop
{entry}  iifname "br-*" ip daddr @{GATEWAYS} icmp type echo-request accept
 }}
 chain forward {{
  type filter hook forward priority filter; policy drop;
  oifname "br-*" ip daddr {TRANSIT_RANGE} tcp flags & (syn | ack) != syn accept
  oifname "br-*" ip daddr != @{KNOWN} drop
  iifname "br-*" oifname "br-*" accept
  ct state established,related accept
  ct state invalid drop
{services}  iifname "br-*" oifname "{UP}" ct count over {EGRESS_CONNECTIONS} drop
  iifname "br-*" oifname "{UP}" accept
 }}
 chain postrouting {{
  type nat hook postrouting priority srcnat; policy accept;
  oifname "{UP}" meta l4proto {{ tcp, udp }} snat ip to {address}:{EGRESS_PORTS}
  oifname "{UP}" snat ip to {address}
 }}
"""


def isolated_rules() -> str:
    """inet table of an isolated network's space: traffic between known addresses, nothing for the space itself."""
    return f"""\
 set {KNOWN} {{ type ipv4_addr; }}
 chain input {{
  type filter hook input priority filter; policy drop;
 }}
 chain forward {{
  type filter hook forward priority filter; policy drop;
  oifname "br-*" ip daddr != @{KNOWN} drop
  iifname "br-*" oifname "br-*" accept
  ct state established,related accept
  ct state invalid drop
 }}
"""


def bridge_rules() -> str:
    """bridge table of every space: anti-spoofing. What is no IPv4 or ARP of the port's own addresses is dropped.

    What passed goes by ``near``, (MAC asked for . address) to the MAC of the port that has the address: a frame for a port of the
    network gets that port's MAC, and the bridge forwards it as if the pod had resolved the address itself (its TTL stays). What
    else is for the bridge is routed; broadcast, multicast and pairs that no port has are dropped.
    """
    return f"""\
 set {PORTS4} {{ type ifname . ether_addr . ipv4_addr; }}
 map {NEAR} {{ type ether_addr . ipv4_addr : ether_addr; }}
 chain honest {{
  ether daddr set ether daddr . ip daddr map @{NEAR} meta pkttype set other accept
  meta pkttype host accept
  drop
 }}
 chain prerouting {{
  type filter hook prerouting priority -400; policy drop;
  iifname "vx-*" accept
  ether type ip iifname . ether saddr . ip saddr @{PORTS4} goto honest
  ether type arp iifname . ether saddr . arp saddr ip @{PORTS4} iifname . arp saddr ether . arp saddr ip @{PORTS4} accept
 }}
"""


def guard_rules(facts: NodeFacts) -> str:
    """inet table of the node: what tenants' routers may do to the node, to each other and to the outside. VXLAN between nodes is
    matched first and not tracked: nothing of it is translated, and each packet would pay for a connection.
    """
    return f"""\
 set {NODES} {{ type ipv4_addr; }}
 set {PROTECTED} {{ type ipv4_addr; flags interval; }}
 set {TRANSIT} {{ type ifname . ipv4_addr; }}
{_to_the_node(facts)}{_through_the_node(facts)}"""


def _to_the_node(facts: NodeFacts) -> str:
    tenants = f'iifname "{transit_pattern(facts)}"'
    return f"""\
 chain prerouting {{
  type filter hook prerouting priority -300; policy accept;
  iifname "{facts.uplink}" udp dport 4789 ip saddr @{NODES} notrack accept
  {tenants} goto transit_source
  udp dport 4789 fib daddr type local ip saddr != @{NODES} drop
 }}
 chain transit_source {{
  meta nfproto ipv6 drop
  iifname . ip saddr != @{TRANSIT} drop
  udp dport 4789 drop
 }}
 chain input {{
  type filter hook input priority filter; policy accept;
  {tenants} goto to_node
 }}
 chain to_node {{
  ct state established,related accept
  drop
 }}
 chain output {{
  type filter hook output priority -300; policy accept;
  udp dport 4789 ip daddr @{NODES} notrack
 }}
"""


def _through_the_node(facts: NodeFacts) -> str:
    tenants = f'iifname "{transit_pattern(facts)}"'
    to_tenants = f'oifname "{transit_pattern(facts)}"'
    return f"""\
 chain from_tenants {{
  {to_tenants} drop
  ip daddr @{NODES} drop
  ip daddr @{PROTECTED} drop
  ip daddr {{ {TRANSIT_RANGE}, {LINK_LOCAL_RANGE}, 127.0.0.0/8, 224.0.0.0/3 }} drop
  ct state invalid drop
  oifname "{facts.uplink}" accept
  drop
 }}
 chain forward {{
  type filter hook forward priority filter; policy accept;
  {tenants} jump from_tenants
  {to_tenants} ct state established,related accept
  {to_tenants} drop
 }}
 chain postrouting {{
  type nat hook postrouting priority srcnat; policy accept;
  oifname "{facts.uplink}" ip saddr {TRANSIT_RANGE} snat ip to {facts.egress}
 }}
"""
