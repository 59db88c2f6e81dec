"""How many replicas metrics ask for. Pure; follows upstream's replica calculator. Values are in thousandths."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from polder.api.autoscaling import Amount, MeasuredContainer, MeasuredPod, ScalingBehavior
from polder.api.quantity import Quantity, QuantityError, milli
from polder.api.resourcemetrics import PodMetrics
from polder.base.errors import PolderError
from polder.controllers.cronjobs_pure import moment

CPU = "cpu"
TOLERANCE = 0.1
STARTING = timedelta(minutes=5)
"""How long a pod's CPU may say more of its start than of its work."""
FIRST_READY = timedelta(seconds=30)
"""How long after its start a pod may first say that it is not ready."""
_MOST = 2**31 - 1
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_PART = re.compile(r"(\d+(?:\.\d+)?)(h|ms|us|µs|ns|m|s)")


class MetricError(PolderError):
    """A metric from which no size follows, and why."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What a pod uses: ``value`` in thousandths, at the end of a window of some seconds."""

    value: int
    at: datetime | None = None
    window: float = 0.0


@dataclass(frozen=True, slots=True)
class Tolerances:
    """How far from its target a metric may be before anything changes: fractions."""

    up: float = TOLERANCE
    down: float = TOLERANCE

    def holds(self, ratio: float) -> bool:
        """Whether a ratio is near enough to one."""
        return 1.0 - self.down <= ratio <= 1.0 + self.up


@dataclass(frozen=True, slots=True)
class Proposal:
    """A number of replicas, what they are derived from: the mean in thousandths, and per cent of the requests."""

    replicas: int
    average: int = 0
    utilization: int | None = None


@dataclass(frozen=True, slots=True)
class Grouped:
    """Pods by whether their metrics count."""

    ready: int
    unready: frozenset[str]
    missing: frozenset[str]
    ignored: frozenset[str]


def tolerances_of(behavior: ScalingBehavior | None) -> Tolerances:
    """Those that are configured, else a tenth."""
    if behavior is None:
        return Tolerances()
    up, down = (_fraction(rules.tolerance) for rules in (behavior.scale_up, behavior.scale_down))
    return Tolerances(up, down)


def _fraction(amount: Amount | None) -> float:
    try:
        return TOLERANCE if amount is None else milli(amount) / 1000
    except QuantityError:
        return TOLERANCE


def seconds_of(text: str) -> float:
    """A duration as Go writes it; 0 for what is none."""
    return sum(float(count) * _SECONDS[unit] for count, unit in _PART.findall(text[:64]))


def samples_of(metrics: Iterable[PodMetrics], resource: str, container: str = "") -> dict[str, Sample]:
    """What pods use, by name: of one container where it is named. Pods that do not tell are left out."""
    found: dict[str, Sample] = {}
    for pod in metrics:
        chosen = [c for c in pod.containers if container in ("", c.name)]
        if not chosen or any(resource not in c.usage for c in chosen):
            continue
        try:
            total = sum(milli(c.usage[resource]) for c in chosen)
        except QuantityError:
            continue
        found[pod.metadata.name] = Sample(total, moment(pod.timestamp), seconds_of(pod.window))
    return found


def group(pods: Iterable[MeasuredPod], samples: Mapping[str, Sample], resource: str, now: datetime) -> Grouped:
    """Which pods' metrics count."""
    ready, unready, missing, ignored = 0, set[str](), set[str](), set[str]()
    for pod in pods:
        name = pod.metadata.name
        if pod.metadata.deletion_timestamp is not None or pod.status.phase == "Failed":
            ignored.add(name)
        elif pod.status.phase == "Pending":
            unready.add(name)
        elif name not in samples:
            missing.add(name)
        elif resource == CPU and _is_starting(pod, samples[name], now):
            unready.add(name)
        else:
            ready += 1
    return Grouped(ready, frozenset(unready), frozenset(missing), frozenset(ignored))


def _is_starting(pod: MeasuredPod, sample: Sample, now: datetime) -> bool:
    condition = next((c for c in pod.status.conditions or () if c.type == "Ready"), None)
    began = moment(pod.status.start_time)
    if condition is None or began is None:
        return True
    since = moment(condition.last_transition_time) or began
    if began + STARTING > now:
        whole = sample.at is None or sample.at >= since + timedelta(seconds=sample.window)
        return condition.status == "False" or not whole
    return condition.status == "False" and began + FIRST_READY > since


def requests_of(pods: Iterable[MeasuredPod], resource: str, container: str) -> dict[str, int]:
    """What pods asked for, by name. Raises MetricError where one asked for nothing."""
    return {pod.metadata.name: _request(pod, resource, container) for pod in pods}


def _request(pod: MeasuredPod, resource: str, container: str) -> int:
    whole = pod.spec.resources.requests if pod.spec.resources is not None and not container else None
    if whole:
        if resource not in whole:
            raise MetricError(f"missing pod-level request for {resource} in Pod {pod.metadata.name}")
        return milli(whole[resource])
    sidecars = [c for c in pod.spec.init_containers or () if c.restart_policy == "Always"]
    chosen = [c for c in (*pod.spec.containers, *sidecars) if container in ("", c.name)]
    if container and not chosen:
        raise MetricError(f"container {container} not found in Pod {pod.metadata.name}")
    return sum(_asked(pod, one, resource) for one in chosen)


