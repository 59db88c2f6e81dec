"""Custom kinds end to end: schemas, defaults, rules in CEL, ratcheting, versions, selectable fields, deletion.

Transcribes the behaviours that upstream's test/e2e/apimachinery/{custom_resource_definition,custom_resource_validation_rules,
crd_validation_ratcheting,crd_selectable_fields,field_validation,custom_resource_defaulting}.go check.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from tests.contract.customkit import CRDS, GROUP, answers, crd, define, fields, integer, path, redefine, version, widget


async def test_defaults_reach_what_was_stored_before(admin: Any) -> None:
    await define(admin, crd(version(spec=fields(a={"type": "string"}, b={"type": "string"}))))
    assert (await admin.post(path(), widget("old", {"a": "x"}))).status == 201

    def with_default(found: Any) -> None:
        schema = found["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        schema["properties"]["spec"]["properties"]["a"]["default"] = "A"
        schema["properties"]["spec"]["properties"]["b"]["default"] = "B"

    await redefine(admin, with_default)
    assert (await admin.get(path("old"))).json["spec"] == {"a": "x", "b": "B"}
    assert [o["spec"] for o in (await admin.get(path())).json["items"]] == [{"a": "x", "b": "B"}]
    assert (await admin.post(path(), widget("new"))).json["spec"] == {"a": "A", "b": "B"}
    nothing = await admin.post(path(), widget("null", {"a": None}))
    assert nothing.json["spec"] == {"a": "A", "b": "B"}


async def test_unknown_fields_are_cut_off_warned_of_or_refused(admin: Any) -> None:
    await define(admin, crd(version(spec=fields(a={"type": "string"}))))
    body = widget("x", {"a": "1", "b": 2}, metadata={"unknownMeta": 1})
    strict = await admin.post(f"{path()}?fieldValidation=Strict", body)
    assert strict.status == 400
    assert 'unknown field "metadata.unknownMeta"' in strict.json["message"]
    assert 'unknown field "spec.b"' in strict.json["message"]
    warned = await admin.post(path(), body)
    assert warned.status == 201 and warned.json["spec"] == {"a": "1"}
    assert "unknownMeta" not in warned.json["metadata"]
    assert any('unknown field \\"spec.b\\"' in w for w in warned.headers.getall("Warning"))


async def test_rules_say_what_is_wrong_where(admin: Any) -> None:
    spec = fields(
        low=integer(), high=integer(), name={"type": "string", "maxLength": 20},
        tags={"type": "array", "maxItems": 5, "items": {"type": "string", "maxLength": 10}},
    )  # fmt: skip
    spec["x-kubernetes-validations"] = [
        {"rule": "self.low <= self.high", "message": "low must not exceed high"},
        {"rule": "!has(self.name) || self.name.startsWith('w-')", "fieldPath": ".name", "reason": "FieldValueForbidden",
         "messageExpression": "'no good name: ' + self.name"},
    ]  # fmt: skip
    spec["properties"]["tags"]["x-kubernetes-validations"] = [{"rule": "self.all(t, t != 'bad')"}]
    await define(admin, crd(version(spec=spec)))
    refused = await admin.post(path(), widget("x", {"low": 3, "high": 1, "name": "a", "tags": ["bad"]}))
    assert refused.status == 422
    causes = {cause["field"]: cause for cause in refused.json["details"]["causes"]}
    assert causes["spec"]["message"] == 'Invalid value: "object": low must not exceed high'
    assert causes["spec.name"] == {
        "reason": "FieldValueForbidden", "message": "Forbidden: no good name: a", "field": "spec.name",
    }  # fmt: skip
    assert causes["spec.tags"]["message"] == "Invalid value: \"array\": failed rule: self.all(t, t != 'bad')"
    missing = await admin.post(path(), widget("x", {"low": 3}))
    assert "no such key: high evaluating rule: low must not exceed high" in missing.json["message"]
    assert (await admin.post(path(), widget("x", {"low": 1, "high": 3, "tags": ["good"]}))).status == 201
    blocked = await admin.post(path(), widget("y", {"low": "no", "high": 3}))
    assert "some validation rules were not checked" in blocked.json["message"]


async def test_transition_rules_look_at_what_stood_before(admin: Any) -> None:
    spec = fields(size=integer(), note={"type": "string"})
    spec["properties"]["size"]["x-kubernetes-validations"] = [
        {"rule": "self >= oldSelf", "message": "size never shrinks"},
        {"rule": "oldSelf.hasValue() || self > 0", "optionalOldSelf": True, "message": "size begins above 0"},
    ]
    await define(admin, crd(version(spec=spec)))
    assert "size begins above 0" in (await admin.post(path(), widget("x", {"size": 0}))).json["message"]
    assert (await admin.post(path(), widget("x", {"size": 3}))).status == 201
    assert (await admin.patch(path("x"), {"spec": {"size": 4}})).status == 200
    smaller = await admin.patch(path("x"), {"spec": {"size": 2}})
    assert smaller.status == 422 and "size never shrinks" in smaller.json["message"]
    assert (await admin.patch(path("x"), {"spec": {"note": "n"}})).status == 200


async def test_definitions_with_bad_rules_are_refused(admin: Any) -> None:
    def ruled(rule: str, **more: Any) -> Any:
        spec = fields(a=integer(), l={"type": "array", "items": {"type": "string"}})
        spec["x-kubernetes-validations"] = [{"rule": rule, **more}]
        return crd(version(spec=spec))

    for rule, words in {
        "self.b == 1": "undefined field 'b'",
        "self.a": "cel expression must evaluate to a bool",
        "self.a == 'x'": "found no matching overload for '_==_' applied to '(int, string)'",
        "self.": "Syntax error",
        "self.l.all(x, self.l.all(y, x == y))": "estimated rule cost exceeds budget by factor of more than 100x",
        "": "rule is not specified",
    }.items():
        made = await admin.post(CRDS, ruled(rule))
        assert made.status == 422 and words in made.json["message"], (rule, made.body)
    old = await admin.post(CRDS, ruled("self.a > 1", optionalOldSelf=True))
    assert "may not be set if oldSelf is not used in rule" in old.json["message"]


async def test_what_did_not_change_is_not_held_against_a_stricter_schema(admin: Any) -> None:
    spec = fields(
        a={"type": "string"}, b={"type": "string"},
        hosts={"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
               "items": {**fields(name={"type": "string"}, port=integer()), "required": ["name"]}},
    )  # fmt: skip
    await define(admin, crd(version(spec=spec)))
    old = {"a": "long", "b": "x", "hosts": [{"name": "one", "port": 1}, {"name": "two", "port": 2}]}
    assert (await admin.post(path(), widget("w", old))).status == 201

    def stricter(found: Any) -> None:
        properties = found["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
        properties["a"]["maxLength"] = 2
        properties["hosts"]["items"]["properties"]["port"]["minimum"] = 10
        properties["b"]["x-kubernetes-validations"] = [{"rule": "self != 'x'", "message": "b is x"}]

    await redefine(admin, stricter)
    assert (await admin.post(path(), widget("n", old))).status == 422
    same = await admin.patch(path("w"), {"metadata": {"labels": {"k": "v"}}})
    assert same.status == 200, same.body
    more = [*old["hosts"], {"name": "three", "port": 30}]  # type: ignore[misc]
    assert (await admin.patch(path("w"), {"spec": {"hosts": list(reversed(more))}})).status == 200
    worse = await admin.patch(path("w"), {"spec": {"hosts": [{"name": "one", "port": 3}, more[1]]}})
    assert worse.status == 422 and "spec.hosts[0].port" in worse.json["message"]
    assert (await admin.patch(path("w"), {"spec": {"a": "longer"}})).status == 422


async def test_objects_are_selected_by_declared_fields(admin: Any) -> None:
    spec = fields(color={"type": "string"}, on={"type": "boolean"}, size=integer())
    selectable = [{"jsonPath": ".spec.color"}, {"jsonPath": ".spec.on"}, {"jsonPath": ".spec.size"}]
    await define(admin, crd(version(spec=spec, selectableFields=selectable)))
    for name, body in {
        "r": {"color": "red", "on": True, "size": 1},
        "b": {"color": "blue", "size": 2},
        "n": {},
    }.items():
        assert (await admin.post(path(), widget(name, body))).status == 201

    async def chosen(selector: str) -> list[str]:
        found = await admin.get(f"{path()}?fieldSelector={selector}")
        assert found.status == 200, found.body
        return [o["metadata"]["name"] for o in found.json["items"]]

    assert await chosen("spec.color=red") == ["r"]
    assert await chosen("spec.color!=red") == ["b", "n"]
    assert await chosen("spec.on=true,spec.size=1") == ["r"]
    assert await chosen("spec.color=") == ["n"]
    refused = await admin.get(f"{path()}?fieldSelector=spec.other=1")
    assert refused.status == 400 and "field label not supported: spec.other" in refused.json["message"]
    async with admin.watch(f"{path()}?watch=1&fieldSelector=spec.color%3Dred&resourceVersion=0") as events:
        first = json.loads(await events.content.readline())
        assert (first["type"], first["object"]["metadata"]["name"]) == ("ADDED", "r")
        await admin.patch(path("r"), {"spec": {"color": "green"}})
        assert json.loads(await events.content.readline())["type"] == "DELETED"


async def test_versions_of_one_kind_share_their_rows(admin: Any) -> None:
    second = version("v2", fields(a={"type": "string"}, b={"type": "string", "default": "B"}), storage=False)
    await define(admin, crd(version("v1", fields(a={"type": "string"}), deprecated=True), second))
    made = await admin.post(path(), widget("x", {"a": "1"}))
    assert made.status == 201
    assert f"{GROUP}/v1 Widget is deprecated" in made.headers["Warning"]
    seen = (await admin.get(path("x", api="v2"))).json
    assert (seen["apiVersion"], seen["spec"]) == (f"{GROUP}/v2", {"a": "1", "b": "B"})
    put = await admin.put(path("x", api="v2"), {**seen, "spec": {"a": "2", "b": "C"}})
    assert put.status == 200 and put.json["apiVersion"] == f"{GROUP}/v2"
    assert (await admin.get(path("x"))).json["spec"] == {"a": "2"}

    def flip(found: Any) -> None:
        found["spec"]["versions"][0]["storage"] = False
        found["spec"]["versions"][1]["storage"] = True

    assert (await redefine(admin, flip))["status"]["storedVersions"] == ["v1", "v2"]
    name = f"{CRDS}/widgets.{GROUP}"
    only = (await admin.get(name)).json
    only["spec"]["versions"] = only["spec"]["versions"][1:]
    early = await admin.put(name, only)
    assert (
        early.status == 422
        and "missing from spec.versions; v1 was previously a storage version" in early.json["message"]
    )
    fresh = (await admin.get(name)).json
    fresh["status"]["storedVersions"] = ["v2"]
    assert (await admin.put(f"{name}/status", fresh)).status == 200

    def drop(found: Any) -> None:
        found["spec"]["versions"] = found["spec"]["versions"][1:]

    await redefine(admin, drop)
    assert (await admin.get(path())).status == 404
    assert (await admin.get(path("x", api="v2"))).json["spec"] == {"a": "2", "b": "C"}


async def test_watches_of_a_kind_that_changed_end(admin: Any) -> None:
    await define(admin, crd(version(), version("v2", storage=False)))
    async with admin.watch(f"{path(api='v2')}?watch=1") as events:

        def unserve(found: Any) -> None:
            found["spec"]["versions"][1]["served"] = False

        await redefine(admin, unserve)
        async with asyncio.timeout(5):
            assert await events.content.read() == b""
    assert (await admin.get(path(api="v2"))).status == 404


async def test_names_that_become_free_are_given_to_who_waits(admin: Any) -> None:
    await define(admin, crd(plural="firsts", kind="Shared"))
    second = await define(admin, crd(plural="seconds", kind="Shared"))
    conditions = {c["type"]: c for c in second["status"]["conditions"]}
    assert (conditions["NamesAccepted"]["status"], conditions["NamesAccepted"]["reason"]) == (
        "False",
        "ListKindConflict",
    )
    assert conditions["Established"]["status"] == "False"
    assert (await admin.get(path(plural="seconds"))).status == 404
    await admin.delete(f"{CRDS}/firsts.{GROUP}")
    await answers(admin, path(plural="seconds"), 200)
    found = (await admin.get(f"{CRDS}/seconds.{GROUP}")).json["status"]
    assert found["acceptedNames"]["kind"] == "Shared"


async def test_a_definition_waits_for_its_objects(admin: Any) -> None:
    await define(admin, crd())
    kept = widget("kept", metadata={"finalizers": ["example.com/wait"]})
    assert (await admin.post(path(), kept)).status == 201
    await admin.delete(f"{CRDS}/widgets.{GROUP}")
    async with asyncio.timeout(5):
        while True:
            found = (await admin.get(f"{CRDS}/widgets.{GROUP}")).json
            terminating = [c for c in found["status"]["conditions"] if c["type"] == "Terminating"]
            if terminating:
                break
            await asyncio.sleep(0.02)
    assert (terminating[0]["status"], terminating[0]["reason"]) == ("True", "InstanceDeletionInProgress")
    late = await admin.post(path(), widget("late"))
    assert late.status == 405
    assert (await admin.patch(path("kept"), {"metadata": {"finalizers": None}})).status == 200
    await answers(admin, f"{CRDS}/widgets.{GROUP}", 404)


async def test_lists_of_sets_and_maps_hold_nothing_twice(admin: Any) -> None:
    spec = fields(
        names={"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        inner={"type": "object", "x-kubernetes-embedded-resource": True, "x-kubernetes-preserve-unknown-fields": True},
    )
    await define(admin, crd(version(spec=spec)))
    twice = await admin.post(path(), widget("x", {"names": ["a", "b", "a"]}))
    assert 'spec.names[2]: Duplicate value: "a"' in twice.json["message"]
    bare = await admin.post(path(), widget("x", {"inner": {"spec": {}}}))
    assert "spec.inner.apiVersion: Required value: must not be empty" in bare.json["message"]
    inner = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "wrong": 1}, "spec": {"any": 1}}
    made = await admin.post(path(), widget("x", {"inner": inner}))
    assert made.status == 201 and made.json["spec"]["inner"]["metadata"] == {"name": "p"}
    assert made.json["spec"]["inner"]["spec"] == {"any": 1}


async def test_nothing_of_the_servers_own_is_shadowed(admin: Any) -> None:
    for group in ("apps", "polder.dev", "networking.k8s.io", "example"):
        body = crd(group=group)
        made = await admin.post(CRDS, body)
        assert made.status == 422, group
    protected = crd(group="new.k8s.io")
    assert "protected groups must have approval annotation" in (await admin.post(CRDS, protected)).json["message"]
    protected["metadata"]["annotations"] = {"api-approved.kubernetes.io": "unapproved, for a test"}
    made = await define(admin, protected)
    approval = [c for c in made["status"]["conditions"] if c["type"] == "KubernetesAPIApprovalPolicyConformant"]
    assert approval[0]["reason"] == "UnapprovedAnnotation"
