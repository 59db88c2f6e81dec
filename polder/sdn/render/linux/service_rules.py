"""The nftables text of services, in a table of its own in the router's space of a tenant that has any.

The first packet of a connection to a service is looked up once: (address, protocol, port) leads by ``vips`` to the chain that
draws a slot out of as many as the service has backends, and (address, protocol, port, slot) by ``ends`` to the backend. So a
packet costs two lookups however many services there are, and a backend that comes or goes is two or three elements. A service
that keeps clients at their backends (``stay``) has a number; (number, client) leads by ``seen`` to the backend's own mark, under
which it is in ``ends`` too, so that its slot may move. Marks are used within the table's translation and mean nothing outside it;
the mark of the connection is zero again before the first packet goes on.

What comes from outside (the link ``up``) is looked up in ``doors`` first, where a service treats it differently: with
``externalTrafficPolicy: Local`` it goes to this node's backends, which stand in ``ends`` under slots of their own. Who may not
ask a load
balancer is dropped by a chain that an element leads to before the one that draws. A backend of another node is asked in the
name of this
node's router (``FOREIGN``), so that its answer comes back here; ``here`` are this node's own.

What is for a service and found no backend is refused, as kube-proxy does. Chains with a dot in their names are items themselves.
Names of maps and sets end in the family, 4 or 6.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_network

from polder.sdn.render.linux.items import Chain, Item
from polder.sdn.render.linux.names import UP

SERVICE_TABLE = "service"
AT = ("inet", SERVICE_TABLE)
VIPS, ENDS, COUNTS, NUMBERS, IDS, SEEN = "vips", "ends", "counts", "numbers", "ids", "seen"
CLUSTER, HAIRPIN, FLOWS, DOORS, HERE = "cluster", "hairpin", "flows", "doors", "here"
FAMILIES = ("4", "6")
OWN_MARK = 1 << 31
"""Set in backends' own marks, so that none is a slot's number."""
FIRST_NEAR = 65536
"""The first slot of a node's own backends, for what comes from outside: beyond all others."""
FOREIGN = 0x706F6C64
"""The mark, within a router's space, of a connection from outside that goes to another node's backend; no slot, no backend's
own."""
COMMON = 32
"""So many backends as most services have at most: their chains are there in any case, so that one more or less is elements."""
REMEMBERED = 65536
"""Clients of one tenant on one node, and family, whose backends are remembered at one time."""
NEWLINE = "\n"
_IP = {"4": "ip", "6": "ip6"}
_TYPE = {"4": "ipv4_addr", "6": "ipv6_addr"}


def family_of(address: str) -> str:
    """The end of the names of an address's maps and sets."""
    return "6" if ":" in address else "4"


def asked(family: str) -> str:
    """What a packet asks for, as the maps' keys begin."""
    return f"{_IP[family]} daddr . meta l4proto . th dport"


def _maps(family: str) -> str:
    address = _TYPE[family]
    asked_type = f"{address} . inet_proto . inet_service"
    return f"""\
 map {VIPS}{family} {{ type {asked_type} : verdict; }}
 map {DOORS}{family} {{ type {asked_type} : verdict; }}
 map {ENDS}{family} {{ type {asked_type} . mark : {address} . inet_service; }}
 map {COUNTS}{family} {{ type {asked_type} : verdict; }}
 map {NUMBERS}{family} {{ type {asked_type} : mark; }}
 map {IDS}{family} {{ type {asked_type} . mark : mark; }}
 map {SEEN}{family} {{ type mark . {address} : mark; size {REMEMBERED}; flags dynamic,timeout; }}
 set {CLUSTER}{family} {{ type {address}; }}
 set {HERE}{family} {{ type {address}; }}
 set {HAIRPIN}{family} {{ type {address} . {address}; }}
 set {FLOWS}{family} {{ type {asked_type} . {address} . inet_service; }}
"""


def _pick(count: int) -> str:
    """Draws one of ``count`` slots for a new connection."""
    return f"meta mark set {f'numgen random mod {count}' if count > 1 else '0'} goto send"


