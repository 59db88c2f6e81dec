"""Names for addresses (RFC 1035 section 3.5, RFC 3596 section 2.5), and which of them are asked of nobody outside."""

from __future__ import annotations

from polder.dns.wire import Labels

V4: Labels = (b"in-addr", b"arpa")
V6: Labels = (b"ip6", b"arpa")
_HEX = b"0123456789abcdef"


def _apexes() -> frozenset[Labels]:
    """Zones of private, shared, loopback and link-local addresses (RFC 6303, 7793)."""
    second = [(16 + n, 172) for n in range(16)] + [(64 + n, 100) for n in range(64)] + [(168, 192), (254, 169)]
    apexes = {(b"%d" % number, *V4) for number in (0, 10, 127)}
    apexes |= {(b"%d" % low, b"%d" % high, *V4) for low, high in second}
    apexes |= {(nibble, b"f", *V6) for nibble in (b"c", b"d")}
    apexes |= {(nibble, b"e", b"f", *V6) for nibble in (b"8", b"9", b"a", b"b")}
    return frozenset(apexes)


_LOCAL = _apexes()


def local_apex(labels: Labels) -> Labels | None:
    """The zone of addresses without meaning outside that a name lies in; None for other names."""
    return next((labels[-n:] for n in (3, 4, 5) if labels[-n:] in _LOCAL), None)


def reverse_labels(address: bytes) -> Labels:
    """The name that stands for an address of 4 or 16 bytes."""
    if len(address) == 4:
        return (*(b"%d" % byte for byte in reversed(address)), *V4)
    nibbles = address.hex().encode()
    return (*(nibbles[n : n + 1] for n in reversed(range(32))), *V6)


def address_asked(labels: Labels) -> bytes | None:
    """The address that a whole name stands for."""
    if labels[4:] == V4 and len(labels) == 6:
        if all(part.isdigit() and len(part) <= 3 and int(part) < 256 for part in labels[:4]):
            return bytes(int(part) for part in reversed(labels[:4]))
        return None
    if labels[32:] == V6 and len(labels) == 34 and all(len(part) == 1 and part in _HEX for part in labels[:32]):
        return bytes.fromhex(b"".join(reversed(labels[:32])).decode())
    return None
