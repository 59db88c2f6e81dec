"""The kernel's table of connections by raw nfnetlink (linux/netfilter/nfnetlink_conntrack.h): those of one flow, ended."""

from __future__ import annotations

import errno
import struct
from dataclasses import dataclass

from polder.system.net.codec import Message, attr, attrs, family_of, ip, ip_text, nested, u8, u16be, u32
from polder.system.net.netlink import NetlinkSocket

_GENERIC = struct.Struct("!BBH")
_SUBSYSTEM = 1
_GET, _DELETE = _SUBSYSTEM << 8 | 1, _SUBSYSTEM << 8 | 2
_ORIGINAL, _REPLY, _FILTER, _ZONE, _ID = 1, 2, 25, 18, 12
_BY_PROTOCOL, _BY_SOURCE_PORT, _BY_DESTINATION_PORT = 8, 16, 32
"""What the kernel compares. It can addresses too, but takes different IPv6 ones for equal and equal ones for different."""
PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}


@dataclass(frozen=True, slots=True)
class TranslatedFlow:
    """What clients sent to one address, and who answers them behind it. Addresses are of one family."""

    protocol: str
    address: str
    port: int
    backend: str
    backend_port: int


def end_flow(sock: NetlinkSocket, flow: TranslatedFlow) -> int:
    """Forget every connection of the flow, so that a client's next packet is translated anew; how many there were. The socket is
    one for netfilter, in the namespace. Raises NetlinkError.
    """
    six = ":" in flow.address
    number = PROTOCOLS[flow.protocol]
    asked = nested(1, ip(4 if six else 2, flow.address)), nested(2, u8(1, number), u16be(3, flow.port))
    answers = nested(1, ip(3 if six else 1, flow.backend)), nested(2, u8(1, number), u16be(2, flow.backend_port))
    body = (
        _GENERIC.pack(family_of(flow.address), 0, 0)
        + nested(_ORIGINAL, *asked)
        + nested(_REPLY, *answers)
        + nested(_FILTER, u32(1, _BY_PROTOCOL | _BY_DESTINATION_PORT), u32(2, _BY_PROTOCOL | _BY_SOURCE_PORT))
    )
    found = sock.dump(Message(_GET, 0, body, f"connections to {flow.address}"))
    messages = []
    for reply in found:
        have = attrs(reply.body, _GENERIC.size)
        if (
            _address(have, _ORIGINAL, 4 if six else 2) != flow.address
            or _address(have, _REPLY, 3 if six else 1) != flow.backend
        ):
            continue
        parts = b"".join(attr(kind | 0x8000, have[kind]) for kind in (_ORIGINAL,) if kind in have)
        parts += b"".join(attr(kind, have[kind]) for kind in (_ZONE, _ID) if kind in have)
        messages.append(Message(_DELETE, 0, reply.body[: _GENERIC.size] + parts, f"connection to {flow.address}"))
    for failed in sock.batch(messages):
        if failed and failed.number != errno.ENOENT:
            raise failed
    return len(messages)


def _address(have: dict[int, bytes], direction: int, kind: int) -> str:
    """One address of a listed connection."""
    addresses = attrs(attrs(have.get(direction, b"")).get(1, b""))
    return ip_text(addresses[kind]) if kind in addresses else ""