def _asked(pod: MeasuredPod, container: MeasuredContainer, resource: str) -> int:
    asked = (container.resources.requests if container.resources is not None else None) or {}
    if resource not in asked:
        where = f"container {container.name} of Pod {pod.metadata.name}"
        raise MetricError(f"missing request for {resource} in {where}")
    return milli(asked[resource])


@dataclass(frozen=True, slots=True)
class Measured:
    """Pods with what they use, and how many replicas are wanted by now."""

    pods: Sequence[MeasuredPod]
    samples: Mapping[str, Sample]
    replicas: int
    now: datetime
    tolerances: Tolerances


def by_utilization(measured: Measured, resource: str, container: str, target: int) -> Proposal:
    """For a target in per cent of the requests. Raises MetricError."""
    requests, grouped = requests_of(measured.pods, resource, container), _grouped(measured, resource)
    samples = _counting(measured, grouped)

    def ratio(values: Mapping[str, int]) -> tuple[float, int, int]:
        known = {name: value for name, value in values.items() if name in requests}
        asked = sum(requests[name] for name in known)
        if not asked:
            raise MetricError("no metrics returned matched known pods")
        percent = sum(known.values()) * 100 // asked
        return percent / target, percent, sum(known.values()) // len(known)

    first, percent, average = ratio(samples)
    full = {name: requests[name] * max(100, target) // 100 for name in grouped.missing}
    replicas = _replicas(measured, grouped, (first, samples, full), lambda values: ratio(values)[0])
    return Proposal(replicas, average, percent)


def by_average(measured: Measured, resource: str, target: int) -> Proposal:
    """For a target of a mean in thousandths. Raises MetricError."""
    grouped = _grouped(measured, resource)
    samples = _counting(measured, grouped)

    def ratio(values: Mapping[str, int]) -> float:
        return (sum(values.values()) // len(values)) / target

    full = dict.fromkeys(grouped.missing, target)
    replicas = _replicas(measured, grouped, (ratio(samples), samples, full), ratio)
    return Proposal(replicas, sum(samples.values()) // len(samples))


def _grouped(measured: Measured, resource: str) -> Grouped:
    if not measured.pods:
        raise MetricError("no pods returned by selector while calculating replica count")
    return group(measured.pods, measured.samples, resource, measured.now)


def _counting(measured: Measured, grouped: Grouped) -> dict[str, int]:
    out = grouped.ignored | grouped.unready
    samples = {name: sample.value for name, sample in measured.samples.items() if name not in out}
    if not samples:
        raise MetricError("did not receive metrics for targeted pods (pods might be unready)")
    return samples


def _replicas(
    measured: Measured,
    grouped: Grouped,
    known: tuple[float, dict[str, int], Mapping[str, int]],
    ratio_of: Callable[[Mapping[str, int]], float],
) -> int:
    """The size. Pods that tell nothing count against a change: as if they used all of it, or nothing."""
    ratio, samples, full = known
    more = bool(grouped.unready) and ratio > 1.0
    if not more and not grouped.missing:
        if measured.tolerances.holds(ratio):
            return measured.replicas
        return min(_MOST, math.ceil(ratio * grouped.ready))
    values = dict(samples)
    if ratio < 1.0:
        values |= full
    elif ratio > 1.0:
        values |= dict.fromkeys(grouped.missing, 0)
    if more:
        values |= dict.fromkeys(grouped.unready, 0)
    again = ratio_of(values)
    turned = (ratio < 1.0 < again) or (again < 1.0 < ratio)
    if measured.tolerances.holds(again) or turned:
        return measured.replicas
    found = min(_MOST, math.ceil(again * len(values)))
    against = (again < 1.0 and found > measured.replicas) or (again > 1.0 and found < measured.replicas)
    return measured.replicas if against else found


def by_value(value: int, target: int, measured: Measured) -> int:
    """For one value that all pods share, which ought to be ``target``."""
    ratio = value / target
    if not measured.replicas:
        return min(_MOST, math.ceil(ratio))
    if measured.tolerances.holds(ratio):
        return measured.replicas
    if not measured.pods:
        raise MetricError("no pods returned by selector while calculating replica count")
    ready = sum(pod.status.phase == "Running" and _is_ready(pod) for pod in measured.pods)
    return min(_MOST, math.ceil(ratio * ready))


def _is_ready(pod: MeasuredPod) -> bool:
    return any(c.type == "Ready" and c.status == "True" for c in pod.status.conditions or ())


def by_share(value: int, target: int, there: int, tolerances: Tolerances) -> Proposal:
    """For one value of which each of the pods that are there ought to have ``target``."""
    replicas = there
    if not there or not tolerances.holds(value / (target * there)):
        replicas = min(_MOST, math.ceil(value / target))
    return Proposal(replicas, math.ceil(value / there) if there else value)


def quantity_of(thousandths: int, resource: str = "") -> str:
    """As the status has it."""
    return str(Quantity(Decimal(thousandths) / 1000, "binary" if resource == "memory" else "decimal"))
