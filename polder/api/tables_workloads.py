"""Columns of workloads, volumes and what limits them, as ``kubectl get`` prints them."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from polder.api.columns import AGE, NAME, NONE, UNKNOWN, Cell, Column, duration, integer, moment, part, since, text
from polder.api.meta import Raw

UNSET: Final = "<unset>"
_MODES: Final = {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP"}
_ORDER: Final = ("ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod")
_OPERATORS: Final = {"In": "in", "NotIn": "notin"}


def map_text(found: Raw | None) -> str:
    """A map of labels, sorted."""
    return ",".join(f"{key}={value}" for key, value in sorted((found or {}).items())) or NONE


def selector_text(selector: Raw | None) -> str:
    """A LabelSelector as a selector's text."""
    if not selector:
        return NONE
    shown = [f"{key}={value}" for key, value in (selector.get("matchLabels") or {}).items()]
    for clause in selector.get("matchExpressions") or ():
        key, operator, values = clause.get("key", ""), clause.get("operator", ""), sorted(clause.get("values") or ())
        if operator in _OPERATORS:
            shown.append(f"{key} {_OPERATORS[operator]} ({','.join(values)})")
        else:
            shown.append(key if operator == "Exists" else f"!{key}")
    return ",".join(sorted(shown)) or NONE


def joined(name: str, path: str, *, missing: str = "", priority: int = 0) -> Column:
    """A column that shows a list of texts."""
    return Column(name, lambda obj, _: ",".join(map(str, part(obj, path) or ())) or missing, priority=priority)


def boolean(name: str, path: str, *, missing: bool = False) -> Column:
    """A column that shows a truth."""
    return Column(name, lambda obj, _: bool(found if (found := part(obj, path)) is not None else missing), "boolean")


def selector(name: str, path: str, *, priority: int = 0) -> Column:
    """A column that shows a LabelSelector."""
    return Column(name, lambda obj, _: selector_text(part(obj, path)), priority=priority)


def containers(path: str) -> tuple[Column, Column]:
    """Names and images of a template's containers, shown when asked for more."""

    def shown(field: str) -> Cell:
        return lambda obj, _: ",".join(str(c.get(field, "")) for c in part(obj, f"{path}.spec.containers") or ())

    return Column("Containers", shown("name"), priority=1), Column("Images", shown("image"), priority=1)


def _of(ready: str, wanted: str, missing: int = 0) -> Cell:
    def cell(obj: Raw, _: datetime) -> str:
        desired = part(obj, wanted)
        return f"{part(obj, ready) or 0}/{missing if desired is None else desired}"

    return cell


_TEMPLATE: Final = containers("spec.template")
_SELECTOR: Final = selector("Selector", "spec.selector", priority=1)
_REPLICAS: Final = (
    NAME,
    integer("Desired", "spec.replicas"),
    integer("Current", "status.replicas"),
    integer("Ready", "status.readyReplicas"),
    AGE,
    *_TEMPLATE,
)


# --- jobs -------------------------------------------------------------------------------------------------------------

_JOB_STATES: Final = ("Suspended", "FailureTarget", "SuccessCriteriaMet")


def _job_status(job: Raw, _: datetime) -> str:
    true = {c.get("type") for c in part(job, "status.conditions") or () if c.get("status") == "True"}
    for state in ("Complete", "Failed"):
        if state in true:
            return state
    if part(job, "metadata.deletionTimestamp"):
        return "Terminating"
    return next((state for state in _JOB_STATES if state in true), "Running")


def _completions(job: Raw, _: datetime) -> str:
    done, wanted = part(job, "status.succeeded") or 0, part(job, "spec.completions")
    if wanted is not None:
        return f"{done}/{wanted}"
    at_once = part(job, "spec.parallelism") or 0
    return f"{done}/1 of {at_once}" if at_once > 1 else f"{done}/1"


def _job_duration(job: Raw, now: datetime) -> str:
    began, ended = moment(part(job, "status.startTime")), moment(part(job, "status.completionTime"))
    return duration(int(((ended or now) - began).total_seconds())) if began else ""


def _last_schedule(cron: Raw, now: datetime) -> str:
    last = part(cron, "status.lastScheduleTime")
    return since(last, now) if last else NONE


# --- autoscalers ------------------------------------------------------------------------------------------------------

