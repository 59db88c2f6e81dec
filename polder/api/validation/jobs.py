"""Jobs and CronJobs."""

from __future__ import annotations

import re
import zoneinfo
from collections.abc import Iterator
from typing import Any, Final

from polder.api import names
from polder.api.cron import CronError, check_schedule
from polder.api.errors import Field, FieldError
from polder.api.meta import Raw
from polder.api.validation.pods import validate_template
from polder.api.validation.rules import Rules, choice, every, fixed, least, required, same, validate_selector
from polder.api.validation.workloads import selects

_SPEC: Final = Field("spec")
_ACTIONS: Final = ("Count", "FailIndex", "FailJob", "Ignore")
_MANY: Final = 100_000
_HIGH: Final = 10_000
_INDEXES_LIMIT: Final = 64 * 1024
_LABELS: Final = ("controller-uid", "job-name")
_ZONE_PART: Final = re.compile(r"[A-Za-z0-9._+-]+")
_COUNTS: Final = (
    "parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished",
    "backoffLimitPerIndex", "maxFailedIndexes",
)  # fmt: skip


class IndexesError(ValueError):
    """A list of indexes that is none."""


def count_indexes(text: str, completions: int) -> int:
    """How many indexes ``1,3-5`` names. Raises IndexesError with a sentence."""
    last, total = -1, 0
    for part in text.split(",") if text else ():
        low, dash, high = part.partition("-")
        for number in (low, high) if dash else (low,):
            if not number.isascii() or not number.isdecimal() or len(number) > 10:
                raise IndexesError(f'cannot convert string to integer for index: "{number}"')
        first, end = int(low), int(high) if dash else int(low)
        if max(first, end) >= completions:
            raise IndexesError(f'too large index: "{max(first, end)}"')
        if dash and first >= end:
            raise IndexesError(f"non-increasing order, previous: {first}, current: {end}")
        if last >= first:
            raise IndexesError(f"non-increasing order, previous: {last}, current: {first}")
        last, total = end, total + end - first + 1
    return total


def _job_spec(spec: Raw, at: Field) -> Iterator[FieldError]:
    """What a Job and the template of a CronJob have in common."""
    for name in _COUNTS:
        if (spec.get(name) or 0) < 0:
            yield (at / name).invalid(spec[name], "must be greater than or equal to 0")
    if "maxFailedIndexes" in spec and "backoffLimitPerIndex" not in spec:
        yield (at / "backoffLimitPerIndex").required("when maxFailedIndexes is specified")
    if manager := spec.get("managedBy"):
        yield from _managed_by(manager, at / "managedBy")
    mode = spec.get("completionMode")
    if mode not in (None, "NonIndexed", "Indexed"):
        yield (at / "completionMode").not_supported(mode, ("NonIndexed", "Indexed"))
    yield from _indexed(spec, at) if mode == "Indexed" else _not_indexed(spec, at)
    if (policy := spec.get("podFailurePolicy")) is not None:
        yield from _failure_policy(policy, spec, at / "podFailurePolicy")
    if (policy := spec.get("successPolicy")) is not None and mode == "Indexed":
        yield from _success_policy(policy, spec, at / "successPolicy")
    yield from _replacement(spec, at)
    yield from validate_template(spec.get("template") or {}, at / "template")
    yield from _restart(spec, at / "template" / "spec" / "restartPolicy")


def _managed_by(manager: str, at: Field) -> Iterator[FieldError]:
    domain, slash, path = manager.partition("/")
    if not slash or not path or names.dns_subdomain(domain):
        yield at.invalid(manager, 'must be a domain-prefixed path (such as "acme.io/foo")')
    if len(manager) > 63:
        yield at.too_long(63)


