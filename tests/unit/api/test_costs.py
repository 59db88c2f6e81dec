"""What a tenant sends must not cost the server, which all tenants share, more than about its length: each of these took
minutes or all memory before there was a bound.
"""

from __future__ import annotations

import time
from typing import Any

import pytest

from polder.api.errors import ApiError, Field
from polder.api.patch import apply_json
from polder.api.schema_validate import validate
from polder.api.schemas import schema_of
from polder.api.strategic import apply_strategic
from polder.api.structural import apply_defaults
from polder.api.validation.pods import validate_pod_update
from polder.apiserver.body import YAML_LIMIT, parse_body
from tests.unit.api.kit import KINDS

MANY = 30_000
SECONDS = 3.0
PODS = schema_of(KINDS["pods"])
assert PODS is not None


@pytest.fixture(autouse=True)
def quick() -> Any:
    """Linear work on these lengths takes some tenths of a second, quadratic work half a minute and more."""
    began = time.process_time()
    yield
    assert time.process_time() - began < SECONDS


def test_a_json_patch_cannot_copy_a_document_into_itself_for_ever() -> None:
    double = [{"op": "copy", "from": "/a", "path": f"/a/n{n}"} for n in range(40)]
    with pytest.raises(ApiError, match=r"operation \d+: the patch copies or moves more than 3145728 bytes") as refused:
        apply_json({"a": {"x": "y"}}, double)
    assert refused.value.code == 413


def test_a_json_patch_cannot_shift_a_long_list_thousands_of_times() -> None:
    with pytest.raises(ApiError, match="copies or moves more"):
        apply_json({"l": [0] * 1_000_000}, [{"op": "add", "path": "/l/0", "value": 1}] * 10_000)


def test_a_short_list_takes_as_many_operations_as_a_patch_may_have() -> None:
    assert len(apply_json({"l": []}, [{"op": "add", "path": "/l/0", "value": 1}] * 10_000)["l"]) == 10_000


def test_strategic_merges_of_long_lists() -> None:
    assert PODS is not None
    conditions = [{"type": f"t{n}", "status": "True"} for n in range(MANY)]
    doc = {"status": {"conditions": conditions}, "metadata": {"finalizers": [f"a/{n}" for n in range(MANY)]}}
    again = {"status": {"conditions": conditions[::-1]}, "metadata": {"finalizers": [f"b/{n}" for n in range(MANY)]}}
    found = apply_strategic(doc, again, PODS)
    assert len(found["status"]["conditions"]) == MANY and len(found["metadata"]["finalizers"]) == 2 * MANY
    gone = {"status": {"conditions": [{"$patch": "delete", "type": f"t{n}"} for n in range(MANY)]}}
    assert apply_strategic(found, gone, PODS)["status"]["conditions"] == []


def test_an_update_with_many_tolerations() -> None:
    tolerations = [{"key": f"k{n}", "operator": "Exists", "effect": "NoExecute"} for n in range(MANY)]
    pod = {"spec": {"tolerations": tolerations, "containers": []}}
    assert list(validate_pod_update(pod, pod)) == []
    fewer = {"spec": {"tolerations": tolerations[1:], "containers": []}}
    assert "existing toleration can not be modified" in str([p.detail for p in validate_pod_update(fewer, pod)])


def test_alternatives_over_a_long_list_end_in_a_refusal() -> None:
    schema = {"type": "array", "items": {"type": "string", "anyOf": [{"minLength": 9 + n} for n in range(3000)]}}
    with pytest.raises(ApiError, match=r"spec\[\d+\]: the object and its definition's schema together take too many"):
        list(validate(schema, ["x"] * MANY, Field("spec")))


def test_a_large_default_over_a_long_list_ends_in_a_refusal() -> None:
    item = {"type": "object", "properties": {"d": {"type": "string", "default": "x" * 100_000}}}
    with pytest.raises(ApiError, match="d: the object and its definition's schema together take too many bytes"):
        apply_defaults({"type": "array", "items": item}, [{}] * MANY)


@pytest.mark.parametrize("text", [b"a: %s1", b"a: !!int '%s1'"])
def test_numbers_of_base_60_are_no_numbers(text: bytes) -> None:
    try:
        assert isinstance(parse_body(text % (b"1:" * 100_000), "application/yaml")["a"], str)
    except ApiError as refused:
        assert refused.code == 400


def test_long_yaml_is_refused_unread() -> None:
    with pytest.raises(ApiError, match="limit of a body in YAML"):
        parse_body(b"a: b\n" * YAML_LIMIT, "application/yaml")
