"""The protobuf document is decoded with the published field numbers and must say exactly what the JSON document says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_tools import protoc

from polder.api.crd import to_versions
from polder.api.kinds import BUILT_IN
from polder.api.openapi import served, v2_json, v2_proto
from polder.api.openapi_proto import encode_document
from tests.unit.api.kit import made
from tests.unit.api.test_crd import CRDS, crd

GOLDEN = Path(__file__).parents[2] / "golden" / "api"


@pytest.fixture(scope="module")
def document_type(tmp_path_factory: pytest.TempPathFactory) -> Any:
    out = tmp_path_factory.mktemp("proto") / "set"
    assert protoc.main(["protoc", f"-I{GOLDEN}", f"--descriptor_set_out={out}", str(GOLDEN / "openapiv2.proto")]) == 0
    files = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())
    pool = descriptor_pool.DescriptorPool()
    pool.Add(files.file[0])
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("openapi.v2.Document"))


CAMEL = {
    "_ref": "$ref", "multiple_of": "multipleOf", "exclusive_maximum": "exclusiveMaximum", "unique_items": "uniqueItems",
    "exclusive_minimum": "exclusiveMinimum", "max_length": "maxLength", "min_length": "minLength",
    "max_items": "maxItems", "min_items": "minItems", "max_properties": "maxProperties",
    "min_properties": "minProperties", "operation_id": "operationId",
}  # fmt: skip


def plain(message: Any) -> dict[str, Any]:
    """A decoded message as the JSON document has it."""
    found: dict[str, Any] = {}
    for field, value in message.ListFields():
        name = CAMEL.get(field.name, field.name)
        if field.name == "vendor_extension":
            found |= {entry.name: yaml.safe_load(entry.value.yaml) for entry in value}
        elif field.name == "type" and field.message_type is not None:
            [found["type"]] = value.value
        elif field.name == "items":
            [only] = value.schema
            found["items"] = plain(only)
        elif field.name == "properties":
            found["properties"] = {entry.name: plain(entry.value) for entry in value.additional_properties}
        elif field.name == "additional_properties":
            found["additionalProperties"] = (
                plain(value.schema) if value.WhichOneof("oneof") == "schema" else value.boolean
            )
        elif field.name == "default":
            found["default"] = yaml.safe_load(value.yaml)
        elif field.name == "enum":
            found["enum"] = [yaml.safe_load(entry.yaml) for entry in value]
        elif field.name == "parameters":
            found["parameters"] = [plain(leaf(item)) for item in value]
        elif field.name == "responses":
            found["responses"] = {entry.name: plain(entry.value.response) for entry in value.response_code}
        elif field.name == "schema" and "schema" in value.DESCRIPTOR.fields_by_name:
            found["schema"] = plain(value.schema)
        elif field.message_type is not None and not hasattr(value, "append"):
            found[name] = plain(value)
        elif hasattr(value, "append"):
            found[name] = list(value)
        else:
            found[name] = value
    return found


def leaf(message: Any) -> Any:
    """The innermost message of nested choices."""
    while "oneof" in message.DESCRIPTOR.oneofs_by_name:
        message = getattr(message, message.WhichOneof("oneof"))
    return message


def whole(document: Any) -> dict[str, Any]:
    return {
        "swagger": document.swagger,
        "info": plain(document.info),
        "paths": {entry.name: plain(entry.value) for entry in document.paths.path},
        "definitions": {entry.name: plain(entry.value) for entry in document.definitions.additional_properties},
    }


def without_nothing(value: Any) -> Any:
    """Drops what protobuf cannot tell from absence."""
    if isinstance(value, dict):
        found = {key: without_nothing(part) for key, part in value.items()}
        return {key: part for key, part in found.items() if part not in ("", False, [])}
    return [without_nothing(part) for part in value] if isinstance(value, list) else value


def test_the_protobuf_document_says_what_the_json_document_says(document_type: Any) -> None:
    what = served(BUILT_IN, to_versions(made(CRDS, crd())))
    decoded = whole(document_type.FromString(v2_proto(what)))
    expected = orjson.loads(v2_json(what))
    assert without_nothing(decoded["paths"]) == without_nothing(expected["paths"])
    for name, definition in expected["definitions"].items():
        assert without_nothing(decoded["definitions"][name]) == without_nothing(definition), name
    assert decoded["definitions"].keys() == expected["definitions"].keys()
    assert decoded["info"] == expected["info"]


def test_every_kind_of_constraint_is_carried(document_type: Any) -> None:
    schema = {
        "type": "string", "title": "t", "format": "f", "pattern": "p", "default": {"a": [1, None]}, "multipleOf": 2.5,
        "maximum": -1.5, "minimum": 300, "exclusiveMaximum": True, "exclusiveMinimum": True, "maxLength": 300,
        "minLength": 1, "maxItems": 2**40, "minItems": 3, "uniqueItems": True, "maxProperties": 4, "minProperties": 5,
        "required": ["a", "b"], "enum": ["x", 1, None], "x-note": {"k": ["v"]}, "description": "ä",
    }  # fmt: skip
    document = {
        "swagger": "2.0",
        "info": {"title": "t", "version": "v"},
        "paths": {},
        "definitions": {"A": schema, "B": {"additionalProperties": True}, "C": {"items": {"$ref": "#/definitions/A"}}},
    }
    assert whole(document_type.FromString(encode_document(document))) == document
