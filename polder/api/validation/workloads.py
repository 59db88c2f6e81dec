"""Workloads: Deployments, ReplicaSets, DaemonSets, StatefulSets, ReplicationControllers, PodTemplates, their revisions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, Final

from polder.api import names
from polder.api.errors import Field, FieldError
from polder.api.labelselector import matcher_of
from polder.api.meta import Raw
from polder.api.validation.pods import validate_template
from polder.api.validation.rules import Rules, choice, fixed, least, named, places, same, validate_selector

_SPEC: Final = Field("spec")
_PERCENT: Final = re.compile("[0-9]+%")
_KEPT_BY_SETS: Final = (
    "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', "
    "'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"
)
_CHANGED_IN_SETS: Final = (
    "replicas", "ordinals", "template", "updateStrategy", "revisionHistoryLimit", "minReadySeconds",
    "persistentVolumeClaimRetentionPolicy",
)  # fmt: skip


def selects(selector: Raw, labels: Raw) -> bool:
    """Whether a LabelSelector selects labels; one that is broken is refused elsewhere."""
    try:
        return matcher_of(selector).matches_labels(labels)
    except ValueError:
        return True


def always_running(template: Raw, at: Field, kind: str) -> Iterator[FieldError]:
    """Pods of a workload are restarted and have no deadline."""
    spec = template.get("spec") or {}
    if spec.get("restartPolicy") != "Always":
        yield (at / "spec" / "restartPolicy").not_supported(spec.get("restartPolicy", ""), ("Always",))
    if spec.get("activeDeadlineSeconds") is not None:
        yield (at / "spec" / "activeDeadlineSeconds").forbidden(f"activeDeadlineSeconds in {kind} is not Supported")


def _selected(kind: str, empty: str) -> Callable[[Raw], Iterator[FieldError]]:
    """Selector and template of a workload, and that they fit."""

    def check(obj: Raw) -> Iterator[FieldError]:
        spec = obj.get("spec") or {}
        selector, template, at = spec.get("selector"), spec.get("template") or {}, _SPEC / "template"
        if selector is None:
            yield (_SPEC / "selector").required()
        else:
            yield from validate_selector(selector, _SPEC / "selector")
            if not selector.get("matchLabels") and not selector.get("matchExpressions"):
                yield (_SPEC / "selector").invalid(selector, f"empty selector is invalid for {empty}")
        labels = (template.get("metadata") or {}).get("labels") or {}
        if selector is not None and not selects(selector, labels):
            yield (at / "metadata" / "labels").invalid(labels, "`selector` does not match template `labels`")
        claims = [(claim.get("metadata") or {}).get("name", "") for claim in spec.get("volumeClaimTemplates") or ()]
        yield from validate_template(template, at, claims)
        yield from always_running(template, at, kind)

    return check


def _controller(obj: Raw) -> Iterator[FieldError]:
    """A ReplicationController's selector is a plain map, its template may be missing in the type only."""
    spec, at = obj.get("spec") or {}, _SPEC / "template"
    selector, template = spec.get("selector") or {}, spec.get("template")
    if not selector:
        yield (_SPEC / "selector").required()
    if template is None:
        yield at.required()
        return
    labels = (template.get("metadata") or {}).get("labels") or {}
    if any(labels.get(key) != value for key, value in selector.items()):
        yield (at / "metadata" / "labels").invalid(labels, "`selector` does not match template `labels`")
    yield from validate_template(template, at)
    yield from always_running(template, at, "ReplicationController")


def count_or_percent(value: Any, at: Field) -> Iterator[FieldError]:
    """A number that is not negative, or a percentage."""
    if isinstance(value, str):
        if not _PERCENT.fullmatch(value):
            why = "a valid percent string must be a numeric string followed by an ending '%'"
            yield at.invalid(value, f"{why} (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')")
    elif value < 0:
        yield at.invalid(value, "must be greater than or equal to 0")


def _amount(value: Any) -> int:
    if isinstance(value, str):
        return int(value[:-1]) if _PERCENT.fullmatch(value) and len(value) < 12 else 0
    return int(value or 0)


