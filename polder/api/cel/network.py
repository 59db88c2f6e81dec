"""Kubernetes' libraries of IP addresses and CIDRs."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from polder.api.cel.errors import Fault
from polder.api.cel.functions import Library, function, member
from polder.api.cel.types import BOOL, INT, STRING, opaque
from polder.api.cel.values import Value

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
IP_TYPE: Final = opaque("net.IP")
CIDR_TYPE: Final = opaque("net.CIDR")


@dataclass(frozen=True, slots=True)
class Ip(Value):
    """An address without a zone."""

    address: Address
    type_name = "net.IP"


@dataclass(frozen=True, slots=True)
class Cidr(Value):
    """An address and the length of its prefix; bits beyond the prefix may be set."""

    address: Address
    bits: int
    type_name = "net.CIDR"

    def __len__(self) -> int:
        return self.address.max_prefixlen // 8

    @property
    def network(self) -> Network:
        """What it covers."""
        return ipaddress.ip_network((self.address, self.bits), strict=False)

    def __str__(self) -> str:
        return f"{self.address}/{self.bits}"


def _address(text: str) -> Address:
    if "%" in text:
        raise Fault(f'IP address "{text}" with zone value is not allowed')
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        raise Fault(
            f'IP Address "{text}" parse error during conversion from string: ParseAddr("{text}"): unable to parse IP'
        ) from None
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        raise Fault(f'IPv4-mapped IPv6 address "{text}" is not allowed')
    return found


def _cidr(text: str) -> Cidr:
    head, _, bits = text.partition("/")
    problem = f'network address parse error during conversion from string: netip.ParsePrefix("{text}"): '
    if not bits.isascii() or not bits.isdigit() or len(bits) > 3 or (len(bits) > 1 and bits[0] == "0"):
        raise Fault(problem + ("no '/'" if "/" not in text else f'bad bits after slash: "{bits}"'))
    try:
        address = ipaddress.ip_address(head)
    except ValueError:
        raise Fault(problem + f'ParseAddr("{head}"): unable to parse IP') from None
    if "%" in head:
        raise Fault(problem + "IPv6 zones cannot be present in a prefix")
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        raise Fault(f'IPv4-mapped IPv6 address "{text}" is not allowed')
    if int(bits) > address.max_prefixlen:
        raise Fault(problem + "prefix length out of range")
    return Cidr(address, int(bits))


def _reads(read: Callable[[str], object]) -> Callable[[str], bool]:
    def fits(text: str) -> bool:
        try:
            read(text)
        except Fault:
            return False
        return True

    return fits


def _canonical(text: str) -> bool:
    return str(_address(text)) == text


def _global_unicast(found: Ip) -> bool:
    address = found.address
    if isinstance(address, ipaddress.IPv4Address) and address == ipaddress.IPv4Address("255.255.255.255"):
        return False
    return not (address.is_unspecified or address.is_loopback or address.is_multicast or address.is_link_local)


def _link_local_multicast(found: Ip) -> bool:
    within = "224.0.0.0/24" if found.address.version == 4 else None
    if within is not None:
        return found.address in ipaddress.ip_network(within)
    return int(found.address) >> 112 & 0xFF0F == 0xFF02


def _contains_ip(outer: Cidr, inner: Ip) -> bool:
    return inner.address in outer.network


def _contains_cidr(outer: Cidr, inner: Cidr) -> bool:
    return outer.bits <= inner.bits and inner.address in outer.network


def _masked(found: Cidr) -> Cidr:
    return Cidr(found.network.network_address, found.bits)


LIBRARY: Final[Library] = {
    "ip": (
        function("string_to_ip", (STRING,), IP_TYPE, lambda text: Ip(_address(text))),
        member("cidr_ip", (CIDR_TYPE,), IP_TYPE, lambda found: Ip(found.address)),
    ),
    "family": (member("ip_family", (IP_TYPE,), INT, lambda found: found.address.version),),
    "ip.isCanonical": (function("ip_is_canonical", (STRING,), BOOL, _canonical),),
    "isUnspecified": (member("ip_is_unspecified", (IP_TYPE,), BOOL, lambda found: found.address.is_unspecified),),
    "isLoopback": (member("ip_is_loopback", (IP_TYPE,), BOOL, lambda found: found.address.is_loopback),),
    "isLinkLocalMulticast": (member("ip_is_link_local_multicast", (IP_TYPE,), BOOL, _link_local_multicast),),
    "isLinkLocalUnicast": (
        member("ip_is_link_local_unicast", (IP_TYPE,), BOOL, lambda found: found.address.is_link_local),
    ),
    "isGlobalUnicast": (member("ip_is_global_unicast", (IP_TYPE,), BOOL, _global_unicast),),
    "isIP": (function("is_ip", (STRING,), BOOL, _reads(_address)),),
    "string": (
        function("ip_to_string", (IP_TYPE,), STRING, lambda found: str(found.address)),
        function("cidr_to_string", (CIDR_TYPE,), STRING, str),
    ),
    "cidr": (function("string_to_cidr", (STRING,), CIDR_TYPE, _cidr),),
    "containsIP": (
        member("cidr_contains_ip_string", (CIDR_TYPE, STRING), BOOL, lambda a, b: _contains_ip(a, Ip(_address(b)))),
        member("cidr_contains_ip_ip", (CIDR_TYPE, IP_TYPE), BOOL, _contains_ip),
    ),
    "containsCIDR": (
        member("cidr_contains_cidr_string", (CIDR_TYPE, STRING), BOOL, lambda a, b: _contains_cidr(a, _cidr(b))),
        member("cidr_contains_cidr", (CIDR_TYPE, CIDR_TYPE), BOOL, _contains_cidr),
    ),
    "prefixLength": (member("cidr_prefix_length", (CIDR_TYPE,), INT, lambda found: found.bits),),
    "masked": (member("cidr_masked", (CIDR_TYPE,), CIDR_TYPE, _masked),),
    "isCIDR": (function("is_cidr", (STRING,), BOOL, _reads(_cidr)),),
}
