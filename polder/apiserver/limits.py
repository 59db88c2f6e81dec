"""LimitRange: what containers ask for where they say nothing, and the least, the most and the ratio of what they may say.

Source: upstream's limitranger admission plugin; its sentences.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from polder.api.errors import forbidden
from polder.api.kinds import built_in
from polder.api.meta import Raw
from polder.api.quantity import Quantity, parse
from polder.apiserver.admission import AdmissionContext
from polder.apiserver.objects import decode_entry
from polder.apiserver.quota_pods import limits_of, requests_of
from polder.apiserver.quota_usage import ZERO, amounts
from polder.store.protocol import Prefix, Store

RANGES: Final = built_in("v1", "limitranges").resource
ANNOTATION: Final = "kubernetes.io/limit-ranger"
_Amounts = Mapping[str, Quantity]


@dataclass(frozen=True, slots=True)
class LimitDefaults:
    """Fills in what containers of a new pod ask for."""

    store: Store

    async def admit(self, context: AdmissionContext) -> None:
        """Changes pods."""
        if context.resource.kind.resource != "pods" or context.obj is None or not _is_limited(context):
            return
        for limits in await ranges(self.store, context):
            complete(context.obj, limits)


@dataclass(frozen=True, slots=True)
class LimitChecks:
    """Refuses what is outside the ranges."""

    store: Store

    async def admit(self, context: AdmissionContext) -> None:
        """Raises ApiError 403."""
        if context.obj is None or not _is_limited(context):
            return
        for limits in await ranges(self.store, context):
            problems = list(check(context.resource.kind.resource, context.obj, limits))
            if problems:
                said = problems[0] if len(problems) == 1 else f"[{', '.join(problems)}]"
                raise forbidden(context.resource.kind, context.name, said)


def _is_limited(context: AdmissionContext) -> bool:
    """Pods when they are made or resized, claims when they are made or changed; nothing that is being deleted."""
    resource = context.resource.kind.resource
    if resource not in {"pods", "persistentvolumeclaims"} or context.verb not in {"create", "update"}:
        return False
    if (context.old or {}).get("metadata", {}).get("deletionTimestamp"):
        return False
    if resource == "pods" and context.verb == "update":
        return context.subresource == "resize"
    return not context.subresource


async def ranges(store: Store, context: AdmissionContext) -> list[list[Raw]]:
    """The limits of each LimitRange of the namespace."""
    page = await store.list(Prefix(RANGES, context.tenant, context.namespace))
    return [(decode_entry(entry).get("spec") or {}).get("limits") or [] for entry in page.entries]


def complete(pod: Raw, limits: Sequence[Raw]) -> None:
    """Puts a range's defaults into the containers that say nothing, and says so in an annotation."""
    defaults: dict[str, dict[str, str]] = {"limits": {}, "requests": {}}
    for limit in limits:
        if limit.get("type") == "Container":
            defaults["limits"] |= limit.get("default") or {}
            defaults["requests"] |= limit.get("defaultRequest") or {}
    said: list[str] = []
    for field, words in (("containers", "container"), ("initContainers", "init container")):
        for container in pod["spec"].get(field) or ():
            said += [f"{text} for {words} {container.get('name', '')}" for text in _fill(container, defaults)]
    if said:
        annotations = pod["metadata"].get("annotations") or {}
        pod["metadata"]["annotations"] = {**annotations, ANNOTATION: "LimitRanger plugin set: " + "; ".join(said)}


def _fill(container: Raw, defaults: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    resources = dict(container.get("resources") or {})
    for part, word in (("requests", "request"), ("limits", "limit")):
        have = resources.get(part) or {}
        missing = sorted(name for name in defaults[part] if name not in have)
        if missing:
            resources[part] = {**have, **{name: defaults[part][name] for name in missing}}
            container["resources"] = resources
            yield f"{', '.join(missing)} {word}"


def check(resource: str, obj: Raw, limits: Sequence[Raw]) -> Iterator[str]:
    """What is outside a range."""
    spec = obj.get("spec") or {}
    for limit in limits:
        match limit.get("type"):
            case "Container" if resource == "pods":
                for container in [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]:
                    found = container.get("resources") or {}
                    yield from _compare(limit, amounts(found.get("requests")), amounts(found.get("limits")))
            case "Pod" if resource == "pods":
                alone = {"spec": {**spec, "overhead": None}}
                yield from _compare(limit, requests_of(alone), limits_of(alone))
            case "PersistentVolumeClaim" if resource == "persistentvolumeclaims":
                yield from _claim(limit, amounts((spec.get("resources") or {}).get("requests")))


def _compare(limit: Raw, requests: _Amounts, limits: _Amounts) -> Iterator[str]:
    kind = limit["type"]
    for name, least in sorted((limit.get("min") or {}).items()):
        yield from _least(
            f"minimum {name} usage per {kind} is {least}", parse(least), requests.get(name), limits.get(name)
        )
    for name, most in sorted((limit.get("max") or {}).items()):
        yield from _most(
            f"maximum {name} usage per {kind} is {most}", parse(most), requests.get(name), limits.get(name)
        )
    for name, ratio in sorted((limit.get("maxLimitRequestRatio") or {}).items()):
        rule = f"{name} max limit to request ratio per {kind} is {ratio}"
        yield from _ratio(rule, parse(ratio), requests.get(name, ZERO), limits.get(name, ZERO))


def _least(rule: str, least: Quantity, request: Quantity | None, limit: Quantity | None) -> Iterator[str]:
    if request is None:
        yield f"{rule}.  No request is specified"
    elif request.value < least.value:
        yield f"{rule}, but request is {request}"
    elif limit is not None and limit.value < least.value:
        yield f"{rule}, but limit is {limit}"


def _most(rule: str, most: Quantity, request: Quantity | None, limit: Quantity | None) -> Iterator[str]:
    if limit is None:
        yield f"{rule}.  No limit is specified"
    elif limit.value > most.value:
        yield f"{rule}, but limit is {limit}"
    elif request is not None and request.value > most.value:
        yield f"{rule}, but request is {request}"


def _ratio(rule: str, most: Quantity, request: Quantity, limit: Quantity) -> Iterator[str]:
    if not request.value:
        yield f"{rule}, but no request is specified or request is 0"
    elif not limit.value:
        yield f"{rule}, but no limit is specified or limit is 0"
    elif (ratio := limit.value / request.value) > most.value:
        yield f"{rule}, but provided ratio is {ratio:.6f}"


def _claim(limit: Raw, requests: _Amounts) -> Iterator[str]:
    kind = limit["type"]
    for name, least in sorted((limit.get("min") or {}).items()):
        yield from _least(f"minimum {name} usage per {kind} is {least}", parse(least), requests.get(name), None)
    for name, most in sorted((limit.get("max") or {}).items()):
        rule, request = f"maximum {name} usage per {kind} is {most}", requests.get(name)
        if request is None:
            yield f"{rule}.  No request is specified"
        elif request.value > parse(most).value:
            yield f"{rule}, but request is {request}"
