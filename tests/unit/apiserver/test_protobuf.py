"""The decoder against bytes that Go's kubectl sent, and against an encoder of the same facts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polder.api.conform import conform
from polder.api.errors import ApiError
from polder.api.kinds import BUILT_IN
from polder.api.schemas import Shape, schema_of
from polder.apiserver.protobuf import DEPTH_LIMIT, MAGIC, WireField, decode_body, messages

CONFIG_MAP = bytes.fromhex(
    "6b3873000a0f0a0276311209436f6e6669674d6170121c0a120a02633112001a0022002a0032003800420012060a01611201621a002200"
)


def varint(number: int) -> bytes:
    out = bytearray()
    number &= (1 << 64) - 1
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def chunk(number: int, body: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(body)) + body


def text(number: int, value: str) -> bytes:
    return chunk(number, value.encode())


def body(kind: str, raw: bytes, version: str = "v1") -> bytes:
    return MAGIC + chunk(1, text(1, version) + text(2, kind)) + chunk(2, raw)


def test_what_kubectl_sends() -> None:
    found = decode_body(CONFIG_MAP)
    assert found == {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c1"}, "data": {"a": "b"}}


def test_a_pod() -> None:
    stamp = chunk(8, varint(1 << 3) + varint(1700000000))
    probe = chunk(1, chunk(2, text(1, "/ok") + chunk(2, varint(1 << 3) + varint(0) + varint(2 << 3) + varint(80))))
    resources = chunk(8, chunk(1, text(1, "cpu") + chunk(2, text(1, "100m"))))
    secret = chunk(7, text(1, "E") + chunk(3, chunk(4, chunk(1, text(1, "s")) + text(2, "k"))))
    container = text(1, "c") + text(2, "i") + secret + resources + chunk(10, probe + varint(3 << 3) + varint(5))
    volume = chunk(1, text(1, "v") + chunk(2, chunk(2, b"")))
    spec = volume + chunk(2, container) + varint(4 << 3) + varint(0) + varint(11 << 3) + varint(0)
    found = decode_body(body("Pod", chunk(1, text(1, "p") + stamp) + chunk(2, spec)))
    assert found["metadata"] == {"name": "p", "creationTimestamp": "2023-11-14T22:13:20Z"}
    assert found["spec"] == {
        "volumes": [{"name": "v", "emptyDir": {}}],
        "terminationGracePeriodSeconds": 0,
        "containers": [
            {
                "name": "c",
                "image": "i",
                "env": [{"name": "E", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
                "resources": {"limits": {"cpu": "100m"}},
                "livenessProbe": {"httpGet": {"path": "/ok", "port": 80}, "timeoutSeconds": 5},
            }
        ],
    }


def test_a_secret_and_delete_options() -> None:
    secret = chunk(1, text(1, "s")) + chunk(2, text(1, "k") + chunk(2, b"\x00\xff"))
    assert decode_body(body("Secret", secret))["data"] == {"k": "AP8="}
    options = varint(1 << 3) + varint(0) + chunk(2, text(1, "u")) + text(4, "Foreground")
    found = decode_body(body("DeleteOptions", options))
    assert (found["gracePeriodSeconds"], found["preconditions"]) == (0, {"uid": "u"})
    assert found["propagationPolicy"] == "Foreground"


def test_negative_and_packed_numbers() -> None:
    spec = chunk(2, chunk(14, chunk(4, varint(3) + varint(-7))))
    found = decode_body(body("Pod", spec))
    assert found["spec"]["securityContext"]["supplementalGroups"] == [3, -7]


def test_every_field_is_one_of_the_kinds_own() -> None:
    """The table against the published JSON definitions: same names, same nesting."""
    inline = {"handler", "volumeSource", "localObjectReference", "ephemeralContainerCommon"}
    by_kind = {k.kind: k for k in BUILT_IN}
    seen: set[tuple[str, str]] = set()

    def walk(message: str, schema: Any, path: str) -> None:
        if schema is None or schema.shape is not Shape.OBJECT or (message, schema.name) in seen:
            return
        seen.add((message, schema.name))
        for field in messages()[message].values():
            if field.name in inline and field.name not in schema.fields:
                walk_inline(field.type, schema, path)
                continue
            found = schema.fields.get(field.name)
            assert found is not None, f"{path}.{field.name}"
            inner = found.schema.items if field.many else found.schema
            if field.type in messages():
                walk(field.type, inner, f"{path}.{field.name}")

    def walk_inline(message: str, schema: Any, path: str) -> None:
        for field in messages()[message].values():
            assert field.name in schema.fields, f"{path}.{field.name}"
            if field.type in messages() and not field.many:
                walk(field.type, schema.fields[field.name].schema, f"{path}.{field.name}")

    for name in ("Pod", "Service", "Namespace", "Node", "Secret", "ConfigMap", "ServiceAccount", "Event", "Lease"):
        walk(name, schema_of(by_kind[name]), name)
    assert len(seen) > 100


@given(st.binary(max_size=80), st.sampled_from(["Pod", "ConfigMap", "Event", "DeleteOptions"]))
def test_any_bytes_are_read_or_refused(raw: bytes, kind: str) -> None:
    try:
        found = decode_body(body(kind, raw))
    except ApiError as refused:
        assert refused.code == 400
    else:
        assert found["kind"] == kind


def test_kinds_without_a_table_are_refused() -> None:
    with pytest.raises(ApiError, match="Widget"):
        decode_body(body("Widget", b""))
    with pytest.raises(ApiError, match="cut off"):
        decode_body(body("ConfigMap", b"\x0a\x05a"))


def test_depth_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """No served message holds itself, so one is made that does."""
    monkeypatch.setitem(messages(), "Loop", {1: WireField("self", "Loop")})
    raw = b""
    for _ in range(DEPTH_LIMIT + 2):
        raw = chunk(1, raw)
    with pytest.raises(ApiError, match="nested"):
        decode_body(body("Loop", raw))


def test_what_is_decoded_conforms() -> None:
    kind = next(k for k in BUILT_IN if k.kind == "ConfigMap")
    assert conform(kind, decode_body(CONFIG_MAP)).unknown == ()
