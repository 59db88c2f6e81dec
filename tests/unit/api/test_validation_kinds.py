"""Rules of the built-in kinds: each sentence is upstream's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from polder.api.kinds import BUILT_IN, STORED_FORM
from polder.api.validation import validate_create
from tests.unit.api.kit import KINDS, Raw, made, refused, refused_update

TEXT = (Path(__file__).parents[2] / "contract" / "kinds.yaml").read_text()
SOUND = yaml.safe_load(TEXT.replace("${request}", "eA=="))
POD = {"spec": {"containers": [{"name": "c", "image": "i:1"}]}}
BATCH = {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i:1"}]}}
R = "rbac.authorization.k8s.io"
A = "admissionregistration.k8s.io"
N = "networking.k8s.io"


def sound(resource: str, **changes: Any) -> Raw:
    """The sound object of the kind with fields replaced: ``spec__replicas=1``; None takes one away."""
    fixture = SOUND[resource]
    meta = {"name": fixture.get("name", "x"), "uid": "u"}
    if KINDS[resource].namespaced:
        meta["namespace"] = "default"
    obj: Raw = yaml.safe_load(yaml.safe_dump({**fixture["object"], "metadata": meta}))
    for path, value in changes.items():
        at: Any = obj
        *above, last = path.split("__")
        for key in above:
            at = at[int(key)] if key.isdigit() else at.setdefault(key, {})
        if value is None:
            at.pop(last, None)
        else:
            at[int(last) if last.isdigit() else last] = value
    return obj


@pytest.mark.parametrize("resource", sorted(set(SOUND) - {"jobs.batch"}))
def test_a_sound_object_breaks_no_rule(resource: str) -> None:
    assert refused(resource, sound(resource)) == []
    assert refused_update(resource, sound(resource), sound(resource)) == []


BAD: list[tuple[str, Raw, str]] = [
    ("deployments.apps", {"spec__replicas": -1}, "spec.replicas: Invalid value: -1: must be greater than or equal to 0"),
    ("deployments.apps", {"spec__selector": None}, "spec.selector: Required value"),
    ("deployments.apps", {"spec__selector": {"matchLabels": {"c": "d"}}},
     'spec.template.metadata.labels: Invalid value: {"a":"b"}: `selector` does not match template `labels`'),
    ("deployments.apps", {"spec__selector": {}}, "spec.selector: Invalid value: {}: empty selector is invalid for deployment"),
    ("deployments.apps", {"spec__strategy": {"type": "Recreate", "rollingUpdate": {"maxSurge": 1}}},
     "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'"),
    ("deployments.apps", {"spec__strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "0%"}}},
     'spec.strategy.rollingUpdate.maxUnavailable: Invalid value: "0%": may not be 0 when `maxSurge` is 0'),
    ("deployments.apps", {"spec__template__spec__restartPolicy": "Never"},
     'spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"'),
    ("deployments.apps", {"spec__template__spec__containers": []}, "spec.template.spec.containers: Required value"),
    ("deployments.apps", {"spec__progressDeadlineSeconds": 5, "spec__minReadySeconds": 5},
     "spec.progressDeadlineSeconds: Invalid value: 5: must be greater than minReadySeconds"),
    ("daemonsets.apps", {"spec__updateStrategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}}},
     "spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: 1: may not be set when maxUnavailable is non-zero"),
    ("statefulsets.apps", {"spec__podManagementPolicy": "Odd"},
     'spec.podManagementPolicy: Invalid value: "Odd": must be \'OrderedReady\' or \'Parallel\''),
    ("statefulsets.apps", {"spec__volumeClaimTemplates": [{"metadata": {"name": "v"}, "spec": {}}]},
     "spec.volumeClaimTemplates[0].spec.accessModes: Required value: at least 1 access mode is required"),
    ("replicationcontrollers", {"spec__selector": {"c": "d"}}, "spec.template.metadata.labels: Invalid value"),
    ("controllerrevisions.apps", {"data": None}, "data: Required value: data is mandatory"),
    ("cronjobs.batch", {"spec__schedule": "* * *"},
     'spec.schedule: Invalid value: "* * *": expected exactly 5 fields, found 3: [* * *]'),
    ("cronjobs.batch", {"spec__schedule": "61 * * * *"}, "spec.schedule: Invalid value: \"61 * * * *\": end of range (61)"),
    ("cronjobs.batch", {"spec__schedule": "TZ=UTC 0 * * * *"}, "spec.schedule: Invalid value: \"TZ=UTC 0 * * * *\": cannot use"),
    ("cronjobs.batch", {"spec__timeZone": "Nowhere/Land"}, "spec.timeZone: Invalid value: \"Nowhere/Land\": unknown time zone"),
    ("cronjobs.batch", {"spec__concurrencyPolicy": "Maybe"}, "spec.concurrencyPolicy: Unsupported value"),
    ("cronjobs.batch", {"spec__jobTemplate__spec__template__spec__restartPolicy": "Always"},
     'spec.jobTemplate.spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"'),
    ("horizontalpodautoscalers.autoscaling", {"spec__maxReplicas": 0},
     "spec.maxReplicas: Required value: must be set and greater than 0"),
    ("horizontalpodautoscalers.autoscaling", {"spec__minReplicas": 9},
     "spec.maxReplicas: Invalid value: 3: must be greater than or equal to `minReplicas`"),
    ("horizontalpodautoscalers.autoscaling", {"spec__metrics": [{"type": "Pods"}]},
     "spec.metrics[0].pods: Required value: must populate information for the given metric source"),
    ("poddisruptionbudgets.policy", {"spec__maxUnavailable": 1}, "spec: Invalid value"),
    ("poddisruptionbudgets.policy", {"spec__minAvailable": "110%"},
     'spec.minAvailable: Invalid value: "110%": must not be greater than 100%'),
    (f"networkpolicies.{N}", {"spec__ingress": [{"from": [{}]}]}, "spec.ingress[0].from[0]: Required value: must specify a peer"),
    (f"networkpolicies.{N}", {"spec__egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/9"]}}]}]},
     'spec.egress[0].to[0].ipBlock.except[0]: Invalid value: "11.0.0.0/9": must be a strict subset of `cidr`'),
    (f"ingresses.{N}", {"spec__defaultBackend": None}, "spec: Invalid value: either `defaultBackend` or `rules` must be"),
    (f"ingresses.{N}", {"spec__rules": [{"http": {"paths": [{"path": "x", "pathType": "Exact",
                                                           "backend": {"service": {"name": "s", "port": {"number": 1}}}}]}}]},
     'spec.rules[0].http.paths[0].path: Invalid value: "x": must be an absolute path'),
    (f"ingressclasses.{N}", {"spec__controller": "x"}, 'spec.controller: Invalid value: "x": must be a domain-prefixed path'),
    (f"ipaddresses.{N}", {"spec__parentRef": None}, "spec.parentRef: Required value"),
    (f"ipaddresses.{N}", {"metadata__name": "010.0.0.1"}, "metadata.name: Invalid value"),
    (f"servicecidrs.{N}", {"spec__cidrs": ["10.0.0.0/8", "11.0.0.0/8"]}, "spec.cidrs: Invalid value"),
    ("endpoints", {"subsets__0": {}}, "subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`"),
    ("persistentvolumes", {"spec__hostPath": None}, "spec: Required value: must specify a volume type"),
    ("persistentvolumes", {"spec__capacity": {"storage": "0"}}, "spec.capacity[storage]: Invalid value: \"0\": must be greater"),
    ("persistentvolumeclaims", {"spec__resources": None}, "spec.resources[storage]: Required value"),
    ("persistentvolumeclaims", {"spec__accessModes": ["Any"]}, 'spec.accessModes: Unsupported value: "Any"'),
    ("storageclasses.storage.k8s.io", {"provisioner": None}, "provisioner: Required value"),
    ("storageclasses.storage.k8s.io", {"volumeBindingMode": "Late"}, "volumeBindingMode: Unsupported value"),
    ("volumeattachments.storage.k8s.io", {"spec__source": {}}, "spec.source: Required value: must specify exactly one of"),
    ("csinodes.storage.k8s.io", {"spec__drivers__0__nodeID": None}, "spec.drivers[0].nodeID: Required value"),
    ("resourcequotas", {"spec__hard": {"odd": "1"}}, 'spec.hard[odd]: Invalid value: "odd": must be a standard resource'),
    ("resourcequotas", {"spec__hard": {"pods": "1.5"}}, 'spec.hard[pods]: Invalid value: "1500m": must be an integer'),
    ("resourcequotas", {"spec__scopes": ["BestEffort", "NotBestEffort"]}, "spec.scopes: Invalid value"),
    ("limitranges", {"spec__limits__0__min": {"cpu": "2"}},
     'spec.limits[0].min[cpu]: Invalid value: "2": min value 2 is greater than max value 1'),
    ("priorityclasses.scheduling.k8s.io", {"value": 2_000_000_000},
     "value: Forbidden: maximum allowed value of a user defined priority is 1000000000"),
    ("priorityclasses.scheduling.k8s.io", {"metadata__name": "system-mine"}, "metadata.name: Forbidden: priority class names"),
    ("runtimeclasses.node.k8s.io", {"handler": "No_Good"}, 'handler: Invalid value: "No_Good"'),
    (f"clusterroles.{R}", {"rules__0__verbs": []}, "rules[0].verbs: Required value: verbs must contain at least one value"),
    (f"roles.{R}", {"rules__0": {"verbs": ["get"], "nonResourceURLs": ["/x"]}},
     'rules[0].nonResourceURLs: Invalid value: ["/x"]: namespaced rules cannot apply to non-resource URLs'),
    (f"clusterrolebindings.{R}", {"roleRef__kind": "Role"},
     'roleRef.kind: Unsupported value: "Role": supported values: "ClusterRole"'),
    (f"rolebindings.{R}", {"subjects__0__kind": "Robot"}, 'subjects[0].kind: Unsupported value: "Robot"'),
    (f"validatingwebhookconfigurations.{A}", {"webhooks__0__sideEffects": "Some"},
     'webhooks[0].sideEffects: Unsupported value: "Some": supported values: "None", "NoneOnDryRun"'),
    (f"validatingwebhookconfigurations.{A}", {"webhooks__0__name": "short"}, "webhooks[0].name: Invalid value"),
    (f"mutatingwebhookconfigurations.{A}", {"webhooks__0__clientConfig": {"url": "http://example.com"}},
     "webhooks[0].clientConfig.url: Invalid value: \"http\": 'https' is the only allowed URL scheme"),
    (f"mutatingwebhookconfigurations.{A}", {"webhooks__0__timeoutSeconds": 31}, "webhooks[0].timeoutSeconds: Invalid value: 31"),
    (f"mutatingwebhookconfigurations.{A}", {"webhooks__0__matchConditions": [{"name": "a", "expression": ""}]},
     "webhooks[0].matchConditions[0].expression: Required value"),
    (f"validatingadmissionpolicies.{A}", {"spec__validations": None}, "spec.validations: Required value"),
    (f"mutatingadmissionpolicies.{A}", {"spec__mutations__0__jsonPatch": None},
     "spec.mutations[0].jsonPatch: Required value: must be specified when patchType is JSONPatch"),
    (f"validatingadmissionpolicybindings.{A}", {"spec__validationActions": ["Deny", "Warn"]},
     "spec.validationActions: Invalid value"),
    ("apiservices.apiregistration.k8s.io", {"spec__version": "v2"}, "metadata.name: Invalid value: \"v1.things.example.com\""),
    ("certificatesigningrequests.certificates.k8s.io", {"spec__usages": ["odd"]}, 'spec.usages[0]: Unsupported value: "odd"'),
    ("certificatesigningrequests.certificates.k8s.io", {"spec__signerName": "x"}, 'spec.signerName: Invalid value: "x"'),
    ("flowschemas.flowcontrol.apiserver.k8s.io", {"spec__matchingPrecedence": 10001},
     "spec.matchingPrecedence: Invalid value: 10001: must not be greater than 10000"),
    ("prioritylevelconfigurations.flowcontrol.apiserver.k8s.io", {"spec__type": "Exempt"}, "spec.type: Invalid value"),
    ("resourceslices.resource.k8s.io", {"spec__nodeName": None}, "spec: Required value: exactly one of `nodeName`"),
    ("events", {"eventTime": "2026-01-01T00:00:00.000000Z"}, "reportingController: Required value"),
]  # fmt: skip


@pytest.mark.parametrize(("resource", "changes", "sentence"), BAD)
def test_what_breaks_a_rule_is_named(resource: str, changes: Raw, sentence: str) -> None:
    found = refused(resource, sound(resource, **changes))
    assert any(said.startswith(sentence) for said in found), found


FIXED: list[tuple[str, Raw, str]] = [
    ("deployments.apps", {"spec__selector": {"matchLabels": {"a": "b"}, "matchExpressions": []},
                          "spec__template__metadata__labels": {"a": "b", "c": "d"}}, ""),
    ("replicasets.apps", {"spec__selector": {"matchLabels": {"c": "d"}}, "spec__template__metadata__labels": {"c": "d"}},
     'spec.selector: Invalid value: {"matchLabels":{"c":"d"}}: field is immutable'),
    ("statefulsets.apps", {"spec__serviceName": "s"}, "spec: Forbidden: updates to statefulset spec for fields other than"),
    ("statefulsets.apps", {"spec__replicas": 7, "spec__minReadySeconds": 2}, ""),
    ("persistentvolumeclaims", {"spec__accessModes": ["ReadWriteMany"]}, "spec: Forbidden: spec is immutable after creation"),
    ("persistentvolumes", {"spec__hostPath": {"path": "/y"}},
     "spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation"),
    ("storageclasses.storage.k8s.io", {"provisioner": "example.com/q"}, "provisioner: Invalid value"),
    (f"rolebindings.{R}", {"roleRef__name": "edit"}, "roleRef: Invalid value"),
    ("priorityclasses.scheduling.k8s.io", {"value": 8}, "value: Forbidden: may not be changed in an update."),
    ("runtimeclasses.node.k8s.io", {"handler": "i"}, 'handler: Invalid value: "i": field is immutable'),
    (f"ipaddresses.{N}", {"spec__parentRef__name": "t"}, "spec.parentRef: Invalid value"),
    (f"ingressclasses.{N}", {"spec__controller": "example.com/d"}, "spec.controller: Invalid value"),
    ("resourcequotas", {"spec__scopes": ["BestEffort"], "spec__hard": {"pods": "1"}}, "spec.scopes: Invalid value"),
    ("csidrivers.storage.k8s.io", {"spec__attachRequired": False}, "spec.attachRequired: Invalid value"),
    ("controllerrevisions.apps", {"data": {"a": "c"}}, "data: Invalid value"),
]  # fmt: skip


@pytest.mark.parametrize(("resource", "changes", "sentence"), FIXED)
def test_what_is_fixed_stays(resource: str, changes: Raw, sentence: str) -> None:
    found = refused_update(resource, sound(resource, **changes), sound(resource))
    assert found == [] if not sentence else any(said.startswith(sentence) for said in found), found


def job(**spec: Any) -> Raw:
    labels = {f"{prefix}{name}": value for prefix in ("", "batch.kubernetes.io/")
              for name, value in (("job-name", "x"), ("controller-uid", "u"))}  # fmt: skip
    template = {"metadata": {"labels": labels}, **BATCH}
    selector = {"matchLabels": {"batch.kubernetes.io/controller-uid": "u"}}
    meta = {"name": "x", "namespace": "default", "uid": "u"}
    return {"metadata": meta, "spec": {"template": template, "selector": selector, **spec}}


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ({}, ""),
        ({"parallelism": -1}, "spec.parallelism: Invalid value: -1"),
        ({"completionMode": "Indexed", "parallelism": 2}, "spec.completions: Required value: when completion mode is Indexed"),
        ({"backoffLimitPerIndex": 1}, "spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode"),
        ({"podFailurePolicy": {"rules": [{"action": "Ignore"}]}},
         "spec.podFailurePolicy.rules[0]: Invalid value: specifying one of OnExitCodes and OnPodConditions is required"),
        ({"podFailurePolicy": {"rules": [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [2, 1]}}]}},
         "spec.podFailurePolicy.rules[0].onExitCodes.values: Invalid value: [2,1]: must be ordered"),
        ({"completionMode": "Indexed", "completions": 5, "successPolicy": {"rules": [{"succeededIndexes": "1,3-9"}]}},
         "spec.successPolicy.rules[0].succeededIndexes: Invalid value: \"1,3-9\": error parsing succeededIndexes"),
        ({"managedBy": "x"}, 'spec.managedBy: Invalid value: "x"'),
        ({"podReplacementPolicy": "Soon"}, "spec.podReplacementPolicy: Unsupported value"),
        ({"selector": {"matchLabels": {"a": "b"}}}, "spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"b\"}}: `selector`"),
    ],
)  # fmt: skip
def test_jobs_are_checked(spec: Raw, sentence: str) -> None:
    found = refused("jobs.batch", job(**spec))
    assert found == [] if not sentence else any(said.startswith(sentence) for said in found), found


def test_a_jobs_template_changes_only_while_it_is_suspended() -> None:
    moved = job()
    moved["spec"]["template"]["spec"] = {**BATCH["spec"], "nodeSelector": {"a": "b"}}
    assert refused_update("jobs.batch", moved, job())[0].startswith("spec.template: Invalid value")
    moved["spec"]["suspend"] = True
    assert refused_update("jobs.batch", moved, job(suspend=True)) == []
    other = job(suspend=True)
    other["spec"]["template"]["spec"] = {**BATCH["spec"], "hostNetwork": True}
    assert refused_update("jobs.batch", other, job(suspend=True))[0].startswith("spec.template: Invalid value")
    assert "in tandem" in refused_update(
        "jobs.batch", job(completionMode="Indexed", completions=3, parallelism=2),
        job(completionMode="Indexed", completions=2, parallelism=2),
    )[0]  # fmt: skip


def test_events_of_the_new_group_are_checked_strictly() -> None:
    kind = next(kind for kind in BUILT_IN if kind.qualified == "events.events.k8s.io")
    old = made("events", sound("events"))
    said = [str(error) for error in validate_create(kind, old)]
    assert "eventTime: Required value" in said
    assert [str(error) for error in validate_create(STORED_FORM["events"], old)] == []
