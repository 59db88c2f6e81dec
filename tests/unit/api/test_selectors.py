from __future__ import annotations

import pytest

from polder.api.errors import ApiError
from polder.api.selectors import parse_fields, parse_labels
from tests.unit.api.kit import KINDS

LABELS = {"app": "web", "tier": "front", "n": "5", "empty": ""}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", True),
        ("app=web", True),
        ("app==web", True),
        (" app = web , tier = front ", True),
        ("app!=web", False),
        ("missing!=web", True),
        ("app in (web,db)", True),
        ("app in (db)", False),
        ("app notin (db)", True),
        ("missing notin (db)", True),
        ("app notin (web)", False),
        ("app", True),
        ("!app", False),
        ("!missing", True),
        ("missing", False),
        ("empty=", True),
        ("empty in (,x)", True),
        ("n>4", True),
        ("n<5", False),
        ("app>4", False),
        ("app=web,tier=back", False),
        ("example.com/a.b!=c", True),
        ("in=x", False),
        ("notin notin (x)", True),
    ],
)
def test_label_selectors_match(text: str, expected: bool) -> None:
    assert parse_labels(text).matches({"metadata": {"labels": LABELS}}) is expected


@pytest.mark.parametrize(
    "text",
    ["app=web,", ",app", "=x", "app=a=b", "app in", "app in (a", "app in a", "app)", "a b", "app$=x", "app=we b", "!",
     "app=-x", "n>five", "app in (a b)", "x/y/z=1", f"a={'x' * 64}", "(a)"],
)  # fmt: skip
def test_what_is_no_label_selector_is_a_bad_request(text: str) -> None:
    with pytest.raises(ApiError, match="unable to parse requirement") as refused:
        parse_labels(text)
    assert refused.value.code == 400


def test_an_object_without_labels_matches_only_what_asks_for_absence() -> None:
    assert parse_labels("!a").matches({"metadata": {}})
    assert not parse_labels("a").matches({"metadata": {"labels": None}})


POD = {
    "metadata": {"name": "web", "namespace": "default"},
    "spec": {"nodeName": "n1", "restartPolicy": "Always"},
    "status": {"phase": "Running"},
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", True),
        ("metadata.name=web", True),
        ("metadata.name==web,spec.nodeName=n1", True),
        ("spec.nodeName!=n1", False),
        ("status.phase!=Succeeded,status.phase!=Failed", True),
        ("spec.hostNetwork=false", True),
        ("spec.serviceAccountName=", True),
        ("status.podIP=", True),
    ],
)
def test_field_selectors_match_pods(text: str, expected: bool) -> None:
    assert parse_fields(KINDS["pods"], text).matches(POD) is expected


def test_events_are_found_by_what_they_are_about() -> None:
    event = {"involvedObject": {"name": "web", "uid": "u"}, "source": {"component": "kubelet"}, "type": "Normal"}
    assert parse_fields(KINDS["events"], "involvedObject.name=web,involvedObject.uid=u,source=kubelet").matches(event)
    assert not parse_fields(KINDS["events"], "type=Warning").matches(event)


def test_escaped_values_are_read_back() -> None:
    found = parse_fields(KINDS["events"], r"reason=a\,b\=c\\d")
    assert found.exact("reason") == r"a,b=c\d"


def test_unknown_fields_are_refused_in_upstreams_words() -> None:
    with pytest.raises(ApiError, match=r"^field label not supported: spec.foo$") as refused:
        parse_fields(KINDS["pods"], "spec.foo=x")
    assert refused.value.code == 400
    with pytest.raises(ApiError, match=r'^"spec.foo" is not a known field selector'):
        parse_fields(KINDS["configmaps"], "spec.foo=x")
    with pytest.raises(ApiError, match="invalid selector"):
        parse_fields(KINDS["pods"], "metadata.name")


def test_the_one_name_that_a_selector_asks_for_is_known() -> None:
    assert parse_fields(KINDS["pods"], "metadata.name=a").exact("metadata.name") == "a"
    assert parse_fields(KINDS["pods"], "metadata.name!=a").exact("metadata.name") is None
