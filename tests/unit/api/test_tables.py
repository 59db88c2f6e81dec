from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from polder.api import jsonpath
from polder.api.columns import duration
from polder.api.kinds import BUILT_IN
from polder.api.tables import cells, columns_of, definition
from tests.unit.api.kit import KINDS, Raw

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
STAMP = "2026-01-01T11:55:00Z"


def row(resource: str, obj: Raw, *names: str) -> Any:
    columns = columns_of(KINDS[resource])
    found = dict(zip([column.name for column in columns], cells(columns, obj, NOW), strict=True))
    return [found[name] for name in names] if len(names) > 1 else found[names[0]]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "<invalid>"), (-1, "0s"), (0, "0s"), (119, "119s"), (120, "2m"), (125, "2m5s"), (599, "9m59s"),
        (600, "10m"), (10799, "179m"), (10800, "3h"), (3 * 3600 + 60, "3h1m"), (8 * 3600, "8h"), (47 * 3600, "47h"),
        (48 * 3600, "2d"), (50 * 3600, "2d2h"), (8 * 86400, "8d"), (729 * 86400, "729d"), (730 * 86400, "2y"),
        (800 * 86400, "2y70d"), (3000 * 86400, "8y"),
    ],
)  # fmt: skip
def test_durations_read_as_kubectls(seconds: int, text: str) -> None:
    assert duration(seconds) == text


def status(**state: Any) -> Raw:
    return {"name": "c", "state": state}


def pod(phase: str = "Running", statuses: list[Raw] | None = None, **more: Any) -> Raw:
    found: Raw = {
        "metadata": {"name": "web", "creationTimestamp": STAMP},
        "spec": {"containers": [{}] * max(1, len(statuses or [])), "initContainers": more.pop("init", [])},
        "status": {"phase": phase, "containerStatuses": statuses or [], **more.pop("status", {})},
    }
    found["metadata"].update(more)
    return found


RUNS = {**status(running={}), "ready": True}


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        (pod("Pending"), ["0/1", "Pending", "0"]),
        (pod("Running", [RUNS]), ["1/1", "Running", "0"]),
        (pod("Running", [status(waiting={"reason": "CrashLoopBackOff"})]), ["0/1", "CrashLoopBackOff", "0"]),
        (pod("Pending", [status(waiting={"reason": "ContainerCreating"})]), ["0/1", "ContainerCreating", "0"]),
        (pod("Succeeded", [status(terminated={"reason": "Completed"})]), ["0/1", "Completed", "0"]),
        (pod("Failed", [status(terminated={"reason": "Error", "exitCode": 1})]), ["0/1", "Error", "0"]),
        (pod("Failed", [status(terminated={"exitCode": 3})]), ["0/1", "ExitCode:3", "0"]),
        (pod("Failed", [status(terminated={"signal": 9})]), ["0/1", "Signal:9", "0"]),
        (pod("Running", [RUNS, status(terminated={"reason": "Completed"})]), ["1/2", "NotReady", "0"]),
        (pod("Running", [RUNS], deletionTimestamp=STAMP), ["1/1", "Terminating", "0"]),
        (pod("Succeeded", [status(terminated={"reason": "Completed"})], deletionTimestamp=STAMP),
         ["0/1", "Completed", "0"]),
        (pod("Failed", status={"reason": "Evicted"}), ["0/1", "Evicted", "0"]),
        (pod("Pending", init=[{}, {}], status={"initContainerStatuses": [
            status(terminated={"exitCode": 0}), status(running={})]}), ["0/1", "Init:1/2", "0"]),
        (pod("Pending", init=[{}], status={"initContainerStatuses": [
            {**status(waiting={"reason": "CrashLoopBackOff"}), "restartCount": 2}]}),
         ["0/1", "Init:CrashLoopBackOff", "2"]),
        (pod("Pending", init=[{}], status={"initContainerStatuses": [status(terminated={"exitCode": 1})]}),
         ["0/1", "Init:ExitCode:1", "0"]),
        (pod("Running", [{**RUNS, "restartCount": 3, "lastState": {"terminated": {"finishedAt": STAMP}}}]),
         ["1/1", "Running", "3 (5m ago)"]),
    ],
)  # fmt: skip
def test_pods_say_what_they_are_doing(obj: Raw, expected: list[str]) -> None:
    assert row("pods", obj, "Ready", "Status", "Restarts") == expected


def test_wide_columns_of_a_pod_are_of_lower_priority() -> None:
    columns = {column.name: column.priority for column in columns_of(KINDS["pods"])}
    assert columns["Age"] == 0
    assert columns["Node"] == columns["IP"] == 1
    assert row("pods", pod(), "IP", "Node") == ["<none>", "<none>"]