def at_most_all(value: Any, at: Field) -> Iterator[FieldError]:
    """A percentage of at most 100."""
    if isinstance(value, str) and _amount(value) > 100:
        yield at.invalid(value, "must not be greater than 100%")


def _deployment_strategy(obj: Raw) -> Iterator[FieldError]:
    strategy, at = (obj.get("spec") or {}).get("strategy") or {}, _SPEC / "strategy"
    rolling, kind = strategy.get("rollingUpdate"), strategy.get("type")
    if kind == "Recreate":
        if rolling is not None:
            yield (at / "rollingUpdate").forbidden("may not be specified when strategy `type` is 'Recreate'")
    elif kind == "RollingUpdate":
        where, found = at / "rollingUpdate", rolling or {}
        yield from count_or_percent(found.get("maxUnavailable", 0), where / "maxUnavailable")
        yield from count_or_percent(found.get("maxSurge", 0), where / "maxSurge")
        if not _amount(found.get("maxUnavailable")) and not _amount(found.get("maxSurge")):
            why = "may not be 0 when `maxSurge` is 0"
            yield (where / "maxUnavailable").invalid(found.get("maxUnavailable"), why)
        yield from at_most_all(found.get("maxUnavailable"), where / "maxUnavailable")
    else:
        yield at.not_supported(strategy, ("Recreate", "RollingUpdate"))


def _progress(obj: Raw) -> Iterator[FieldError]:
    spec = obj.get("spec") or {}
    deadline = spec.get("progressDeadlineSeconds")
    if deadline is not None and deadline <= spec.get("minReadySeconds", 0):
        yield (_SPEC / "progressDeadlineSeconds").invalid(deadline, "must be greater than minReadySeconds")


def _daemon_strategy(obj: Raw) -> Iterator[FieldError]:
    strategy, at = (obj.get("spec") or {}).get("updateStrategy") or {}, _SPEC / "updateStrategy"
    if strategy.get("type") not in ("OnDelete", "RollingUpdate"):
        yield at.not_supported(strategy, ("RollingUpdate", "OnDelete"))
    if strategy.get("type") != "RollingUpdate":
        return
    found, where = strategy.get("rollingUpdate"), at / "rollingUpdate"
    if found is None:
        yield where.required()
        return
    for name in ("maxUnavailable", "maxSurge"):
        yield from count_or_percent(found.get(name, 0), where / name)
        yield from at_most_all(found.get(name), where / name)
    unavailable, surge = _amount(found.get("maxUnavailable")), _amount(found.get("maxSurge"))
    if unavailable and surge:
        yield (where / "maxSurge").invalid(found["maxSurge"], "may not be set when maxUnavailable is non-zero")
    elif not unavailable and not surge:
        yield (where / "maxUnavailable").required("cannot be 0 when maxSurge is 0")


def _set_strategy(obj: Raw) -> Iterator[FieldError]:
    spec = obj.get("spec") or {}
    policy, strategy = spec.get("podManagementPolicy", ""), spec.get("updateStrategy") or {}
    if policy not in ("OrderedReady", "Parallel"):
        yield (_SPEC / "podManagementPolicy").invalid(policy, "must be 'OrderedReady' or 'Parallel'")
    at, rolling = _SPEC / "updateStrategy", strategy.get("rollingUpdate")
    if strategy.get("type") not in ("RollingUpdate", "OnDelete"):
        yield at.invalid(strategy, "must be 'RollingUpdate' or 'OnDelete'")
    elif rolling is not None and strategy["type"] == "OnDelete":
        yield (at / "rollingUpdate").invalid(rolling, "only allowed for updateStrategy 'RollingUpdate'")
    elif rolling is not None:
        if rolling.get("partition", 0) < 0:
            why = "must be greater than or equal to 0"
            yield (at / "rollingUpdate" / "partition").invalid(rolling["partition"], why)
        if (value := rolling.get("maxUnavailable")) is not None:
            yield from count_or_percent(value, at / "rollingUpdate" / "maxUnavailable")


def _set_kept(new: Raw, old: Raw) -> Iterator[FieldError]:
    after, before = (
        {key: value for key, value in (obj.get("spec") or {}).items() if key not in _CHANGED_IN_SETS}
        for obj in (new, old)
    )
    if not same(after, before):
        yield _SPEC.forbidden(_KEPT_BY_SETS)


