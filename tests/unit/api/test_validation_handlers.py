"""Probes, hooks and restart rules that are refused, by field and in upstream's words."""

from __future__ import annotations

from typing import Any

import pytest

from polder.api.errors import Field
from polder.api.meta import Raw
from polder.api.validation.containers import validate_containers

GOOD: Raw = {
    "name": "a",
    "image": "x",
    "imagePullPolicy": "Always",
    "terminationMessagePath": "/dev/termination-log",
    "terminationMessagePolicy": "File",
}
TCP: Raw = {"tcpSocket": {"port": 80}}
GET: Raw = {"path": "/", "port": "web", "scheme": "HTTP"}


def wrong(container: Raw, group: str = "containers", **spec: Any) -> list[str]:
    one = {**GOOD, **container}
    whole = {"containers": [{**GOOD, "name": "z"}], "terminationGracePeriodSeconds": 30, **spec}
    whole[group] = [one]
    return [str(error) for error in validate_containers(whole, Field("spec"))]


def test_what_is_good() -> None:
    probes = {"livenessProbe": TCP, "readinessProbe": {"httpGet": GET, "successThreshold": 3}}
    hooks = {"postStart": {"exec": {"command": ["x"]}}, "preStop": {"sleep": {"seconds": 30}}}
    rules = [{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]
    assert wrong({**probes, "startupProbe": {"grpc": {"port": 1}}, "lifecycle": hooks}) == []
    assert wrong({"restartPolicy": "Never", "restartPolicyRules": rules}) == []
    assert wrong({"restartPolicy": "Always", **probes, "lifecycle": hooks}, "initContainers") == []


@pytest.mark.parametrize(
    ("probe", "said"),
    [
        ({}, "spec.containers[0].livenessProbe: Required value: must specify a handler type"),
        ({**TCP, "exec": {"command": ["x"]}}, "may not specify more than 1 handler type"),
        ({"exec": {}}, "livenessProbe.exec.command: Required value"),
        ({"httpGet": {**GET, "scheme": "FTP"}}, 'livenessProbe.httpGet.scheme: Unsupported value: "FTP"'),
        ({"httpGet": {**GET, "path": ""}}, "livenessProbe.httpGet.path: Required value"),
        ({"httpGet": {**GET, "port": 0}}, "livenessProbe.httpGet.port: Invalid value: 0"),
        ({"httpGet": {**GET, "port": "No_Port"}}, "livenessProbe.httpGet.port: Invalid value"),
        ({"httpGet": {**GET, "httpHeaders": [{"name": "a b", "value": ""}]}}, "a valid HTTP header must consist"),
        ({"grpc": {"port": 70000}}, "livenessProbe.grpc.port: Invalid value: 70000"),
        ({**TCP, "periodSeconds": -1}, "livenessProbe.periodSeconds: Invalid value: -1"),
        ({**TCP, "successThreshold": 2}, "livenessProbe.successThreshold: Invalid value: 2: must be 1"),
        ({**TCP, "terminationGracePeriodSeconds": 0}, "Invalid value: 0: must be greater than 0"),
    ],
)
def test_probes(probe: Raw, said: str) -> None:
    found = wrong({"livenessProbe": probe})
    assert len(found) == 1 and said in found[0]


@pytest.mark.parametrize(
    ("container", "group", "said"),
    [
        ({"readinessProbe": {**TCP, "terminationGracePeriodSeconds": 1}}, "containers", "must not be set for readinessProbes"),
        ({"lifecycle": {"preStop": {"sleep": {"seconds": 31}}}}, "containers",
         "must be non-negative and less than terminationGracePeriodSeconds (30)"),
        ({"lifecycle": {"postStart": {}}}, "containers", "lifecycle.postStart: Required value"),
        ({"lifecycle": {"stopSignal": "SIGTERM"}}, "containers",
         "may not be set for containers with empty `spec.os.name`"),
        ({"lifecycle": {}}, "initContainers", "may not be set for init containers without restartPolicy=Always"),
        ({"startupProbe": TCP}, "initContainers", "may not be set for init containers without restartPolicy=Always"),
        ({"restartPolicy": "Sometimes"}, "containers", 'restartPolicy: Unsupported value: "Sometimes"'),
        ({"restartPolicyRules": [{}]}, "containers", "must specify restartPolicy when restart rules are used"),
        ({"restartPolicy": "Never", "restartPolicyRules": [{"action": "Jump", "exitCodes": {"operator": "In"}}]},
         "containers", 'restartPolicyRules[0].action: Unsupported value: "Jump"'),
        ({"restartPolicy": "Never", "restartPolicyRules": [{"action": "Restart"}]}, "containers",
         "exitCodes: Required value: must be specified"),
        ({"restartPolicy": "Never", "restartPolicyRules": [{"action": "Restart", "exitCodes": {"operator": "Is"}}]},
         "containers", 'operator: Unsupported value: "Is"'),
    ],
)  # fmt: skip
def test_hooks_and_restarts(container: Raw, group: str, said: str) -> None:
    found = wrong(container, group)
    assert len(found) == 1 and said in found[0]
