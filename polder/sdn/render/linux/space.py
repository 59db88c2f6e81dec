"""What every space has: its namespace, settings and anti-spoofing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from polder.sdn.render.linux.items import Item, Ruleset, Space, Sysctl
from polder.sdn.render.linux.names import TABLE
from polder.sdn.render.linux.rules import DIRECT_TABLE
from polder.sdn.render.linux.spoofing import bridge_rules

SETTINGS: tuple[tuple[str, str], ...] = (
    ("net/bridge/bridge-nf-call-arptables", "0"),
    ("net/bridge/bridge-nf-call-ip6tables", "0"),
    ("net/bridge/bridge-nf-call-iptables", "0"),
    ("net/ipv4/conf/all/accept_redirects", "0"),
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv4/conf/all/send_redirects", "0"),
    ("net/ipv4/conf/default/accept_redirects", "0"),
    ("net/ipv4/conf/default/rp_filter", "0"),
    ("net/ipv4/conf/default/send_redirects", "0"),
    ("net/ipv6/conf/all/accept_ra", "0"),
    ("net/ipv6/conf/all/accept_redirects", "0"),
    ("net/ipv6/conf/all/disable_ipv6", "0"),
    ("net/ipv6/conf/all/forwarding", "1"),
    ("net/ipv6/conf/default/accept_ra", "0"),
    ("net/ipv6/conf/default/accept_redirects", "0"),
    ("net/ipv6/conf/default/addr_gen_mode", "1"),
    ("net/ipv6/conf/default/disable_ipv6", "0"),
)
"""Below /proc/sys. rp_filter is off since paths between two networks differ by direction; redirects would tell a pod to
send to its neighbour directly (IPv6 has no setting for them, but a link without link-local address sends none: that is
addr_gen_mode 1). A link copies ``default`` when it is made.
bridge-nf-call-iptables is off while no rule has to see what stays within a network: it costs a sixth of the round trips.
``bridged_too`` is the switch for policies and services (ADR 6)."""
SWITCH = ("net/bridge/bridge-nf-call-iptables", "net/bridge/bridge-nf-call-ip6tables")


def render_space(space: str, owner: str) -> set[Item]:
    """The namespace with its settings and anti-spoofing."""
    items: set[Item] = {Space(space, owner), Ruleset(space, "bridge", TABLE, bridge_rules())}
    items.update(Sysctl(space, path, value) for path, value in SETTINGS)
    items.add(Sysctl(space, "net/ipv4/ip_forward", "1"))
    return items


def bridged_too(items: Iterable[Item]) -> frozenset[Item]:
    """The items with the switch on: the inet tables see what is bridged within a network, in both directions."""
    items = (item for item in items if not (isinstance(item, Ruleset) and item.table == DIRECT_TABLE))
    return frozenset(replace(i, value="1") if isinstance(i, Sysctl) and i.path in SWITCH else i for i in items)
