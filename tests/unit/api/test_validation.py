from __future__ import annotations

from typing import Any

import pytest

from tests.unit.api.kit import Raw, refused, refused_update

LABEL_RULE = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-'"


def named(name: str, **rest: Any) -> Raw:
    return {"metadata": {"name": name, "namespace": "default"}, **rest}


def test_metadata_is_checked_for_every_kind() -> None:
    assert refused("configmaps", {"metadata": {}}) == [
        "metadata.name: Required value: name or generateName is required"
    ]
    meta: Raw = {
        "name": "a",
        "labels": {"-": "ok", "k": "no way"},
        "annotations": {"x y": "z"},
        "finalizers": ["unqualified"],
        "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p"}],
    }
    found = refused("configmaps", {"metadata": meta})
    assert [sentence.partition(":")[0] for sentence in found] == [
        "metadata.labels",
        "metadata.labels",
        "metadata.annotations",
        "metadata.ownerReferences[0].uid",
        "metadata.finalizers",
    ]
    assert found[-1].endswith("name is neither a standard finalizer name nor is it fully qualified")


@pytest.mark.parametrize(
    ("resource", "name", "good"),
    [
        ("configmaps", "a.b-c", True),
        ("configmaps", "A", False),
        ("configmaps", "a" * 253, True),
        ("configmaps", "a" * 254, False),
        ("namespaces", "a.b", False),
        ("namespaces", "a" * 63, True),
        ("namespaces", "a" * 64, False),
        ("tenants.polder.dev", "a" * 40, True),
        ("tenants.polder.dev", "a" * 41, False),
        ("tenants.polder.dev", "root", False),
        ("tenants.polder.dev", "*", False),
        ("configmaps", "a/b", False),
        ("configmaps", "..", False),
    ],
)
def test_names_follow_their_kinds_rule(resource: str, name: str, good: bool) -> None:
    found = [s for s in refused(resource, {"metadata": {"name": name}}) if s.startswith("metadata.name")]
    assert (found == []) is good, found


def test_services_have_labels_of_rfc_1035_as_names() -> None:
    body = {"metadata": {"name": "1st"}, "spec": {"ports": [{"port": 1}]}}
    assert any("DNS-1035 label" in sentence for sentence in refused("services", body))


def test_generated_names_are_checked_by_their_prefix() -> None:
    assert any(
        s.startswith("metadata.generateName") for s in refused("configmaps", {"metadata": {"generateName": "A-"}})
    )
    assert refused("configmaps", {"metadata": {"name": "a-x", "generateName": "a-"}}) == []


def test_annotations_are_bounded_and_the_tenants_is_not_written() -> None:
    big = {"metadata": {"name": "a", "annotations": {"k": "x" * (256 * 1024)}}}
    assert refused("configmaps", big) == ["metadata.annotations: Too long: may not be more than 262144 bytes"]
    ours = {"metadata": {"name": "a", "annotations": {"polder.dev/tenant": "acme"}}}
    assert "Forbidden" in refused("configmaps", ours)[0]


def test_an_object_has_one_controller() -> None:
    owner = {"apiVersion": "v1", "kind": "Pod", "uid": "u", "controller": True}
    owners = [{**owner, "name": "a"}, {**owner, "name": "b"}]
    found = refused("configmaps", {"metadata": {"name": "x", "ownerReferences": owners}})
    assert 'Found "true" in references for Pod/a and Pod/b' in found[0]


def test_identity_never_changes_and_the_dying_get_no_finalizers() -> None:
    old: Raw = {"metadata": {"name": "a", "uid": "u", "deletionTimestamp": "2026-01-01T00:00:00Z"}}
    assert refused_update("configmaps", {"metadata": {**old["metadata"], "uid": "v"}}, old) == [
        'metadata.uid: Invalid value: "v": field is immutable'
    ]
    found = refused_update("configmaps", {"metadata": {**old["metadata"], "finalizers": ["x.y/z"]}}, old)
    assert found == [
        "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, "
        'found new finalizers []string{"x.y/z"}'
    ]


