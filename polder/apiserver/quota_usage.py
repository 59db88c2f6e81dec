"""What one object uses of a quota: pure. Follows upstream's quota evaluators for pods, services and claims; of every other
kind, custom ones included, objects are counted.

One thing differs: a pod that stays after its time to end is charged until it is gone, so that what is charged when an
object comes and what is given back when it goes are the same whenever they are computed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import ROUND_CEILING, Decimal
from typing import Final

from polder.api.meta import Raw
from polder.api.quantity import Quantity, parse
from polder.apiserver.quota_pods import limits_of, requests_of

Usage = dict[str, Quantity]

ONE: Final = Quantity(Decimal(1))
ZERO: Final = Quantity(Decimal(0))
PODS: Final = "pods"
SERVICES: Final = "services"
CLAIMS: Final = "persistentvolumeclaims"
EVENTS: Final = "events"
"""Never counted by a namespace's quota."""
_BY_STORAGE_CLASS: Final = ".storageclass.storage.k8s.io/"
_ALIASES: Final = frozenset({"configmaps", "resourcequotas", "replicationcontrollers", "secrets"})
"""Kinds that may be counted by their bare name."""
_COMPUTE: Final = ("cpu", "memory", "ephemeral-storage")
_POD_NAMES: Final = frozenset(
    {"pods", *_COMPUTE, *(f"requests.{n}" for n in _COMPUTE), *(f"limits.{n}" for n in _COMPUTE)}
)
_MUST_ASK: Final = frozenset(
    {"cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"}
)  # fmt: skip
"""Names that a pod's containers must ask for where a quota limits them (upstream's early mistake, kept for clients)."""


def counted(resource: str) -> str:
    """The name by which objects of a resource are counted, ``count/deployments.apps``."""
    return f"count/{resource}"


def concerns(resource: str, name: str) -> bool:
    """Whether a name of a quota is about objects of a resource."""
    if name == counted(resource):
        return resource != EVENTS
    if resource == PODS:
        return name in _POD_NAMES or name.startswith(("hugepages-", "requests.hugepages-")) or _is_extended(name)
    if resource == SERVICES:
        return name in {"services", "services.loadbalancers", "services.nodeports"}
    if resource == CLAIMS:
        bare = name.partition(_BY_STORAGE_CLASS)[2] if _BY_STORAGE_CLASS in name else name
        return bare in {"persistentvolumeclaims", "requests.storage"}
    return resource in _ALIASES and name == resource


def _is_extended(name: str) -> bool:
    """``requests.example.com/thing``, as upstream's IsNativeResource tells it."""
    bare = name.removeprefix("requests.")
    native = "/" not in bare or "kubernetes.io/" in bare
    return bare != name and (not native or bare.startswith("deviceclass.resource.kubernetes.io/"))


def usage(resource: str, obj: Raw) -> Usage:
    """What an object uses, under all its names."""
    found: Usage = {counted(resource): ONE}
    if resource == PODS:
        if (obj.get("status") or {}).get("phase") not in {"Failed", "Succeeded"}:
            found |= _pod(obj)
    elif resource == SERVICES:
        found |= _service(obj.get("spec") or {})
    elif resource == CLAIMS:
        found |= _claim(obj)
    elif resource in _ALIASES:
        found[resource] = ONE
    return found


def _compute(requests: Mapping[str, Quantity], limits: Mapping[str, Quantity]) -> Usage:
    found: Usage = {"pods": ONE}
    for name in _COMPUTE:
        if name in requests:
            found[name] = found[f"requests.{name}"] = requests[name]
        if name in limits:
            found[f"limits.{name}"] = limits[name]
    for name, amount in requests.items():
        if name.startswith("hugepages-"):
            found[name] = found[f"requests.{name}"] = amount
        elif _is_extended(f"requests.{name}"):
            found[f"requests.{name}"] = amount
    return found


def _pod(pod: Raw) -> Usage:
    return _compute(requests_of(pod), limits_of(pod))


def _service(spec: Raw) -> Usage:
    kind, ports = spec.get("type"), spec.get("ports") or []
    balanced = kind == "LoadBalancer"
    if balanced and spec.get("allocateLoadBalancerNodePorts") is False:
        ports = [port for port in ports if port.get("nodePort")]
    node_ports = len(ports) if balanced or kind == "NodePort" else 0
    return {
        "services": ONE,
        "services.loadbalancers": ONE if balanced else ZERO,
        "services.nodeports": Quantity(Decimal(node_ports)),
    }


def _claim(claim: Raw) -> Usage:
    spec = claim.get("spec") or {}
    found: Usage = {"persistentvolumeclaims": ONE}
    annotations = claim["metadata"].get("annotations") or {}
    by_class = annotations.get("volume.beta.kubernetes.io/storage-class") or spec.get("storageClassName") or ""
    asked = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    if asked is not None:
        size = _whole(parse(asked))
        allocated = ((claim.get("status") or {}).get("allocatedResources") or {}).get("storage")
        if allocated is not None and parse(allocated).value > size.value:
            size = _whole(parse(allocated))
        found["requests.storage"] = size
    if by_class:
        found |= {f"{by_class}{_BY_STORAGE_CLASS}{name}": amount for name, amount in tuple(found.items())}
    return found


def _whole(amount: Quantity) -> Quantity:
    return Quantity(amount.value.to_integral_value(ROUND_CEILING), amount.family)


def missing(pod: Raw, names: Iterable[str]) -> str:
    """What a pod must say of its containers where a quota limits these names: empty, or upstream's sentence."""
    spec = pod.get("spec") or {}
    whole: Raw = spec.get("resources") or {}
    if whole.get("requests") or whole.get("limits"):
        return ""
    required = _MUST_ASK.intersection(names)
    lacking: dict[str, set[str]] = {}
    for container in [*(spec.get("containers") or []), *(spec.get("initContainers") or [])]:
        resources = container.get("resources") or {}
        requests, limits = _amounts(resources.get("requests")), _amounts(resources.get("limits"))
        for name in required.difference(_compute(requests, limits)):
            lacking.setdefault(name, set()).add(container.get("name", ""))
    if not lacking:
        return ""
    return "must specify " + "; ".join(f"{name} for: {','.join(sorted(lacking[name]))}" for name in sorted(lacking))


def _amounts(found: Mapping[str, str] | None) -> Usage:
    return {name: parse(amount) for name, amount in (found or {}).items()}


def amounts(found: Mapping[str, str] | None) -> Usage:
    """Quantities by name, from an object's text."""
    return _amounts(found)


def texts(found: Mapping[str, Quantity]) -> dict[str, str]:
    """The text of each, in the canonical form."""
    return {name: str(found[name]) for name in sorted(found)}


def added(have: Quantity, more: Quantity) -> Quantity:
    """The sum, in the form of the first unless that is nothing; never below zero."""
    value = max(have.value + more.value, Decimal(0))
    return Quantity(value, more.family if not have.value else have.family)


def difference(new: Mapping[str, Quantity], old: Mapping[str, Quantity]) -> Usage:
    """What has to be added to a usage when ``old`` becomes ``new``; names that stay as they are, are left out."""
    found: Usage = {}
    for name in {**new, **old}:
        after, before = new.get(name, ZERO), old.get(name, ZERO)
        if after.value != before.value:
            family = (after if after.value else before).family
            found[name] = Quantity(after.value - before.value, family)
    return found


def shown(found: Mapping[str, Quantity]) -> str:
    """``cpu=1,memory=1Gi``."""
    return ",".join(f"{name}={text}" for name, text in texts(found).items())
