from __future__ import annotations

import copy
from typing import Any

import pytest

from polder.api.crd import CustomVersion, to_versions
from polder.api.crd_status import is_established, next_status
from polder.api.errors import ApiError, FieldError, invalid
from polder.api.validation.crds import validate_crd, validate_crd_update
from tests.unit.api.kit import Raw, made

CRDS = "customresourcedefinitions.apiextensions.k8s.io"
NOW = "2026-01-01T00:00:00Z"
SPEC_SCHEMA: Raw = {
    "type": "object",
    "required": ["cronSpec"],
    "properties": {
        "cronSpec": {"type": "string", "pattern": r"^(\d+|\*)(/\d+)?(\s+(\d+|\*)(/\d+)?){4}$"},
        "replicas": {"type": "integer", "minimum": 1, "maximum": 10, "default": 1},
        "mode": {"type": "string", "enum": ["a", "b"]},
        "port": {"x-kubernetes-int-or-string": True},
        "open": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "note": {"type": "string", "nullable": True},
        "hosts": {
            "type": "array",
            "maxItems": 2,
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name"],
            "items": {
                "type": "object",
                "properties": {
                    "name": {"type": "string", "default": "none"},
                    "ip": {"type": "string", "format": "ipv4"},
                },
            },
        },
    },
}


def crd(schema: Raw | None = None, **version: Any) -> Raw:
    root = {"type": "object", "properties": {"spec": schema or SPEC_SCHEMA, "status": {"type": "object"}}}
    one = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": root}, **version}
    return {
        "metadata": {"name": "crontabs.stable.example.com"},
        "spec": {
            "group": "stable.example.com",
            "scope": "Namespaced",
            "names": {"plural": "crontabs", "kind": "CronTab", "shortNames": ["ct"]},
            "versions": [one],
        },
    }


def changed(path: str, value: Any) -> Raw:
    found = copy.deepcopy(crd())
    *parents, last = path.split(".")
    at: Any = found
    for part in parents:
        at = at[int(part)] if part.isdigit() else at[part]
    at[last] = value
    return found


def written(body: Raw) -> Raw:
    """The definition as it is written: with its defaults and a status."""
    found = made(CRDS, body)
    found["status"] = next_status(found, [], NOW)
    return found


def refused(body: Raw) -> list[str]:
    return [str(error) for error in validate_crd(written(body))]


def refused_update(new: Raw, old: Raw) -> list[str]:
    before = written(old)
    after = made(CRDS, new)
    after["status"] = next_status({**after, "status": before["status"]}, [], NOW)
    return [str(error) for error in validate_crd_update(after, before)]


def problems(version: CustomVersion, obj: Raw, old: Raw | None = None) -> list[FieldError]:
    return version.validate(obj, old).problems