# --- services, endpoint slices ----------------------------------------------------------------------------------------


def service(**spec: Any) -> Raw:
    return named("web", spec={"ports": [{"port": 80}], **spec})


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ({"ports": []}, "spec.ports: Required value"),
        ({"ports": [{"port": 0}]}, "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive"),
        ({"ports": [{"port": 1}, {"port": 2}]}, "spec.ports[0].name: Required value"),
        ({"ports": [{"port": 1, "name": "a"}, {"port": 2, "name": "a"}]}, 'spec.ports[1].name: Duplicate value: "a"'),
        ({"ports": [{"port": 1, "name": "a"}, {"port": 1, "name": "b"}]}, "spec.ports[1]: Duplicate value"),
        ({"ports": [{"port": 1, "protocol": "ICMP"}]},
         'spec.ports[0].protocol: Unsupported value: "ICMP": supported values: "SCTP", "TCP", "UDP"'),
        ({"ports": [{"port": 1, "targetPort": "Not_A_Name"}]}, "spec.ports[0].targetPort: Invalid value"),
        ({"type": "Magic"}, 'spec.type: Unsupported value: "Magic"'),
        ({"type": "ExternalName"}, "spec.externalName: Required value"),
        ({"type": "NodePort", "clusterIP": "None", "clusterIPs": ["None"]},
         "spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services"),
        ({"clusterIP": "10.96.0.300", "clusterIPs": ["10.96.0.300"]}, "spec.clusterIPs[0]: Invalid value"),
        ({"clusterIP": "10.96.0.3"}, "spec.clusterIPs: Required value"),
        ({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 90000}}},
         "spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 90000"),
        ({"ports": [{"port": 1, "nodePort": 30001}]}, "spec.ports[0].nodePort: Forbidden"),
        ({"externalTrafficPolicy": "Local"}, "spec.externalTrafficPolicy: Invalid value"),
        ({"loadBalancerClass": "a/b"}, "spec.loadBalancerClass: Forbidden"),
        ({"externalIPs": ["127.0.0.1"]}, "spec.externalIPs[0]: Invalid value"),
        ({"internalTrafficPolicy": "Far"}, "spec.internalTrafficPolicy: Unsupported value"),
        ({"selector": {"a b": "c"}}, "spec.selector: Invalid value"),
        ({"ipFamilies": ["IPv4", "IPv4"]}, 'spec.ipFamilies[1]: Duplicate value: "IPv4"'),
    ],
)  # fmt: skip
def test_services_are_checked(spec: Raw, sentence: str) -> None:
    assert any(found.startswith(sentence) for found in refused("services", service(**spec)))


def test_headless_services_need_no_port_and_addresses_stay() -> None:
    assert refused("services", service(clusterIP="None", clusterIPs=["None"], ports=[])) == []
    new, old = ({"clusterIP": f"10.96.0.{last}", "clusterIPs": [f"10.96.0.{last}"]} for last in (8, 9))
    found = refused_update("services", service(**new), service(**old))
    assert found == ['spec.clusterIPs[0]: Invalid value: ["10.96.0.8"]: may not change once set']


