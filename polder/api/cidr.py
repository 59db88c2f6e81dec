"""Prefixes as Polder's kinds take them: canonical, of a sensible size, outside reserved ranges, one of each family."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from typing import Final

from polder.api.errors import Field, FieldError
from polder.api.meta import Raw

Prefix = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
SHORTEST, LONGEST = 8, 29
SHORTEST6, LONGEST6 = 16, 125
TRANSIT: Final = ipaddress.IPv4Network("100.64.0.0/10")
"""The addresses between routers and nodes."""
TRANSIT6: Final = ipaddress.IPv6Network("fd70:6f6c:6465:7200::/64")
"""The same for IPv6."""
_RESERVED: Final[dict[Prefix, str]] = {
    ipaddress.IPv4Network("0.0.0.0/8"): "unspecified",
    ipaddress.IPv4Network("127.0.0.0/8"): "loopback",
    ipaddress.IPv4Network("169.254.0.0/16"): "link-local",
    ipaddress.IPv4Network("224.0.0.0/4"): "multicast",
    ipaddress.IPv4Network("240.0.0.0/4"): "reserved",
    ipaddress.IPv6Network("::/8"): "unspecified, loopback and mapped",
    ipaddress.IPv6Network("64:ff9b::/96"): "translated",
    ipaddress.IPv6Network("fe80::/10"): "link-local",
    ipaddress.IPv6Network("ff00::/8"): "multicast",
}


def parse(text: str) -> ipaddress.IPv4Network | None:
    """The prefix; None when the text is none in its canonical form."""
    try:
        found = ipaddress.IPv4Network(text)
    except ValueError:
        return None
    return found if str(found) == text else None


def address(text: str) -> ipaddress.IPv4Address | None:
    """The address; None when the text is no IPv4 address."""
    try:
        return ipaddress.IPv4Address(text)
    except ValueError:
        return None


def prefix(text: str) -> Prefix | None:
    """The prefix of either family; None when the text is none in its canonical form."""
    try:
        found = ipaddress.ip_network(text if "%" not in text else "")
    except ValueError:
        return None
    return found if str(found) == text else None


def any_address(text: str) -> Address | None:
    """The address of either family; None when the text is none in its canonical form."""
    try:
        found = ipaddress.ip_address(text if "%" not in text else "")
    except ValueError:
        return None
    return found if str(found) == text else None


def overlap(one: Prefix, other: Prefix) -> bool:
    """Whether two prefixes share addresses; those of two families do not."""
    if isinstance(one, ipaddress.IPv4Network):
        return isinstance(other, ipaddress.IPv4Network) and one.overlaps(other)
    return isinstance(other, ipaddress.IPv6Network) and one.overlaps(other)


def is_transit(found: Prefix) -> bool:
    """Whether it has addresses that Polder's routers use."""
    return overlap(found, TRANSIT) or overlap(found, TRANSIT6)


def listed(spec: Raw, single: str, plural: str) -> list[str]:
    """What a spec says in its list, or in the single field of earlier versions."""
    return list(spec.get(plural) or ()) or ([spec[single]] if spec.get(single) else [])


def fill(spec: Raw, single: str, plural: str) -> None:
    """The single field is the first of the list: whichever is left out follows from the other. In place."""
    found = listed(spec, single, plural)
    if found:
        spec.setdefault(single, found[0])
        spec.setdefault(plural, found)


def check_list(spec: Raw, single: str, plural: str, at: Field) -> Iterator[FieldError]:
    """One prefix of each family at most, the first of which is also in the single field."""
    texts: Sequence[str] = spec.get(plural) or ()
    if not texts:
        yield from check(spec.get(single, ""), at / single)
        return
    if spec.get(single, texts[0]) != texts[0]:
        yield (at / single).invalid(spec[single], f"must be the first of {at / plural}, {texts[0]}")
        return
    seen: set[int] = set()
    for number, text in enumerate(texts):
        where = at / single if len(texts) == 1 else (at / plural)[number]
        yield from check(text, where)
        if (found := prefix(text)) is not None:
            if found.version in seen:
                yield where.invalid(text, f"is the second IPv{found.version} prefix; there may be one of each family")
            seen.add(found.version)


def check(text: str, at: Field) -> Iterator[FieldError]:
    """What is wrong with a prefix that pods, services or a network get."""
    if not text:
        yield at.required("a prefix such as 10.0.0.0/16 or fd00:10::/64")
        return
    found = prefix(text)
    if found is None:
        yield at.invalid(text, f"must be an {_family(text)} prefix in canonical form{_hint(text)}")
        return
    shortest, longest = (SHORTEST, LONGEST) if found.version == 4 else (SHORTEST6, LONGEST6)
    if not shortest <= found.prefixlen <= longest:
        yield at.invalid(text, f"the prefix length must be between {shortest} and {longest}")
    for taken, name in _RESERVED.items():
        if overlap(found, taken):
            yield at.invalid(text, f"must not overlap the {name} range {taken}")


def _family(text: str) -> str:
    return "IPv6" if ":" in text else "IPv4"


def _hint(text: str) -> str:
    try:
        return f": did you mean {ipaddress.ip_network(text, strict=False)}?"
    except ValueError:
        return " such as fd00:10::/64" if ":" in text else " such as 10.0.0.0/16"