def test_the_example_of_the_documentation_is_taken_and_defaulted() -> None:
    assert refused(crd()) == []
    names = made(CRDS, crd())["spec"]["names"]
    assert (names["singular"], names["listKind"]) == ("crontab", "CronTabList")


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (changed("metadata.name", "x.example.com"), 'must be spec.names.plural+"."+spec.group'),
        (changed("spec.group", "nodots"), "should be a domain with at least one dot"),
        (changed("spec.group", "polder.dev"), "spec.group: Forbidden: group polder.dev is served by Polder itself"),
        (changed("spec.group", "x.k8s.io"), 'must have approval annotation "api-approved.kubernetes.io"'),
        (changed("spec.scope", "Global"), 'spec.scope: Unsupported value: "Global"'),
        (changed("spec.versions", []), "must have exactly one version marked as storage version"),
        (changed("spec.names.plural", "CronTabs"), "a DNS-1035 label must consist of lower case"),
        (changed("spec.versions.0.storage", False), "must have exactly one version marked as storage version"),
        (changed("spec.versions.0.schema", {}), "spec.versions[0].schema.openAPIV3Schema: Required value"),
        (changed("spec.versions.0.subresources", {"scale": {"specReplicasPath": ".a", "statusReplicasPath": ".status.b"}}),
         'subresources.scale.specReplicasPath: Invalid value: ".a": should be a json path under .spec'),
        (changed("spec.conversion", {"strategy": "Webhook"}),
         "spec.conversion.webhookClientConfig: Required value: required when strategy is set to Webhook"),
        (changed("spec.conversion", {"strategy": "Webhook", "webhook": {"clientConfig": {"url": "http://a"},
                                                                       "conversionReviewVersions": ["v9"]}}),
         "must include at least one of v1, v1beta1"),
        (changed("spec.conversion", {"strategy": "Other"}), 'spec.conversion.strategy: Unsupported value: "Other"'),
        (changed("spec.versions.0.selectableFields", [{"jsonPath": ".spec.nothing"}]),
         "selectableFields[0].jsonPath: Invalid value: \".spec.nothing\": is an invalid path: does not refer to a valid field"),
        (changed("spec.versions.0.selectableFields", [{"jsonPath": ".spec.hosts"}]),
         "must point to a field of type string, boolean or integer"),
        (changed("spec.versions.0.deprecationWarning", "old"), "can only be set for deprecated versions"),
        (changed("spec.versions.0.additionalPrinterColumns", [{"name": "A", "type": "text", "jsonPath": ".a"}]),
         'additionalPrinterColumns[0].type: Invalid value: "text": must be one of boolean,date,integer,number,string'),
        (changed("spec.versions.0.additionalPrinterColumns", [{"name": "A", "type": "string", "jsonPath": ".a[?x]"}]),
         "additionalPrinterColumns[0].JSONPath: Invalid value"),
    ],
)  # fmt: skip
def test_definitions_are_checked(body: Raw, sentence: str) -> None:
    assert any(sentence in found for found in refused(body)), refused(body)


@pytest.mark.parametrize(
    ("schema", "sentence"),
    [
        ({"properties": {"a": {"type": "string"}}}, "properties[spec].type: Required value: must not be empty for"),
        ({"type": "object", "properties": {"a": {}}}, "properties[a].type: Required value"),
        ({"type": "text"}, 'type: Unsupported value: "text"'),
        ({"type": "array"}, "items: Required value"),
        ({"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": {"type": "string"}},
         "additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive"),
        ({"type": "object", "x-kubernetes-validations": [{"rule": "self.none == 1"}]}, "undefined field 'none'"),
        ({"type": "object", "properties": {"l": {"type": "array", "items": {
            "type": "object", "x-kubernetes-validations": [{"rule": "self == oldSelf"}]}}}},
         "oldSelf cannot be used on the uncorrelatable portion of the schema within"),
        ({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
          "items": {"type": "object", "properties": {"k": {"type": "string"}}}},
         "so it must have a default or be a required property"),
        ({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "object"}},
         "must be atomic as item of a list with x-kubernetes-list-type=set"),
        ({"type": "object", "allOf": [{"x-kubernetes-validations": [{"rule": "true"}]}]},
         "allOf[0].x-kubernetes-validations: Forbidden"),
        ({"type": "object", "anyOf": [{"properties": {"a": {"type": "string"}}}]},
         "anyOf[0].properties[a].type: Forbidden: must be empty to be structural"),
        ({"type": "string", "pattern": "("}, "pattern: Invalid value"),
        ({"type": "string", "pattern": "(?=x)"}, "pattern: Invalid value"),
        ({"type": "integer", "default": "x"}, "default: Invalid value"),
        ({"type": "object", "properties": {"a": {"type": "string"}}, "default": {"b": 1}}, "must not have unknown fields"),
        ({"$ref": "#/definitions/x"}, "$ref: Forbidden"),
        ({"type": "array", "uniqueItems": True, "items": {"type": "string"}}, "uniqueItems: Forbidden"),
    ],
)  # fmt: skip
def test_schemas_must_be_structural(schema: Raw, sentence: str) -> None:
    found = refused(crd(schema))
    assert any(sentence in one for one in found), found
    assert all(one.startswith("spec.versions[0].schema.openAPIV3Schema.properties[spec]") for one in found)


def test_names_and_scope_stay_and_stored_versions_are_kept() -> None:
    assert refused_update(changed("spec.scope", "Cluster"), crd()) == [
        'spec.scope: Invalid value: "Cluster": field is immutable'
    ]
    renamed = changed("spec.versions.0.name", "v2")
    assert "status.storedVersions[0]" in refused_update(renamed, crd())[-1]


