"""Eviction: a pod is deleted if its disruption budget allows that.

Source: upstream's EvictionREST (policy/v1).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

import msgspec
from aiohttp import web

from polder.api.conform import conform_to
from polder.api.errors import ApiError, bad_request, conflict, forbidden, not_found
from polder.api.kinds import Kind, built_in
from polder.api.labelselector import matcher_of
from polder.api.meta import Raw
from polder.api.schemas import named
from polder.apiserver import objectmeta
from polder.apiserver.admission import AdmissionContext, Subject
from polder.apiserver.answers import raw_answer, success
from polder.apiserver.body import media_type, parse_object
from polder.apiserver.catalog import Resource
from polder.apiserver.delete_options import DeleteOptions, Preconditions, check_options, options_of
from polder.apiserver.deletes import By, Deleter
from polder.apiserver.hooks import Call
from polder.apiserver.objects import decode, decode_entry, encode, terms
from polder.apiserver.reads import key_of
from polder.apiserver.writes import ATTEMPTS
from polder.base.clock import stamp
from polder.store.protocol import ConflictError, Entry, Prefix, Put

EVICTION: Final = Kind("policy", "v1", "Eviction", "evictions", "eviction")
BUDGETS: Final = built_in("policy/v1", "poddisruptionbudgets")
_SCHEMA: Final = "io.k8s.api.policy.v1.Eviction"
_DISRUPTED_LIMIT: Final = 2000
_CAUSE: Final = "DisruptionBudget"
_VIOLATES: Final = "Cannot evict pod as it would violate the pod's disruption budget."
_ENDED: Final = frozenset({"Succeeded", "Failed"})


def _refused(message: str, retry: int = 0) -> ApiError:
    """429: the budget does not allow it; ``message`` says why."""
    details: Raw = {"causes": [{"reason": _CAUSE, "message": message}]}
    if retry:
        details["retryAfterSeconds"] = retry
    return ApiError(429, "TooManyRequests", _VIOLATES, details)


def _busy(name: str) -> ApiError:
    return _refused(f"The disruption budget {name} is still being processed by the server.", 10)


def _condition(obj: Raw, kind: str) -> Raw:
    conditions = (obj.get("status") or {}).get("conditions") or ()
    return next((condition for condition in conditions if condition.get("type") == kind), {})


def _is_ready(pod: Raw) -> bool:
    return bool(_condition(pod, "Ready").get("status") == "True")


def _needs_no_budget(pod: Raw) -> bool:
    """Whether the pod counts for no budget: it has ended, did not begin yet, or is being deleted."""
    phase = (pod.get("status") or {}).get("phase")
    return phase in _ENDED or phase == "Pending" or bool(pod["metadata"].get("deletionTimestamp"))


def _is_final(pod: Raw) -> bool:
    return (pod.get("status") or {}).get("phase") in _ENDED or bool(pod["metadata"].get("deletionTimestamp"))


def check_budget(budget: Raw) -> None:
    """Raises ApiError 403, 429 where the budget allows no disruption."""
    status, meta = budget.get("status") or {}, budget["metadata"]
    name, allowed = meta["name"], status.get("disruptionsAllowed", 0)
    if status.get("observedGeneration", 0) < meta.get("generation", 0):
        raise _busy(name)
    if allowed < 0:
        raise forbidden(BUDGETS, name, "pdb disruptions allowed is negative")
    if len(status.get("disruptedPods") or ()) > _DISRUPTED_LIMIT:
        why = "DisruptedPods map too big - too many evictions not confirmed by PDB controller"
        raise forbidden(BUDGETS, name, why)
    if allowed:
        return
    condition = _condition(budget, "DisruptionAllowed")
    denies = condition.get("status") == "False"
    message, reason = _text(condition, "message", said=denies), _text(condition, "reason", said=denies)
    current, desired = status.get("currentHealthy", 0), status.get("desiredHealthy", 0)
    plain = f"The disruption budget {name} does not allow evicting pods currently"
    if message and reason == "SyncFailed":
        raise _refused(f"{plain} because it failed sync: {message}")
    if current <= desired:
        raise _refused(f"The disruption budget {name} needs {desired} healthy pods and has {current} currently")
    raise _refused(f"{plain} ({reason}): {message}" if message else plain)


def _text(condition: Raw, key: str, *, said: bool) -> str:
    return str(condition.get(key) or "") if said else ""


def spent(budget: Raw, pod: str, now: datetime) -> Raw:
    """The budget with one disruption less, and the pod noted as disrupted."""
    status = dict(budget.get("status") or {})
    status["disruptionsAllowed"] = status.get("disruptionsAllowed", 0) - 1
    status["disruptedPods"] = {**(status.get("disruptedPods") or {}), pod: stamp(now)}
    if not status["disruptionsAllowed"]:
        said = {"type": "DisruptionAllowed", "status": "False", "reason": "InsufficientPods", "message": "",
                "lastTransitionTime": stamp(now), "observedGeneration": status.get("observedGeneration", 0)}  # fmt: skip
        others = [c for c in status.get("conditions") or () if c.get("type") != "DisruptionAllowed"]
        status["conditions"] = [*others, said]
    return {**budget, "status": status}


def protects_unready(budget: Raw) -> bool:
    """Whether a pod that is not ready counts for the budget all the same."""
    if (budget.get("spec") or {}).get("unhealthyPodEvictionPolicy") == "AlwaysAllow":
        return False
    status = budget.get("status") or {}
    desired = status.get("desiredHealthy", 0)
    return not (status.get("currentHealthy", 0) >= desired > 0)


def _options_of(eviction: Raw, dry_run: bool) -> DeleteOptions:
    """How to delete, as admission left it. Raises ApiError."""
    options = options_of(eviction.get("deleteOptions") or {})
    if options.dry_run and not dry_run:
        raise bad_request("admission may not make a dry run of an eviction that is none")
    if dry_run:
        options.dry_run = ["All"]
    check_options(options)
    return options


@dataclass(frozen=True, slots=True)
class Evictions:
    """Serves the eviction of pods."""

    deleter: Deleter

    async def evict(self, call: Call, resource: Resource) -> web.StreamResponse:
        """POST of an Eviction. Raises ApiError."""
        options, eviction = await self._options(call)
        dry_run, insists = bool(options.dry_run), _version_of(options) is not None

        def checked(_: AdmissionContext, changed: Raw) -> None:
            _options_of(changed, dry_run)

        for attempt in range(ATTEMPTS):
            pod = await self._pod(call, resource)
            context = AdmissionContext(
                call.who, call.info.tenant, "create", resource, pod.key.namespace, pod.key.name, "eviction", None, None,
                dry_run, subject=Subject(EVICTION, eviction, take=checked),
            )  # fmt: skip
            if not attempt:
                await self.deleter.writer.chain.look(context)
                options = _options_of(eviction, dry_run)
                insists = _version_of(options) is not None
            try:
                await self._once(call, resource, pod, options)
            except ApiError as refused:
                if not refused.is_conflict or insists:
                    raise
            except ConflictError:
                continue
            else:
                return raw_answer(success(), 201)
        raise conflict(resource.kind, call.info.name)

    async def _pod(self, call: Call, resource: Resource) -> Entry:
        found = await self.deleter.writer.store.get(key_of(call, resource))
        if found is None:
            raise not_found(resource.kind, call.info.name)
        return found

    async def _options(self, call: Call) -> tuple[DeleteOptions, Raw]:
        """How to delete, and the Eviction itself. Raises ApiError 400, 422."""
        sent = parse_object(await self.deleter.writer.body(call), media_type(call.request))
        if sent.get("apiVersion") == "policy/v1beta1":
            sent["apiVersion"] = EVICTION.api_version
        objectmeta.check_kind(Resource(EVICTION), sent)
        meta = objectmeta.check_metadata(sent)
        eviction = conform_to(named(_SCHEMA), EVICTION, sent).obj
        if meta.get("name") not in (None, "", call.info.name):
            raise bad_request("name in URL does not match name in Eviction object")
        options = options_of(eviction.get("deleteOptions") or {})
        asked = self.deleter.writer.options(call, "CreateOptions").dry_run
        if asked and options.dry_run not in (None, [], ["All"]):
            said = f"[All] and {options.dry_run}"
            raise bad_request(f"Non-matching dry-run options in request and content: {said}")
        if asked:
            options.dry_run = ["All"]
        check_options(options)
        return options, eviction

    async def _once(self, call: Call, resource: Resource, entry: Entry, options: DeleteOptions) -> None:
        """Raises ApiError; ConflictError where the budget changed meanwhile."""
        pod = decode_entry(entry)
        if _needs_no_budget(pod):
            await self._delete(call, resource, entry, options if _is_final(pod) else _pinned(options, entry))
            return
        budgets = await self._budgets(entry, pod)
        if len(budgets) > 1:
            why = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
            raise ApiError(500, "", why)
        if budgets and not _is_ready(pod) and not protects_unready(decode_entry(budgets[0])):
            try:
                await self._delete(call, resource, entry, _pinned(options, entry))
            except ApiError as refused:
                if refused.is_conflict and _version_of(options) is None:
                    raise _busy(budgets[0].key.name) from refused
                raise
            return
        if budgets:
            await self._spend(budgets[0], entry.key.name, dry_run=bool(options.dry_run))
        await self._delete(call, resource, entry, options)

    async def _budgets(self, entry: Entry, pod: Raw) -> list[Entry]:
        prefix = Prefix(BUDGETS.resource, entry.key.tenant, entry.key.namespace)
        labels = pod["metadata"].get("labels") or {}
        page = await self.deleter.writer.store.list(prefix)
        return [budget for budget in page.entries if _selects(decode(budget.value, 0), labels)]

    async def _spend(self, entry: Entry, pod: str, *, dry_run: bool) -> None:
        """Takes one disruption from the budget. Raises ApiError 403, 429, and ConflictError."""
        writer = self.deleter.writer
        budget = decode_entry(entry)
        check_budget(budget)
        if dry_run:
            return
        value = spent(budget, pod, writer.clock.now())
        await writer.store.commit([Put(entry.key, encode(value), entry.revision, terms(value))])

    async def _delete(self, call: Call, resource: Resource, entry: Entry, options: DeleteOptions) -> None:
        """Says in the pod's status why it goes, and deletes it. Raises ApiError."""
        current = entry
        if not options.dry_run:
            current = await self._marked(resource, entry.key.name, entry, options)
            if _version_of(options) is not None:
                options = _pinned(msgspec.structs.replace(options, preconditions=None), current, options)
        await self.deleter.remove(replace(By.of(call), evicts=True), resource, current, options)

    async def _marked(self, resource: Resource, name: str, entry: Entry, options: DeleteOptions) -> Entry:
        store, current = self.deleter.writer.store, entry
        for _ in range(ATTEMPTS):
            pod = decode_entry(current)
            wanted = _version_of(options)
            if wanted is not None and wanted != pod["metadata"]["resourceVersion"]:
                why = f"the ResourceVersion in the precondition ({wanted}) does not match the ResourceVersion in record"
                raise conflict(resource.kind, name, f"{why} ({pod['metadata']['resourceVersion']})")
            value = encode(_disrupted(pod, stamp(self.deleter.writer.clock.now())))
            if value == current.value:
                return current
            try:
                revision = await store.commit([Put(current.key, value, current.revision, terms(pod))])
            except ConflictError as lost:
                if lost.current is None:
                    raise not_found(resource.kind, name) from lost
                current = lost.current
            else:
                return Entry(current.key, value, revision)
        raise conflict(resource.kind, name)


