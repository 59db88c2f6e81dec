"""What static pods cannot have, and what a node may show of its own."""

from __future__ import annotations

from typing import Any

import pytest

from polder.api.staticpods import MIRROR, is_static_uid, mirror_problems, static_problems
from polder.api.validation.pods import validate_pod, validate_pod_update

SPEC: dict[str, Any] = {"hostNetwork": True, "nodeName": "n1", "containers": [{"name": "a", "image": "i"}]}
OWNER = {"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "u", "controller": True}


def mirror(**changes: Any) -> dict[str, Any]:
    meta = {"name": "web-n1", "annotations": {MIRROR: "0" * 32}, "ownerReferences": [OWNER], **changes.pop("meta", {})}
    return {"metadata": meta, "spec": {**SPEC, **changes}}


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"hostNetwork": False}, "spec.hostNetwork"),
        ({"serviceAccountName": "a"}, "spec.serviceAccountName"),
        ({"imagePullSecrets": [{"name": "a"}]}, "spec.imagePullSecrets"),
        ({"runtimeClassName": "a"}, "spec.runtimeClassName"),
        ({"containers": [{"envFrom": [{"secretRef": {}}]}]}, "spec.containers[0].envFrom[0].secretRef"),
        ({"initContainers": [{"envFrom": [{"configMapRef": {}}]}]}, "spec.initContainers[0].envFrom[0].configMapRef"),
        (
            {"containers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "a"}}}]}]},
            "spec.containers[0].env[0].valueFrom.secretKeyRef",
        ),
        ({"volumes": [{"name": "a"}, {"name": "v", "secret": {}}]}, "spec.volumes[1].secret"),
        ({"volumes": [{"name": "v", "ephemeral": {}}]}, "spec.volumes[0].ephemeral"),
        ({"volumes": [{"name": "v", "persistentVolumeClaim": {}}]}, "spec.volumes[0].persistentVolumeClaim"),
        ({"volumes": [{"name": "v", "csi": {}}]}, "spec.volumes[0].csi"),
        (
            {"volumes": [{"name": "v", "projected": {"sources": [{"serviceAccountToken": {}}]}}]},
            "spec.volumes[0].projected.sources[0].serviceAccountToken",
        ),
    ],
)
def test_what_needs_the_api_is_refused_by_its_field(changes: dict[str, Any], field: str) -> None:
    assert [problem.field for problem in static_problems({**SPEC, **changes})] == [field]
    assert [problem.field for problem in mirror_problems(mirror(**changes), "n1", "u")] == [field]


def test_what_needs_no_api_is_not_refused() -> None:
    volumes = [{"name": "a", "hostPath": {}}, {"name": "b", "emptyDir": {}}, {"name": "c", "downwardAPI": {}}]
    volumes.append({"name": "d", "projected": {"sources": [{"downwardAPI": {}}]}})
    env = [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]
    assert not list(static_problems({**SPEC, "volumes": volumes, "containers": [{"env": env}]}))


@pytest.mark.parametrize(
    ("meta", "field"),
    [
        ({"annotations": {}}, f"metadata.annotations[{MIRROR}]"),
        ({"name": "web-0"}, "metadata.name"),
        ({"ownerReferences": []}, "metadata.ownerReferences"),
        ({"ownerReferences": [OWNER, OWNER]}, "metadata.ownerReferences"),
        ({"ownerReferences": [{**OWNER, "uid": "v"}]}, "metadata.ownerReferences"),
        ({"ownerReferences": [{**OWNER, "name": "n2"}]}, "metadata.ownerReferences"),
        ({"ownerReferences": [{**OWNER, "controller": False}]}, "metadata.ownerReferences"),
        ({"ownerReferences": [{**OWNER, "blockOwnerDeletion": True}]}, "metadata.ownerReferences"),
    ],
)
def test_a_node_makes_mirrors_of_its_own_alone(meta: dict[str, Any], field: str) -> None:
    assert [problem.field for problem in mirror_problems(mirror(meta=meta), "n1", "u")] == [field]


def test_a_mirror_is_on_the_node_that_made_it() -> None:
    assert [p.field for p in mirror_problems(mirror(nodeName="n2"), "n1", "u")] == ["spec.nodeName"]
    unblocking = mirror(meta={"ownerReferences": [{**OWNER, "blockOwnerDeletion": False}]})
    assert not list(mirror_problems(unblocking, "n1", "u"))


def test_the_annotation_is_written_once_and_with_a_node() -> None:
    spec = {**SPEC, "restartPolicy": "Always", "dnsPolicy": "Default", "terminationGracePeriodSeconds": 1}
    plain, shown = {"metadata": {}, "spec": spec}, {"metadata": {"annotations": {MIRROR: "a"}}, "spec": spec}
    other = {"metadata": {"annotations": {MIRROR: "b"}}, "spec": spec}
    words = {new: [p.detail for p in validate_pod_update(*pair)] for new, pair in
             {"added": (shown, plain), "changed": (other, shown), "removed": (plain, shown)}.items()}  # fmt: skip
    assert words == {
        "added": ["may not add mirror pod annotation"],
        "changed": ["may not remove or update mirror pod annotation"],
        "removed": ["may not remove or update mirror pod annotation"],
    }
    assert not list(validate_pod_update(shown, shown))
    unplaced = {**shown, "spec": {k: v for k, v in spec.items() if k != "nodeName"}}
    assert "must set spec.nodeName" in str(list(validate_pod(unplaced)))


def test_a_static_pods_uid_is_none_of_the_apis() -> None:
    assert is_static_uid("0123456789abcdef0123456789abcdef")
    assert not is_static_uid("01234567-89ab-4def-8123-456789abcdef")
    assert not is_static_uid("0123456789abcdef0123456789abcdef0")
