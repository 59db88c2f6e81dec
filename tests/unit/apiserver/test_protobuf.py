"""The decoder against bytes that Go's kubectl sent, and against an encoder of the same facts."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polder.api.conform import conform
from polder.api.errors import ApiError
from polder.api.kinds import BUILT_IN, Kind
from polder.api.meta import Raw
from polder.api.protobuf_table import WireField, find, message, names
from polder.api.schemas import FROM_TYPES, Schema, Shape, schema_of
from polder.apiserver.protobuf import DEPTH_LIMIT, MAGIC, decode_body
from polder.apiserver.protobuf_encode import encode_body, encode_event

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


def fields_of(name: str) -> dict[str, WireField]:
    """The fields of a message as JSON shows them."""
    found: dict[str, WireField] = {}
    for field in message(name).fields.values():
        found.update(fields_of(field.type) if field.inline else {field.name: field})
    return found


@pytest.mark.parametrize(
    "kind", [k for k in BUILT_IN if k.group not in FROM_TYPES], ids=lambda k: f"{k.api_version} {k.kind}"
)
def test_every_field_is_one_of_the_kinds_own(kind: Kind) -> None:
    """The table against the published JSON definitions: the same names, the same nesting, nothing more or less."""
    seen: set[tuple[str, str]] = set()

    def walk(name: str, schema: Schema, path: str) -> None:
        if schema.shape is not Shape.OBJECT or (name, schema.name) in seen:
            return
        seen.add((name, schema.name))
        fields = fields_of(name)
        named = {"apiVersion", "kind"}  # a kind's own stand in the envelope, those of references among the fields
        assert set(fields) - named == set(schema.fields) - named, path
        for field in fields.values():
            found = schema.fields[field.name].schema
            inner = found.items if field.many else found
            if inner is not None and field.type in names() and not message(field.type).wrapped:
                walk(field.type, inner, f"{path}.{field.name}")

    schema = schema_of(kind)
    name = find(kind.api_version, kind.kind)
    assert schema is not None
    assert name is not None
    walk(name, schema, kind.kind)
    assert seen


RICH: list[Raw] = [
    {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "d", "creationTimestamp": "2023-11-14T22:13:20Z", "labels": {"a": "b"}},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {"a": "b"}},
            "strategy": {"rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 1}},
            "template": {
                "metadata": {},
                "spec": {
                    "containers": [{"name": "c", "image": "i", "resources": {"limits": {"cpu": "100m"}}}],
                    "volumes": [{"name": "v", "emptyDir": {}}],
                },
            },
        },
        "status": {"conditions": [{"type": "x", "status": "True", "lastUpdateTime": "2023-11-14T22:13:20Z"}]},
    },
    {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "x.y"},
        "spec": {
            "group": "y", "scope": "Namespaced", "names": {"plural": "x", "kind": "X"},
            "versions": [{"name": "v1", "served": True, "storage": False, "schema": {"openAPIV3Schema": {
                "type": "object", "x-kubernetes-preserve-unknown-fields": True, "maximum": 3, "multipleOf": 0.5,
                "properties": {
                    "a": {"type": "array", "items": {"type": "string", "enum": ["x", 1]}},
                    "b": {"type": "object", "additionalProperties": {"type": "integer", "default": {"k": [1]}}},
                    "c": {"type": "object", "additionalProperties": False},
                },
            }}}],
        },
    },
    {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "metadata": {},
        "spec": {"user": "u", "extra": {"e": ["1", "2"]}, "resourceAttributes": {"verb": "get"}},
    },
    {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"k": "AP8="}, "immutable": False},
    {"apiVersion": "v1", "kind": "ConfigMapList", "metadata": {"resourceVersion": "7"}, "items": [{"metadata": {"name": "a"}}]},
    {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {}, "spec": {
        "leaseDurationSeconds": 15, "renewTime": "2023-11-14T22:13:20.000123Z"}},
]  # fmt: skip


def without_empty(value: Any) -> Any:
    """Go shows plain structs and needed values even when they are empty; these say nothing."""
    if isinstance(value, dict):
        inner = {k: without_empty(v) for k, v in value.items()}
        return {k: v for k, v in inner.items() if v not in ("", {}, None) or k == "emptyDir"}
    return [without_empty(v) for v in value] if isinstance(value, list) else value


@pytest.mark.parametrize("obj", RICH, ids=lambda o: o["kind"])
def test_what_is_encoded_is_decoded(obj: Raw) -> None:
    assert without_empty(decode_body(encode_body(obj))) == without_empty(obj)


def test_an_event_is_delimited() -> None:
    shown = encode_event("ADDED", orjson.dumps(RICH[3]))
    assert int.from_bytes(shown[:4], "big") == len(shown) - 4
    assert shown[4:].startswith(text(1, "ADDED"))
    assert shown[shown.index(MAGIC) :] == encode_body(RICH[3])


def test_a_custom_kind_has_no_such_form() -> None:
    with pytest.raises(ApiError) as refused:
        encode_body({"apiVersion": "x.io/v1", "kind": "Widget"})
    assert refused.value.code == 406


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


def test_depth_is_bounded() -> None:
    raw = b""
    for _ in range(DEPTH_LIMIT + 2):
        raw = chunk(28, raw)
    spec = chunk(2, chunk(7, text(1, "v1") + chunk(4, chunk(1, raw))))
    with pytest.raises(ApiError, match="nested"):
        decode_body(body("CustomResourceDefinition", spec, "apiextensions.k8s.io/v1"))


def test_what_is_decoded_conforms() -> None:
    kind = next(k for k in BUILT_IN if k.kind == "ConfigMap")
    assert conform(kind, decode_body(CONFIG_MAP)).unknown == ()
