from __future__ import annotations

import base64

import pytest

from polder.api.defaults import initial_status, pull_policy, qos_class
from tests.unit.api.kit import KINDS, Raw, made, pod


def test_a_minimal_pod_gets_upstreams_defaults() -> None:
    found = made("pods", pod(container={"ports": [{"containerPort": 80}]}))
    assert found["spec"] == {
        "containers": [
            {
                "name": "web",
                "image": "nginx:1",
                "ports": [{"containerPort": 80, "protocol": "TCP"}],
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File",
                "imagePullPolicy": "IfNotPresent",
                "resources": {},
            }
        ],
        "restartPolicy": "Always",
        "dnsPolicy": "ClusterFirst",
        "terminationGracePeriodSeconds": 30,
        "schedulerName": "default-scheduler",
        "securityContext": {},
        "enableServiceLinks": True,
    }


def test_what_is_given_stays() -> None:
    found = made(
        "pods", pod({"restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "enableServiceLinks": False})
    )
    assert found["spec"]["restartPolicy"] == "Never"
    assert found["spec"]["terminationGracePeriodSeconds"] == 0
    assert found["spec"]["enableServiceLinks"] is False


def test_defaulting_twice_changes_nothing() -> None:
    body = pod({"volumes": [{"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]})
    once = made("pods", body)
    assert made("pods", once) == once


def test_requests_follow_limits_where_they_are_left_open() -> None:
    resources = {"limits": {"cpu": "2", "memory": "1Gi"}, "requests": {"cpu": "1"}}
    found = made("pods", pod(container={"resources": resources}))
    assert found["spec"]["containers"][0]["resources"]["requests"] == {"cpu": "1", "memory": "1Gi"}


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("nginx", "Always"),
        ("nginx:latest", "Always"),
        ("nginx:1", "IfNotPresent"),
        ("host:5000/nginx", "Always"),
        ("host:5000/nginx:1", "IfNotPresent"),
        ("nginx@sha256:abc", "IfNotPresent"),
        ("nginx:latest@sha256:abc", "Always"),
    ],
)
def test_the_pull_policy_follows_the_tag(image: str, policy: str) -> None:
    assert pull_policy(image) == policy


def test_volumes_get_modes_and_an_empty_one_is_an_empty_directory() -> None:
    volumes = [
        {"name": "a"},
        {"name": "b", "configMap": {"name": "c"}},
        {"name": "d", "downwardAPI": {"items": [{"path": "p", "fieldRef": {"fieldPath": "metadata.name"}}]}},
        {"name": "e", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}},
        {"name": "f", "hostPath": {"path": "/x"}},
    ]
    found = made("pods", pod({"volumes": volumes}))["spec"]["volumes"]
    assert found[0] == {"name": "a", "emptyDir": {}}
    assert found[1]["configMap"]["defaultMode"] == 0o644
    assert found[2]["downwardAPI"]["items"][0]["fieldRef"]["apiVersion"] == "v1"
    assert found[3]["projected"] == {
        "sources": [{"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}}],
        "defaultMode": 0o644,
    }
    assert found[4]["hostPath"]["type"] == ""


def test_the_old_name_of_the_service_account_is_kept_in_step() -> None:
    assert made("pods", pod({"serviceAccount": "x"}))["spec"]["serviceAccountName"] == "x"
    assert made("pods", pod({"serviceAccountName": "y"}))["spec"]["serviceAccount"] == "y"


def test_services_get_target_ports_and_families() -> None:
    spec = made("services", {"spec": {"ports": [{"port": 80}], "clusterIP": "10.96.0.9"}})["spec"]
    assert spec["ports"] == [{"port": 80, "protocol": "TCP", "targetPort": 80}]
    assert (spec["type"], spec["sessionAffinity"], spec["internalTrafficPolicy"]) == ("ClusterIP", "None", "Cluster")


def test_text_of_a_secret_is_folded_into_its_data() -> None:
    found = made("secrets", {"stringData": {"a": "new"}, "data": {"a": "b2xk", "b": "Yg=="}})
    assert "stringData" not in found
    assert base64.b64decode(found["data"]["a"]) == b"new"
    assert found["type"] == "Opaque"


def test_namespaces_carry_their_name_as_a_label() -> None:
    assert made("namespaces", {"metadata": {"name": "a"}})["metadata"]["labels"] == {"kubernetes.io/metadata.name": "a"}


def test_tenants_and_networks_get_theirs() -> None:
    v4 = {"podCidr": "10.0.0.0/16", "podCidrs": ["10.0.0.0/16"]}
    assert made("tenants.polder.dev", {})["spec"] == {
        **v4, "serviceCidr": "10.96.0.0/16", "serviceCidrs": ["10.96.0.0/16"],
    }  # fmt: skip
    both = made("tenants.polder.dev", {"spec": {"podCidrs": ["fd00::/64", "10.0.0.0/16"]}})["spec"]
    assert both["podCidr"] == "fd00::/64"
    assert both["serviceCidrs"] == ["fd00:10:96::/112", "10.96.0.0/16"]
    assert made("networks.polder.dev", {"spec": {"cidrs": ["fd00::/64"]}})["spec"]["cidr"] == "fd00::/64"
    assert made("networks.polder.dev", {"spec": {"cidr": "10.1.0.0/16"}})["spec"]["router"] == "default"
    isolated = {"spec": {"cidr": "10.1.0.0/16", "router": ""}}
    assert made("networks.polder.dev", isolated)["spec"]["router"] == "", "none is a choice"


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({}, "BestEffort"),
        ({"requests": {"cpu": "1"}}, "Burstable"),
        ({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1000m", "memory": "1024Mi"}}, "Guaranteed"),
        ({"requests": {"cpu": "1"}, "limits": {"cpu": "1"}}, "Burstable"),
    ],
)
def test_the_class_of_service_follows_the_resources(resources: Raw, expected: str) -> None:
    assert qos_class({"containers": [{"resources": resources}]}) == expected


def test_new_objects_begin_with_the_status_of_their_kind() -> None:
    assert initial_status(KINDS["pods"], pod()) == {"phase": "Pending", "qosClass": "BestEffort"}
    assert initial_status(KINDS["tenants.polder.dev"], {}) == {"phase": "Active"}
    assert initial_status(KINDS["nodes"], {}) is None
