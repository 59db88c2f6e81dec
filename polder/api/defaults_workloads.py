"""Defaults of workloads that are more than a path and a value: strategies, jobs, autoscalers."""

from __future__ import annotations

import copy
from typing import Any, Final

from polder.api.convert_hpa import DEFAULT_CPU, without_round_trip
from polder.api.defaults_pods import default_template
from polder.api.defaults_table import fill
from polder.api.meta import Raw

_MANY: Final = 2**31 - 1
_SCALE_UP: Final[Raw] = {
    "stabilizationWindowSeconds": 0,
    "selectPolicy": "Max",
    "policies": [
        {"type": "Pods", "value": 4, "periodSeconds": 15},
        {"type": "Percent", "value": 100, "periodSeconds": 15},
    ],
}
_SCALE_DOWN: Final[Raw] = {
    "selectPolicy": "Max",
    "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}],
}


def _rolling(strategy: Raw, **values: Any) -> None:
    if strategy.get("type") == "RollingUpdate":
        fill(strategy, [(f"rollingUpdate.{name}", value) for name, value in values.items()])


def default_deployment(deployment: Raw) -> None:
    """apps/v1 Deployment."""
    spec = deployment["spec"]
    _rolling(spec["strategy"], maxUnavailable="25%", maxSurge="25%")
    default_template(spec)


def default_daemon_set(daemons: Raw) -> None:
    """apps/v1 DaemonSet."""
    spec = daemons["spec"]
    _rolling(spec["updateStrategy"], maxUnavailable=1, maxSurge=0)
    default_template(spec)


def default_stateful_set(stateful: Raw) -> None:
    """apps/v1 StatefulSet."""
    spec = stateful["spec"]
    update = spec.setdefault("updateStrategy", {})
    if not update.get("type"):
        update["type"] = "RollingUpdate"
        update.setdefault("rollingUpdate", {})
    if update["type"] == "RollingUpdate" and "rollingUpdate" in update:
        update["rollingUpdate"].setdefault("partition", 0)
    default_template(spec)


def default_replicas(owner: Raw) -> None:
    """apps/v1 ReplicaSet: its template."""
    default_template(owner.get("spec"))


def default_replication_controller(controller: Raw) -> None:
    """v1 ReplicationController: selector and labels follow the template's labels."""
    spec = controller.setdefault("spec", {})
    default_template(spec)
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels")
    if labels:
        if not spec.get("selector"):
            spec["selector"] = dict(labels)
        _labelled(controller, labels)


def _labelled(obj: Raw, labels: dict[str, str]) -> None:
    meta = obj.setdefault("metadata", {})
    if not meta.get("labels"):
        meta["labels"] = dict(labels)


def default_pod_template(template: Raw) -> None:
    """v1 PodTemplate."""
    default_template(template)


def default_job(job: Raw) -> None:
    """batch/v1 Job."""
    spec = job.setdefault("spec", {})
    default_job_spec(spec)
    if "completions" not in spec and "parallelism" not in spec:
        spec["completions"] = 1
    spec.setdefault("parallelism", 1)
    spec.setdefault("backoffLimit", _MANY if "backoffLimitPerIndex" in spec else 6)
    if labels := ((spec.get("template") or {}).get("metadata") or {}).get("labels"):
        _labelled(job, labels)
    spec.setdefault("completionMode", "NonIndexed")
    spec.setdefault("suspend", False)
    spec.setdefault("podReplacementPolicy", "Failed" if "podFailurePolicy" in spec else "TerminatingOrFailed")
    spec.setdefault("manualSelector", False)


def default_job_spec(spec: Raw) -> None:
    """What a Job's spec gets in a template too."""
    default_template(spec)
    fill(spec, [("podFailurePolicy?.rules[].onPodConditions[].status", "True")])


def default_cron_job(cron: Raw) -> None:
    """batch/v1 CronJob."""
    default_job_spec(cron["spec"].setdefault("jobTemplate", {}).setdefault("spec", {}))


def default_autoscaler(autoscaler: Raw) -> None:
    """autoscaling/v2 HorizontalPodAutoscaler."""
    spec = autoscaler["spec"]
    if autoscaler.get("metadata", {}).get("annotations"):
        autoscaler["metadata"] = without_round_trip(autoscaler["metadata"])
    if not spec.get("metrics"):
        target = {"type": "Utilization", "averageUtilization": DEFAULT_CPU}
        spec["metrics"] = [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]
    if (behavior := spec.get("behavior")) is not None:
        for name, rules in (("scaleUp", _SCALE_UP), ("scaleDown", _SCALE_DOWN)):
            behavior[name] = {**copy.deepcopy(rules), **(behavior.get(name) or {})}
