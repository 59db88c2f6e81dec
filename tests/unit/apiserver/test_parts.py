"""Small pure parts: versions, frames, options of deletions, metrics, metadata."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from polder.api import strategies
from polder.api.errors import ApiError
from polder.api.kinds import BUILT_IN, built_in
from polder.api.selectors import parse_fields, parse_labels
from polder.apiserver import objectmeta
from polder.apiserver.catalog import Resource
from polder.apiserver.delete_options import read_options
from polder.apiserver.discovery import version_priority
from polder.apiserver.metrics import Metrics
from polder.apiserver.negotiate import Accepted, Form
from polder.apiserver.objects import encode
from polder.apiserver.render import renderer_for
from polder.apiserver.requestinfo import parse
from polder.apiserver.selection import Selection
from polder.apiserver.watch_frames import Frames, frame
from polder.base.clock import SystemClock
from polder.base.ids import EVERY_TENANT, ROOT
from polder.store.protocol import Change, ChangeType, Key

MAPS = Resource(next(k for k in BUILT_IN if k.kind == "ConfigMap"))
PODS = Resource(next(k for k in BUILT_IN if k.kind == "Pod"))
KEY = Key("configmaps", "acme", "default", "x")


def test_versions_sort_as_kubernetes_sorts_them() -> None:
    versions = ["foo1", "v1beta1", "v10", "v2", "v12alpha1", "v11beta2", "v1", "v11alpha2", "foo10", "v3beta1"]
    assert sorted(versions, key=version_priority) == [
        "v10", "v2", "v1", "v11beta2", "v3beta1", "v1beta1", "v12alpha1", "v11alpha2", "foo1", "foo10",
    ]  # fmt: skip


@pytest.mark.parametrize("body", [b"{}", b'{"a":"' + b"x" * 5000 + b'"}', '{"a":"é"}'.encode()])
def test_frames_are_whole_chunks(body: bytes) -> None:
    chunk = frame("MODIFIED", body)
    size, _, rest = chunk.partition(b"\r\n")
    assert len(rest) == int(size, 16) + 2 and rest.endswith(b"\n\r\n")
    assert json.loads(rest) == {"type": "MODIFIED", "object": json.loads(body)}


def change(kind: ChangeType, before: dict[str, Any] | None, after: dict[str, Any] | None) -> Change:
    def value(labels: dict[str, Any] | None) -> bytes | None:
        if labels is None:
            return None
        return encode({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "labels": labels}})

    return Change(kind, KEY, value(after) or value(before) or b"", value(before), 9)


@pytest.mark.parametrize(
    ("kind", "before", "after", "wanted"),
    [
        (ChangeType.PUT, None, {"c": "red"}, "ADDED"),
        (ChangeType.PUT, None, {"c": "blue"}, ""),
        (ChangeType.PUT, {"c": "red"}, {"c": "red"}, "MODIFIED"),
        (ChangeType.PUT, {"c": "blue"}, {"c": "red"}, "ADDED"),
        (ChangeType.PUT, {"c": "red"}, {"c": "blue"}, "DELETED"),
        (ChangeType.PUT, {"c": "blue"}, {"c": "blue"}, ""),
        (ChangeType.DELETE, {"c": "red"}, None, "DELETED"),
        (ChangeType.DELETE, {"c": "blue"}, None, ""),
    ],
)
def test_what_a_change_means_to_a_selection(kind: ChangeType, before: Any, after: Any, wanted: str) -> None:
    selection = Selection(MAPS.kind, parse_labels("c=red"), parse_fields(MAPS.kind, ""))
    made = Frames(SystemClock()).event(change(kind, before, after), selection, renderer_for(MAPS, ROOT, Accepted()))
    assert (json.loads(made.partition(b"\r\n")[2])["type"] if made else "") == wanted


def test_frames_are_shared_by_equal_views_only() -> None:
    frames, everything = Frames(SystemClock()), Selection(MAPS.kind, parse_labels(""), parse_fields(MAPS.kind, ""))
    one = change(ChangeType.PUT, None, {"c": "red"})
    plain = [frames.event(one, everything, renderer_for(MAPS, ROOT, Accepted())) for _ in range(2)]
    assert plain[0] is plain[1]
    table = frames.event(one, everything, renderer_for(MAPS, ROOT, Accepted(Form.TABLE)))
    every = frames.event(one, everything, renderer_for(MAPS, EVERY_TENANT, Accepted()))
    assert len({plain[0], table, every}) == 3
    assert b'"polder.dev/tenant":"acme"' in (every or b"") and b"acme" not in (plain[0] or b"")


def test_options_of_a_deletion() -> None:
    assert read_options(b"", "", {}).policy == ""
    assert read_options(b"", "", {"propagationPolicy": "Orphan"}).policy == "Orphan"
    assert read_options(b'{"orphanDependents":true}', "", {}).policy == "Orphan"
    found = read_options(b'{"kind":"DeleteOptions","gracePeriodSeconds":0,"preconditions":{"uid":"u"}}', "", {})
    assert found.grace_period_seconds == 0 and found.preconditions is not None and found.preconditions.uid == "u"
    assert read_options(b'{"gracePeriodSeconds":-1}', "", {}).grace_period_seconds == 1
    for wrong in (b'{"gracePeriodSeconds":"x"}', b"[]", b'{"dryRun":["Some"]}', b'{"propagationPolicy":"x"}'):
        with pytest.raises(ApiError):
            read_options(wrong, "", {})
    with pytest.raises(ApiError):
        read_options(b"", "", {"gracePeriodSeconds": "soon"})


def test_metrics_count_and_do_not_grow_with_names() -> None:
    metrics = Metrics()
    for path in ("/api/v1/pods", "/api/v1/x1", "/api/v1/x2"):
        metrics.observe(parse("GET", path, {}), 200 if path.endswith("pods") else 404, 0.002)
    text = metrics.text({"g": 3})
    assert 'apiserver_request_total{verb="list",resource="pods",code="200"} 1' in text
    assert 'apiserver_request_total{verb="list",resource="",code="404"} 2' in text
    assert 'bucket{verb="list",le="0.001"} 0' in text and 'bucket{verb="list",le="0.005"} 1' in text
    assert text.endswith("g 3\n")


@pytest.mark.parametrize("status", [401, 403, 404])
def test_nobody_makes_the_table_of_metrics_grow(status: int) -> None:
    metrics = Metrics()
    for number in range(50):
        metrics.observe(parse("GET", f"/tenants/acme/api/v1/x{number}", {}), status, 0.002)
        metrics.observe(parse(f"METHOD{number}", "/api/v1/pods", {}), status, 0.002)
    assert metrics.text({}).count("apiserver_request_total{") == 2


def test_generated_names_are_bounded_and_valid() -> None:
    names = {objectmeta.generate_name("pre-") for _ in range(200)}
    assert len(names) > 190 and all(len(n) == 9 for n in names)
    assert len(objectmeta.generate_name("x" * 300)) == 63


def test_what_is_done_being_deleted() -> None:
    meta = {"name": "x", "deletionTimestamp": "2026-01-01T00:00:00Z"}
    obj = {"apiVersion": "v1", "kind": "Pod", "metadata": meta}
    assert objectmeta.is_done(obj)
    assert not objectmeta.is_done({**obj, "metadata": {**meta, "finalizers": ["a/b"]}})
    assert not objectmeta.is_done({**obj, "metadata": {**meta, "deletionGracePeriodSeconds": 3}})
    assert not objectmeta.is_done({**obj, "metadata": {"name": "x"}})
    assert not objectmeta.is_done({**obj, "kind": "Namespace", "spec": {"finalizers": ["kubernetes"]}})


def test_generation_counts_what_is_wanted() -> None:
    old = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "uid": "u", "generation": 4, "resourceVersion": "7"},
           "spec": {"a": 1}, "status": {"phase": "Running"}}  # fmt: skip
    new = {**old, "metadata": {"name": "p", "labels": {"a": "b"}}, "status": {"phase": "Failed"}}
    objectmeta.carry_over(PODS, new, old)
    strategies.prepare(PODS.kind, new, old)
    assert new["metadata"]["generation"] == 4 and new["status"]["phase"] == "Running"
    changed = {**old, "metadata": {"name": "p"}, "spec": {"a": 2}}
    objectmeta.carry_over(PODS, changed, old)
    strategies.prepare(PODS.kind, changed, old)
    assert changed["metadata"]["generation"] == 5


def test_a_write_of_the_status_counts_no_generation() -> None:
    deployment = built_in("apps/v1", "deployments")
    old = {"metadata": {"name": "d", "generation": 4}, "spec": {"a": 1}}
    new = {**old, "metadata": {**old["metadata"], "annotations": {"a": "b"}}}
    strategies.prepare(deployment, new, old, counts=False)
    assert new["metadata"]["generation"] == 4
    strategies.prepare(deployment, new, old)
    assert new["metadata"]["generation"] == 5


def test_tables_say_how_old() -> None:
    renderer = renderer_for(MAPS, ROOT, Accepted(Form.TABLE))
    obj = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "x", "creationTimestamp": "2026-01-01T00:00:00Z"},
    }
    made = json.loads(renderer.value(KEY, encode(obj), 3, datetime(2026, 1, 1, 0, 5, tzinfo=UTC)))
    assert made["rows"][0]["cells"] == ["x", 0, "5m"] and made["metadata"] == {"resourceVersion": "3"}
