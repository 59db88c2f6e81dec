from __future__ import annotations

from typing import Any

import pytest

from polder.api.unsupported import unsupported
from tests.unit.api.kit import Raw, made, pod, refused, refused_update

NEAR = {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "zone", "labelSelector": {}}]}


def test_sysctls_have_names_that_the_kernel_could_have() -> None:
    names = ("kernel.shmmax", "foo-", "net/ipv4/conf/eth0.1/x", "", "bar..", "kernel.shmmax")
    sysctls = [{"name": name, "value": "1"} for name in names]
    found = refused("pods", pod({"securityContext": {"sysctls": sysctls}}))
    at, rule = "spec.securityContext.sysctls", "must have at most 253 characters and match regex ^("
    assert [said.partition(rule)[0] for said in found] == [
        f'{at}[1].name: Invalid value: "foo-": ',
        f"{at}[3].name: Required value",
        f'{at}[4].name: Invalid value: "bar..": ',
        f'{at}[5].name: Duplicate value: "kernel.shmmax"',
    ]
    shared = {"hostNetwork": True, "hostIPC": True, "securityContext": {"sysctls": [
        {"name": "net/ipv4/ip_forward", "value": "1"}, {"name": "kernel.shmmax", "value": "1"}]}}  # fmt: skip
    assert [said.rpartition(": ")[2] for said in refused("pods", pod(shared))] == [
        "may not be specified when 'hostNetwork' is true",
        "may not be specified when 'hostIPC' is true",
    ]


def test_csi_volumes_name_their_driver() -> None:
    def said(source: Raw) -> list[str]:
        return refused("pods", pod({"volumes": [{"name": "v", "csi": source}]}))

    assert said({"driver": "Csi.example.com", "readOnly": True}) == []
    assert said({"driver": ""}) == ["spec.volumes[0].csi.driver: Required value"]
    assert "spec.volumes[0].csi.driver: Invalid value" in said({"driver": "a_b"})[0]
    assert "spec.volumes[0].csi.driver: Too long" in said({"driver": "a" * 64})[0]
    assert said({"driver": "d", "nodePublishSecretRef": {}}) == [
        "spec.volumes[0].csi.nodePublishSecretRef.name: Required value"
    ]


def test_a_plain_pod_is_valid() -> None:
    assert refused("pods", pod()) == []


