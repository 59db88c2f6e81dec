"""Which families of addresses a Service has: pure. Follows upstream's allocation of ipFamilyPolicy and ipFamilies.

What is settled here is in place before addresses are given; ``families`` are those of the tenant's own service ranges, the
first of which is what a Service gets that asks for nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from polder.api.errors import Field, FieldError
from polder.api.meta import Raw

NONE: Final = "None"
IPV4: Final = "IPv4"
IPV6: Final = "IPv6"
_SPEC: Final = Field("spec")


def family_of(address: str) -> str:
    """The family of an address."""
    return IPV6 if ":" in address else IPV4


def other(family: str) -> str:
    """The other family."""
    return IPV6 if family == IPV4 else IPV4


def settle_families(new: Raw, old: Raw | None, families: Sequence[str]) -> Iterator[FieldError]:
    """Policy and families, filled in place; what the tenant's ranges cannot give is wrong."""
    spec, before = new["spec"], (old or {}).get("spec") or {}
    if spec.get("type") == "ExternalName" or _stays(spec, before):
        return
    selectorless = spec.get("clusterIP") == NONE and not spec.get("selector")
    if not spec.get("ipFamilyPolicy"):
        spec["ipFamilyPolicy"] = before.get("ipFamilyPolicy") or ("RequireDualStack" if selectorless else "SingleStack")
    problems = [*_reduced(spec, before), *_single(spec), *_inferred(spec, families)]
    if problems:
        yield from problems
        return
    if selectorless:  # without addresses of its own, and nobody's pods: any family will do
        spec["ipFamilies"] = spec.get("ipFamilies") or [families[0]]
        available: Sequence[str] = (IPV4, IPV6)
    else:
        problems = list(_configured(spec, families))
        if problems:
            yield from problems
            return
        spec["ipFamilies"] = spec.get("ipFamilies") or [families[0]]
        available = families
    if spec["ipFamilyPolicy"] != "SingleStack" and len(spec["ipFamilies"]) == 1 and len(available) == 2:
        spec["ipFamilies"] = [*spec["ipFamilies"], other(spec["ipFamilies"][0])]


def _stays(spec: Raw, before: Raw) -> bool:
    """PreferDualStack that changes nothing: a Service is not moved because the tenant's ranges have changed."""
    named = ("ipFamilyPolicy", "clusterIPs", "ipFamilies")
    return (
        bool(before)
        and before.get("type") != "ExternalName"
        and spec.get("ipFamilyPolicy") == "PreferDualStack"
        and all(spec.get(name) and spec.get(name) == before.get(name) for name in named)
    )


def _reduced(spec: Raw, before: Raw) -> Iterator[FieldError]:
    """From two families to one: by the policy alone, or by list and policy together."""
    if not before or before.get("type") == "ExternalName":
        return
    single, at = spec["ipFamilyPolicy"] == "SingleStack", _SPEC / "ipFamilyPolicy"
    for name, what in (("clusterIPs", "cluster IP"), ("ipFamilies", "IP family")):
        now, was = spec.get(name) or [], before.get(name) or []
        if single and now == was and len(now) > 1:
            spec[name] = now[:1]
        elif not single and len(now) == 1 and len(was) == 2 and now[0] == was[0]:
            yield at.invalid(spec["ipFamilyPolicy"], f"must be 'SingleStack' to release the secondary {what}")


def _single(spec: Raw) -> Iterator[FieldError]:
    if spec["ipFamilyPolicy"] != "SingleStack":
        return
    for name, what in (("clusterIPs", "cluster IPs"), ("ipFamilies", "IP families")):
        if len(spec.get(name) or ()) == 2:
            said = f"must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified"
            yield (_SPEC / "ipFamilyPolicy").invalid(spec["ipFamilyPolicy"], said)


def _inferred(spec: Raw, families: Sequence[str]) -> Iterator[FieldError]:
    """Addresses that are named say their family."""
    for number, address in enumerate(spec.get("clusterIPs") or ()):
        if address == NONE:
            return
        family = family_of(address)
        if number < len(spec.get("ipFamilies") or ()):
            continue
        if family not in families:
            why = f"{family} is not configured on this cluster"
            yield (_SPEC / "clusterIPs")[number].invalid(spec["clusterIPs"], why)
        else:
            spec["ipFamilies"] = [*(spec.get("ipFamilies") or ()), family]


def _configured(spec: Raw, families: Sequence[str]) -> Iterator[FieldError]:
    if spec["ipFamilyPolicy"] == "RequireDualStack" and len(families) < 2:
        why = "this cluster is not configured for dual-stack services"
        yield (_SPEC / "ipFamilyPolicy").invalid(spec["ipFamilyPolicy"], why)
    for number, family in enumerate(spec.get("ipFamilies") or ()):
        if family not in families:
            yield (_SPEC / "ipFamilies")[number].invalid(family, "not configured on this cluster")
