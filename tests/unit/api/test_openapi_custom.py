"""What documents say of custom kinds, beside what release 1.36 of Kubernetes publishes for the same schemas."""

from __future__ import annotations

from polder.api.crd import to_versions
from polder.api.openapi_custom import custom_definition
from polder.api.openapi_schemas import Dialect
from tests.unit.api.kit import Raw, made
from tests.unit.api.test_crd import CRDS, crd


def published(schema: Raw, dialect: Dialect) -> Raw:
    definition = crd()
    definition["spec"]["versions"][0]["schema"] = {"openAPIV3Schema": schema}
    (version,) = to_versions(made(CRDS, definition))
    return custom_definition(version, dialect)


EMBEDDED: Raw = {
    "type": "object",
    "description": "a thing",
    "properties": {
        "spec": {
            "type": "object",
            "x-kubernetes-embedded-resource": True,
            "x-kubernetes-preserve-unknown-fields": True,
            "properties": {"a": {"type": "string"}},
        },
        "inner": {"type": "object", "x-kubernetes-embedded-resource": True, "properties": {"spec": {"type": "object"}}},
    },
}


def test_an_embedded_object_has_what_every_object_has() -> None:
    found = published(EMBEDDED, Dialect.V3)["properties"]
    assert set(found["inner"]["properties"]) == {"apiVersion", "kind", "metadata", "spec"}
    assert found["inner"]["required"] == ["kind", "apiVersion"]
    assert set(found["spec"]["properties"]) == {"apiVersion", "kind", "metadata", "a"}


def test_version_2_says_nothing_of_a_part_with_unknown_fields() -> None:
    found = published(EMBEDDED, Dialect.V2)["properties"]
    assert set(found["inner"]["properties"]) == {"apiVersion", "kind", "metadata", "spec"}
    assert found["spec"] == {"x-kubernetes-embedded-resource": True, "x-kubernetes-preserve-unknown-fields": True}


def test_version_2_says_nothing_of_a_kind_with_unknown_fields() -> None:
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True, "properties": {"a": {"type": "string"}}}
    assert set(published(schema, Dialect.V2)) == {"type", "x-kubernetes-group-version-kind"}
    assert set(published(schema, Dialect.V3)["properties"]) == {"a", "apiVersion", "kind", "metadata"}


def test_version_2_requires_nothing_that_may_be_null() -> None:
    schema: Raw = {
        "type": "object",
        "required": ["spec"],
        "properties": {
            "spec": {
                "type": "object",
                "required": ["a", "b"],
                "properties": {"a": {"type": "string", "nullable": True}, "b": {"type": "string"}},
            },
            "list": {"type": "array", "nullable": True, "items": {"type": "string"}, "minItems": 1},
        },
    }
    found = published(schema, Dialect.V2)
    assert found["required"] == ["spec"]
    assert found["properties"]["spec"]["required"] == ["b"]
    assert found["properties"]["list"] == {"minItems": 1}
    assert published(schema, Dialect.V3)["properties"]["spec"]["required"] == ["a", "b"]


def test_version_3_keeps_junctors_and_version_2_does_not() -> None:
    port = {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]}
    schema: Raw = {"type": "object", "properties": {"port": port}}
    assert published(schema, Dialect.V3)["properties"]["port"] == port
    assert published(schema, Dialect.V2)["properties"]["port"] == {"x-kubernetes-int-or-string": True}


def test_fields_to_select_by_are_named() -> None:
    (version,) = to_versions(made(CRDS, crd(selectableFields=[{"jsonPath": ".spec.cronSpec"}])))
    assert custom_definition(version, Dialect.V3)["x-kubernetes-selectable-fields"] == [{"fieldPath": "spec.cronSpec"}]