@pytest.mark.parametrize(
    ("container", "sentence"),
    [
        ({"image": ""}, "spec.containers[0].image: Required value"),
        ({"name": ""}, "spec.containers[0].name: Required value"),
        ({"name": "A"}, 'spec.containers[0].name: Invalid value: "A": a lowercase RFC 1123 label'),
        ({"image": " x"}, "spec.containers[0].image: Invalid value: \" x\": must not have leading or trailing whitespace"),
        ({"imagePullPolicy": "Maybe"},
         'spec.containers[0].imagePullPolicy: Unsupported value: "Maybe": supported values: "Always", "IfNotPresent", '
         '"Never"'),
        ({"ports": [{"containerPort": 70000}]},
         "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive"),
        ({"ports": [{"containerPort": 1, "name": "a"}, {"containerPort": 2, "name": "a"}]},
         'spec.containers[0].ports[1].name: Duplicate value: "a"'),
        ({"env": [{"name": "A", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]},
         'spec.containers[0].env[0].valueFrom: Invalid value: "": may not be specified when `value` is not empty'),
        ({"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.secret"}}}]},
         "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Unsupported value"),
        ({"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s"}}}]},
         "spec.containers[0].env[0].valueFrom.secretKeyRef.key: Required value"),
        ({"envFrom": [{}]}, "spec.containers[0].envFrom[0]: Invalid value"),
        ({"volumeMounts": [{"name": "v", "mountPath": "/x"}]},
         'spec.containers[0].volumeMounts[0].name: Not found: "v"'),
        ({"resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}},
         'spec.containers[0].resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1'),
        ({"resources": {"limits": {"cpu": "-1"}}},
         'spec.containers[0].resources.limits[cpu]: Invalid value: "-1": must be greater than or equal to 0'),
        ({"resources": {"limits": {"speed": "1"}}}, "spec.containers[0].resources.limits[speed]: Invalid value"),
        ({"securityContext": {"runAsUser": -1}}, "spec.containers[0].securityContext.runAsUser: Invalid value: -1"),
        ({"terminationMessagePolicy": "Never"}, "spec.containers[0].terminationMessagePolicy: Unsupported value"),
    ],
)  # fmt: skip
def test_containers_are_checked(container: Raw, sentence: str) -> None:
    assert any(found.startswith(sentence) for found in refused("pods", pod(container=container)))


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ({"containers": []}, "spec.containers: Required value"),
        ({"initContainers": [{"name": "web", "image": "x"}]}, 'spec.containers[0].name: Duplicate value: "web"'),
        ({"restartPolicy": "Sometimes"},
         'spec.restartPolicy: Unsupported value: "Sometimes": supported values: "Always", "OnFailure", "Never"'),
        ({"dnsPolicy": "Whatever"}, "spec.dnsPolicy: Unsupported value"),
        ({"dnsPolicy": "None"}, "spec.dnsConfig: Required value"),
        ({"hostname": "a.b"}, "spec.hostname: Invalid value"),
        ({"activeDeadlineSeconds": 0},
         "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive"),
        ({"nodeSelector": {"a b": "c"}}, "spec.nodeSelector: Invalid value"),
        ({"tolerations": [{"operator": "Equal"}]}, "spec.tolerations[0].operator: Invalid value"),
        ({"tolerations": [{"key": "a", "operator": "Like"}]}, "spec.tolerations[0].operator: Unsupported value"),
        ({"tolerations": [{"key": "a", "operator": "Exists", "value": "x"}]}, "spec.tolerations[0].operator: Invalid"),
        ({"tolerations": [{"key": "a", "effect": "NoSchedule", "tolerationSeconds": 5}]},
         "spec.tolerations[0].effect: Invalid value"),
        ({"volumes": [{"name": "v"}, {"name": "v"}]}, 'spec.volumes[1].name: Duplicate value: "v"'),
        ({"volumes": [{"name": "v", "emptyDir": {}, "secret": {"secretName": "s"}}]},
         "spec.volumes[0].secret: Forbidden: may not specify more than 1 volume type"),
        ({"volumes": [{"name": "v", "secret": {}}]}, "spec.volumes[0].secret.secretName: Required value"),
        ({"volumes": [{"name": "v", "configMap": {"name": "c", "defaultMode": 512}}]},
         "spec.volumes[0].configMap.defaultMode: Invalid value: 512: must be a number between 0 and 0777 (octal)"),
        ({"volumes": [{"name": "v", "configMap": {"name": "c", "items": [{"key": "k", "path": "../x"}]}}]},
         "spec.volumes[0].configMap.items[0].path: Invalid value: \"../x\": must not contain '..'"),
        ({"volumes": [{"name": "v", "projected": {"sources": [
            {"serviceAccountToken": {"path": "t", "expirationSeconds": 5}}]}}]},
         "spec.volumes[0].projected.sources[0].serviceAccountToken.expirationSeconds: Invalid value: 5"),
        ({"hostAliases": [{"ip": "nope", "hostnames": ["a"]}]}, "spec.hostAliases[0].ip: Invalid value"),
    ],
)  # fmt: skip
def test_pod_specs_are_checked(spec: Raw, sentence: str) -> None:
    assert any(found.startswith(sentence) for found in refused("pods", pod(spec)))