_SOURCES: Final = {
    "External": "external", "Pods": "pods", "Object": "object", "Resource": "resource",
    "ContainerResource": "containerResource",
}  # fmt: skip


def _targets(autoscaler: Raw, _: datetime) -> str:
    metrics = part(autoscaler, "spec.metrics") or []
    current = part(autoscaler, "status.currentMetrics") or []
    shown = [_target(metric, current[number] if number < len(current) else {}) for number, metric in enumerate(metrics)]
    more = f" + {len(shown) - 2} more..." if len(shown) > 2 else ""
    return ", ".join(shown[:2]) + more if shown else NONE


def _target(metric: Raw, status: Raw) -> str:
    field = _SOURCES.get(metric.get("type", ""))
    if field is None:
        return "<unknown type>"
    source, now = metric.get(field) or {}, part(status, f"{field}.current") or {}
    target, named = source.get("target") or {}, field in ("resource", "containerResource")
    label = f"{source.get('name', '')}: " if named else ""
    if target.get("averageValue") is not None:
        tail = " (avg)" if field in ("external", "object") else ""
        return f"{label}{now.get('averageValue', UNKNOWN)}/{target['averageValue']}{tail}"
    if named:
        used, wanted = now.get("averageUtilization"), target.get("averageUtilization")
        shown = UNKNOWN if used is None else f"{used}%"
        return f"{label}{shown}/{'<auto>' if wanted is None else f'{wanted}%'}"
    return f"{now.get('value', UNKNOWN)}/{target.get('value', '')}"


def _reference(obj: Raw, _: datetime) -> str:
    target = part(obj, "spec.scaleTargetRef") or {}
    return f"{target.get('kind', '')}/{target.get('name', '')}"


# --- volumes, quotas --------------------------------------------------------------------------------------------------


def _modes(path: str) -> Cell:
    def cell(obj: Raw, _: datetime) -> str:
        found = set(part(obj, path) or ())
        return ",".join(_MODES[mode] for mode in _ORDER if mode in found)

    return cell


def _phase(obj: Raw, _: datetime) -> str:
    return "Terminating" if part(obj, "metadata.deletionTimestamp") else str(part(obj, "status.phase") or "")


def _claim(volume: Raw, _: datetime) -> str:
    claim = part(volume, "spec.claimRef")
    return f"{claim.get('namespace', '')}/{claim.get('name', '')}" if claim else ""


def _if_bound(cell: Cell) -> Cell:
    return lambda claim, now: cell(claim, now) if part(claim, "spec.volumeName") else ""


def _quota(limits: bool) -> Cell:
    def cell(quota: Raw, _: datetime) -> str:
        hard, used = part(quota, "status.hard") or {}, part(quota, "status.used") or {}
        return ", ".join(
            f"{name}: {used.get(name, '0')}/{hard[name]}"
            for name in sorted(hard)
            if name.startswith("limits.") is limits
        )

    return cell


def _bound(name: str) -> Cell:
    return lambda budget, _: str(found) if (found := part(budget, f"spec.{name}")) is not None else "N/A"


def _controller(revision: Raw, _: datetime) -> str:
    owners = part(revision, "metadata.ownerReferences") or ()
    owner = next((owner for owner in owners if owner.get("controller")), None)
    if owner is None:
        return NONE
    group = owner.get("apiVersion", "").rpartition("/")[0]
    kind = f"{owner.get('kind', '').lower()}.{group}" if group else owner.get("kind", "").lower()
    return f"{kind}/{owner.get('name', '')}"


def _endpoints(endpoints: Raw, _: datetime) -> str:
    shown: list[str] = []
    for subset in endpoints.get("subsets") or ():
        addresses = [str(address.get("ip", "")) for address in subset.get("addresses") or ()]
        ports = subset.get("ports")
        shown += [f"{ip}:{port.get('port', 0)}" for port in ports for ip in addresses] if ports else addresses
    more = f" + {len(shown) - 3} more..." if len(shown) > 3 else ""
    return ",".join(shown[:3]) + more if endpoints.get("subsets") else NONE


