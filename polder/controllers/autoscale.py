"""HorizontalPodAutoscalers: the size of anything that has a scale, by its metrics. Follows upstream's horizontal controller."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import msgspec

from polder.api.autoscaling import (
    Autoscaler,
    AutoscalerCondition,
    AutoscalerStatus,
    CrossReference,
    MeasuredPod,
    MetricSpec,
    MetricStatus,
    MetricTarget,
    MetricValue,
    NamedValue,
    ResourceValue,
    Scale,
)
from polder.api.meta import TENANT_ANNOTATION, ref_of
from polder.api.quantity import QuantityError, milli
from polder.api.selectors import parse_labels
from polder.base.clock import Clock, stamp
from polder.base.errors import PolderError
from polder.base.ref import Ref
from polder.client.client import Client
from polder.client.events import Recorder
from polder.controllers import autoscale_limits as limits
from polder.controllers import autoscale_pure as pure
from polder.controllers.autoscale_limits import History
from polder.controllers.autoscale_metrics import Metrics
from polder.controllers.autoscale_pure import Measured, MetricError, Proposal
from polder.controllers.autoscale_selectors import Selectors
from polder.controllers.mapper import Mapper
from polder.controllers.reading import find
from polder.controllers.resources import Resource, object_path

PERIOD = 15.0
"""Seconds between two looks at an autoscaler."""
_FIELDS = ("observedGeneration", "lastScaleTime", "currentReplicas", "desiredReplicas", "currentMetrics", "conditions")
_FAILED = {
    "Resource": "FailedGetResourceMetric",
    "ContainerResource": "FailedGetContainerResourceMetric",
    "Pods": "FailedGetPodsMetric",
    "Object": "FailedGetObjectMetric",
    "External": "FailedGetExternalMetric",
}


class _StopError(PolderError):
    """Nothing more can be decided in this pass; what is to be said has been noted."""


@dataclass(slots=True)
class _Look:
    """One pass: what is known, and what will be said."""

    ref: Ref
    scaler: Autoscaler
    conditions: dict[str, AutoscalerCondition]
    now: str
    scale: Scale = field(default_factory=Scale)
    selector: str = ""
    metrics: list[MetricStatus] = field(default_factory=list)
    failures: list[tuple[str, str]] = field(default_factory=list)
    measured: Measured | None = None

    def say(self, kind: str, status: str, reason: str, message: str) -> None:
        """Puts a condition in."""
        known = self.conditions.get(kind)
        since = known.last_transition_time if known is not None and known.status == status else self.now
        self.conditions[kind] = AutoscalerCondition(
            type=kind, status=status, reason=reason, message=message, last_transition_time=since
        )


class AutoscalerController:
    """Reconciles an autoscaler; key: its reference."""

    def __init__(self, client: Client, mapper: Mapper, clock: Clock, recorder: Recorder | None = None) -> None:
        self._client = client
        self._mapper = mapper
        self._metrics = Metrics(client, mapper)
        self._clock = clock
        self._recorder = recorder
        self._histories: dict[Ref, History] = {}
        self._selectors = Selectors()

    async def reconcile(self, ref: Ref) -> float | None:
        """One pass. The seconds until the next, None if the autoscaler is gone. Raises ApiError."""
        scaler = await find(self._client, Autoscaler, ref)
        if scaler is None or scaler.metadata.deletion_timestamp is not None:
            self._histories.pop(ref, None)
            self._selectors.forget(ref)
            return None
        known = {c.type: c for c in scaler.status.conditions or ()}
        look = _Look(ref, scaler, known, stamp(self._clock.now()))
        size, scaled = scaler.status.desired_replicas, False
        try:
            path = await self._read_scale(look)
            before = look.scale.spec.replicas
            size, why = await self._wanted(look)
            scaled = size != before
            if scaled:
                await self._resize(look, path, size, why)
        except _StopError:
            size = scaler.status.desired_replicas
        await self._write(look, size, scaled)
        return PERIOD

    def _note(self, look: _Look, kind: str, reason: str, message: str) -> None:
        if self._recorder is not None:
            self._recorder.event(look.scaler, kind, reason, message)

    async def _read_scale(self, look: _Look) -> str:
        """Reads the target's scale; its path. Raises _StopError."""
        target = look.scaler.spec.scale_target_ref
        try:
            resource = await self._resource(look.ref, target.api_version or "v1", target.kind)
            path = f"{object_path(resource, Ref(look.ref.tenant, look.ref.namespace, target.name))}/scale"
            look.scale = msgspec.json.decode(await self._client.raw("GET", path), type=Scale)
        except (PolderError, msgspec.MsgspecError) as error:
            self._note(look, "Warning", "FailedGetScale", str(error))
            words = f"the HPA controller was unable to get the target's current scale: {error}"
            look.say("AbleToScale", "False", "FailedGetScale", words)
            raise _StopError(words) from error
        words = "the HPA controller was able to get the target's current scale"
        look.say("AbleToScale", "True", "SucceededGetScale", words)
        return path

    async def _resource(self, at: Ref, api_version: str, kind: str) -> Resource:
        found = await self._mapper.find(at.tenant, api_version, kind)
        if found is None or not found.namespaced:
            raise MetricError(f'no matches for kind "{kind}" in group "{api_version.rpartition("/")[0]}"')
        return found

    async def _wanted(self, look: _Look) -> tuple[int, str]:
        """The size that is wanted, and why. Raises _StopError."""
        spec, current = look.scaler.spec, look.scale.spec.replicas
        least = 1 if spec.min_replicas is None else spec.min_replicas
        history = self._history(look, current)
        if current == 0 and least:
            words = "scaling is disabled since the replica count of the target is zero"
            look.say("ScalingActive", "False", "ScalingDisabled", words)
            return 0, ""
        if current > spec.max_replicas:
            return spec.max_replicas, "Current number of replicas above Spec.MaxReplicas"
        if current < least:
            return least, "Current number of replicas below Spec.MinReplicas"
        wanted, metric = await self._compute(look)
        why = f"{metric} above target" if wanted > current else "All metrics below target"
        limited = limits.limit(spec, history, current, wanted, self._clock.monotonic())
        look.say("AbleToScale", *limited.able)
        look.say("ScalingLimited", *limited.limited)
        return limited.replicas, why

    def _history(self, look: _Look, current: int) -> History:
        history, now = self._histories.get(look.ref), self._clock.monotonic()
        if history is None or history.uid != look.scaler.metadata.uid:
            history = self._histories[look.ref] = History(look.scaler.metadata.uid, [(now, current)])
        history.prune(look.scaler.spec, now)
        return history

    async def _compute(self, look: _Look) -> tuple[int, str]:
        """The largest size that a metric asks for, and the metric. Raises _StopError."""
        await self._select(look)
        specs, best, name = look.scaler.spec.metrics or [], 0, ""
        for spec in specs:
            try:
                proposal, called, status = await self._one(look, spec)
            except (MetricError, QuantityError) as error:
                look.failures.append((_FAILED.get(spec.type, "InvalidMetricSourceType"), str(error)))
                self._note(look, "Warning", *look.failures[-1])
                continue
            look.metrics.append(status)
            if proposal.replicas > best or not name:
                best, name = proposal.replicas, called
        failed = len(look.failures)
        if failed and (failed >= len(specs) or best < look.scale.spec.replicas):
            reason, message = look.failures[0]
            words = f"the HPA was unable to compute the replica count: {message}"
            look.say("ScalingActive", "False", reason, words)
            told = f"invalid metrics ({failed} invalid out of {len(specs)}), first error is: {message}"
            self._note(look, "Warning", "FailedComputeMetricsReplicas", told)
            raise _StopError(told)
        words = f"the HPA was able to successfully calculate a replica count from {name}"
        look.say("ScalingActive", "True", "ValidMetricFound", words)
        return best, name

    async def _select(self, look: _Look) -> None:
        """Reads the pods that are meant. Raises _StopError."""
        look.selector = look.scale.status.selector
        if not look.selector:
            self._note(look, "Warning", "SelectorRequired", "selector is required")
            words = "the HPA target's scale is missing a selector"
            self._refuse(look, "InvalidSelector", words)
        tenant, namespace = look.ref.tenant, look.ref.namespace
        try:
            matcher = parse_labels(look.selector)
            listed = await self._client.list(MeasuredPod, tenant, namespace, labels=look.selector)
        except PolderError as error:
            words = f"couldn't convert selector into a corresponding internal selector object: {error}"
            self._note(look, "Warning", "InvalidSelector", words)
            self._refuse(look, "InvalidSelector", words)
        others = self._selectors.sharing(look.ref, matcher, listed.items)
        if others:
            names = ", ".join([f"{namespace}/{other.name}" for other in (look.ref, *others)])
            words = f"pods by selector {look.selector} are controlled by multiple HPAs: [{names}]"
            self._note(look, "Warning", "AmbiguousSelector", words)
            self._refuse(look, "AmbiguousSelector", words)
        tolerances = pure.tolerances_of(look.scaler.spec.behavior)
        look.measured = Measured(listed.items, {}, look.scale.spec.replicas, self._clock.now(), tolerances)

    def _refuse(self, look: _Look, reason: str, message: str) -> None:
        look.say("ScalingActive", "False", reason, message)
        self._note(look, "Warning", "FailedComputeMetricsReplicas", message)
        raise _StopError(message)

    async def _one(self, look: _Look, spec: MetricSpec) -> tuple[Proposal, str, MetricStatus]:
        """What one metric asks for, its name, and what it is. Raises MetricError, QuantityError."""
        if spec.type in ("Resource", "ContainerResource"):
            return await self._by_resource(look, spec)
        named = {"Pods": spec.pods, "Object": spec.object, "External": spec.external}.get(spec.type)
        if named is None or look.measured is None:
            raise MetricError(f'unknown metric source type "{spec.type}"')
        target, described, there = named.target, named.described_object, look.scale.status.replicas
        if spec.type == "Pods":
            samples = await self._metrics.pods(look.ref, named.metric, look.selector)
            proposal = pure.by_average(replace(look.measured, samples=samples), "", _amount(target))
            value = MetricValue(average_value=pure.quantity_of(proposal.average))
        else:
            if spec.type == "External":
                found = await self._metrics.external(look.ref, named.metric)
            else:
                found = await self._metrics.of_object(look.ref, named.metric, described or CrossReference())
            if target.average_value is not None:
                proposal = pure.by_share(found, _amount(target), there, look.measured.tolerances)
                value = MetricValue(average_value=pure.quantity_of(proposal.average))
            else:
                proposal = Proposal(pure.by_value(found, _amount(target), look.measured))
                value = MetricValue(value=pure.quantity_of(found))
        known = NamedValue(metric=named.metric, current=value, described_object=described)
        name = f"{described.kind if described else spec.type.lower()} metric {named.metric.name}"
        kinds = {"Pods": "pods", "Object": "object", "External": "external"}
        status = msgspec.structs.replace(MetricStatus(type=spec.type), **{kinds[spec.type]: known})
        return proposal, name, status

    async def _by_resource(self, look: _Look, spec: MetricSpec) -> tuple[Proposal, str, MetricStatus]:
        wanted = spec.resource if spec.type == "Resource" else spec.container_resource
        if wanted is None or look.measured is None:
            raise MetricError(f'unknown metric source type "{spec.type}"')
        target, whole = wanted.target, wanted.target.average_value is not None
        try:
            samples = await self._metrics.resource(look.ref, wanted.name, look.selector, wanted.container)
            measured = replace(look.measured, samples=samples)
            if target.average_utilization:
                proposal = pure.by_utilization(measured, wanted.name, wanted.container, target.average_utilization)
            else:
                proposal = pure.by_average(measured, wanted.name, _amount(target))
        except MetricError as error:
            raise MetricError(f"failed to get {wanted.name} {'usage' if whole else 'utilization'}: {error}") from error
        average = pure.quantity_of(proposal.average, wanted.name)
        value = MetricValue(average_value=average, average_utilization=proposal.utilization)
        known = ResourceValue(name=wanted.name, container=wanted.container, current=value)
        kind = "container resource" if spec.type == "ContainerResource" else "resource"
        name = f"{wanted.name} {kind}{'' if whole else ' utilization (percentage of request)'}"
        if spec.type == "ContainerResource":
            return proposal, name, MetricStatus(type=spec.type, container_resource=known)
        return proposal, name, MetricStatus(type=spec.type, resource=known)

    async def _resize(self, look: _Look, path: str, size: int, why: str) -> None:
        """Writes the scale. Raises _StopError."""
        meta = look.scale.metadata
        notes = {k: v for k, v in (meta.annotations or {}).items() if k != TENANT_ANNOTATION} or None
        wanted = msgspec.structs.replace(
            look.scale,
            metadata=msgspec.structs.replace(meta, annotations=notes),
            spec=msgspec.structs.replace(look.scale.spec, replicas=size),
        )
        before = look.scale.spec.replicas
        try:
            await self._client.raw("PUT", path, msgspec.json.encode(wanted))
        except PolderError as error:
            self._note(look, "Warning", "FailedRescale", f"New size: {size}; reason: {why}; error: {error}")
            words = f"the HPA controller was unable to update the target scale: {error}"
            look.say("AbleToScale", "False", "FailedUpdateScale", words)
            raise _StopError(words) from error
        words = f"the HPA controller was able to update the target scale to {size}"
        look.say("AbleToScale", "True", "SucceededRescale", words)
        self._note(look, "Normal", "SuccessfulRescale", f"New size: {size}; reason: {why}")
        self._histories[look.ref].changed(before, size, self._clock.monotonic())

    async def _write(self, look: _Look, size: int, scaled: bool) -> None:
        """Raises ApiError."""
        known = look.scaler.status
        status = AutoscalerStatus(
            observed_generation=known.observed_generation,
            last_scale_time=look.now if scaled else known.last_scale_time,
            current_replicas=look.scale.spec.replicas,
            desired_replicas=size,
            current_metrics=look.metrics or None,
            conditions=list(look.conditions.values()) or None,
        )
        if status == known:
            return
        wanted = {**dict.fromkeys(_FIELDS), **msgspec.to_builtins(status)}
        wanted |= {"currentReplicas": status.current_replicas, "desiredReplicas": status.desired_replicas}
        patch = {"metadata": {"uid": look.scaler.metadata.uid}, "status": wanted}
        await self._client.patch(Autoscaler, ref_of(look.scaler), patch, subresource="status")


def _amount(target: MetricTarget) -> int:
    """Raises MetricError, QuantityError."""
    wanted = target.average_value if target.average_value is not None else target.value
    if wanted is None or milli(wanted) <= 0:
        raise MetricError("neither a value target nor an average value target was set")
    return milli(wanted)
