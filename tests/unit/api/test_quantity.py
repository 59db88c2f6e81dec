from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polder.api.quantity import Quantity, QuantityError, milli, parse, whole


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("1", "1"), ("1000m", "1"), ("1.5", "1500m"), ("0.1", "100m"), (2, "2"), (0.25, "250m"), ("1000", "1k"),
        ("100000", "100k"), ("1024", "1024"), ("1024Ki", "1Mi"), ("1500Mi", "1500Mi"), ("1.5Gi", "1536Mi"),
        ("0.5Mi", "512Ki"), ("1e3", "1e3"), ("5e-1", "500e-3"), ("0", "0"), ("-1", "-1"), ("+1", "1"), (".5", "500m"),
        ("1.", "1"), ("0.0000000001", "1n"), ("123.456m", "123456u"), ("12E", str(Decimal(2**63 - 1))), ("1Ei", "1Ei"),
    ],
)  # fmt: skip
def test_quantities_print_as_upstream_prints_them(text: str | float, canonical: str) -> None:
    assert str(parse(text)) == canonical


@pytest.mark.parametrize(
    "text", ["", "x", "1x", "1 Gi", "1GiB", "--1", "1e", "1e999", "Mi", "0x10", "1_000", "NaN", True]
)
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(QuantityError):
        parse(text)


def test_whole_units_and_thousandths_round_up() -> None:
    assert (whole("1.1"), whole("1Ki"), whole("-1.5"), whole(0)) == (2, 1024, -1, 0)
    assert (milli("100m"), milli("1.0001"), milli("2")) == (100, 1001, 2000)


@given(st.integers(-(10**12), 10**12), st.sampled_from(["", "m", "u", "k", "M", "Ki", "Mi", "Gi", "e2", "E-3"]))
def test_the_canonical_form_has_the_same_value_and_is_stable(number: int, suffix: str) -> None:
    found = parse(f"{number}{suffix}")
    again = parse(str(found))
    assert again.value == found.value
    assert str(again) == str(found)


@given(st.decimals(-1000, 1000, places=9))
def test_nothing_down_to_nano_is_lost(value: Decimal) -> None:
    assert parse(str(Quantity(value))).value == value
