from __future__ import annotations

from typing import Any

import orjson
import pytest

from polder.api.crd import to_versions
from polder.api.kinds import BUILT_IN
from polder.api.openapi import Served, served, v2_json, v3_index, v3_json
from tests.unit.api.kit import KINDS, Raw, made
from tests.unit.api.test_crd import CRDS, crd


@pytest.fixture(scope="module")
def what() -> Served:
    return served(BUILT_IN, to_versions(made(CRDS, crd())))


@pytest.fixture(scope="module")
def v2(what: Served) -> Raw:
    found: Raw = orjson.loads(v2_json(what))
    return found


def references(value: Any) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*map(references, value.values()))
    return set().union(*map(references, value)) if isinstance(value, list) else set()


def test_every_reference_leads_to_a_definition(what: Served, v2: Raw) -> None:
    assert references(v2) <= {f"#/definitions/{name}" for name in v2["definitions"]}
    for group, version in (("", "v1"), ("polder.dev", "v1alpha1"), ("stable.example.com", "v1")):
        found = v3_json(what.part(group, version))
        assert found is not None
        document = orjson.loads(found)
        assert references(document) <= {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}


def test_every_kind_and_its_list_can_be_found_by_group_version_and_kind(v2: Raw) -> None:
    marked = {
        (entry["group"], entry["version"], entry["kind"])
        for definition in v2["definitions"].values()
        for entry in definition.get("x-kubernetes-group-version-kind", ())
    }
    for kind in BUILT_IN:
        assert (kind.group, kind.version, kind.kind) in marked
        assert (kind.group, kind.version, f"{kind.kind}List") in marked
    assert ("stable.example.com", "v1", "CronTab") in marked


def test_patches_say_that_they_take_a_dry_run_and_validate_fields(v2: Raw) -> None:
    for kind in BUILT_IN:
        if "patch" not in kind.verbs:
            continue
        place = "/namespaces/{namespace}" if kind.namespaced else ""
        patch = v2["paths"][f"{kind.path}{place}/{kind.plural}/{{name}}"]["patch"]
        assert patch["x-kubernetes-action"] == "patch"
        assert patch["x-kubernetes-group-version-kind"]["kind"] == kind.kind
        assert {"dryRun", "fieldValidation"} <= {parameter["name"] for parameter in patch["parameters"]}


def test_custom_kinds_take_no_strategic_merge(v2: Raw) -> None:
    patch = v2["paths"]["/apis/stable.example.com/v1/namespaces/{namespace}/crontabs/{name}"]["patch"]
    json = ["application/json-patch+json", "application/merge-patch+json"]
    assert patch["consumes"] == [*json, "application/apply-patch+yaml"]


def test_optional_fields_have_one_type_and_numbers_or_names_say_so(v2: Raw) -> None:
    definitions = v2["definitions"]
    assert definitions["io.k8s.api.core.v1.Container"]["properties"]["image"]["type"] == "string"
    assert definitions["io.k8s.apimachinery.pkg.util.intstr.IntOrString"]["format"] == "int-or-string"
    containers = definitions["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"]
    assert containers["x-kubernetes-patch-merge-key"] == "name"
    assert "enum" not in definitions["io.k8s.api.core.v1.Pod"]["properties"]["kind"]


def test_operations_have_names_of_their_own(v2: Raw) -> None:
    names = [
        operation["operationId"]
        for path in v2["paths"].values()
        for method, operation in path.items()
        if method != "parameters"
    ]
    assert len(names) == len(set(names))


def test_version_2_leaves_out_what_its_readers_cannot_take(v2: Raw) -> None:
    spec = v2["definitions"]["com.example.stable.v1.CronTab"]["properties"]["spec"]["properties"]
    assert "type" not in spec["note"], "nullable has no type there"
    assert "type" not in spec["port"]
    assert "properties" not in spec["open"]


def test_version_3_has_custom_schemas_whole(what: Served) -> None:
    found = v3_json(what.part("stable.example.com", "v1"))
    assert found is not None
    spec = orjson.loads(found)["components"]["schemas"]["com.example.stable.v1.CronTab"]["properties"]["spec"]
    assert spec["properties"]["note"] == {"type": "string", "nullable": True}
    assert spec["required"] == ["cronSpec"]
    assert not what.part("stable.example.com", "v2").custom


def test_the_index_names_every_group_version_below_the_callers_prefix(what: Served) -> None:
    paths = orjson.loads(v3_index(what, "/tenants/acme"))["paths"]
    served = {kind.path.removeprefix("/") for kind in BUILT_IN}
    assert set(paths) == served | {"apis/stable.example.com/v1"}
    assert paths["api/v1"]["serverRelativeURL"].startswith("/tenants/acme/openapi/v3/api/v1?hash=")


def test_equal_kinds_share_documents_and_others_do_not(what: Served) -> None:
    again = served(BUILT_IN, to_versions(made(CRDS, crd())))
    assert again.digest == what.digest and v2_json(again) == v2_json(what)
    other = served(BUILT_IN, to_versions(made(CRDS, crd({"type": "object"}))))
    assert v2_json(other) != v2_json(what)
    assert other.digest != what.digest
    assert other.part("", "v1").digest == what.part("", "v1").digest, "what a tenant's own kinds do not touch is shared"


def test_a_part_that_is_not_served_is_absent() -> None:
    small = served([KINDS["configmaps"]], [])
    document = orjson.loads(v2_json(small))
    assert "io.k8s.api.core.v1.Pod" not in document["definitions"]
    assert "/api/v1/pods" not in document["paths"]


def test_every_field_of_our_own_kinds_is_explained(v2: Raw) -> None:
    shared = {"conditions", "apiVersion", "kind", "metadata", "spec", "status"}
    for name, definition in v2["definitions"].items():
        if name.startswith("dev.polder.") and not name.endswith(("List", ".Condition")):
            silent = [
                key
                for key, part in definition["properties"].items()
                if key not in shared and not part.get("description")
            ]
            assert silent == [], name


def test_clients_that_decode_a_document_lose_nothing(what: Served) -> None:
    """They take an empty list of parameters for none."""
    for group, version in (("", "v1"), ("stable.example.com", "v1")):
        document = orjson.loads(v3_json(what.part(group, version)) or b"{}")
        for item in document["paths"].values():
            assert [] not in [part.get("parameters") for part in (item, *item.values()) if isinstance(part, dict)]