_STATUS_COUNTS: Final = (
    "replicas", "fullyLabeledReplicas", "updatedReplicas", "readyReplicas", "availableReplicas", "currentReplicas",
    "observedGeneration", "terminatingReplicas", "collisionCount", "currentNumberScheduled", "numberMisscheduled",
    "desiredNumberScheduled", "numberReady", "updatedNumberScheduled", "numberAvailable", "numberUnavailable",
)  # fmt: skip


def _status(obj: Raw) -> Iterator[FieldError]:
    """Counts are not negative, and parts not more than the whole."""
    status, at = obj.get("status") or {}, Field("status")
    for name in _STATUS_COUNTS:
        if (status.get(name) or 0) < 0:
            yield (at / name).invalid(status[name], "must be greater than or equal to 0")
    if "replicas" in status:
        for name in (
            "fullyLabeledReplicas",
            "updatedReplicas",
            "readyReplicas",
            "availableReplicas",
            "currentReplicas",
        ):
            if (status.get(name) or 0) > status["replicas"]:
                yield (at / name).invalid(status.get(name, 0), "cannot be greater than status.replicas")
        if (status.get("availableReplicas") or 0) > (status.get("readyReplicas") or 0):
            why = "cannot be greater than readyReplicas"
            yield (at / "availableReplicas").invalid(status.get("availableReplicas", 0), why)


def _collisions(new: Raw, old: Raw) -> Iterator[FieldError]:
    before, now = ((obj.get("status") or {}).get("collisionCount") or 0 for obj in (old, new))
    if now < before:
        yield (Field("status") / "collisionCount").invalid(now, "cannot be decremented")


def _data(obj: Raw) -> Iterator[FieldError]:
    data = obj.get("data")
    if not isinstance(data, dict):
        yield Field("data").required("data is mandatory" if data is None else "data must be a valid JSON object")


def _template(obj: Raw) -> Iterator[FieldError]:
    yield from validate_template(obj.get("template") or {}, Field("template"))


def _claims(obj: Raw) -> Iterator[FieldError]:
    for at, template in places(obj, "spec.volumeClaimTemplates[]"):
        yield from _claim_modes(template, at)


def _claim_modes(template: Raw, at: Field) -> Iterator[FieldError]:
    spec = template.get("spec") or {}
    if not spec.get("accessModes"):
        yield (at / "spec" / "accessModes").required("at least 1 access mode is required")
    if "storage" not in ((spec.get("resources") or {}).get("requests") or {}):
        yield (at / "spec" / "resources" / "storage").required()


_COUNTS: Final = (least("spec.replicas"), least("spec.minReadySeconds"))
_HISTORY: Final = least("spec.revisionHistoryLimit")

WORKLOADS: Final[dict[str, Rules]] = {
    "deployments.apps": Rules(
        (*_COUNTS, _selected("ReplicaSet", "deployment"), _deployment_strategy, _HISTORY,
         least("spec.progressDeadlineSeconds"), _progress, _status),
        (fixed("spec.selector"), _collisions),
    ),
    "replicasets.apps": Rules((*_COUNTS, _selected("ReplicaSet", "deployment"), _status), (fixed("spec.selector"),)),
    "daemonsets.apps": Rules(
        (_selected("DaemonSet", "daemonset"), least("spec.minReadySeconds"), _daemon_strategy, _HISTORY, _status),
        (fixed("spec.selector"), _collisions),
    ),
    "statefulsets.apps": Rules(
        (_set_strategy, *_COUNTS, least("spec.ordinals?.start"), _HISTORY, _claims,
         choice("spec.persistentVolumeClaimRetentionPolicy?.whenDeleted", "Retain", "Delete"),
         choice("spec.persistentVolumeClaimRetentionPolicy?.whenScaled", "Retain", "Delete"),
         named("spec.serviceName", names.dns_label), _selected("StatefulSet", "statefulset"), _status),
        (_set_kept, _collisions),
    ),
    "replicationcontrollers": Rules((*_COUNTS, _controller, _status)),
    "podtemplates": Rules((_template,)),
    "controllerrevisions.apps": Rules((least("revision"), _data), (fixed("data"),)),
}  # fmt: skip
