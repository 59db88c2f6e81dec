"""Telling a wire which machine has an address from now on: gratuitous ARP (RFC 5227, section 3) and unsolicited neighbour
advertisements (RFC 4861, section 7.2.6).
"""

from __future__ import annotations

import socket
import struct

from polder.system.net.codec import ip_bytes, mac_bytes

_BROADCAST = b"\xff" * 6
_ALL_NODES = "ff02::1"
_ALL_NODES_MAC = b"\x33\x33\0\0\0\1"
_ARP, _IPV6 = 0x0806, 0x86DD
_ETHERNET = struct.Struct("!6s6sH")
_ARP_BODY = struct.Struct("!HHBBH6s4s6s4s")
_ICMPV6 = 58
_ROUTER_OVERRIDE = 0xA0000000
"""Flags of an advertisement: from a router, and newer than what is known."""


def announcement(mac: str, address: str) -> bytes:
    """The frame that says that ``address`` is at ``mac``. OSError or ValueError for what is none."""
    own, value = mac_bytes(mac), ip_bytes(address)
    if len(value) == 4:
        body = _ARP_BODY.pack(1, 0x0800, 6, 4, 1, own, value, b"\0" * 6, value)
        return _ETHERNET.pack(_BROADCAST, own, _ARP) + body
    return _ETHERNET.pack(_ALL_NODES_MAC, own, _IPV6) + _advertisement(own, value)


def _advertisement(own: bytes, value: bytes) -> bytes:
    """From the address itself, to all nodes, with the target's link-layer address (option 2)."""
    target = ip_bytes(_ALL_NODES)
    body = struct.pack("!BBHI", 136, 0, 0, _ROUTER_OVERRIDE) + value + b"\x02\x01" + own
    sum_ = _checksum(value + target + struct.pack("!II", len(body), _ICMPV6) + body)
    body = body[:2] + struct.pack("!H", sum_) + body[4:]
    return struct.pack("!IHBB", 6 << 28, len(body), _ICMPV6, 255) + value + target + body


def _checksum(data: bytes) -> int:
    """Of RFC 1071."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def send_frames(link: str, frames: list[bytes]) -> None:
    """Put frames on a link of the calling thread's namespace. OSError."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock:
        sock.bind((link, 0))
        for frame in frames:
            sock.send(frame)
