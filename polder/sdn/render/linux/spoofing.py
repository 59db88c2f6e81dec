"""The bridge table of every space (syntax of nft 1.0.6): what a port may send, and where it goes within its network.

DATAPATH.md and docs/adr/ give the reasons; each rule was tried with packets (tests/system).
"""

from __future__ import annotations

PORTS4, PORTS6 = "ports4", "ports6"
"""(link . MAC . address): what a port may send from."""
NEAR, NEAR6 = "near", "near6"
"""(MAC asked for . address): the MAC of the port that has the address, by which a frame within a network is bridged though its
sender gave it to the gateway."""
ASKED = "asked"
"""The target of a neighbour solicitation: the MAC of who has it. So the question goes to one, and nothing is flooded."""
TOLD = "told"
"""(link . MAC . target): what a port may say of itself in a neighbour advertisement."""
TALKING = "talking"
"""Links that have sent to groups, with how much."""
GROUP_RATE = 1000
"""Packets to groups that one port may send in a second: each is copied to every port of its network."""
TARGET = "@th,64,128"
"""The target address in a neighbour solicitation or advertisement (RFC 4861, sections 4.3 and 4.4)."""


def bridge_rules() -> str:
    """Anti-spoofing, then delivery. What is not from the port's own addresses is dropped.

    What passed goes by ``near``: a frame for a port of the network gets that port's MAC, and the bridge forwards it as if
    the pod had resolved the address itself (its TTL stays). What else is for the bridge is routed. What is for a group goes
    to all ports of the network (``groups``), broadcast and pairs that no port has are dropped.

    Pods say nothing that makes or moves routers (advertisements, redirects), and what they ask or say about listeners
    (IGMP, MLD, router solicitations) ends here: nobody acts on it.
    """
    return f"""\
{_sets()}{_groups()}{_delivery()} chain asks {{
  ether daddr set {TARGET} map @{ASKED} meta pkttype set host accept
  drop
 }}
 chain discovery {{
  icmpv6 type {{ nd-router-solicit, nd-router-advert, nd-redirect }} drop
  icmpv6 type {{ mld-listener-query, mld-listener-report, mld-listener-done, mld2-listener-report }} drop
  icmpv6 type nd-neighbor-solicit goto asks
  icmpv6 type nd-neighbor-advert iifname . ether saddr . {TARGET} != @{TOLD} drop
  goto honest6
 }}
 chain prerouting {{
  type filter hook prerouting priority -400; policy drop;
  iifname "vx-*" accept
  ether type ip iifname . ether saddr . ip saddr @{PORTS4} goto honest
  ether type arp iifname . ether saddr . arp saddr ip @{PORTS4} iifname . arp saddr ether . arp saddr ip @{PORTS4} accept
  ether type ip6 iifname . ether saddr . ip6 saddr @{PORTS6} goto discovery
 }}
 chain forward {{
  type filter hook forward priority 0; policy accept;
  meta pkttype != multicast accept
  oifname . ether saddr . ip saddr @{PORTS4} drop
  oifname . ether saddr . ip6 saddr @{PORTS6} drop
 }}
"""


def _delivery() -> str:
    """What is from the port's own addresses."""
    return f"""\
 chain honest {{
  ether daddr set ether daddr . ip daddr map @{NEAR} meta pkttype set other accept
  meta pkttype host accept
  ether daddr & ff:ff:ff:80:00:00 == 01:00:5e:00:00:00 ip daddr 224.0.0.0/4 ip protocol != igmp goto groups
  drop
 }}
 chain honest6 {{
  ether daddr set ether daddr . ip6 daddr map @{NEAR6} meta pkttype set other accept
  meta pkttype host accept
  ether daddr & ff:ff:00:00:00:00 == 33:33:00:00:00:00 ip6 daddr ff00::/8 meta l4proto != ipv6-icmp goto groups
  ether daddr & ff:ff:00:00:00:00 == 33:33:00:00:00:00 ip6 daddr ff00::/8 icmpv6 type echo-request goto groups
  drop
 }}
"""


def _sets() -> str:
    return f"""\
 set {PORTS4} {{ type ifname . ether_addr . ipv4_addr; }}
 set {PORTS6} {{ type ifname . ether_addr . ipv6_addr; }}
 set {TOLD} {{ typeof iifname . ether saddr . {TARGET}; }}
 map {NEAR} {{ type ether_addr . ipv4_addr : ether_addr; }}
 map {NEAR6} {{ type ether_addr . ipv6_addr : ether_addr; }}
 map {ASKED} {{ typeof {TARGET} : ether daddr; }}
"""


def _groups() -> str:
    """The sender's port has hairpin on, so that its own frames would come back; ``forward`` above drops those."""
    return f"""\
 set {TALKING} {{ type ifname; size 65535; flags dynamic,timeout; timeout 1m; }}
 chain groups {{
  update @{TALKING} {{ iifname limit rate over {GROUP_RATE}/second burst {GROUP_RATE} packets }} drop
  accept
 }}
"""