def _selects(budget: Raw, labels: Raw) -> bool:
    try:
        return matcher_of((budget.get("spec") or {}).get("selector")).matches_labels(labels)
    except ValueError:
        return False


def _version_of(options: DeleteOptions) -> str | None:
    return options.preconditions.resource_version if options.preconditions is not None else None


def _pinned(options: DeleteOptions, entry: Entry, asked: DeleteOptions | None = None) -> DeleteOptions:
    """The options, good for this very version of the pod alone."""
    if _version_of(options) is not None:
        return options
    before = (asked or options).preconditions
    uid = before.uid if before is not None else None
    return msgspec.structs.replace(options, preconditions=Preconditions(uid, str(entry.revision)))


def _disrupted(pod: Raw, now: str) -> Raw:
    """The pod with the condition that says who ends it."""
    status = dict(pod.get("status") or {})
    said = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
            "message": "Eviction API: evicting", "lastTransitionTime": now}  # fmt: skip
    before = _condition(pod, "DisruptionTarget")
    if before.get("status") == "True":
        said["lastTransitionTime"] = before.get("lastTransitionTime", now)
    others = [c for c in status.get("conditions") or () if c.get("type") != "DisruptionTarget"]
    status["conditions"] = [*others, said]
    return {**pod, "status": status}
