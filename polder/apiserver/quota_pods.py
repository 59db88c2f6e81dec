"""What a pod asks for, as quotas count it: pure. Follows upstream's component helpers for resources.

Containers add up; an init container counts where it needs more than the others together; one that restarts is a
sidecar and adds up; what the pod as a whole asks for replaces that; overhead comes on top. Of a container that is
being resized the most of wanted, allotted and applied counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from polder.api.meta import Raw
from polder.api.quantity import Quantity, parse

_Amounts = dict[str, Quantity]
_WHOLE_POD: Final = ("cpu", "memory")


def requests_of(pod: Raw) -> _Amounts:
    """The requests of all containers together."""
    return _sum(pod, "requests")


def limits_of(pod: Raw) -> _Amounts:
    """The limits of all containers together."""
    return _sum(pod, "limits")


def _sum(pod: Raw, what: str) -> _Amounts:
    spec = pod.get("spec") or {}
    total: _Amounts = {}
    for container in spec.get("containers") or ():
        _add(total, _container(pod, container, what))
    sidecars: _Amounts = {}
    most: _Amounts = {}
    for container in spec.get("initContainers") or ():
        own = _container(pod, container, what)
        if container.get("restartPolicy") == "Always":
            _add(total, own)
            _add(sidecars, own)
            own = dict(sidecars)
        else:
            own = dict(own)
            _add(own, sidecars)
        _raise(most, own)
    _raise(total, most)
    whole = (spec.get("resources") or {}).get(what) or {}
    total |= {n: parse(q) for n, q in whole.items() if n in _WHOLE_POD or n.startswith("hugepages-")}
    overhead = {name: parse(amount) for name, amount in (spec.get("overhead") or {}).items()}
    _add(total, overhead if what == "requests" else {n: q for n, q in overhead.items() if n in total})
    return total


def _container(pod: Raw, container: Raw, what: str) -> _Amounts:
    wanted = {n: parse(q) for n, q in ((container.get("resources") or {}).get(what) or {}).items()}
    status = pod.get("status") or {}
    known = [*(status.get("containerStatuses") or ()), *(status.get("initContainerStatuses") or ())]
    found: Raw = next((s for s in known if s.get("name") == container.get("name")), {})
    applied = (found.get("resources") or {}).get(what) or {}
    allotted = (found.get("allocatedResources") or {}) if what == "requests" else {}
    if wanted:  # what nobody asks for is not charged, whatever the runtime gives
        for amounts in (applied, allotted):
            _raise(wanted, {n: parse(q) for n, q in amounts.items() if n in wanted})
    return wanted


def _add(total: _Amounts, more: Mapping[str, Quantity]) -> None:
    for name, amount in more.items():
        have = total.get(name)
        total[name] = amount if have is None else Quantity(have.value + amount.value, have.family)


def _raise(total: _Amounts, other: Mapping[str, Quantity]) -> None:
    for name, amount in other.items():
        have = total.get(name)
        if have is None or amount.value > have.value:
            total[name] = amount


def is_terminating(pod: Raw) -> bool:
    """Whether the pod ends by itself: it has a deadline."""
    deadline = (pod.get("spec") or {}).get("activeDeadlineSeconds")
    return deadline is not None and deadline >= 0


def is_best_effort(pod: Raw) -> bool:
    """Whether no container, and not the pod as a whole, asks for CPU or memory."""
    said = (pod.get("status") or {}).get("qosClass")
    if said:
        return bool(said == "BestEffort")
    spec = pod.get("spec") or {}
    parts = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ()), spec]
    return not any(_asks(part.get("resources") or {}) for part in parts)


def _asks(resources: Raw) -> bool:
    found = [(resources.get(what) or {}).get(name) for what in ("requests", "limits") for name in ("cpu", "memory")]
    return any(amount is not None and parse(amount).value > 0 for amount in found)


def crosses_namespaces(pod: Raw) -> bool:
    """Whether the pod wants to be near, or far from, pods of other namespaces."""
    affinity = (pod.get("spec") or {}).get("affinity") or {}
    for name in ("podAffinity", "podAntiAffinity"):
        terms = affinity.get(name) or {}
        hard = terms.get("requiredDuringSchedulingIgnoredDuringExecution") or ()
        soft = [
            t.get("podAffinityTerm") or {} for t in terms.get("preferredDuringSchedulingIgnoredDuringExecution") or ()
        ]
        if any(t.get("namespaces") or t.get("namespaceSelector") is not None for t in [*hard, *soft]):
            return True
    return False