WORKLOADS: Final[dict[str, tuple[Column, ...]]] = {
    "podtemplates": (
        NAME,
        *(Column(column.name, column.cell) for column in containers("template")),
        Column("Pod Labels", lambda obj, _: map_text(part(obj, "template.metadata.labels"))),
    ),
    "replicationcontrollers": (
        *_REPLICAS,
        Column("Selector", lambda obj, _: map_text(part(obj, "spec.selector")), priority=1),
    ),
    "replicasets.apps": (*_REPLICAS, _SELECTOR),
    "deployments.apps": (
        NAME,
        Column("Ready", _of("status.readyReplicas", "spec.replicas")),
        Column("Up-to-date", lambda obj, _: part(obj, "status.updatedReplicas") or 0),
        Column("Available", lambda obj, _: part(obj, "status.availableReplicas") or 0),
        AGE,
        *_TEMPLATE,
        _SELECTOR,
    ),
    "daemonsets.apps": (
        NAME,
        integer("Desired", "status.desiredNumberScheduled"),
        integer("Current", "status.currentNumberScheduled"),
        integer("Ready", "status.numberReady"),
        integer("Up-to-date", "status.updatedNumberScheduled"),
        integer("Available", "status.numberAvailable"),
        Column("Node Selector", lambda obj, _: map_text(part(obj, "spec.template.spec.nodeSelector"))),
        AGE,
        *_TEMPLATE,
        _SELECTOR,
    ),
    "statefulsets.apps": (NAME, Column("Ready", _of("status.readyReplicas", "spec.replicas")), AGE, *_TEMPLATE),
    "controllerrevisions.apps": (NAME, Column("Controller", _controller), integer("Revision", "revision"), AGE),
    "jobs.batch": (
        NAME,
        Column("Status", _job_status),
        Column("Completions", _completions),
        Column("Duration", _job_duration),
        AGE,
        *_TEMPLATE,
        _SELECTOR,
    ),
    "cronjobs.batch": (
        NAME,
        text("Schedule", "spec.schedule"),
        text("Timezone", "spec.timeZone", missing=NONE),
        boolean("Suspend", "spec.suspend"),
        Column("Active", lambda obj, _: len(part(obj, "status.active") or ()), "integer"),
        Column("Last Schedule", _last_schedule),
        AGE,
        *containers("spec.jobTemplate.spec.template"),
        selector("Selector", "spec.jobTemplate.spec.selector", priority=1),
    ),
    "horizontalpodautoscalers.autoscaling": (
        NAME,
        Column("Reference", _reference),
        Column("Targets", _targets),
        text("MinPods", "spec.minReplicas", missing=UNSET),
        Column("MaxPods", lambda obj, _: part(obj, "spec.maxReplicas") or 0),
        Column("Replicas", lambda obj, _: part(obj, "status.currentReplicas") or 0),
        AGE,
    ),
    "scales.autoscaling": (NAME, integer("Desired", "spec.replicas"), integer("Available", "status.replicas"), AGE),
    "poddisruptionbudgets.policy": (
        NAME,
        Column("Min Available", _bound("minAvailable")),
        Column("Max Unavailable", _bound("maxUnavailable")),
        integer("Allowed Disruptions", "status.disruptionsAllowed"),
        AGE,
    ),
    "endpoints": (NAME, Column("Endpoints", _endpoints), AGE),
    "resourcequotas": (NAME, Column("Request", _quota(False)), Column("Limit", _quota(True)), AGE),
    "persistentvolumes": (
        NAME,
        text("Capacity", "spec.capacity.storage", missing="0"),
        Column("Access Modes", _modes("spec.accessModes")),
        text("Reclaim Policy", "spec.persistentVolumeReclaimPolicy"),
        Column("Status", _phase),
        Column("Claim", _claim),
        text("StorageClass", "spec.storageClassName"),
        text("VolumeAttributesClass", "spec.volumeAttributesClassName", missing=UNSET),
        text("Reason", "status.reason"),
        AGE,
        text("VolumeMode", "spec.volumeMode", missing=UNSET, priority=1),
    ),
    "persistentvolumeclaims": (
        NAME,
        Column("Status", _phase),
        text("Volume", "spec.volumeName"),
        Column("Capacity", _if_bound(lambda obj, _: part(obj, "status.capacity.storage") or "0")),
        Column("Access Modes", _if_bound(_modes("status.accessModes"))),
        text("StorageClass", "spec.storageClassName"),
        text("VolumeAttributesClass", "spec.volumeAttributesClassName", missing=UNSET),
        AGE,
        text("VolumeMode", "spec.volumeMode", missing=UNSET, priority=1),
    ),
}
