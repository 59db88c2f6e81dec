from __future__ import annotations

from typing import Any

import pytest

from polder.api.errors import ApiError
from polder.api.patch import PatchType, apply_json, apply_merge, apply_patch, patch_type
from polder.api.schemas import schema_of
from tests.unit.api.kit import KINDS

PODS = schema_of(KINDS["pods"])


@pytest.mark.parametrize(
    ("doc", "operations", "expected"),
    [
        ({"a": 1}, [{"op": "add", "path": "/b", "value": 2}], {"a": 1, "b": 2}),
        ({"l": [1, 3]}, [{"op": "add", "path": "/l/1", "value": 2}], {"l": [1, 2, 3]}),
        ({"l": [1]}, [{"op": "add", "path": "/l/-", "value": 2}], {"l": [1, 2]}),
        ({"l": [1]}, [{"op": "add", "path": "/l/1", "value": 2}], {"l": [1, 2]}),
        ({"a": 1, "b": 2}, [{"op": "remove", "path": "/a"}], {"b": 2}),
        ({"l": [1, 2, 3]}, [{"op": "remove", "path": "/l/1"}], {"l": [1, 3]}),
        ({"a": 1}, [{"op": "replace", "path": "/a", "value": None}], {"a": None}),
        ({"a": {"b": 1}}, [{"op": "move", "from": "/a/b", "path": "/c"}], {"a": {}, "c": 1}),
        ({"l": [1, 2, 3]}, [{"op": "move", "from": "/l/0", "path": "/l/2"}], {"l": [2, 3, 1]}),
        ({"a": [1]}, [{"op": "copy", "from": "/a", "path": "/b"}, {"op": "add", "path": "/b/-", "value": 2}],
         {"a": [1], "b": [1, 2]}),
        ({"a": 1}, [{"op": "test", "path": "/a", "value": 1}], {"a": 1}),
        ({"a": 1.0}, [{"op": "test", "path": "/a", "value": 1}], {"a": 1.0}),
        ({"a": 1}, [{"op": "test", "path": "/b", "value": None}], {"a": 1}),
        ({"a/b": 1, "m~n": 2}, [{"op": "remove", "path": "/a~1b"}, {"op": "remove", "path": "/m~0n"}], {}),
        ({"": 1}, [{"op": "replace", "path": "/", "value": 2}], {"": 2}),
        ({"a": 1}, [{"op": "replace", "path": "", "value": {"b": 1}}], {"b": 1}),
        ({"a": {"x": [{"y": 1}]}}, [{"op": "replace", "path": "/a/x/0/y", "value": 2}], {"a": {"x": [{"y": 2}]}}),
    ],
)  # fmt: skip
def test_json_patch_does_what_rfc_6902_says(doc: Any, operations: Any, expected: Any) -> None:
    assert apply_json(doc, operations) == expected


@pytest.mark.parametrize(
    ("operation", "code"),
    [
        ({"op": "remove", "path": "/missing"}, 422),
        ({"op": "replace", "path": "/missing", "value": 1}, 422),
        ({"op": "add", "path": "/missing/x", "value": 1}, 422),
        ({"op": "add", "path": "/l/9", "value": 1}, 422),
        ({"op": "add", "path": "/l/01", "value": 1}, 422),
        ({"op": "add", "path": "/l/-1", "value": 1}, 422),
        ({"op": "add", "path": "/a/x", "value": 1}, 422),
        ({"op": "test", "path": "/a", "value": 2}, 422),
        ({"op": "test", "path": "/a", "value": True}, 422),
        ({"op": "test", "path": "/a", "value": "1"}, 422),
        ({"op": "move", "from": "/o", "path": "/o/x"}, 422),
        ({"op": "remove", "path": ""}, 422),
        ({"op": "replace", "path": "", "value": []}, 422),
        ({"op": "add", "path": "/x"}, 400),
        ({"op": "add", "path": "x", "value": 1}, 400),
        ({"op": "spell", "path": "/x"}, 400),
        ({"op": "copy", "path": "/x"}, 400),
        ({"path": "/x"}, 400),
    ],
)
def test_what_a_json_patch_cannot_do_is_refused_and_changes_nothing(operation: Any, code: int) -> None:
    doc = {"a": 1, "l": [1], "o": {}}
    with pytest.raises(ApiError) as refused:
        apply_json(doc, [{"op": "add", "path": "/z", "value": 1}, operation])
    assert refused.value.code == code
    assert "causes" not in refused.value.details  # kubectl would print them instead of the sentence, after ": :"
    assert doc == {"a": 1, "l": [1], "o": {}}


def test_a_json_patch_that_is_no_list_or_too_long_is_refused() -> None:
    with pytest.raises(ApiError) as refused:
        apply_json({}, {"op": "add"})
    assert refused.value.code == 400
    with pytest.raises(ApiError, match="maximum operations in a JSON patch is 10000, got 10001") as refused:
        apply_json({}, [{"op": "test", "path": "/a", "value": None}] * 10_001)
    assert refused.value.code == 413


@pytest.mark.parametrize(
    ("doc", "patch", "expected"),
    [  # RFC 7386, appendix A
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patch_does_what_rfc_7386_says(doc: Any, patch: Any, expected: Any) -> None:
    assert apply_merge(doc, patch) == expected


def test_the_content_type_chooses_the_patch() -> None:
    assert patch_type("application/json-patch+json; charset=utf-8", PODS) is PatchType.JSON
    assert patch_type("application/strategic-merge-patch+json", PODS) is PatchType.STRATEGIC
    with pytest.raises(ApiError, match="accepted media types include") as refused:
        patch_type("text/plain", PODS)
    assert refused.value.code == 415


def test_custom_resources_have_no_strategic_merge() -> None:
    with pytest.raises(ApiError) as refused:
        patch_type("application/strategic-merge-patch+json", None)
    assert refused.value.code == 415
    assert "strategic" not in refused.value.message
    with pytest.raises(ApiError) as refused:
        apply_patch(PatchType.STRATEGIC, {}, {}, None)
    assert refused.value.code == 415


@pytest.mark.parametrize("how", [PatchType.MERGE, PatchType.STRATEGIC])
def test_patches_that_are_no_objects_are_bad_requests(how: PatchType) -> None:
    with pytest.raises(ApiError) as refused:
        apply_patch(how, {}, [], PODS)
    assert refused.value.code == 400


def test_a_bottomless_patch_is_refused() -> None:
    patch: dict[str, Any] = {}
    for _ in range(5000):
        patch = {"a": patch}
    with pytest.raises(ApiError, match="nested too deeply"):
        apply_patch(PatchType.MERGE, {}, patch, PODS)