def _indexed(spec: Raw, at: Field) -> Iterator[FieldError]:
    completions, failed = spec.get("completions"), spec.get("maxFailedIndexes")
    parallelism = spec.get("parallelism") or 0
    if completions is None:
        yield (at / "completions").required("when completion mode is Indexed")
    if parallelism > _MANY:
        why = f"must be less than or equal to {_MANY} when completion mode is Indexed"
        yield (at / "parallelism").invalid(parallelism, why)
    if failed is not None and completions is not None and failed > completions:
        yield (at / "maxFailedIndexes").invalid(failed, "must be less than or equal to completions")
    if failed is not None and failed > _MANY:
        yield (at / "maxFailedIndexes").invalid(failed, f"must be less than or equal to {_MANY}")
    if (completions or 0) > _MANY and "backoffLimitPerIndex" in spec:
        if failed is None:
            yield (at / "maxFailedIndexes").required(f"must be specified when completions is above {_MANY}")
        why = f"must be less than or equal to {_HIGH} when completions are above {_MANY} and used with backoff limit per index"
        for name, value in (("parallelism", parallelism), ("maxFailedIndexes", failed or 0)):
            if value > _HIGH:
                yield (at / name).invalid(value, why)


def _not_indexed(spec: Raw, at: Field) -> Iterator[FieldError]:
    for name in ("backoffLimitPerIndex", "maxFailedIndexes", "successPolicy"):
        if spec.get(name) is not None:
            yield (at / name).invalid(spec[name], "requires indexed completion mode")


def _failure_policy(policy: Raw, spec: Raw, at: Field) -> Iterator[FieldError]:
    rules, pod = policy.get("rules") or [], (spec.get("template") or {}).get("spec") or {}
    if len(rules) > 20:
        yield (at / "rules").too_many(len(rules), 20)
    known = {c.get("name") for group in ("containers", "initContainers") for c in pod.get(group) or ()}
    for number, rule in enumerate(rules):
        yield from _failure_rule(rule, spec, known, (at / "rules")[number])


def _failure_rule(rule: Raw, spec: Raw, known: set[Any], at: Field) -> Iterator[FieldError]:
    action, codes, conditions = rule.get("action", ""), rule.get("onExitCodes"), rule.get("onPodConditions") or []
    if not action:
        yield (at / "action").required(f"valid values: {_quoted(_ACTIONS)}")
    elif action not in _ACTIONS:
        yield (at / "action").not_supported(action, _ACTIONS)
    elif action == "FailIndex" and "backoffLimitPerIndex" not in spec:
        yield (at / "action").invalid(action, "requires the backoffLimitPerIndex to be set")
    if codes is not None:
        yield from _exit_codes(codes, known, at / "onExitCodes")
    if len(conditions) > 20:
        yield (at / "onPodConditions").too_many(len(conditions), 20)
    for number, pattern in enumerate(conditions):
        where, kind = (at / "onPodConditions")[number], pattern.get("type", "")
        yield from ((where / "type").invalid(kind, said) for said in names.qualified_name(kind))
        if pattern.get("status") not in ("False", "True", "Unknown"):
            yield (where / "status").not_supported(pattern.get("status", ""), ("False", "True", "Unknown"))
    if codes is not None and conditions:
        yield at.invalid(None, "specifying both OnExitCodes and OnPodConditions is not supported")
    elif codes is None and not conditions:
        yield at.invalid(None, "specifying one of OnExitCodes and OnPodConditions is required")


def _quoted(words: tuple[str, ...]) -> str:
    return "[" + " ".join(f'"{word}"' for word in words) + "]"


def _exit_codes(codes: Raw, known: set[Any], at: Field) -> Iterator[FieldError]:
    operator, values, container = codes.get("operator", ""), codes.get("values") or [], codes.get("containerName")
    if not operator:
        yield (at / "operator").required(f"valid values: {_quoted(('In', 'NotIn'))}")
    elif operator not in ("In", "NotIn"):
        yield (at / "operator").not_supported(operator, ("In", "NotIn"))
    if container is not None and container not in known:
        why = "must be one of the container or initContainer names in the pod template"
        yield (at / "containerName").invalid(container, why)
    where = at / "values"
    if not values:
        yield where.invalid(values, "at least one value is required")
    elif len(values) > 255:
        yield where.too_many(len(values), 255)
    for number, value in enumerate(values[:256]):
        if operator == "In" and value == 0:
            yield where[number].invalid(value, "must not be 0 for the In operator")
        if value in values[:number]:
            yield where[number].duplicate(value)
    if values != sorted(values):
        yield where.invalid(values, "must be ordered")


