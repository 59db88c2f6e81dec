from __future__ import annotations

from typing import Any

import pytest

from polder.api.conform import conform, strict_error, unknown_field
from polder.api.errors import ApiError
from polder.api.kinds import BUILT_IN, BY_PATH
from polder.api.schemas import Shape, schema_of
from tests.unit.api.kit import KINDS, pod

PODS = KINDS["pods"]


def test_every_built_in_kind_has_a_schema_with_metadata() -> None:
    for kind in BUILT_IN:
        schema = schema_of(kind)
        assert schema is not None, kind
        assert "metadata" in schema.fields, kind


def test_recursive_types_are_compiled_once() -> None:
    crd = schema_of(KINDS["customresourcedefinitions.apiextensions.k8s.io"])
    assert crd is not None
    spec = crd.fields["spec"].schema.fields["versions"].schema.items
    assert spec is not None
    root = spec.fields["schema"].schema.fields["openAPIV3Schema"].schema
    properties = root.fields["properties"].schema
    assert properties.shape is Shape.MAP
    assert properties.items is root


def test_unknown_fields_are_cut_off_and_named_with_their_paths() -> None:
    found = conform(PODS, {**pod(container={"foo": 1}), "bar": {"x": 1}})
    assert found.unknown == ("spec.containers[0].foo", "bar")
    assert "bar" not in found.obj
    assert "foo" not in found.obj["spec"]["containers"][0]


def test_strict_validation_speaks_as_upstream_does() -> None:
    error = strict_error(PODS, map(unknown_field, ("spec.foo", "spec.bar")))
    assert error.code == 400
    assert error.message == (
        'Pod in version "v1" cannot be handled as a Pod: strict decoding error: unknown field "spec.foo", '
        'unknown field "spec.bar"'
    )
    assert unknown_field("spec.foo") == 'unknown field "spec.foo"'


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"spec": {"containers": "x"}}, "cannot unmarshal string into Go struct field PodSpec.spec.containers of type"),
        ({"spec": {"containers": {}}}, "cannot unmarshal object into"),
        ({"spec": {"containers": [{"image": 1}]}}, "Container.spec.containers[0].image of type string"),
        ({"spec": {"containers": [{"ports": [{"containerPort": "80"}]}]}},
         "cannot unmarshal string into Go struct field ContainerPort.spec.containers[0].ports[0].containerPort of type"),
        ({"spec": {"containers": [{"ports": [{"containerPort": 1.5}]}]}}, "of type int32"),
        ({"spec": {"containers": [{"ports": [{"containerPort": 2**31}]}]}}, "of type int32"),
        ({"spec": {"terminationGracePeriodSeconds": True}}, "cannot unmarshal bool into"),
        ({"spec": {"hostNetwork": "yes"}}, "PodSpec.spec.hostNetwork of type bool"),
        ({"metadata": []}, "cannot unmarshal array into Go struct field Pod.metadata of type v1.ObjectMeta"),
        ({"metadata": {"labels": {"a": 1}}}, "ObjectMeta.metadata.labels.a of type string"),
        ({"metadata": {"creationTimestamp": "yesterday"}}, 'parsing time "yesterday"'),
        ({"spec": {"containers": [{"resources": {"limits": {"cpu": "lots"}}}]}}, "quantities must match"),
        ({"spec": {"containers": [{"resources": {"limits": {"cpu": True}}}]}}, "of type resource.Quantity"),
    ],
)  # fmt: skip
def test_wrong_types_are_bad_requests_that_name_the_field(body: Any, says: str) -> None:
    with pytest.raises(ApiError) as refused:
        conform(PODS, body)
    assert refused.value.code == 400
    assert refused.value.message.startswith('Pod in version "v1" cannot be handled as a Pod: ')
    assert says in refused.value.message


def test_secrets_must_be_base64() -> None:
    with pytest.raises(ApiError, match=r"data\.a: illegal base64 data"):
        conform(KINDS["secrets"], {"data": {"a": "!"}})


def test_values_become_canonical_and_empty_optional_parts_go() -> None:
    body = pod(
        container={"resources": {"limits": {"cpu": 1, "memory": "1024Mi"}}, "env": [], "securityContext": {}},
        labels={},
        annotations=None,
        creationTimestamp=None,
        deletionTimestamp="2026-01-01T01:00:00.5+01:00",
    )
    found = conform(PODS, body).obj
    assert found["metadata"] == {"name": "web", "namespace": "default", "deletionTimestamp": "2026-01-01T00:00:00Z"}
    container = found["spec"]["containers"][0]
    assert container["resources"] == {"limits": {"cpu": "1", "memory": "1Gi"}}
    assert "env" not in container
    assert container["securityContext"] == {}, "a struct that is there means something"


def test_zeros_that_go_cannot_tell_from_nothing_go() -> None:
    ports = [{"containerPort": 80, "hostPort": 0, "name": ""}]
    container = {"name": "c", "stdin": False, "tty": False, "workingDir": "", "ports": ports,
                 "securityContext": {"privileged": False, "runAsUser": 0}}  # fmt: skip
    spec = {"hostNetwork": False, "subdomain": "", "activeDeadlineSeconds": 0, "priority": 0, "containers": [container]}
    found = conform(BY_PATH["", "v1", "pods"], {"spec": spec}).obj["spec"]
    meant = {"privileged": False, "runAsUser": 0}
    assert found == {
        "activeDeadlineSeconds": 0,
        "priority": 0,
        "containers": [{"name": "c", "ports": [{"containerPort": 80}], "securityContext": meant}],
    }
    status = {"replicas": 0, "readyReplicas": 0, "terminatingReplicas": 0}
    kept = conform(BY_PATH["apps", "v1", "replicasets"], {"status": status}).obj["status"]
    assert kept == {"replicas": 0, "terminatingReplicas": 0}, "one is always shown, one says that there are none"


def test_micro_times_keep_six_digits() -> None:
    lease = {"spec": {"renewTime": "2026-01-01T00:00:00.123456789Z"}}
    found = conform(KINDS["leases.coordination.k8s.io"], lease).obj
    assert found["spec"]["renewTime"] == "2026-01-01T00:00:00.123456Z"


def test_years_have_four_digits() -> None:
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "spec": {"renewTime": "0001-01-01T00:00:02.5Z"}}
    assert conform(KINDS["leases.coordination.k8s.io"], lease).obj["spec"] == {
        "renewTime": "0001-01-01T00:00:02.500000Z"
    }


def test_the_argument_stays_as_it_is() -> None:
    body = pod(container={"env": [], "foo": 1})
    conform(PODS, body)
    assert body == pod(container={"env": [], "foo": 1})


def test_kinds_of_our_own_are_checked_alike() -> None:
    with pytest.raises(ApiError, match=r"NetworkSpec.spec.mtu of type int64"):
        conform(KINDS["networks.polder.dev"], {"spec": {"cidr": "10.0.0.0/24", "mtu": "big"}})
    assert conform(KINDS["networks.polder.dev"], {"spec": {"cidrr": "x"}}).unknown == ("spec.cidrr",)


def test_a_bottomless_object_is_refused() -> None:
    schema: dict[str, Any] = {}
    for _ in range(5000):
        schema = {"properties": {"a": schema}}
    body = {"spec": {"versions": [{"schema": {"openAPIV3Schema": schema}}]}}
    with pytest.raises(ApiError, match="nested too deeply"):
        conform(KINDS["customresourcedefinitions.apiextensions.k8s.io"], body)
