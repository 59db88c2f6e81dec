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
ENTRY_PORT = 443


def space_rules(router: Router, address: str) -> str:
    """inet table of a router's space. ``address`` is its transit address on this node."""
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
  oifname "br-*" ip daddr != @{KNOWN} drop
  ct state established,related accept
  ct state invalid drop
  iifname "br-*" oifname "br-*" accept
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
  ct state established,related accept
  ct state invalid drop
  iifname "br-*" oifname "br-*" accept
 }}
"""


def bridge_rules() -> str:
    """bridge table of every space: anti-spoofing. What is no IPv4 or ARP of the port's own addresses is dropped."""
    return f"""\
 set {PORTS4} {{ type ifname . ether_addr . ipv4_addr; }}
 chain prerouting {{
  type filter hook prerouting priority -400; policy drop;
  iifname "vx-*" accept
  ether type ip iifname . ether saddr . ip saddr @{PORTS4} accept
  ether type arp iifname . ether saddr . arp saddr ip @{PORTS4} iifname . arp saddr ether . arp saddr ip @{PORTS4} accept
 }}
"""


def guard_rules(facts: NodeFacts) -> str:
    """inet table of the node: what tenants' routers may do to the node, to each other and to the outside."""
    tenants = f'iifname "{transit_pattern(facts)}"'
    to_tenants = f'oifname "{transit_pattern(facts)}"'
    return f"""\
 set {NODES} {{ type ipv4_addr; }}
 set {PROTECTED} {{ type ipv4_addr; flags interval; }}
 set {TRANSIT} {{ type ifname . ipv4_addr; }}
 chain prerouting {{
  type filter hook prerouting priority -300; policy accept;
  {tenants} meta nfproto ipv6 drop
  {tenants} iifname . ip saddr != @{TRANSIT} drop
  {tenants} udp dport 4789 drop
  udp dport 4789 fib daddr type local ip saddr != @{NODES} drop
 }}
 chain input {{
  type filter hook input priority filter; policy accept;
  {tenants} ct state established,related accept
  {tenants} drop
 }}
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