def _success_policy(policy: Raw, spec: Raw, at: Field) -> Iterator[FieldError]:
    rules, completions = policy.get("rules") or [], spec.get("completions") or 0
    if not rules:
        yield (at / "rules").required("at least one rules must be specified when the successPolicy is specified")
    if len(rules) > 20:
        yield (at / "rules").too_many(len(rules), 20)
    for number, rule in enumerate(rules):
        yield from _success_rule(rule, completions, (at / "rules")[number])


def _success_rule(rule: Raw, completions: int, at: Field) -> Iterator[FieldError]:
    count, indexes, total = rule.get("succeededCount"), rule.get("succeededIndexes"), 0
    if count is None and indexes is None:
        yield at.required("at least one of succeededCount or succeededIndexes must be specified")
    if indexes is not None:
        if len(indexes) > _INDEXES_LIMIT:
            yield (at / "succeededIndexes").too_long(_INDEXES_LIMIT)
        try:
            total = count_indexes(indexes, completions)
        except IndexesError as error:
            yield (at / "succeededIndexes").invalid(indexes, f"error parsing succeededIndexes: {error}")
    if count is not None:
        where = at / "succeededCount"
        if count < 0:
            yield where.invalid(count, "must be greater than or equal to 0")
        if count > completions:
            why = f"must be less than or equal to {completions} (the number of specified completions)"
            yield where.invalid(count, why)
        if indexes is not None and count > total:
            which = "the number of indexes in the specified succeededIndexes field"
            yield where.invalid(count, f"must be less than or equal to {total} ({which})")


def _replacement(spec: Raw, at: Field) -> Iterator[FieldError]:
    policy = spec.get("podReplacementPolicy")
    supported = ("Failed",) if "podFailurePolicy" in spec else ("Failed", "TerminatingOrFailed")
    if policy is not None and policy not in supported:
        yield (at / "podReplacementPolicy").not_supported(policy, supported)


def _restart(spec: Raw, at: Field) -> Iterator[FieldError]:
    policy = ((spec.get("template") or {}).get("spec") or {}).get("restartPolicy", "")
    if policy in ("Always", ""):
        yield at.required('valid values: "OnFailure", "Never"')
    elif policy not in ("OnFailure", "Never"):
        yield at.not_supported(policy, ("OnFailure", "Never"))
    elif "podFailurePolicy" in spec and policy != "Never":
        yield at.invalid(policy, 'only "Never" is supported when podFailurePolicy is specified')


def _job(job: Raw) -> Iterator[FieldError]:
    """A whole Job."""
    spec, meta = job.get("spec") or {}, job.get("metadata") or {}
    yield from _generated(spec, meta)
    yield from _job_spec(spec, _SPEC)
    selector = spec.get("selector")
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels") or {}
    if selector is None:
        yield (_SPEC / "selector").required()
    else:
        yield from validate_selector(selector, _SPEC / "selector")
        if not selects(selector, labels):
            at = _SPEC / "template" / "metadata" / "labels"
            yield at.invalid(labels, "`selector` does not match template `labels`")
    if spec.get("completionMode") == "Indexed" and (spec.get("completions") or 0) > 0:
        longest = f"{meta.get('name', '')}-{spec['completions'] - 1}"
        if names.dns_label(longest):
            why = f"will not able to create pod with invalid DNS label: {longest}"
            yield (Field("metadata") / "name").invalid(meta.get("name", ""), why)


def _generated(spec: Raw, meta: Raw) -> Iterator[FieldError]:
    """A selector that the server made still selects this job's pods and no others."""
    if spec.get("manualSelector") or spec.get("selector") is None:
        return
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels") or {}
    wanted = {"controller-uid": meta.get("uid", ""), "job-name": meta.get("name", "")}
    expected = {f"{prefix}{name}": value for prefix in ("batch.kubernetes.io/", "") for name, value in wanted.items()}
    at = _SPEC / "template" / "metadata"
    for key, value in expected.items():
        if key not in labels:
            yield (at / "labels")[key].required(f"must be '{value}'")
        elif labels[key] != value:
            yield (at / "labels")[key].invalid(labels, f"must be '{value}'")
    if not selects(spec["selector"], expected):
        yield (_SPEC / "selector").invalid(spec["selector"], "`selector` not auto-generated")


