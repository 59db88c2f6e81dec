"""What ``kubectl get`` prints of workloads and of what a cluster is made of."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from polder.api.tables import cells, columns_of
from tests.unit.api.kit import KINDS, Raw

NOW = datetime(2026, 1, 1, 0, 10, tzinfo=UTC)
BORN = {"name": "x", "creationTimestamp": "2026-01-01T00:00:00Z"}
POD = {"spec": {"containers": [{"name": "a", "image": "i:1"}, {"name": "b", "image": "j:2"}]}}
CHOSEN = {"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "c", "operator": "In", "values": ["e", "d"]}]}


def printed(resource: str, obj: Raw) -> dict[str, Any]:
    columns = columns_of(KINDS[resource])
    row = cells(columns, {"metadata": BORN, **obj}, NOW)
    return {column.name: cell for column, cell in zip(columns, row, strict=True)}


@pytest.mark.parametrize(
    ("resource", "obj", "expected"),
    [
        ("deployments.apps",
         {"spec": {"replicas": 3, "template": POD, "selector": CHOSEN}, "status": {"readyReplicas": 2}},
         {"Name": "x", "Ready": "2/3", "Up-to-date": 0, "Available": 0, "Age": "10m", "Containers": "a,b",
          "Images": "i:1,j:2", "Selector": "a=b,c in (d,e)"}),
        ("daemonsets.apps", {"spec": {"template": POD}, "status": {"numberReady": 1}},
         {"Ready": 1, "Desired": 0, "Node Selector": "<none>", "Selector": "<none>"}),
        ("jobs.batch",
         {"spec": {"completions": 5, "template": POD}, "status": {"succeeded": 2, "startTime": "2026-01-01T00:09:00Z"}},
         {"Status": "Running", "Completions": "2/5", "Duration": "60s"}),
        ("jobs.batch", {"spec": {"parallelism": 3}, "status": {"conditions": [{"type": "Failed", "status": "True"}]}},
         {"Status": "Failed", "Completions": "0/1 of 3", "Duration": ""}),
        ("cronjobs.batch", {"spec": {"schedule": "* * * * *"}},
         {"Schedule": "* * * * *", "Timezone": "<none>", "Suspend": False, "Active": 0, "Last Schedule": "<none>"}),
        ("horizontalpodautoscalers.autoscaling",
         {"spec": {"minReplicas": 1, "maxReplicas": 9, "scaleTargetRef": {"kind": "Deployment", "name": "d"},
                   "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"averageUtilization": 80}}},
                               {"type": "Pods", "pods": {"target": {"averageValue": "5"}}},
                               {"type": "Pods", "pods": {"target": {"averageValue": "6"}}}]},
          "status": {"currentMetrics": [{"resource": {"current": {"averageUtilization": 7}}}]}},
         {"Reference": "Deployment/d", "Targets": "cpu: 7%/80%, <unknown>/5 + 1 more...", "MinPods": "1", "MaxPods": 9}),
        ("poddisruptionbudgets.policy", {"spec": {"minAvailable": "50%"}},
         {"Min Available": "50%", "Max Unavailable": "N/A", "Allowed Disruptions": 0}),
        ("persistentvolumes",
         {"spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteMany", "ReadWriteOnce"],
                   "claimRef": {"namespace": "n", "name": "c"}}, "status": {"phase": "Bound"}},
         {"Capacity": "1Gi", "Access Modes": "RWO,RWX", "Claim": "n/c", "Status": "Bound", "VolumeMode": "<unset>"}),
        ("persistentvolumeclaims", {"spec": {}, "status": {"phase": "Pending", "capacity": {"storage": "1Gi"}}},
         {"Status": "Pending", "Volume": "", "Capacity": "", "Access Modes": ""}),
        ("resourcequotas", {"status": {"hard": {"limits.cpu": "2", "pods": "4"}, "used": {"pods": "1"}}},
         {"Request": "pods: 1/4", "Limit": "limits.cpu: 0/2"}),
        ("endpoints",
         {"subsets": [{"addresses": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}], "ports": [{"port": 80}, {"port": 81}]}]},
         {"Endpoints": "10.0.0.1:80,10.0.0.2:80,10.0.0.1:81 + 1 more..."}),
        ("ingresses.networking.k8s.io",
         {"spec": {"rules": [{"host": name} for name in "abcd"], "tls": [{}]},
          "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}},
         {"Class": "<none>", "Hosts": "a,b,c + 1 more...", "Address": "192.0.2.1", "Ports": "80, 443"}),
        ("ipaddresses.networking.k8s.io",
         {"spec": {"parentRef": {"resource": "services", "namespace": "n", "name": "s"}}},
         {"ParentRef": "services/n/s"}),
        ("rolebindings.rbac.authorization.k8s.io",
         {"roleRef": {"kind": "Role", "name": "r"},
          "subjects": [{"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "namespace": "n", "name": "s"}]},
         {"Role": "Role/r", "Users": "u", "Groups": "", "ServiceAccounts": "n/s"}),
        ("certificatesigningrequests.certificates.k8s.io",
         {"spec": {"expirationSeconds": 3600}, "status": {"conditions": [{"type": "Approved"}], "certificate": "eA=="}},
         {"SignerName": "<none>", "RequestedDuration": "60m", "Condition": "Approved,Issued"}),
        ("storageclasses.storage.k8s.io",
         {"metadata": {**BORN, "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
          "provisioner": "p"},
         {"Name": "x (default)", "ReclaimPolicy": "Delete", "AllowVolumeExpansion": False}),
        ("apiservices.apiregistration.k8s.io",
         {"spec": {}, "status": {"conditions": [{"type": "Available", "status": "False", "reason": "Gone"}]}},
         {"Service": "Local", "Available": "False (Gone)"}),
        ("prioritylevelconfigurations.flowcontrol.apiserver.k8s.io",
         {"spec": {"type": "Limited", "limited": {"nominalConcurrencyShares": 0}}},
         {"Type": "Limited", "NominalConcurrencyShares": 0, "Queues": "<none>"}),
        ("resourceclaims.resource.k8s.io", {"status": {"allocation": {}, "reservedFor": [{}]}},
         {"State": "allocated,reserved"}),
        ("validatingadmissionpolicybindings.admissionregistration.k8s.io",
         {"spec": {"policyName": "p", "paramRef": {"name": "q"}}}, {"PolicyName": "p", "ParamRef": "*/q"}),
        ("roles.rbac.authorization.k8s.io", {}, {"Name": "x", "Created At": "2026-01-01T00:00:00Z"}),
        ("services", {"spec": {"type": "LoadBalancer"}}, {"External-IP": "<pending>"}),
        ("services", {"spec": {"type": "ExternalName", "externalName": "example.com"}}, {"External-IP": "example.com"}),
    ],
)  # fmt: skip
def test_a_row(resource: str, obj: Raw, expected: dict[str, Any]) -> None:
    row = printed(resource, obj)
    assert {name: row.get(name) for name in expected} == expected
