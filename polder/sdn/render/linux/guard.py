"""The nftables text of the node's own table (syntax of nft 1.0.6): the guard between tenants, the node and the outside."""

from __future__ import annotations

from polder.sdn.render.linux.facts import NodeFacts
from polder.sdn.render.linux.names import LINK_LOCAL_RANGE, TRANSIT_RANGE, TRANSIT_RANGE6, transit_pattern

NODES, EGRESS, PROTECTED, TRANSIT, ENTRANCES = "nodes", "egress", "protected", "transit", "entrances"
HOSTED, HOST_PORTS, HOST_ADDRESSES = "hosted", "hostports", "hostaddresses"
"""Names of the sets for IPv4; those for IPv6 end in 6."""
NO_ONE6 = "::/127, ::ffff:0:0/96, 64:ff9b::/96, fe80::/10, ff00::/8"
"""Nothing outside has these: unspecified, loopback, mapped and translated IPv4, link-local, groups."""


FROM_OUTSIDE = f"""\
 chain from_outside {{
  ct status dnat oifname . ip daddr @{HOSTED} accept
  ct status dnat oifname . ip6 daddr @{HOSTED}6 accept
  ip saddr @{NODES} drop
  ip saddr @{EGRESS} drop
  ip6 saddr @{NODES}6 drop
  ip6 saddr @{EGRESS}6 drop
  oifname . ip daddr @{ENTRANCES} accept
  oifname . ip6 daddr @{ENTRANCES}6 accept
 }}
"""
"""Who comes in by the uplink: to addresses on the outside nobody of the cluster, to machines' ports everybody."""


def guard_rules(facts: NodeFacts) -> str:
    """inet table of the node: what tenants' routers may do to the node, to each other and to the outside. VXLAN between nodes is
    matched first and not tracked: nothing of it is translated, and each packet would pay for a connection.
    """
    return f"""\
 set {NODES} {{ type ipv4_addr; }}
 set {NODES}6 {{ type ipv6_addr; }}
 set {EGRESS} {{ type ipv4_addr; }}
 set {EGRESS}6 {{ type ipv6_addr; }}
 set {PROTECTED} {{ type ipv4_addr; flags interval; }}
 set {PROTECTED}6 {{ type ipv6_addr; flags interval; }}
 set {TRANSIT} {{ type ifname . ipv4_addr; }}
 set {TRANSIT}6 {{ type ifname . ipv6_addr; }}
 set {HOSTED} {{ type ifname . ipv4_addr; }}
 set {HOSTED}6 {{ type ifname . ipv6_addr; }}
 map {HOST_PORTS} {{ type inet_proto . inet_service : ipv4_addr . inet_service; }}
 map {HOST_PORTS}6 {{ type inet_proto . inet_service : ipv6_addr . inet_service; }}
 map {HOST_ADDRESSES} {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }}
 map {HOST_ADDRESSES}6 {{ type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service; }}
 set {ENTRANCES} {{ type ifname . ipv4_addr; }}
 set {ENTRANCES}6 {{ type ifname . ipv6_addr; }}
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
  iifname . ip saddr != @{TRANSIT} drop
  iifname . ip6 saddr != @{TRANSIT}6 drop
  udp dport 4789 drop
 }}
 chain input {{
  type filter hook input priority filter; policy accept;
  {tenants} goto to_node
 }}
 chain to_node {{
  ct state established,related accept
{_resolver(facts.shared_dns)}  drop
 }}
 chain output {{
  type filter hook output priority -300; policy accept;
  udp dport 4789 ip daddr @{NODES} notrack
 }}
{_ports_of_the_machine(facts)}"""


def _ports_of_the_machine(facts: NodeFacts) -> str:
    """What leads into the platform's own network, from the wire and from the machine itself."""
    return f"""\
 chain host_ports {{
  dnat ip to ip daddr . meta l4proto . th dport map @{HOST_ADDRESSES}
  dnat ip6 to ip6 daddr . meta l4proto . th dport map @{HOST_ADDRESSES}6
  dnat ip to meta l4proto . th dport map @{HOST_PORTS}
  ip6 daddr != ::1 dnat ip6 to meta l4proto . th dport map @{HOST_PORTS}6
 }}
 chain from_wire {{
  type nat hook prerouting priority dstnat; policy accept;
  iifname "{facts.uplink}" fib daddr type local goto host_ports
 }}
 chain from_machine {{
  type nat hook output priority -100; policy accept;
  fib daddr type local goto host_ports
 }}
"""


def _resolver(address: str) -> str:
    """A resolver that tenants share; who asks is told by the router's address, which ``transit_source`` vouches for."""
    if not address:
        return ""
    family = "ip6" if ":" in address else "ip"
    return f"  {family} daddr {address} meta l4proto {{ tcp, udp }} th dport 53 accept\n"


def _through_the_node(facts: NodeFacts) -> str:
    """Who was let in gets an answer, also where tenants may ask nothing."""
    tenants = f'iifname "{transit_pattern(facts)}"'
    to_tenants = f'oifname "{transit_pattern(facts)}"'
    egress6 = ""
    if facts.egress6:
        egress6 = f'  oifname "{facts.uplink}" ip6 saddr {TRANSIT_RANGE6} snat ip6 to {facts.egress6}\n'
    return f"""\
 chain from_tenants {{
  {to_tenants} drop
  ct direction reply ct state established,related oifname "{facts.uplink}" accept
  ip daddr @{NODES} drop
  ip daddr @{EGRESS} drop
  ip daddr @{PROTECTED} drop
  ip daddr {{ {TRANSIT_RANGE}, {LINK_LOCAL_RANGE}, 127.0.0.0/8, 224.0.0.0/3 }} drop
  ip6 daddr @{NODES}6 drop
  ip6 daddr @{EGRESS}6 drop
  ip6 daddr @{PROTECTED}6 drop
  ip6 daddr {{ {TRANSIT_RANGE6}, {NO_ONE6} }} drop
  ct state invalid drop
  oifname "{facts.uplink}" accept
  drop
 }}
 chain forward {{
  type filter hook forward priority filter; policy accept;
  {tenants} jump from_tenants
  {to_tenants} ct state established,related accept
  {to_tenants} iifname "{facts.uplink}" jump from_outside
  {to_tenants} drop
 }}
{FROM_OUTSIDE} chain postrouting {{
  type nat hook postrouting priority srcnat; policy accept;
  {to_tenants} ip saddr 127.0.0.0/8 snat ip to {facts.underlay}
  oifname "{facts.uplink}" ip saddr {TRANSIT_RANGE} snat ip to {facts.egress}
{egress6} }}
"""
