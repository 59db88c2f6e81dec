"""IPv4 prefixes as Polder's kinds take them: canonical, of a sensible size, outside reserved ranges."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Final

from polder.api.errors import Field, FieldError

SHORTEST, LONGEST = 8, 29
TRANSIT: Final = ipaddress.IPv4Network("100.64.0.0/10")
"""The addresses between routers and nodes."""
_RESERVED: Final = {
    ipaddress.IPv4Network("0.0.0.0/8"): "unspecified",
    ipaddress.IPv4Network("127.0.0.0/8"): "loopback",
    ipaddress.IPv4Network("169.254.0.0/16"): "link-local",
    ipaddress.IPv4Network("224.0.0.0/4"): "multicast",
    ipaddress.IPv4Network("240.0.0.0/4"): "reserved",
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


def check(text: str, at: Field, *, longest: int = LONGEST) -> Iterator[FieldError]:
    """What is wrong with a prefix that pods, services or a network get."""
    if not text:
        yield at.required("an IPv4 prefix such as 10.0.0.0/16")
        return
    if ":" in text:
        yield at.forbidden(f"IPv6 ({text}) is not supported by this version of Polder")
        return
    found = parse(text)
    if found is None:
        yield at.invalid(text, f"must be an IPv4 prefix in canonical form{_hint(text)}")
        return
    if not SHORTEST <= found.prefixlen <= longest:
        yield at.invalid(text, f"the prefix length must be between {SHORTEST} and {longest}")
    for taken, name in _RESERVED.items():
        if found.overlaps(taken):
            yield at.invalid(text, f"must not overlap the {name} range {taken}")


def _hint(text: str) -> str:
    try:
        return f": did you mean {ipaddress.IPv4Network(text, strict=False)}?"
    except ValueError:
        return " such as 10.0.0.0/16"
