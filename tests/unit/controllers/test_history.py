"""Revisions of a template."""

import orjson

from polder.api.meta import ObjectMeta, OwnerReference
from polder.api.sets import ControllerRevision
from polder.api.workloads import Template
from polder.controllers.history_pure import (
    Parent,
    body_of,
    data_of,
    equal,
    hash_of,
    in_order,
    name_of,
    next_number,
    surplus,
    template_of,
)

ONE = {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "one"}]}}
TWO = {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "two"}]}}
OWNER = OwnerReference(api_version="apps/v1", kind="DaemonSet", name="x", uid="u", controller=True)


def revision(name: str, number: int, template: Template) -> ControllerRevision:
    return ControllerRevision(metadata=ObjectMeta(name=name), revision=number, data=data_of(template))


def test_a_revision_restores_its_template_and_equal_ones_are_found():
    known = in_order([revision("b", 2, TWO), revision("a", 1, ONE)])
    assert [found.metadata.name for found in known] == ["a", "b"]
    assert [found.metadata.name for found in equal(known, ONE)] == ["a"]
    with_defaults = {**ONE, "spec": {"containers": [{"name": "c", "image": "one", "resources": {}}]}}
    assert [found.metadata.name for found in equal(known, with_defaults)] == ["a"]
    assert template_of(known[0]) == with_defaults
    assert next_number(known) == 3
    assert next_number([]) == 1


def test_what_a_tenant_wrote_into_a_revision_breaks_nothing():
    bad = ("x", 1, None, {}, {"spec": "x"}, {"spec": {"containers": ["x"]}}, {"spec": {}, "metadata": {"labels": [1]}})
    for data in (None, [], "x", {"spec": None}, *({"spec": {"template": template}} for template in bad)):
        found = ControllerRevision(metadata=ObjectMeta(name="a"), revision=1, data=data)
        assert template_of(found) is None
        assert equal([found], ONE) == []


def test_names_differ_by_template_and_by_collisions():
    marks = {hash_of(ONE, 0), hash_of(ONE, 1), hash_of(TWO, 0)}
    assert len(marks) == 3
    assert all(len(mark) == 10 for mark in marks)
    assert hash_of(dict(reversed(ONE.items())), 0) == hash_of(ONE, 0)
    assert len(name_of("x" * 250, "m" * 10)) == 234


def test_the_body_has_its_keys_in_order_as_upstream_writes_them():
    body = body_of(Parent(OWNER, {"a": "b", "polder.dev/tenant": "acme"}, ONE), "mark", 3, {"hash": "mark"})
    raw = orjson.loads(body)
    assert raw["metadata"]["labels"] == {"app": "a", "hash": "mark"}
    assert raw["metadata"]["annotations"] == {"a": "b"}
    text = orjson.dumps(raw["data"]).decode()
    assert text.startswith('{"spec":{"template":{"$patch":"replace","metadata":{"labels":')
    assert body.index(b'"apiVersion"') < body.index(b'"data"') < body.index(b'"kind"')


def test_the_oldest_go_but_never_one_in_use():
    known = [revision(name, number, ONE) for number, name in enumerate("abcde", 1)]
    assert [found.metadata.name for found in surplus(known, {"a", "e"}, 1)] == ["b", "c"]
    assert surplus(known, {"e"}, None) == []
    assert surplus(known, {"e"}, 10) == []