_PLACING: Final = ("nodeSelector", "tolerations", "schedulingGates")


def _job_update(new: Raw, old: Raw) -> Iterator[FieldError]:
    after, before = new.get("spec") or {}, old.get("spec") or {}
    at = _SPEC / "completions"
    if not same(after.get("completions"), before.get("completions")):
        if after.get("completionMode") != "Indexed":
            yield at.invalid(after.get("completions"), "field is immutable")
        elif after.get("completions") not in (None, after.get("parallelism")):
            yield at.invalid(after["completions"], "can only be modified in tandem with spec.parallelism")
    template, was = after.get("template") or {}, before.get("template") or {}
    if before.get("suspend") and not (old.get("status") or {}).get("startTime"):
        template, was = _unplaced(template), _unplaced(was)
    if not same(template, was):
        yield (_SPEC / "template").invalid(after.get("template"), "field is immutable")


def _unplaced(template: Raw) -> Raw:
    """A template without what may change while a job is suspended: where its pods go, what they are called and need."""
    meta = {
        key: value for key, value in (template.get("metadata") or {}).items() if key not in ("labels", "annotations")
    }
    spec = {key: value for key, value in (template.get("spec") or {}).items() if key not in _PLACING}
    spec["affinity"] = {k: v for k, v in (spec.get("affinity") or {}).items() if k != "nodeAffinity"}
    for group in ("containers", "initContainers"):
        if group in spec:
            spec[group] = [{k: v for k, v in item.items() if k != "resources"} for item in spec[group]]
    return {**template, "metadata": meta, "spec": spec}


def _cron(cron: Raw) -> Iterator[FieldError]:
    spec, name = cron.get("spec") or {}, (cron.get("metadata") or {}).get("name", "")
    if len(name) > 52:
        yield (Field("metadata") / "name").invalid(name, "must be no more than 52 characters")
    if schedule := spec.get("schedule"):
        try:
            check_schedule(schedule)
        except CronError as error:
            yield (_SPEC / "schedule").invalid(schedule, str(error))
        if "TZ" in schedule:
            why = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"
            yield (_SPEC / "schedule").invalid(schedule, why)
    job, at = (spec.get("jobTemplate") or {}).get("spec") or {}, _SPEC / "jobTemplate" / "spec"
    yield from _job_spec(job, at)
    if job.get("selector") is not None:
        yield (at / "selector").invalid(job["selector"], "`selector` will be auto-generated")
    if job.get("manualSelector"):
        yield (at / "manualSelector").not_supported(True, ("nil", "false"))


def _zone(zone: str, at: Field) -> Iterator[FieldError]:
    if not zone:
        yield at.invalid(zone, "timeZone must be nil or non-empty string")
        return
    parts = zone.split("/")
    if any(part in (".", "..") or part.startswith("-") or not _ZONE_PART.fullmatch(part) for part in parts):
        yield at.invalid(zone, f"unknown time zone {zone}")
        return
    if zone.lower() == "local":
        why = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones"
        yield at.invalid(zone, why)
        return
    try:
        zoneinfo.ZoneInfo(zone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        yield at.invalid(zone, f"unknown time zone {zone}")


JOBS: Final[dict[str, Rules]] = {
    "jobs.batch": Rules(
        (_job, *(least(f"status.{name}") for name in ("active", "succeeded", "failed", "ready", "terminating"))),
        (fixed("spec.selector", "spec.completionMode", "spec.podFailurePolicy", "spec.backoffLimitPerIndex",
               "spec.managedBy", "spec.successPolicy"), _job_update),
    ),
    "cronjobs.batch": Rules(
        (required("spec.schedule"), _cron, every("spec.timeZone", _zone), least("spec.startingDeadlineSeconds"),
         choice("spec.concurrencyPolicy", "Allow", "Forbid", "Replace", needed=True),
         least("spec.successfulJobsHistoryLimit"), least("spec.failedJobsHistoryLimit")),
    ),
}  # fmt: skip
