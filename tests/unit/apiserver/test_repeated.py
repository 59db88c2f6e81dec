"""Keys that stand twice: found in any text, and nothing else is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polder.apiserver.repeated import LIMIT, repeated_fields

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
)


@given(JSON, st.sampled_from([None, 1]), st.booleans())
def test_sound_bodies_have_none(value: Any, indent: Any, ascii_only: bool) -> None:
    body = json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    if b"\\ud" in body:
        return  # lone surrogates are no JSON for the decoder
    assert repeated_fields(body, json.loads(body)) == ()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"a":1,"a":2}', ["a"]),
        (b'{"a":{"b":[{"c":1,"d":2,"c":3}]}}', ["a.b[0].c"]),
        (b'{"a\\u0062":1, "ab" : 2}', ["ab"]),
        (b'{"x":"\\":{\\"x\\":", "y":1, "y":1}', ["y"]),
    ],
)
def test_what_stands_twice_is_named(body: bytes, said: list[str]) -> None:
    assert repeated_fields(body, json.loads(body)) == tuple(f'duplicate field "{path}"' for path in said)


def test_the_search_is_bounded() -> None:
    body = b'{"a":1,"a":2' + b" " * LIMIT + b"}"
    assert repeated_fields(body, json.loads(body)) == ()
