"""Where metrics come from: the APIs that any client of the tenant may ask."""

from __future__ import annotations

from urllib.parse import quote, urlencode

import msgspec

from polder.api.autoscaling import Amount, CrossReference, MetricIdentifier, MetricValueItem, MetricValueList
from polder.api.errors import ApiError
from polder.api.meta import LabelSelector
from polder.api.quantity import QuantityError, milli
from polder.api.resourcemetrics import PodMetrics
from polder.base.errors import PolderError
from polder.base.ref import Ref
from polder.client.client import Client
from polder.controllers.autoscale_pure import MetricError, Sample, samples_of
from polder.controllers.cronjobs_pure import moment
from polder.controllers.mapper import Mapper

CUSTOM = "custom.metrics.k8s.io"
EXTERNAL = "external.metrics.k8s.io"
_VERSIONS = {CUSTOM: ("v1beta2", "v1beta1"), EXTERNAL: ("v1beta1",)}
_OF_PODS = 60.0
"""Seconds of the window of a pod's metric that does not tell."""


def selector_text(selector: LabelSelector | None) -> str:
    """A selector as a query has it."""
    if selector is None:
        return ""
    parts = [f"{key}={value}" for key, value in sorted((selector.match_labels or {}).items())]
    for one in selector.match_expressions or ():
        values = f"({','.join(one.values or ())})"
        written = {"In": f"{one.key} in {values}", "NotIn": f"{one.key} notin {values}", "Exists": one.key}
        parts.append(written.get(one.operator, f"!{one.key}"))
    return ",".join(parts)


class Metrics:
    """Asks for the metrics of one tenant at a time. Everything raises MetricError, with the sentence for a condition."""

    def __init__(self, client: Client, mapper: Mapper) -> None:
        self._client = client
        self._mapper = mapper

    async def resource(self, at: Ref, name: str, selector: str, container: str) -> dict[str, Sample]:
        """What pods use of CPU or memory."""
        try:
            listed = await self._client.list(PodMetrics, at.tenant, at.namespace, labels=selector)
        except PolderError as error:
            why = f"unable to fetch metrics from resource metrics API: {error}"
            raise MetricError(f"unable to get metrics for resource {name}: {why}") from error
        if not listed.items:
            raise MetricError(
                f"unable to get metrics for resource {name}: no metrics returned from resource metrics API"
            )
        return samples_of(listed.items, name, container)

    async def pods(self, at: Ref, metric: MetricIdentifier, selector: str) -> dict[str, Sample]:
        """A metric of pods."""
        found = await self._ask(CUSTOM, at, f"pods/*/{quote(metric.name)}", _query(selector, metric))
        samples = {}
        for item in found:
            window = _OF_PODS if item.window_seconds is None else float(item.window_seconds)
            samples[item.described_object.name] = Sample(_milli(item.value), moment(item.timestamp), window)
        return samples

    async def of_object(self, at: Ref, metric: MetricIdentifier, described: CrossReference) -> int:
        """A metric of one object, in thousandths."""
        resource = await self._mapper.find(at.tenant, described.api_version or "v1", described.kind)
        if resource is None:
            raise MetricError(f"unable to get metric {metric.name}: there is no kind {described.kind}")
        where = f"{resource.name}/{quote(described.name)}/{quote(metric.name)}"
        found = await self._ask(CUSTOM, at, where, _query("", metric))
        if not found:
            raise MetricError(f"unable to get metric {metric.name}: no values returned for {described.name}")
        return _milli(found[0].value)

    async def external(self, at: Ref, metric: MetricIdentifier) -> int:
        """The sum of a metric of nothing in the cluster, in thousandths."""
        query = {"labelSelector": selector_text(metric.selector)} if metric.selector is not None else {}
        return sum(_milli(item.value) for item in await self._ask(EXTERNAL, at, quote(metric.name), query))

    async def _ask(self, group: str, at: Ref, what: str, query: dict[str, str]) -> list[MetricValueItem]:
        kind = "external" if group == EXTERNAL else "custom"
        for version in _VERSIONS[group]:
            path = f"/tenants/{quote(at.tenant)}/apis/{group}/{version}/namespaces/{quote(at.namespace)}/{what}"
            try:
                body = await self._client.raw("GET", f"{path}?{urlencode(query)}" if query else path)
                return msgspec.json.decode(body, type=MetricValueList).items or []
            except ApiError as error:
                if not error.is_not_found:
                    raise MetricError(f"unable to fetch metrics from {kind} metrics API: {error}") from error
            except (PolderError, msgspec.MsgspecError) as error:
                raise MetricError(f"unable to fetch metrics from {kind} metrics API: {error}") from error
        raise MetricError(f"unable to fetch metrics from {kind} metrics API: no {kind} metrics API ({group}) has it")


def _query(selector: str, metric: MetricIdentifier) -> dict[str, str]:
    found = {"labelSelector": selector, "metricLabelSelector": selector_text(metric.selector)}
    return {name: value for name, value in found.items() if value}


def _milli(amount: Amount) -> int:
    try:
        return milli(amount)
    except QuantityError as error:
        raise MetricError(f"a metric has a value that is none: {str(amount)[:64]}") from error
