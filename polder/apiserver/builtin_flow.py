"""The flow schemas and priority levels that Kubernetes holds mandatory: ``exempt`` and ``catch-all``.

Polder shares the API between tenants by its own bounds; upstream's suggested objects, which would promise more, are not made.
"""

from __future__ import annotations

from polder.api.meta import Raw

_VERSION = "flowcontrol.apiserver.k8s.io/v1"


def flow_objects() -> list[Raw]:
    """The FlowSchemas and PriorityLevelConfigurations, without UIDs and times."""
    exempt = {"nominalConcurrencyShares": 0, "lendablePercent": 0}
    limited = {"nominalConcurrencyShares": 5, "lendablePercent": 0, "limitResponse": {"type": "Reject"}}
    return [
        _schema("exempt", 1, ["system:masters"]),
        _schema("catch-all", 10000, ["system:unauthenticated", "system:authenticated"]),
        _object("PriorityLevelConfiguration", "exempt", {"type": "Exempt", "exempt": exempt}),
        _object("PriorityLevelConfiguration", "catch-all", {"type": "Limited", "limited": limited}),
    ]


def _schema(name: str, precedence: int, groups: list[str]) -> Raw:
    everything: Raw = {
        "verbs": ["*"],
        "apiGroups": ["*"],
        "resources": ["*"],
        "clusterScope": True,
        "namespaces": ["*"],
    }
    rule = {
        "subjects": [{"kind": "Group", "group": {"name": group}} for group in groups],
        "resourceRules": [everything],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
    }
    spec: Raw = {"priorityLevelConfiguration": {"name": name}, "matchingPrecedence": precedence, "rules": [rule]}
    if name == "catch-all":
        spec["distinguisherMethod"] = {"type": "ByUser"}
    return _object("FlowSchema", name, spec)


def _object(kind: str, name: str, spec: Raw) -> Raw:
    meta = {"name": name, "generation": 1, "annotations": {"apf.kubernetes.io/autoupdate-spec": "true"}}
    return {"apiVersion": _VERSION, "kind": kind, "metadata": meta, "spec": spec, "status": {}}