@pytest.mark.parametrize(
    ("annotations", "good"),
    [
        ({"polder.dev/address": "10.0.0.5", "polder.dev/mac": "0a:58:0a:00:00:05", "polder.dev/network": "a/b"}, True),
        ({"polder.dev/address": "10.0.0.5/24"}, False),
        ({"polder.dev/address": "fd00::5,10.0.0.5"}, True),
        ({"polder.dev/address": "fd00:0::5"}, False),
        ({"polder.dev/address": "10.0.0.5,10.0.0.6"}, False),
        ({"polder.dev/address": ""}, False),
        ({"polder.dev/mac": "0A:58:0a:00:00:05"}, False),
        ({"polder.dev/mac": "01:00:5e:00:00:01"}, False),
        ({"polder.dev/mac": "00:00:00:00:00:00"}, False),
        ({"polder.dev/network": "b"}, False),
        ({"polder.dev/network": "a/b/c"}, False),
    ],
)
def test_static_addresses_are_checked(annotations: Raw, good: bool) -> None:
    assert (refused("pods", pod(annotations=annotations)) == []) is good


@pytest.mark.parametrize(
    ("spec", "container", "why"),
    [
        ({}, {"volumeMounts": [{"name": "v", "mountPath": "/a", "subPathExpr": "/x"}]}, "must be a relative path"),
        ({}, {"volumeMounts": [{"name": "v", "mountPath": "/a", "subPathExpr": "a/../b"}]}, "must not contain '..'"),
        ({}, {"volumeMounts": [{"name": "v", "mountPath": "/a", "subPathExpr": "a", "subPath": "b"}]},
         "mutually exclusive"),
        ({}, {"volumeMounts": [{"name": "v", "mountPath": "/a", "mountPropagation": "Bidirectional"}]},
         "only to privileged containers"),
        ({}, {"volumeMounts": [{"name": "v", "mountPath": "/a", "mountPropagation": "x"}]}, "Unsupported value"),
        ({}, {"volumeMounts": [{"name": "v", "mountPath": "/a", "recursiveReadOnly": "Enabled"}]},
         "only be specified when readOnly is true"),
        ({}, {"volumeMounts": [{"name": "v", "mountPath": "/a", "readOnly": True, "recursiveReadOnly": "Enabled",
                                "mountPropagation": "HostToContainer"}]}, "when mountPropagation is None"),
        ({}, {"env": [{"name": "A", "valueFrom": {"fileKeyRef": {"volumeName": "z", "path": "f", "key": "A"}}}]},
         'fileKeyRef.volumeName: Not found: "z"'),
        ({"volumes": [{"name": "s", "secret": {"secretName": "s"}}]},
         {"env": [{"name": "A", "valueFrom": {"fileKeyRef": {"volumeName": "s", "path": "f", "key": "A"}}}]},
         'fileKeyRef.volumeName: Invalid value: "s": referenced volume must be of type emptyDir'),
        ({}, {"env": [{"name": "A", "valueFrom": {"fileKeyRef": {"volumeName": "v", "path": "../f", "key": "A"}}}]},
         "must not contain '..'"),
        ({}, {"securityContext": {"seccompProfile": {"type": "Localhost"}}}, "must be set when seccomp type is"),
        ({"securityContext": {"seccompProfile": {"type": "Localhost", "localhostProfile": "../x"}}}, {},
         "must not contain '..'"),
        ({"securityContext": {"appArmorProfile": {"type": "RuntimeDefault", "localhostProfile": "x"}}}, {},
         "can only be set when AppArmor type is Localhost"),
        ({"securityContext": {"supplementalGroupsPolicy": "x"}}, {}, "supplementalGroupsPolicy: Unsupported value"),
        ({"securityContext": {"fsGroupChangePolicy": "x"}}, {}, "fsGroupChangePolicy: Unsupported value"),
        ({"hostUsers": False, "hostPID": True}, {}, "hostPID: Forbidden: when `hostUsers` is false"),
        ({"hostnameOverride": "a_b"}, {}, "hostnameOverride: Invalid value"),
        ({"hostnameOverride": "a", "setHostnameAsFQDN": True}, {}, "when setHostnameAsFQDN is true"),
        ({"hostnameOverride": "a." * 32 + "a"}, {}, "hostnameOverride: Too long"),
    ],
)  # fmt: skip
def test_mounts_contexts_and_names_are_checked(spec: Raw, container: Raw, why: str) -> None:
    found = refused("pods", pod({"volumes": [{"name": "v", "emptyDir": {}}], **spec}, container))
    assert len(found) == 1 and why in found[0]


