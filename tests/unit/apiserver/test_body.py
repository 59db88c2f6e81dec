from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polder.api.errors import ApiError
from polder.apiserver.body import DEPTH_LIMIT, check_depth, parse_body, parse_object, read_sent

YAML = "application/yaml"


def nested(depth: int, *, lists: bool) -> Any:
    value: Any = [] if lists else {}
    for _ in range(depth - 1):
        value = [value] if lists else {"a": value}
    return value


@pytest.mark.parametrize("lists", [True, False])
def test_depth(lists: bool) -> None:
    check_depth(nested(DEPTH_LIMIT, lists=lists))
    with pytest.raises(ApiError, match="nested"):
        check_depth(nested(DEPTH_LIMIT + 1, lists=lists))
    text = json.dumps(nested(DEPTH_LIMIT + 1, lists=lists)).encode()
    for media in ("application/json", YAML):
        with pytest.raises(ApiError, match="nested"):
            parse_body(text, media)


def test_depth_is_seen_beside_scalars() -> None:
    with pytest.raises(ApiError, match="nested"):
        check_depth({"a": 1, "b": ["x", nested(DEPTH_LIMIT, lists=True)]})


def test_yaml_is_read_as_json_would_be() -> None:
    text = b"a: 2020-01-01\nb: yes\nc: 0x10\n1: x\ntrue: y\nd: {<<: 1}\ne: ~\n"
    found = parse_object(text, YAML)
    assert found["a"] == "2020-01-01" and found["1"] == "x" and found["true"] == "y" and found["e"] is None
    assert found["d"] == {"<<": 1}


def test_yaml_keys_that_stand_twice_are_told() -> None:
    assert parse_object(b"a: 1\na: 2\n", YAML) == {"a": 2}
    said = read_sent(b"b:\n  1: x\n  '1': y\n", YAML).repeated
    assert said == ('yaml: unmarshal errors:\n  line 3: key "1" already set in map',)


@pytest.mark.parametrize("text", [b"a: .inf", b"a: .nan", b"? {a: b}\n: c"])
def test_yaml_that_json_cannot_say(text: bytes) -> None:
    with pytest.raises(ApiError) as refused:
        parse_body(text, YAML)
    assert refused.value.code == 400


@pytest.mark.parametrize(
    "text", [b"!!python/object/apply:os.system [x]", b"!!binary eA==", b"!!set {a, b}", b"a: !x b"]
)
def test_yaml_tags_make_nothing_else(text: bytes) -> None:
    with pytest.raises(ApiError) as refused:
        parse_body(text, YAML)
    assert refused.value.code == 400


@given(st.binary(max_size=60), st.sampled_from(["application/json", YAML, "application/vnd.kubernetes.protobuf"]))
def test_any_bytes_are_read_or_refused(body: bytes, media: str) -> None:
    try:
        parse_body(body, media)
    except ApiError as refused:
        assert refused.code == 400