def test_every_kind_prints_an_empty_object() -> None:
    for kind in BUILT_IN:
        columns = columns_of(kind, tenants=True)
        assert columns[0].name == "Tenant"
        assert len(cells(columns, {"metadata": {"name": "x"}}, NOW)) == len(columns)
        assert all(definition(column)["name"] for column in columns)


def test_nodes_say_whether_they_are_ready() -> None:
    node: Raw = {
        "metadata": {"labels": {"node-role.kubernetes.io/control-plane": "", "node-role.kubernetes.io/a": ""}},
        "spec": {"unschedulable": True},
        "status": {
            "conditions": [{"type": "Ready", "status": "True"}],
            "addresses": [{"type": "InternalIP", "address": "192.0.2.1"}],
        },
    }
    assert row("nodes", node, "Status", "Roles", "Internal-IP") == [
        "Ready,SchedulingDisabled",
        "a,control-plane",
        "192.0.2.1",
    ]
    assert row("nodes", {}, "Status", "Roles") == ["Unknown", "<none>"]


def test_services_show_ports_and_selectors() -> None:
    service = {"spec": {"ports": [{"port": 80, "protocol": "TCP"}, {"port": 53, "protocol": "UDP", "nodePort": 30053}],
                        "selector": {"b": "2", "a": "1"}, "clusterIP": "10.96.0.1"}}  # fmt: skip
    assert row("services", service, "Port(s)", "Selector", "External-IP") == [
        "80/TCP,53:30053/UDP",
        "a=1,b=2",
        "<none>",
    ]


def test_events_show_when_and_about_what() -> None:
    event = {
        "involvedObject": {"kind": "Pod", "name": "web"}, "firstTimestamp": "2026-01-01T11:00:00Z",
        "lastTimestamp": STAMP, "message": " hi\n", "source": {"component": "kubelet", "host": "n1"}, "count": 4,
    }  # fmt: skip
    assert row("events", event, "Last Seen", "Object", "Message", "Source", "First Seen", "Count") == [
        "5m", "pod/web", "hi", "kubelet, n1", "60m", 4,
    ]  # fmt: skip


def test_many_endpoints_are_cut_short() -> None:
    piece = {"endpoints": [{"addresses": [f"10.0.0.{n}"]} for n in range(5)], "ports": [{"port": 80}]}
    found = row("endpointslices.discovery.k8s.io", piece, "Ports", "Endpoints")
    assert found == ["80", "10.0.0.0,10.0.0.1,10.0.0.2 + 2 more..."]


def test_the_tenant_comes_first_in_views_over_all() -> None:
    obj = {"metadata": {"name": "a", "annotations": {"polder.dev/tenant": "acme"}}}
    assert cells(columns_of(KINDS["configmaps"], tenants=True), obj, NOW)[:2] == ["acme", "a"]


def test_custom_columns_follow_their_declaration() -> None:
    declared = [
        {"name": "Spec", "type": "string", "jsonPath": ".spec.cronSpec"},
        {"name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas", "priority": 1},
        {"name": "Since", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
        {"name": "On", "type": "boolean", "jsonPath": ".spec.on"},
        {"name": "Raw", "type": "string", "jsonPath": ".spec.map"},
    ]
    columns = columns_of(KINDS["pods"], declared)
    obj = {"metadata": {"name": "a", "creationTimestamp": STAMP}, "spec": {"replicas": 2, "on": False, "map": {"a": 1}}}
    assert [column.name for column in columns] == ["Name", "Spec", "Replicas", "Since", "On", "Raw"]
    assert columns[2].priority == 1
    assert cells(columns, obj, NOW) == ["a", None, 2, "5m", False, '{"a":1}']
    assert [column.name for column in columns_of(KINDS["pods"], [])] == ["Name", "Age"]


DOC = {"a": {"b.c": 1, "l": [{"t": "x", "v": 1}, {"t": "y", "v": 2}]}, "s": "text"}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (".s", ["text"]), ("{.s}", ["text"]), ("$.s", ["text"]), ("s", ["text"]), (".missing.x", []),
        (".a['b.c']", [1]), (r".a.b\.c", [1]), (".a.l[0].v", [1]), (".a.l[-1].v", [2]), (".a.l[9].v", []),
        (".a.l[*].v", [1, 2]), ('.a.l[?(@.t=="y")].v', [2]), (".a.l[?(@.t!='y')].v", [1]), (".a.l[?(@.v==2)].t", ["y"]),
    ],
)  # fmt: skip
def test_json_paths_of_printer_columns(path: str, expected: list[Any]) -> None:
    assert jsonpath.find(jsonpath.parse(path), DOC) == expected


@pytest.mark.parametrize("path", [".a[", ".a[?(@.b)]", "..a", ".a[0:2]", ".a()", ".[x]"])
def test_json_paths_beyond_that_are_refused(path: str) -> None:
    with pytest.raises(jsonpath.JsonPathError):
        jsonpath.parse(path)