# --- changes ----------------------------------------------------------------------------------------------------------


def changed(spec: Raw | None = None, container: Raw | None = None, **meta: Any) -> list[str]:
    old = pod({"tolerations": [{"key": "a"}], "activeDeadlineSeconds": 60})
    new = pod({"tolerations": [{"key": "a"}], "activeDeadlineSeconds": 60, **(spec or {})}, container, **meta)
    return refused_update("pods", new, old)


def test_images_deadlines_tolerations_and_labels_may_change() -> None:
    assert changed(container={"image": "nginx:2", "imagePullPolicy": "IfNotPresent"}) == []
    assert changed({"activeDeadlineSeconds": 30}) == []
    assert changed({"tolerations": [{"key": "a"}, {"key": "b"}]}) == []
    assert changed(labels={"a": "b"}) == []


def test_nothing_else_of_a_pod_changes() -> None:
    assert changed({"nodeName": "n"})[0].startswith("spec: Forbidden: pod updates may not change fields other than")
    assert changed({"nodeName": "n"})[0].endswith("changed: spec.nodeName")
    assert changed(container={"command": ["x"]})[0].endswith("changed: spec.containers")
    assert changed({"activeDeadlineSeconds": 90})[0].endswith("must be less than or equal to previous value")
    assert "existing toleration" in changed({"tolerations": []})[0]
    more = [{"name": "web", "image": "nginx:1"}, {"name": "b", "image": "x"}]
    assert changed({"containers": more}) == ["spec.containers: Forbidden: pod updates may not add or remove containers"]
    assert "field is immutable" in changed(annotations={"polder.dev/address": "10.0.0.5"})[0]


# --- what is not there ------------------------------------------------------------------------------------------------


def test_a_negative_grace_is_one_second() -> None:
    assert made("pods", pod({"terminationGracePeriodSeconds": -1}))["spec"]["terminationGracePeriodSeconds"] == 1
    assert made("pods", pod({"terminationGracePeriodSeconds": 0}))["spec"]["terminationGracePeriodSeconds"] == 0


def missing(spec: Raw | None = None, container: Raw | None = None, *, root: bool = False) -> list[str]:
    return [str(error) for error in unsupported(made("pods", pod(spec, container)), root)]


def test_a_plain_pod_asks_for_nothing_special() -> None:
    assert missing() == []
    assert missing({"affinity": {}, "os": {"name": "linux"}, "hostUsers": True, "hostNetwork": False}) == []
    assert missing({"affinity": {"nodeAffinity": {}, "podAffinity": NEAR, "podAntiAffinity": NEAR}}) == []
    assert missing({"topologySpreadConstraints": [{"maxSkew": 1}], "schedulingGates": [{"name": "g"}]}) == []
    assert missing({"overhead": {"cpu": "1"}, "runtimeClassName": "crun"}) == []
    usual = {"seccompProfile": {"type": "RuntimeDefault"}}
    assert missing({"securityContext": usual}, {"securityContext": usual}, root=False) == []


@pytest.mark.parametrize("name", ["windows", "plan9", ""])
def test_another_system_than_linux_is_named_with_what_there_is(name: str) -> None:
    for root in (True, False):
        said = f'spec.os.name: Unsupported value: "{name}": supported values: "linux"'
        assert missing({"os": {"name": name}}, root=root) == [said]


@pytest.mark.parametrize(
    ("spec", "container", "field"),
    [
        ({"volumes": [{"name": "v", "nfs": {"server": "a", "path": "/"}}]}, {}, "spec.volumes[0].nfs"),
        ({"os": {"name": "linux"}}, {"lifecycle": {"stopSignal": "SIGHUP"}}, "spec.containers[0].lifecycle.stopSignal"),
        ({}, {"securityContext": {"procMount": "Unmasked"}}, "spec.containers[0].securityContext.procMount"),
        ({"hostUsers": False}, {}, "spec.hostUsers"),
        ({"securityContext": {"windowsOptions": {"runAsUserName": "x"}}}, {}, "spec.securityContext.windowsOptions"),
    ],
)  # fmt: skip
def test_what_polder_does_not_do_is_refused_for_everybody(spec: Raw, container: Raw, field: str) -> None:
    for root in (True, False):
        assert [found.partition(":")[0] for found in missing(spec, container, root=root)] == [field]
        assert missing(spec, container, root=root)[0].endswith("is not supported by this version of Polder")


