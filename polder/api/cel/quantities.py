"""Kubernetes' libraries of quantities and semantic versions."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from polder.api import quantity
from polder.api.cel.errors import Fault
from polder.api.cel.functions import Library, function, member
from polder.api.cel.types import BOOL, DOUBLE, INT, STRING, opaque
from polder.api.cel.values import Meter, Value

QUANTITY: Final = opaque("kubernetes.Quantity")
SEMVER: Final = opaque("kubernetes.Semver")


@dataclass(frozen=True, slots=True)
class QuantityValue(Value):
    """A quantity."""

    number: Decimal
    type_name = "kubernetes.Quantity"

    def equals(self, other: object, meter: Meter) -> bool:  # noqa: ARG002
        """The same number, however it is written."""
        return isinstance(other, QuantityValue) and self.number == other.number


def _quantity(text: str) -> QuantityValue:
    try:
        return QuantityValue(quantity.parse(text).value)
    except quantity.QuantityError as error:
        raise Fault(str(error)) from None


def _is_quantity(text: str) -> bool:
    try:
        quantity.parse(text)
    except quantity.QuantityError:
        return False
    return True


def _is_integer(found: QuantityValue) -> bool:
    return found.number == found.number.to_integral_value() and -(2**63) <= found.number < 2**63


def _as_integer(found: QuantityValue) -> int:
    if not _is_integer(found):
        raise Fault("cannot convert value to integer")
    return int(found.number)


def _compare(a: Decimal, b: Decimal) -> int:
    return (a > b) - (a < b)


_NUMBER: Final = re.compile(r"[0-9]+")
_IDENTIFIER: Final = re.compile(r"[0-9A-Za-z\-]+")


@dataclass(frozen=True, slots=True)
class Version(Value):
    """A semantic version."""

    numbers: tuple[int, int, int]
    before: tuple[str, ...] = ()
    build: tuple[str, ...] = ()
    type_name = "kubernetes.Semver"

    def equals(self, other: object, meter: Meter) -> bool:  # noqa: ARG002
        """Of the same precedence: what was built is not looked at."""
        return isinstance(other, Version) and compare_versions(self, other) == 0


def _part(text: str, name: str) -> int:
    if not _NUMBER.fullmatch(text) or len(text) > 20:
        raise Fault(f'Invalid character(s) found in {name} number "{text}"')
    if len(text) > 1 and text[0] == "0":
        raise Fault(f'{name.capitalize()} number must not contain leading zeroes "{text}"')
    return int(text)


def _version(text: str, normalize: bool = False) -> Version:
    if normalize:
        text = _normalized(text)
    if not text:
        raise Fault("Version string empty")
    parts = text.split(".", 2)
    if len(parts) != 3:
        raise Fault("No Major.Minor.Patch elements found")
    major, minor = _part(parts[0], "major"), _part(parts[1], "minor")
    rest, plus, build_text = parts[2].partition("+")
    patch_text, dash, before_text = rest.partition("-")
    patch = _part(patch_text, "patch")
    before = tuple(before_text.split(".")) if dash else ()
    for each in before:
        if not each:
            raise Fault("Prerelease is empty")
        if not _IDENTIFIER.fullmatch(each):
            raise Fault(f'Invalid character(s) found in prerelease "{each}"')
        if _NUMBER.fullmatch(each) and len(each) > 1 and each[0] == "0":
            raise Fault(f'Numeric PreRelease version must not contain leading zeroes "{each}"')
    build = tuple(build_text.split(".")) if plus else ()
    for each in build:
        if not each:
            raise Fault("Build meta data is empty")
        if not _IDENTIFIER.fullmatch(each):
            raise Fault(f'Invalid character(s) found in build meta data "{each}"')
    return Version((major, minor, patch), before, build)


def _normalized(text: str) -> str:
    """Without a leading ``v``, with three numbers and no leading zeroes."""
    parts = text.removeprefix("v").split(".", 2)
    for place, part in enumerate(parts):
        if len(part) > 1:
            short = part.lstrip("0")
            parts[place] = short if short[:1].isdigit() else f"0{short}"
    if len(parts) < 3:
        if set(parts[-1]) & set("+-"):
            raise Fault("short version cannot contain PreRelease/Build meta data")
        parts += ["0"] * (3 - len(parts))
    return ".".join(parts)


def _is_version(text: str, normalize: bool = False) -> bool:
    try:
        _version(text, normalize)
    except Fault:
        return False
    return True


def compare_versions(a: Version, b: Version) -> int:
    """-1, 0 or 1 by precedence (semver.org, 11)."""
    if a.numbers != b.numbers:
        return 1 if a.numbers > b.numbers else -1
    if not a.before or not b.before:
        return bool(b.before) - bool(a.before)
    keys = [[(0, int(p), "") if p.isdigit() else (1, 0, p) for p in v.before] for v in (a, b)]
    return (keys[0] > keys[1]) - (keys[0] < keys[1])


LIBRARY: Final[Library] = {
    "quantity": (function("string_to_quantity", (STRING,), QUANTITY, _quantity),),
    "isQuantity": (function("is_quantity_string", (STRING,), BOOL, _is_quantity),),
    "sign": (member("quantity_sign", (QUANTITY,), INT, lambda q: _compare(q.number, Decimal(0))),),
    "isGreaterThan": (
        member("quantity_is_greater_than", (QUANTITY, QUANTITY), BOOL, lambda a, b: a.number > b.number),
        member("semver_is_greater_than", (SEMVER, SEMVER), BOOL, lambda a, b: compare_versions(a, b) > 0),
    ),
    "isLessThan": (
        member("quantity_is_less_than", (QUANTITY, QUANTITY), BOOL, lambda a, b: a.number < b.number),
        member("semver_is_less_than", (SEMVER, SEMVER), BOOL, lambda a, b: compare_versions(a, b) < 0),
    ),
    "compareTo": (
        member("quantity_compare_to", (QUANTITY, QUANTITY), INT, lambda a, b: _compare(a.number, b.number)),
        member("semver_compare_to", (SEMVER, SEMVER), INT, compare_versions),
    ),
    "asApproximateFloat": (member("quantity_get_float", (QUANTITY,), DOUBLE, lambda q: float(q.number)),),
    "asInteger": (member("quantity_get_int", (QUANTITY,), INT, _as_integer),),
    "isInteger": (member("quantity_is_integer", (QUANTITY,), BOOL, _is_integer),),
    "add": (
        member("quantity_add", (QUANTITY, QUANTITY), QUANTITY, lambda a, b: QuantityValue(a.number + b.number)),
        member("quantity_add_int", (QUANTITY, INT), QUANTITY, lambda a, b: QuantityValue(a.number + b)),
    ),
    "sub": (
        member("quantity_sub", (QUANTITY, QUANTITY), QUANTITY, lambda a, b: QuantityValue(a.number - b.number)),
        member("quantity_sub_int", (QUANTITY, INT), QUANTITY, lambda a, b: QuantityValue(a.number - b)),
    ),
    "semver": (
        function("string_to_semver", (STRING,), SEMVER, _version),
        function("string_bool_to_semver", (STRING, BOOL), SEMVER, _version),
    ),
    "isSemver": (
        function("is_semver_string", (STRING,), BOOL, _is_version),
        function("is_semver_string_bool", (STRING, BOOL), BOOL, _is_version),
    ),
    "major": (member("semver_major", (SEMVER,), INT, lambda v: v.numbers[0]),),
    "minor": (member("semver_minor", (SEMVER,), INT, lambda v: v.numbers[1]),),
    "patch": (member("semver_patch", (SEMVER,), INT, lambda v: v.numbers[2]),),
}