TEXT = f"""\
{_maps("4")}{_maps("6")} chain send {{
  dnat ip to {asked("4")} . meta mark map @{ENDS}4
  dnat ip6 to {asked("6")} . meta mark map @{ENDS}6
 }}
 chain prerouting {{
  type nat hook prerouting priority dstnat; policy accept;
  iifname "{UP}" {asked("4")} vmap @{DOORS}4
  iifname "{UP}" {asked("6")} vmap @{DOORS}6
  {asked("4")} vmap @{VIPS}4
  {asked("6")} vmap @{VIPS}6
 }}
 chain refuse {{
  meta l4proto tcp reject with tcp reset
  reject
 }}
 chain forward {{
  type filter hook forward priority -5; policy accept;
  ct state invalid drop
  iifname "{UP}" ct status dnat ip daddr != @{HERE}4 meta mark set {FOREIGN:#x}
  iifname "{UP}" ct status dnat ip6 daddr != @{HERE}6 meta mark set {FOREIGN:#x}
  iifname "br-*" ip daddr @{CLUSTER}4 goto refuse
  iifname "br-*" ip6 daddr @{CLUSTER}6 goto refuse
 }}
 chain postrouting {{
  type nat hook postrouting priority srcnat - 5; policy accept;
  ct status dnat ip daddr . ip saddr @{HAIRPIN}4 masquerade
  ct status dnat ip6 daddr . ip6 saddr @{HAIRPIN}6 masquerade
 }}
{"".join(f" chain pick-{count} {{ {_pick(count)}; }}{NEWLINE}" for count in range(1, COMMON + 1))}"""
"""The table without what comes and goes singly. Here everything of a tenant passes that its bridges forward too
(bridge-nf-call-iptables is on), so that a reply always finds the connection that its question made; what finds none would leave
untranslated, and is dropped."""


def pick_chain(space: str, count: int) -> tuple[str, set[Item]]:
    """The name of the chain that draws one of ``count`` slots; itself, where it is not one of the table's text."""
    if count <= COMMON:
        return f"pick-{count}", set()
    return f"pick.{count}", {Chain(space, *AT, f"pick.{count}", _pick(count))}


def near_chain(space: str, family: str, count: int, *, stay: bool) -> Chain:
    """Draws one of ``count`` backends of this node for what comes from outside; with ``stay`` by who asks."""
    how = f"jhash {_IP[family]} saddr mod {count}" if stay else f"numgen random mod {count}"
    draw = f"{how} offset {FIRST_NEAR}" if count > 1 else str(FIRST_NEAR)
    name = f"bide{family}.{count}" if stay else f"near.{count}"
    return Chain(space, *AT, name, f"meta mark set {draw} goto send")


def from_chain(space: str, family: str, sources: Iterable[str], beyond: str) -> Chain:
    """Drops who is not of the prefixes ``sources``, as far as they are of the family; others go on to the chain ``beyond``."""
    known = [ip_network(text) for text in sources]
    four = collapse_addresses(one for one in known if isinstance(one, IPv4Network))
    six = collapse_addresses(one for one in known if isinstance(one, IPv6Network))
    found = [str(one) for one in (six if family == "6" else four)]
    drop = f"{_IP[family]} saddr != {{ {', '.join(found)} }} drop" if found else "drop"
    digest = hashlib.blake2b(f"{found} {beyond}".encode(), digest_size=8).hexdigest()
    return Chain(space, *AT, f"from{family}.{digest}", f"{drop}\ngoto {beyond}" if found else drop)


def slot_chain(space: str, family: str, count: int) -> Chain:
    """The slot that a client has by its address, so that one whose backend went finds the same other one each time."""
    ip = _IP[family]
    draw = f"jhash {ip} saddr . {ip} daddr mod {count}" if count > 1 else "0"
    return Chain(space, *AT, f"slot{family}.{count}", f"meta mark set {draw}")


def keep_chain(space: str, family: str, seconds: int) -> Chain:
    """Notes that the client has the backend that is marked, and sends it there; comes back where that is no backend any more."""
    note = f"update @{SEEN}{family} {{ ct mark . {_IP[family]} saddr timeout {seconds}s : meta mark }}"
    return Chain(space, *AT, f"keep{family}.{seconds}", f"{note}\nct mark set 0\ngoto send")


def stay_chain(space: str, family: str, seconds: int) -> Chain:
    """Sends a client where it went before, less than ``seconds`` ago, else where its address leads."""
    keep = f"keep{family}.{seconds}"
    lines = [
        f"ct mark set {asked(family)} map @{NUMBERS}{family}",
        f"meta mark set ct mark . {_IP[family]} saddr map @{SEEN}{family} jump {keep}",
        f"ct mark set {asked(family)} map @{NUMBERS}{family}",
        f"{asked(family)} vmap @{COUNTS}{family}",
        f"meta mark set {asked(family)} . meta mark map @{IDS}{family} goto {keep}",
    ]
    return Chain(space, *AT, f"stay{family}.{seconds}", "\n".join(lines))
