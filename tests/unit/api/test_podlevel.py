"""Requests and limits of a pod as a whole, and what a resize may change."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from polder.api.defaults_pods import default_pod, qos_class
from polder.api.unsupported import unsupported
from polder.api.validation.podparts import validate_resize
from polder.api.validation.pods import validate_pod


def pod(resources: Any = None, container: Any = None, **spec: Any) -> Any:
    body = {"containers": [{"name": "c", "image": "i", **(container or {})}], **spec}
    made = {"metadata": {"name": "p"}, "spec": {**body, **({"resources": resources} if resources is not None else {})}}
    default_pod(made)
    return made


def both(requests: Any, limits: Any) -> dict[str, Any]:
    return {"requests": requests, "limits": limits}


def test_requests_default_to_the_containers_and_then_to_the_limits() -> None:
    made = pod({"limits": {"cpu": "2", "memory": "1Gi"}}, {"resources": {"requests": {"cpu": "300m"}}})
    assert made["spec"]["resources"]["requests"] == {"cpu": "300m", "memory": "1Gi"}
    assert "requests" not in pod({"limits": {}})["spec"]["resources"]
    pages = pod({"requests": {"cpu": "1"}}, {"resources": {"limits": {"hugepages-2Mi": "4Mi"}}})
    assert pages["spec"]["resources"] == both({"cpu": "1", "hugepages-2Mi": "4Mi"}, {"hugepages-2Mi": "4Mi"})
    assert unsupported(pages, True) == []


@pytest.mark.parametrize(
    ("resources", "container", "quality"),
    [
        (None, {}, "BestEffort"),
        (both({"cpu": "1", "memory": "1Gi"}, {"cpu": "1", "memory": "1Gi"}), {}, "Guaranteed"),
        ({"limits": {"cpu": "1"}}, {}, "Burstable"),
        ({"requests": {"cpu": "1"}}, {"resources": both({"cpu": "1", "memory": "1Gi"}, {"cpu": "1", "memory": "1Gi"})},
         "Burstable"),
    ],
)  # fmt: skip
def test_the_class_is_that_of_the_whole(resources: Any, container: Any, quality: str) -> None:
    assert qos_class(pod(resources, container)["spec"]) == quality


@pytest.mark.parametrize(
    ("resources", "container", "spec", "said"),
    [
        ({"limits": {"ephemeral-storage": "1Gi"}}, {}, {},
         'spec.resources.limits[ephemeral-storage]: Unsupported value: "ephemeral-storage"'),
        ({"requests": {"cpu": "1"}}, {"resources": {"requests": {"cpu": "2"}}}, {},
         'spec.resources.requests[cpu]: Invalid value: "1": must be greater than or equal to aggregate container '
         "requests of 2"),
        ({"limits": {"cpu": "1"}}, {"resources": {"limits": {"cpu": "2"}}}, {},
         'spec.containers[0].resources.limits[cpu]: Invalid value: "2": must be less than or equal to pod limits of 1'),
        (both({"cpu": "2"}, {"cpu": "1"}), {}, {},
         'spec.resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1'),
        ({"claims": []}, {}, {}, "spec.resources.claims: Forbidden: claims may not be set"),
        (None, {"resizePolicy": [{"resourceName": "disk", "restartPolicy": "NotRequired"}]}, {},
         'spec.containers[0].resizePolicy: Unsupported value: "disk"'),
        (None, {"resizePolicy": [{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]},
         {"restartPolicy": "Never"},
         'spec.containers[0].resizePolicy: Invalid value: "RestartContainer": must be \'NotRequired\''),
        (None, {"resizePolicy": [{"resourceName": "cpu", "restartPolicy": "NotRequired"}] * 2}, {},
         'spec.containers[0].resizePolicy[1]: Duplicate value: "cpu"'),
    ],
)  # fmt: skip
def test_what_is_refused(resources: Any, container: Any, spec: Any, said: str) -> None:
    made = pod(resources, container, **spec)
    assert [str(e) for e in validate_pod(made) if str(e).startswith(said)], [str(e) for e in validate_pod(made)]


def test_a_resize_changes_amounts_and_takes_none_away() -> None:
    whole = both({"cpu": "1"}, {"cpu": "2", "memory": "1Gi"})
    old = pod(whole, {"resizePolicy": [{"resourceName": "cpu", "restartPolicy": "NotRequired"}]})
    new = copy.deepcopy(old)
    new["spec"]["resources"]["limits"]["cpu"] = "3"
    assert list(validate_resize(new, old)) == []
    for change, said in (
        (lambda s: s.pop("resources"), "spec.resources: Forbidden: pod-level resources cannot be removed"),
        (lambda s: s["resources"]["limits"].pop("memory"), "pod-level resource limits cannot be removed"),
        (
            lambda s: s["resources"]["limits"].update({"hugepages-2Mi": "2Mi"}),
            "only cpu and memory resources are mutable",
        ),
        (lambda s: s["containers"][0].pop("resizePolicy"), "only cpu and memory resources are mutable"),
    ):
        other = copy.deepcopy(old)
        change(other["spec"])
        assert any(said in str(e) for e in validate_resize(other, old)), said
