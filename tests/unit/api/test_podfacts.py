"""What caches keep of a pod means what it means in the whole pod, and is little."""

from __future__ import annotations

import tracemalloc
from typing import Any

import msgspec
import pytest

from polder.api import core, nodefacts, podspec, storagefacts
from polder.api.kinds import kind_of
from polder.api.meta import Object
from polder.api.podfacts import (
    ClaimVolume,
    ConditionFacts,
    ContainerDemand,
    ContainerHolds,
    ContainerNames,
    ControlledPod,
    ControlledSpec,
    ControlledStatus,
    DemandedVolume,
    Gate,
    HostPort,
    Restarts,
    ScheduledPod,
    ScheduledSpec,
    ScheduledStatus,
)
from polder.api.schemas import named

WHOLE: list[tuple[type[msgspec.Struct], type[msgspec.Struct]]] = [
    (ConditionFacts, core.PodCondition),
    (ContainerNames, podspec.Container),
    (Restarts, core.ContainerStatus),
    (ControlledSpec, podspec.PodSpec),
    (ControlledStatus, core.PodStatus),
]


def fields(struct: type[msgspec.Struct]) -> set[tuple[str, str, object]]:
    """Name, name in JSON, and default, of each."""
    found = msgspec.structs.fields(struct)
    return {(f.name, f.encode_name, None if f.default_factory is list else f.default) for f in found}


def pod(name: str) -> dict[str, Any]:
    container = {
        "name": "main",
        "image": "registry.example/team/app:1.2.3",
        "env": [{"name": f"SETTING_{n}", "value": f"value-{n}"} for n in range(8)],
        "ports": [{"name": "web", "containerPort": 80, "hostPort": 8080, "hostIP": "10.0.0.7", "protocol": "UDP"}],
        "resources": {"requests": {"cpu": "100m"}},
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
        "restartPolicy": "Always",
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "uid": f"uid-{name}", "labels": {"app": "web"}, "resourceVersion": "7"},
        "spec": {
            "containers": [container],
            "initContainers": [container],
            "nodeName": "n1",
            "nodeSelector": {"a": "b"},
            "affinity": {"nodeAffinity": {}},
            "tolerations": [{"key": "k", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 3}],
            "hostname": "h",
            "subdomain": "s",
            "schedulerName": "own",
            "priority": 5,
            "preemptionPolicy": "Never",
            "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "k"}],
            "overhead": {"cpu": "1"},
            "runtimeClassName": "heavy",
            "resources": {"requests": {"cpu": "2"}},
            "schedulingGates": [{"name": "g"}],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "c"}}],
        },
        "status": {
            "phase": "Running",
            "startTime": "2026-01-02T00:00:00Z",
            "nominatedNodeName": "n2",
            "podIP": "10.0.0.1",
            "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}],
            "conditions": [
                {"type": "Ready", "status": "True", "message": "m", "reason": "R", "lastTransitionTime": "2026-01-01"}
            ],
            "initContainerStatuses": [{"name": "i", "restartCount": 1}],
            "containerStatuses": [
                {"name": "main", "restartCount": 4, "image": "x", "resources": {"limits": {"cpu": "3"}}}
                | {"allocatedResources": {"cpu": "1"}}
            ],
        },
    }


@pytest.mark.parametrize(("facts", "whole"), WHOLE)
def test_a_field_has_the_names_and_the_default_of_the_whole_pod(
    facts: type[msgspec.Struct], whole: type[msgspec.Struct]
) -> None:
    assert fields(facts) <= fields(whole)


SCHEMAS: list[tuple[type[msgspec.Struct], str]] = [
    (ScheduledSpec, "PodSpec"),
    (ScheduledStatus, "PodStatus"),
    (ContainerDemand, "Container"),
    (HostPort, "ContainerPort"),
    (DemandedVolume, "Volume"),
    (ClaimVolume, "PersistentVolumeClaimVolumeSource"),
    (ContainerHolds, "ContainerStatus"),
    (Gate, "PodSchedulingGate"),
    (nodefacts.ScheduledNodeStatus, "NodeStatus"),
    (nodefacts.NodeImage, "ContainerImage"),
    (storagefacts.ClaimSpec, "PersistentVolumeClaimSpec"),
    (storagefacts.ClaimStatus, "PersistentVolumeClaimStatus PersistentVolumeStatus"),
    (storagefacts.VolumeSpec, "PersistentVolumeSpec"),
]


@pytest.mark.parametrize(("facts", "whole"), SCHEMAS)
def test_a_field_is_one_of_the_published_form(facts: type[msgspec.Struct], whole: str) -> None:
    published = {name for one in whole.split() for name in named(f"io.k8s.api.core.v1.{one}").fields}
    assert {f.encode_name for f in msgspec.structs.fields(facts)} <= published


@pytest.mark.parametrize("kind", [ControlledPod, ScheduledPod])
def test_every_field_is_read_from_a_pod(kind: type[Object]) -> None:
    """Decoded and encoded again, each field has what the pod has: none of them is a misspelt name that stays empty."""
    sent = pod("a")

    def within(part: Any, whole: Any) -> None:
        if isinstance(part, dict):
            for key, value in part.items():
                within(value, whole[key])
        elif isinstance(part, list):
            for one, other in zip(part, whole, strict=True):
                within(one, other)
        else:
            assert part == whole

    facts = msgspec.json.decode(msgspec.json.encode(sent), type=kind)
    seen = msgspec.json.decode(msgspec.json.encode(facts))
    within(seen, sent)
    for part, struct in (("spec", type(facts.spec)), ("status", type(facts.status))):  # type: ignore[attr-defined]
        assert set(seen[part]) == {f.encode_name for f in msgspec.structs.fields(struct)}


@pytest.mark.parametrize("kind", [ControlledPod, ScheduledPod])
def test_it_is_asked_for_as_a_pod(kind: type[Object]) -> None:
    assert kind_of(kind) is kind_of(core.Pod)


def weight(kind: type[Object]) -> float:
    """Bytes of one decoded pod."""
    decoder = msgspec.json.Decoder(kind)
    bodies = [msgspec.json.encode(pod(f"p{n}")) for n in range(200)]
    decoder.decode(bodies[0])
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    kept = [decoder.decode(body) for body in bodies]
    each = (tracemalloc.get_traced_memory()[0] - before) / len(kept)
    tracemalloc.stop()
    return each


@pytest.mark.parametrize(("kind", "share"), [(ControlledPod, 0.35), (ScheduledPod, 0.45)])
def test_a_pod_in_a_cache_is_light(kind: type[Object], share: float) -> None:
    """As a share of what the whole pod takes, which has twenty more strings."""
    assert weight(kind) < share * weight(core.Pod)