@pytest.mark.parametrize(
    ("spec", "container", "field"),
    [
        ({"hostNetwork": True}, {}, "spec.hostNetwork"),
        ({"hostPID": True}, {}, "spec.hostPID"),
        ({"hostIPC": True}, {}, "spec.hostIPC"),
        ({"schedulerName": "mine"}, {}, "spec.schedulerName"),
        ({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}, {}, "spec.volumes[0].hostPath"),
        ({}, {"ports": [{"containerPort": 1, "hostPort": 1}]}, "spec.containers[0].ports[0].hostPort"),
        ({}, {"securityContext": {"privileged": True}}, "spec.containers[0].securityContext.privileged"),
        ({}, {"securityContext": {"capabilities": {"add": ["CAP_SYS_ADMIN"]}}},
         "spec.containers[0].securityContext.capabilities.add[0]"),
        ({"securityContext": {"seccompProfile": {"type": "Unconfined"}}}, {},
         "spec.securityContext.seccompProfile.type"),
        ({}, {"securityContext": {"appArmorProfile": {"type": "Unconfined"}}},
         "spec.containers[0].securityContext.appArmorProfile.type"),
        ({}, {"securityContext": {"capabilities": {"add": ["ALL"]}}},
         "spec.containers[0].securityContext.capabilities.add[0]"),
    ],
)  # fmt: skip
def test_what_reaches_out_of_a_tenant_is_for_the_platform(spec: Raw, container: Raw, field: str) -> None:
    assert [found.partition(":")[0] for found in missing(spec, container)] == [field]
    assert missing(spec, container, root=True) == []


# --- scheduling gates -------------------------------------------------------------------------------------------------

GATED: Raw = {"schedulingGates": [{"name": "a.example/one"}, {"name": "two"}]}


def wrong(spec: Raw) -> list[str]:
    return refused("pods", pod(spec))


def test_gates_are_names_and_each_is_there_once() -> None:
    assert wrong(GATED) == []
    assert "spec.schedulingGates[0]: Invalid value" in wrong({"schedulingGates": [{"name": "a b"}]})[0]
    assert wrong({"schedulingGates": [{"name": "a"}, {"name": "a"}]}) == [
        'spec.schedulingGates[1]: Duplicate value: "a"'
    ]
    assert "cannot be set until all schedulingGates" in wrong({**GATED, "nodeName": "n"})[0]


def test_gates_are_only_taken_away() -> None:
    def changes(after: Raw, before: Raw = GATED) -> list[str]:
        return refused_update("pods", pod(after), pod(before))

    assert changes({"schedulingGates": [{"name": "two"}]}) == [] == changes({})
    assert "found new scheduling gate 'x'" in changes({"schedulingGates": [{"name": "x"}]})[0]
    narrowed = {**GATED, "nodeSelector": {"disk": "ssd"}}
    assert changes(narrowed) == [] == changes({**narrowed, "nodeSelector": {"disk": "ssd", "a": "b"}}, narrowed)
    assert changes({**narrowed, "nodeSelector": {"disk": "hdd"}}, narrowed) != []
    assert changes({"nodeSelector": {"disk": "ssd"}}, {}) != []

    def affine(*clauses: str, **more: Raw) -> Raw:
        found = [{"key": key, "operator": "Exists"} for key in clauses]
        terms = {"nodeSelectorTerms": [{"matchExpressions": found}]}
        return {
            **GATED,
            "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}, **more},
        }

    assert changes(affine("a")) == [] == changes(affine("a", "b"), affine("a"))
    assert changes(affine("b"), affine("a")) != [] != changes(affine("a", podAffinity=NEAR), affine("a"))