def test_an_unchanged_definition_is_not_checked_again() -> None:
    broken = changed("spec.group", "nodots")
    assert refused_update(broken, broken) == []


def rival(**names: Any) -> Raw:
    found = made(CRDS, crd())
    found["metadata"]["name"] = "others.stable.example.com"
    found["spec"]["names"] = {
        "plural": "others",
        "singular": "other",
        "kind": "Other",
        "listKind": "OtherList",
        **names,
    }
    return found


@pytest.mark.parametrize(
    ("names", "reason", "message"),
    [
        ({"kind": "CronTab"}, "KindConflict", '"CronTab" is already in use'),
        ({"listKind": "CronTabList"}, "ListKindConflict", '"CronTabList" is already in use'),
        ({"singular": "crontab"}, "SingularConflict", '"crontab" is already in use'),
        ({"shortNames": ["x", "ct"]}, "ShortNamesConflict", '"ct" is already in use'),
        ({"plural": "ct"}, "PluralConflict", '"ct" is already in use'),
    ],
)
def test_a_definition_is_established_unless_a_name_is_taken(names: Raw, reason: str, message: str) -> None:
    one = written(crd())
    assert is_established(one)
    assert one["status"]["storedVersions"] == ["v1"]
    assert one["status"]["acceptedNames"]["kind"] == "CronTab"
    clash = next_status(rival(**names), [one], NOW)
    assert not is_established({"status": clash})
    first = clash["conditions"][0]
    assert (first["type"], first["reason"], first["message"]) == ("NamesAccepted", reason, message)


def test_a_conflict_later_on_leaves_what_was_accepted() -> None:
    one = written(crd())
    two = rival()
    two["status"] = next_status(two, [one], NOW)
    assert is_established(two)
    two["spec"]["names"]["shortNames"] = ["ct"]
    again = next_status(two, [one], "2027-01-01T00:00:00Z")
    assert is_established({"status": again})
    assert {c["type"]: c["status"] for c in again["conditions"]} == {"NamesAccepted": "False", "Established": "True"}
    assert "shortNames" not in again["acceptedNames"]


def test_an_unchanged_condition_keeps_its_time() -> None:
    one = written(crd())
    again = next_status(one, [], "2027-01-01T00:00:00Z")
    assert {c["lastTransitionTime"] for c in again["conditions"]} == {NOW}


def test_served_versions_become_kinds() -> None:
    body = made(CRDS, crd(subresources={"status": {}}))
    body["spec"]["versions"].append({**body["spec"]["versions"][0], "name": "v2", "served": False, "storage": False})
    kind = to_versions(body)[0].kind
    assert len(to_versions(body)) == 1
    assert (kind.resource, kind.version, kind.kind, kind.short, kind.subresources) == (
        "crontabs.stable.example.com", "v1", "CronTab", ("ct",), ("status",),
    )  # fmt: skip


def test_equal_schemas_are_one_object_in_memory() -> None:
    assert to_versions(made(CRDS, crd()))[0].schema is to_versions(made(CRDS, crd()))[0].schema


# --- objects ----------------------------------------------------------------------------------------------------------

[VERSION] = to_versions(made(CRDS, crd()))


def obj(**spec: Any) -> Raw:
    return {
        "apiVersion": "stable.example.com/v1",
        "kind": "CronTab",
        "metadata": {"name": "a", "labels": {"x": "y"}},
        "spec": {"cronSpec": "* * * * */5", **spec},
    }


def test_objects_are_pruned_and_defaulted() -> None:
    given = {**obj(foo=1, open={"any": {"thing": 1}}, hosts=[{"name": "a", "extra": 1}]), "bar": 1}
    before = copy.deepcopy(given)
    found, unknown = VERSION.prune(given)
    assert given == before
    assert unknown == ("bar", "spec.foo", "spec.hosts[0].extra")
    assert found == obj(open={"any": {"thing": 1}}, hosts=[{"name": "a"}], replicas=1)


