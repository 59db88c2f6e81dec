"""Expectations are those of upstream's strategicpatch documentation and tests."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from polder.api.errors import ApiError
from polder.api.schemas import named, schema_of
from polder.api.strategic import apply_strategic
from tests.unit.api.kit import KINDS

SCHEMA = schema_of(KINDS["pods"])
assert SCHEMA is not None


def patched(doc: Any, patch: Any) -> Any:
    before = copy.deepcopy((doc, patch))
    assert SCHEMA is not None
    found = apply_strategic(doc, patch, SCHEMA)
    assert (doc, patch) == before, "the arguments stay as they are"
    return found


def spec(**fields: Any) -> dict[str, Any]:
    return {"spec": fields}


def test_containers_merge_by_name_and_new_ones_are_added() -> None:
    doc = spec(containers=[{"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}]}, {"name": "b"}])
    patch = spec(containers=[{"name": "a", "image": "2", "env": [{"name": "Y", "value": "2"}]}])
    found = patched(doc, patch)["spec"]["containers"]
    assert found[1] == {"name": "b"}
    assert found[0]["image"] == "2"
    assert {v["name"] for v in found[0]["env"]} == {"X", "Y"}


def test_lists_without_a_strategy_are_replaced() -> None:
    doc = spec(containers=[{"name": "a", "command": ["x", "y"]}], tolerations=[{"key": "a"}])
    found = patched(doc, spec(containers=[{"name": "a", "command": ["z"]}], tolerations=[{"key": "b"}]))
    assert found["spec"]["containers"] == [{"name": "a", "command": ["z"]}]
    assert found["spec"]["tolerations"] == [{"key": "b"}]


def test_null_removes_a_field_and_a_map_entry() -> None:
    doc = {"metadata": {"labels": {"a": "1", "b": "2"}}, "spec": {"nodeName": "n"}}
    found = patched(doc, {"metadata": {"labels": {"a": None}}, "spec": {"nodeName": None}})
    assert found == {"metadata": {"labels": {"b": "2"}}, "spec": {}}


def test_an_item_is_deleted_by_its_key() -> None:
    doc = spec(containers=[{"name": "a"}, {"name": "b"}])
    found = patched(doc, spec(containers=[{"name": "a", "$patch": "delete"}]))
    assert found == spec(containers=[{"name": "b"}])


def test_a_list_is_replaced_by_directive() -> None:
    doc = spec(containers=[{"name": "a"}, {"name": "b"}])
    found = patched(doc, spec(containers=[{"name": "c"}, {"$patch": "replace"}]))
    assert found == spec(containers=[{"name": "c"}])


def test_a_map_is_replaced_or_emptied_by_directive() -> None:
    doc = {"metadata": {"labels": {"a": "1"}}, "spec": {"securityContext": {"runAsUser": 1, "fsGroup": 2}}}
    assert patched(doc, {"metadata": {"labels": {"$patch": "replace", "b": "2"}}})["metadata"]["labels"] == {"b": "2"}
    assert patched(doc, {"metadata": {"labels": {"$patch": "delete"}}})["metadata"]["labels"] == {}
    merged = patched(doc, spec(securityContext={"$patch": "merge", "runAsUser": 3}))
    assert merged["spec"]["securityContext"] == {"runAsUser": 3, "fsGroup": 2}


def test_primitive_lists_merge_and_lose_items_by_directive() -> None:
    doc = {"metadata": {"finalizers": ["a", "b", "c"]}}
    added = patched(doc, {"metadata": {"finalizers": ["d", "a"]}})["metadata"]["finalizers"]
    assert sorted(added) == ["a", "b", "c", "d"]
    gone = patched(doc, {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a", "c"]}})
    assert gone == {"metadata": {"finalizers": ["b"]}}


def test_the_order_of_items_follows_the_directive() -> None:
    doc = spec(containers=[{"name": "a"}, {"name": "b"}, {"name": "c"}])
    patch = {
        "spec": {
            "$setElementOrder/containers": [{"name": "c"}, {"name": "d"}, {"name": "a"}],
            "containers": [{"name": "d"}, {"name": "a", "image": "2"}],
        }
    }
    found = patched(doc, patch)["spec"]["containers"]
    names = [container["name"] for container in found]
    assert [name for name in names if name != "b"] == ["c", "d", "a"]
    assert "b" in names, "what only the server has stays"
    assert next(c for c in found if c["name"] == "a")["image"] == "2"


def test_the_order_alone_sorts_and_primitives_too() -> None:
    doc = {"metadata": {"finalizers": ["a", "b"]}, **spec(containers=[{"name": "a"}, {"name": "b"}])}
    patch = {
        "metadata": {"$setElementOrder/finalizers": ["b", "a"]},
        "spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]},
    }
    found = patched(doc, patch)
    assert found["metadata"]["finalizers"] == ["b", "a"]
    assert [c["name"] for c in found["spec"]["containers"]] == ["b", "a"]


def test_server_only_items_keep_their_place_between_ordered_ones() -> None:
    doc = spec(containers=[{"name": "server"}, {"name": "a"}, {"name": "b"}])
    patch = {"spec": {"$setElementOrder/containers": [{"name": "a"}, {"name": "b"}]}}
    assert [c["name"] for c in patched(doc, patch)["spec"]["containers"]] == ["server", "a", "b"]


def test_a_list_that_is_not_there_yet_is_taken_without_directives() -> None:
    patch = {
        "spec": {
            "$setElementOrder/containers": [{"name": "a"}],
            "containers": [{"name": "a", "env": [{"name": "X", "$patch": "delete"}]}],
        }
    }
    assert patched({"spec": {}}, patch) == spec(containers=[{"name": "a", "env": []}])


def test_a_deletion_by_kubectl_apply_with_its_order() -> None:
    doc = spec(containers=[{"name": "c", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]}])
    patch = spec(
        **{
            "$setElementOrder/containers": [{"name": "c"}],
            "containers": [
                {"name": "c", "$setElementOrder/env": [{"name": "B"}], "env": [{"name": "A", "$patch": "delete"}]}
            ],
        }
    )
    assert patched(doc, patch)["spec"]["containers"][0]["env"] == [{"name": "B", "value": "2"}]


def test_retained_keys_remove_the_others() -> None:
    doc = spec(volumes=[{"name": "v", "emptyDir": {}}])
    patch = spec(volumes=[{"name": "v", "$retainKeys": ["name", "configMap"], "configMap": {"name": "c"}}])
    assert patched(doc, patch) == spec(volumes=[{"name": "v", "configMap": {"name": "c"}}])


def test_retain_keys_without_a_set_key_make_no_sense() -> None:
    with pytest.raises(ApiError, match=r"\$retainKeys does not contain"):
        patched(spec(volumes=[{"name": "v"}]), spec(volumes=[{"name": "v", "$retainKeys": ["name"], "emptyDir": {}}]))


def test_ports_of_a_service_merge_by_number() -> None:
    doc = {"spec": {"ports": [{"port": 80, "name": "a"}, {"port": 81, "name": "b"}]}}
    found = apply_strategic(doc, {"spec": {"ports": [{"port": 80, "name": "x"}]}}, named("io.k8s.api.core.v1.Service"))
    assert found["spec"]["ports"] == [{"port": 80, "name": "x"}, {"port": 81, "name": "b"}]


@pytest.mark.parametrize(
    "patch",
    [
        {"$patch": "explode"},
        {"spec": {"containers": [{"image": "x"}]}},
        {"spec": {"containers": [{"name": "a", "$patch": "explode"}]}},
        {"spec": {"$setElementOrder/containers": "a"}},
        {"spec": {"$setElementOrder/containers": [{"name": "b"}], "containers": [{"name": "a"}]}},
        {"metadata": {"$deleteFromPrimitiveList/finalizers": "a"}},
    ],
)
def test_directives_that_make_no_sense_are_bad_requests(patch: Any) -> None:
    with pytest.raises(ApiError) as refused:
        patched({"metadata": {"finalizers": ["a"]}, "spec": {"containers": [{"name": "a"}]}}, patch)
    assert refused.value.code == 400
