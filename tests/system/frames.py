"""Frames made and read by hand, so that tests can send what no socket would: forged sources, tags, unknown types."""

from __future__ import annotations

import socket
import struct

BROADCAST = "ff:ff:ff:ff:ff:ff"
IPV4, ARP, VLAN, IPV6 = 0x0800, 0x0806, 0x8100, 0x86DD
ICMP, TCP, UDP = 1, 6, 17


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def ethernet(to: str, source: str, kind: int, payload: bytes) -> bytes:
    return (mac(to) + mac(source) + struct.pack("!H", kind) + payload).ljust(60, b"\0")


def arp(operation: int, source_mac: str, source: str, to_mac: str, to: str) -> bytes:
    """Operation 1 asks, 2 answers."""
    head = struct.pack("!HHBBH", 1, IPV4, 6, 4, operation)
    return head + mac(source_mac) + socket.inet_aton(source) + mac(to_mac) + socket.inet_aton(to)


def checksum(data: bytes) -> int:
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ipv4(source: str, to: str, protocol: int, payload: bytes) -> bytes:
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 1, 0, 64, protocol, 0)
    head += socket.inet_aton(source) + socket.inet_aton(to)
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def udp(source: int, to: int, payload: bytes) -> bytes:
    """Without checksum, which IPv4 allows."""
    return struct.pack("!HHHH", source, to, 8 + len(payload), 0) + payload


def icmp_echo(number: int, mark: bytes) -> bytes:
    body = struct.pack("!BBHHH", 8, 0, 0, number, 1) + mark
    return body[:2] + struct.pack("!H", checksum(body)) + body[4:]


def vxlan(vni: int, frame: bytes) -> bytes:
    return struct.pack("!II", 0x08000000, vni << 8) + frame


def ipv6_udp(source: str, to: str, payload: bytes) -> bytes:
    body = udp(9, 9, payload)
    head = struct.pack("!IHBB", 0x60000000, len(body), UDP, 64)
    return head + socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, to) + body


def sctp_init(source: int, to: int) -> bytes:
    """A packet that opens an association (RFC 9260, section 3.3.2), with its CRC32c."""
    chunk = struct.pack("!BBHIIHHI", 1, 0, 20, 0x11223344, 65536, 1, 1, 1)
    head = struct.pack("!HHI", source, to, 0)
    return head + struct.pack("<I", crc32c(head + bytes(4) + chunk)) + chunk


def crc32c(data: bytes) -> int:
    """Castagnoli's polynomial, bit by bit."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF
