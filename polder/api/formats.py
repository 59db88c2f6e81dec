"""The formats that a schema's ``format`` may ask for, as upstream's kube-openapi strfmt checks them."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Callable
from datetime import date
from typing import Final
from urllib.parse import urlsplit

from polder.api import quantity

_DURATION: Final = re.compile(r"[+-]?(?:[0-9]*(?:\.[0-9]*)?(?:ns|us|µs|μs|ms|s|m|h))+|[+-]?0")
_WORDS: Final = re.compile(
    r"\s*[0-9]+\s*(?:nanoseconds?|nanos?|ns|microseconds?|micros?|us|µs|milliseconds?|millis?|ms|seconds?|secs?|s|"
    r"minutes?|mins?|m|hours?|hrs?|h|days?|d|weeks?|wks?|w)\s*",
    re.IGNORECASE,
)
_DATE_TIME: Final = re.compile(
    r"(\d{4}-\d{2}-\d{2})T(\d{2}):(\d{2}):(\d{2})(?:[.,]\d+)?(?:Z|[+-]\d{2}:?\d{2})?", re.ASCII | re.IGNORECASE
)
_LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?")
_EMAIL: Final = re.compile(r"[^\s@<>()\[\],;:\\\"]+@[^\s@<>()\[\],;:\\\"]+")
_HEX: Final = "[0-9a-f]"
_UUID: Final = {
    version: re.compile(rf"{_HEX}{{8}}-?{_HEX}{{4}}-?{third}-?{fourth}-?{_HEX}{{12}}", re.IGNORECASE)
    for version, third, fourth in (
        ("uuid", f"{_HEX}{{4}}", f"{_HEX}{{4}}"), ("uuid3", f"3{_HEX}{{3}}", f"{_HEX}{{4}}"),
        ("uuid4", f"4{_HEX}{{3}}", f"[89ab]{_HEX}{{3}}"), ("uuid5", f"5{_HEX}{{3}}", f"[89ab]{_HEX}{{3}}"),
    )
}  # fmt: skip
_ISBN: Final = re.compile(r"[\s-]")
_CARD: Final = re.compile(
    r"4\d{12}(?:\d{3})?|(?:5[1-5]\d{2}|222[1-9]|22[3-9]\d|2[3-6]\d{2}|27[01]\d|2720)\d{12}|3[47]\d{13}|"
    r"3(?:0[0-5]|[68]\d)\d{11}|6(?:011|5\d{2})\d{12}|(?:2131|1800|35\d{3})\d{11}|6[27]\d{14}",
    re.ASCII,
)
_SSN: Final = re.compile(r"\d{3}[- ]?\d{2}[- ]?\d{4}", re.ASCII)
_HEX_COLOR: Final = re.compile(r"#?(?:[0-9a-fA-F]{3}|[0-9a-fA-F]{6})")
_RGB_PART: Final = r"(?:[0-9]|[1-9][0-9]|1[0-9][0-9]|2[0-4][0-9]|25[0-5])"
_RGB_COLOR: Final = re.compile(rf"rgb\(\s*{_RGB_PART}\s*,\s*{_RGB_PART}\s*,\s*{_RGB_PART}\s*\)")
_MAC: Final = re.compile(
    r"(?:[0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}(?:(?:[:-][0-9A-Fa-f]{2}){2})?|(?:[0-9A-Fa-f]{4}\.){2}[0-9A-Fa-f]{4}"
)


def _reads(read: Callable[[str], object]) -> Callable[[str], bool]:
    def fits(text: str) -> bool:
        try:
            read(text)
        except (ValueError, quantity.QuantityError):
            return False
        return True

    return fits


def _whole(form: re.Pattern[str]) -> Callable[[str], bool]:
    return lambda text: form.fullmatch(text) is not None


def _date(text: str) -> date:
    if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text, re.ASCII) is None:
        raise ValueError(text)
    return date.fromisoformat(text)


def _date_time(text: str) -> bool:
    match = _DATE_TIME.fullmatch(text)
    if match is None or int(match[2]) > 23 or int(match[3]) > 59 or int(match[4]) > 59:
        return False
    return _reads(_date)(match[1])


def _base64(text: str) -> bool:
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return False
    return True


def _uri(text: str) -> bool:
    parts = urlsplit(text)
    return bool(parts.scheme or text.startswith("/")) and not re.search(r"[\x00-\x20\x7f]", text)


def _isbn(text: str, length: int) -> bool:
    digits = _ISBN.sub("", text)
    if len(digits) != length or not re.fullmatch(r"[0-9]+X?" if length == 10 else r"[0-9]+", digits):
        return False
    numbers = [10 if char == "X" else int(char) for char in digits]
    if length == 10:
        return sum((10 - place) * number for place, number in enumerate(numbers)) % 11 == 0
    return sum(number * (1 + 2 * (place % 2)) for place, number in enumerate(numbers)) % 10 == 0


def _card(text: str) -> bool:
    digits = re.sub(r"[^0-9]+", "", text)
    if not _CARD.fullmatch(digits):
        return False
    total = 0
    for place, char in enumerate(reversed(digits)):
        number = int(char) * (1 + place % 2)
        total += number - 9 if number > 9 else number
    return total % 10 == 0


def _object_id(text: str) -> bool:
    return re.fullmatch(r"[0-9a-fA-F]{24}", text) is not None


CHECKS: Final[dict[str, Callable[[str], bool]]] = {
    "bsonobjectid": _object_id,
    "uri": _uri,
    "email": _whole(_EMAIL),
    "hostname": lambda text: len(text) <= 255 and _HOST.fullmatch(text) is not None,
    "ipv4": _reads(ipaddress.IPv4Address),
    "ipv6": _reads(ipaddress.IPv6Address),
    "cidr": lambda text: "/" in text and _reads(lambda t: ipaddress.ip_network(t, strict=False))(text),
    "mac": _whole(_MAC),
    **{name: _whole(form) for name, form in _UUID.items()},
    "isbn": lambda text: _isbn(text, 10) or _isbn(text, 13),
    "isbn10": lambda text: _isbn(text, 10),
    "isbn13": lambda text: _isbn(text, 13),
    "creditcard": _card,
    "ssn": _whole(_SSN),
    "hexcolor": _whole(_HEX_COLOR),
    "rgbcolor": _whole(_RGB_COLOR),
    "byte": _base64,
    "date": _reads(_date),
    "duration": lambda text: _DURATION.fullmatch(text) is not None or _WORDS.fullmatch(text) is not None,
    "datetime": _date_time,
    "date-time": _date_time,
    "quantity": _reads(quantity.parse),
}
"""By name; ``password``, ``int32`` and others of numbers are not of text."""