@pytest.mark.parametrize(
    ("point", "sentence"),
    [
        ({"ip": "10.0.0.300"}, "status.loadBalancer.ingress[0].ip: Invalid value"),
        (
            {"hostname": "a.b", "ipMode": "VIP"},
            "status.loadBalancer.ingress[0].ipMode: Forbidden: may not be specified",
        ),
        ({"ip": "10.0.0.3", "ipMode": "x"}, "status.loadBalancer.ingress[0].ipMode: Unsupported value"),
        ({"hostname": "10.0.0.3"}, "status.loadBalancer.ingress[0].hostname: Invalid value"),
    ],
)
def test_what_a_load_balancer_says_of_itself_is_checked(point: Raw, sentence: str) -> None:
    was = service(type="LoadBalancer")
    sound = {**was, "status": {"loadBalancer": {"ingress": [{"ip": "10.0.0.3"}]}}}
    assert refused_update("services", sound, was) == []
    (found,) = refused_update("services", {**was, "status": {"loadBalancer": {"ingress": [point]}}}, was)
    assert found.startswith(sentence)
    assert refused_update("services", {**sound, "spec": service()["spec"]}, service()) == [
        "status.loadBalancer.ingress: Forbidden: may only be used when `spec.type` is 'LoadBalancer'"
    ]


def test_endpoint_slices_are_checked() -> None:
    resource = "endpointslices.discovery.k8s.io"
    good = named("s", addressType="IPv4", endpoints=[{"addresses": ["10.0.0.1"]}], ports=[{"name": "a", "port": 80}])
    assert refused(resource, good) == []
    bad = {**good, "endpoints": [{"addresses": []}, {"addresses": ["127.0.0.1", "fd00::1"]}]}
    found = refused(resource, bad)
    assert found[0] == "endpoints[0].addresses: Required value: must contain at least 1 address"
    assert "loopback" in found[1]
    assert "must be an IPv4 address" in found[2]
    assert "field is immutable" in refused_update(resource, {**good, "addressType": "FQDN", "endpoints": []}, good)[0]


# --- config -----------------------------------------------------------------------------------------------------------


def test_config_maps_are_checked_and_immutable_ones_stay() -> None:
    assert refused("configmaps", named("a", data={"ok.txt": "x"}, binaryData={"b": "eA=="})) == []
    assert "a valid config key" in refused("configmaps", named("a", data={"no/no": "x"}))[0]
    assert "duplicate of key" in refused("configmaps", named("a", data={"x": "1"}, binaryData={"x": "eA=="}))[0]
    assert refused("configmaps", named("a", data={"x": "y" * (1024 * 1024 + 1)})) == [
        ": Too long: may not be more than 1048576 bytes"
    ]
    fixed = named("a", data={"x": "1"}, immutable=True)
    assert refused_update("configmaps", named("a", data={"x": "2"}, immutable=True), fixed) == [
        "data: Forbidden: field is immutable when `immutable` is set"
    ]
    assert refused_update("configmaps", {**fixed, "metadata": {**fixed["metadata"], "labels": {"a": "b"}}}, fixed) == []


def test_secrets_are_checked_by_type() -> None:
    assert refused("secrets", named("a", stringData={"x": "y"})) == []
    assert refused("secrets", named("a", type="kubernetes.io/tls", data={"tls.crt": ""})) == [
        "data[tls.key]: Required value"
    ]
    assert refused_update("secrets", named("a", type="x/y"), named("a", type="x/z")) == [
        'type: Invalid value: "x/y": field is immutable'
    ]


# --- nodes, leases, events, namespaces --------------------------------------------------------------------------------


def test_taints_leases_events_and_namespaces_are_checked() -> None:
    node = named("n", spec={"taints": [{"key": "a", "effect": "Explode"}, {"key": "b"}]})
    found = refused("nodes", node)
    assert found[0].startswith('spec.taints[0].effect: Unsupported value: "Explode"')
    assert found[1] == "spec.taints[1].effect: Required value"
    lease = named("l", spec={"leaseDurationSeconds": 0})
    assert "must be greater than 0" in refused("leases.coordination.k8s.io", lease)[0]
    event = named("e", involvedObject={"namespace": "other"})
    assert refused("events", event) == [
        'involvedObject.namespace: Invalid value: "other": does not match event.namespace'
    ]
    space = {"metadata": {"name": "a", "annotations": {"polder.dev/network": "nonsense"}}}
    assert "metadata.annotations[polder.dev/network]" in refused("namespaces", space)[0]
