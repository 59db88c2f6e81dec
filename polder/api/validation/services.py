"""Services, and what of them Polder does not do yet."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Final

from polder.api import names
from polder.api.errors import Field, FieldError
from polder.api.meta import Raw
from polder.api.validation.meta import validate_labels

_SPEC: Final = Field("spec")
_PROTOCOLS: Final = ("SCTP", "TCP", "UDP")
_TYPES: Final = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")


def validate_service(service: Raw) -> Iterator[FieldError]:
    """Type, addresses, ports, selector."""
    spec = service.get("spec") or {}
    kind = spec.get("type", "")
    if kind not in _TYPES:
        yield (_SPEC / "type").not_supported(kind, _TYPES)
    ports = spec.get("ports") or []
    if not ports and kind != "ExternalName" and spec.get("clusterIP") != "None":
        yield (_SPEC / "ports").required()
    yield from _ports(ports)
    yield from validate_labels(spec.get("selector") or {}, _SPEC / "selector")
    if spec.get("sessionAffinity") not in ("None", "ClientIP"):
        yield (_SPEC / "sessionAffinity").not_supported(spec.get("sessionAffinity", ""), ("ClientIP", "None"))
    yield from _cluster_ip(spec)
    yield from _unsupported(spec)


def _ports(ports: list[Raw]) -> Iterator[FieldError]:
    seen_names: set[str] = set()
    seen_ports: set[tuple[object, object]] = set()
    for number, port in enumerate(ports):
        at, name = (_SPEC / "ports")[number], port.get("name", "")
        if not name and len(ports) > 1:
            yield (at / "name").required()
        elif name:
            yield from ((at / "name").invalid(name, said) for said in names.dns_label(name))
            if name in seen_names:
                yield (at / "name").duplicate(name)
            seen_names.add(name)
        yield from ((at / "port").invalid(port.get("port", 0), said) for said in names.port_number(port.get("port")))
        if port.get("protocol") not in _PROTOCOLS:
            yield (at / "protocol").not_supported(port.get("protocol", ""), _PROTOCOLS)
        target = port.get("targetPort")
        said = names.port_name(target) if isinstance(target, str) else names.port_number(target)
        yield from ((at / "targetPort").invalid(target, sentence) for sentence in said)
        key = (port.get("protocol"), port.get("port"))
        if key in seen_ports:
            yield at.duplicate({"protocol": key[0], "port": key[1]})
        seen_ports.add(key)


def _cluster_ip(spec: Raw) -> Iterator[FieldError]:
    addresses = spec.get("clusterIPs") or []
    if len(addresses) > 1:
        yield (_SPEC / "clusterIPs").forbidden("more than one address is not supported by this version of Polder")
    if addresses and addresses[0] != spec.get("clusterIP", ""):
        yield (_SPEC / "clusterIPs").invalid(addresses, "first value must match `clusterIP`")
    address = spec.get("clusterIP", "")
    if address in ("", "None"):
        return
    at = (_SPEC / "clusterIPs")[0]
    if spec.get("type") == "ExternalName":
        yield (_SPEC / "clusterIP").forbidden("may not be set when `type` is 'ExternalName'")
    try:
        ipaddress.IPv4Address(address)
    except ValueError:
        yield at.invalid(address, "must be a valid IPv4 address (e.g. 10.9.8.7)")


def _unsupported(spec: Raw) -> Iterator[FieldError]:
    said = "is not supported by this version of Polder"
    if spec.get("type") in ("NodePort", "LoadBalancer", "ExternalName"):
        yield (_SPEC / "type").forbidden(f"{spec['type']} {said}")
    if spec.get("sessionAffinity") == "ClientIP":
        yield (_SPEC / "sessionAffinity").forbidden(f"ClientIP {said}")
    for name in ("externalIPs", "loadBalancerIP", "loadBalancerSourceRanges", "loadBalancerClass"):
        if spec.get(name):
            yield (_SPEC / name).forbidden(f"{name} {said}")
    if any(family != "IPv4" for family in spec.get("ipFamilies") or ()):
        yield (_SPEC / "ipFamilies").forbidden(f"IPv6 {said}")
    if spec.get("internalTrafficPolicy") == "Local":
        yield (_SPEC / "internalTrafficPolicy").forbidden(f"Local {said}")


def validate_service_update(new: Raw, old: Raw) -> Iterator[FieldError]:
    """An address, once given, stays."""
    before, after = ((obj.get("spec") or {}).get("clusterIP", "") for obj in (old, new))
    if before and before != after:
        yield (_SPEC / "clusterIPs")[0].invalid([after] if after else [], "may not change once set")
