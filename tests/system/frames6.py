"""IPv6 packets made by hand (RFC 8200, RFC 4861), with sums that a kernel accepts."""

from __future__ import annotations

import socket
import struct

from tests.system.frames import UDP, checksum, mac, udp

ICMP6 = 58
_SOLICITATION, _ADVERTISEMENT, _ROUTER, _REDIRECT = 135, 136, 134, 137


def packed(address: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6, address)


def ipv6(source: str, to: str, protocol: int, payload: bytes, hops: int = 64) -> bytes:
    head = struct.pack("!IHBB", 0x60000000, len(payload), protocol, hops)
    return head + packed(source) + packed(to) + payload


def _summed(source: str, to: str, protocol: int, body: bytes, at: int) -> bytes:
    pseudo = packed(source) + packed(to) + struct.pack("!II", len(body), protocol)
    return body[:at] + struct.pack("!H", checksum(pseudo + body) or 0xFFFF) + body[at + 2 :]


def datagram(source: str, to: str, mark: bytes) -> bytes:
    return ipv6(source, to, UDP, _summed(source, to, UDP, udp(5, 9, mark), 6))


def icmp(source: str, to: str, kind: int, rest: bytes) -> bytes:
    body = _summed(source, to, ICMP6, struct.pack("!BBH", kind, 0, 0) + rest, 2)
    return ipv6(source, to, ICMP6, body, 255)


def solicitation(source: str, target: str, own: str) -> bytes:
    """A question for the target's MAC, to its solicited-node group."""
    return icmp(source, group_of(target), _SOLICITATION, bytes(4) + packed(target) + b"\1\1" + mac(own))


def advertisement(source: str, to: str, target: str, own: str) -> bytes:
    """The statement that ``own`` has the target, which overrides what was known."""
    return icmp(source, to, _ADVERTISEMENT, b"\x60\0\0\0" + packed(target) + b"\2\1" + mac(own))


def router_advertisement(source: str, to: str, own: str) -> bytes:
    return icmp(source, to, _ROUTER, struct.pack("!BBHII", 64, 0, 1800, 0, 0) + b"\1\1" + mac(own))


def redirect(source: str, to: str, target: str, destination: str) -> bytes:
    return icmp(source, to, _REDIRECT, bytes(4) + packed(target) + packed(destination))


def with_option(packet: bytes) -> bytes:
    """The same behind a destination options header."""
    head, body = packet[:40], bytes([packet[6], 0, 1, 4, 0, 0, 0, 0]) + packet[40:]
    return head[:4] + struct.pack("!HB", len(body), 60) + head[7:] + body


def group_of(target: str) -> str:
    """The solicited-node group (RFC 4291, section 2.7.1)."""
    return socket.inet_ntop(socket.AF_INET6, packed("ff02::1:ff00:0")[:13] + packed(target)[13:])


def group_mac(target: str) -> str:
    """Where a question for the target goes (RFC 2464, section 7)."""
    return "33:33:" + ":".join(f"{byte:02x}" for byte in packed(group_of(target))[12:])