def test_null_counts_as_absent_where_a_default_stands() -> None:
    assert VERSION.prune(obj(replicas=None))[0]["spec"]["replicas"] == 1


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ({"cronSpec": "often"}, 'spec.cronSpec: Invalid value: "often": spec.cronSpec in body should match \''),
        (
            {"cronSpec": 5},
            'spec.cronSpec: Invalid value: "integer": spec.cronSpec in body must be of type string: "integer"',
        ),
        (
            {"replicas": 0},
            "spec.replicas: Invalid value: 0: spec.replicas in body should be greater than or equal to 1",
        ),
        ({"replicas": 11}, "should be less than or equal to 10"),
        ({"replicas": 1.5}, 'spec.replicas in body must be of type integer: "number"'),
        ({"mode": "c"}, 'spec.mode: Unsupported value: "c": supported values: "a", "b"'),
        ({"port": True}, 'spec.port in body must be of type integer,string: "boolean"'),
        ({"labels": {"a": 1}}, 'spec.labels.a in body must be of type string: "integer"'),
        ({"hosts": [{"ip": "x"}]}, "spec.hosts[0].ip in body must be of type ipv4"),
        ({"hosts": [{}, {}, {}]}, "spec.hosts: Too many: 3: must have at most 2 items"),
        ({"hosts": [{"name": "a"}, {"name": "a"}]}, 'spec.hosts[1]: Duplicate value: {"name":"a"}'),
    ],
)
def test_objects_are_validated_in_upstreams_words(spec: Raw, sentence: str) -> None:
    found = [str(error) for error in problems(VERSION, VERSION.prune(obj(**spec))[0])]
    assert any(sentence in one for one in found), found


def test_sound_objects_are_taken_and_missing_fields_named() -> None:
    assert problems(VERSION, obj(port="http", replicas=3, note=None, mode="a")) == []
    error = invalid(VERSION.kind, "a", problems(VERSION, {**obj(), "spec": {}}))
    assert error.message == 'CronTab.stable.example.com "a" is invalid: spec.cronSpec: Required value'


def test_a_tenants_pattern_cannot_stall_the_server() -> None:
    [version] = to_versions(
        made(CRDS, crd({"type": "object", "properties": {"a": {"type": "string", "pattern": "^(a+)+$"}}}))
    )
    found = problems(version, {"metadata": {"name": "x"}, "spec": {"a": "a" * 20_000 + "!"}})
    assert len(found) == 1, "answered in linear time"


def test_junctors_narrow() -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        "oneOf": [{"required": ["a"]}, {"required": ["b"]}],
        "not": {"properties": {"a": {"enum": [7]}}, "required": ["a"]},
    }
    [version] = to_versions(made(CRDS, crd(schema)))

    def sentences(**spec: int) -> list[str]:
        return [str(e) for e in problems(version, {"metadata": {"name": "x"}, "spec": spec})]

    assert sentences(a=1) == []
    assert "one and only one schema (oneOf). Found 2 valid" in sentences(a=1, b=1)[0]
    assert "Found none valid" in sentences()[0]
    assert "must not validate the schema (not)" in sentences(a=7)[0]


@pytest.mark.parametrize(
    "broken", [{"type": 5}, {"properties": [1]}, {"pattern": 3}, {"allOf": "x"}, {"maximum": "a"}, "x"]
)
def test_schemas_of_items_have_the_form_of_schemas(broken: Any) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "array", "items": broken}}}
    with pytest.raises(ApiError) as refused_form:
        made(CRDS, crd(schema))
    assert refused_form.value.code == 400


def test_a_list_of_schemas_and_booleans_are_told_apart() -> None:
    with pytest.raises(ApiError, match="cannot unmarshal array"):
        made(CRDS, crd({"type": "array", "items": [{"type": "string"}]}))
    assert refused(crd({"type": "object", "additionalProperties": True})) == []


JUNK = [
    None,
    True,
    0,
    -1,
    2**63,
    1e308,
    "",
    "x",
    "* * * * *",
    [],
    {},
    [None],
    [[1]],
    {"a": None},
    {"name": 1},
    [{"name": []}],
]


def test_any_object_of_a_custom_kind_is_taken_or_refused() -> None:
    for key in SPEC_SCHEMA["properties"]:
        for value in JUNK:
            found, _ = VERSION.prune(obj(**{key: value}))
            for error in problems(VERSION, found):
                assert str(error).startswith("spec.")
    for value in JUNK:
        found, _ = VERSION.prune({**obj(), "spec": value, "status": value})
        problems(VERSION, found)
