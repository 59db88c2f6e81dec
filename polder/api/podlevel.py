"""Requests and limits of a pod as a whole, ``spec.resources`` (KEP-2837): defaults, and sums over containers."""

from __future__ import annotations

from typing import Final

from polder.api.meta import Raw
from polder.api.quantity import Quantity, QuantityError, parse

_PLAIN: Final = frozenset({"cpu", "memory"})
PAGES: Final = "hugepages-"
Amounts = dict[str, Quantity]


def is_whole_pod(name: str) -> bool:
    """Whether a pod as a whole may name an amount of it."""
    return name in _PLAIN or name.startswith(PAGES)


def of(resources: Raw | None, side: str) -> Amounts:
    """One side of resources; what is no quantity is left out, validation names it."""
    found: Amounts = {}
    for name, amount in ((resources or {}).get(side) or {}).items():
        try:
            found[name] = parse(amount)
        except QuantityError:
            continue
    return found


def _add(total: Amounts, more: Amounts) -> Amounts:
    found = dict(total)
    for name, amount in more.items():
        have = found.get(name)
        found[name] = amount if have is None else Quantity(have.value + amount.value, have.family)
    return found


def _most(one: Amounts, other: Amounts) -> Amounts:
    found = dict(one)
    for name, amount in other.items():
        if name not in found or amount.value > found[name].value:
            found[name] = amount
    return found


def aggregate(spec: Raw, side: str) -> Amounts:
    """What the containers ask for together, or at the highest moment of their initialization (KEP-753)."""
    beside: Amounts = {}
    peak: Amounts = {}
    for container in spec.get("initContainers") or ():
        own = of(container.get("resources"), side)
        if container.get("restartPolicy") == "Always":
            beside = _add(beside, own)
            peak = _most(peak, beside)
        else:
            peak = _most(peak, _add(beside, own))
    total = beside
    for container in spec.get("containers") or ():
        total = _add(total, of(container.get("resources"), side))
    return _most(total, peak)


def is_sized(spec: Raw) -> bool:
    """Whether the pod as a whole names any amount."""
    whole = spec.get("resources") or {}
    return any(is_whole_pod(name) for side in ("requests", "limits") for name in whole.get(side) or ())


def default_whole(spec: Raw) -> None:
    """Limits of huge pages are the containers'; requests are the containers' where these name any, else the limits."""
    whole = spec.get("resources")
    if not whole or not (whole.get("limits") or whole.get("requests")):
        return
    requests, limits = dict(whole.get("requests") or {}), dict(whole.get("limits") or {})
    for name, amount in aggregate(spec, "limits").items():
        if name.startswith(PAGES) and name not in requests:
            limits.setdefault(name, str(amount))
    if limits:
        for name, amount in aggregate(spec, "requests").items():
            if name in _PLAIN:
                requests.setdefault(name, str(amount))
        for name, amount in limits.items():
            if is_whole_pod(name):
                requests.setdefault(name, amount)
    for side, found in (("requests", requests), ("limits", limits)):
        if found:
            whole[side] = found
