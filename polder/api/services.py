"""What the API server decides about a Service: linked fields, families, and which addresses and ports it claims.

All functions are pure; who gives addresses away is ``apiserver.service_claims``. Source: API reference, ServiceSpec.
"""

from __future__ import annotations

from typing import Any, Final

from polder.api.meta import Raw
from polder.api.service_families import NONE

NODE_PORTS: Final = range(30000, 32768)


def has_address(spec: Raw) -> bool:
    """Whether it has, or gets, an address of its own."""
    return spec.get("type") != "ExternalName" and NONE not in (spec.get("clusterIP"), *(spec.get("clusterIPs") or ()))


def is_headless(spec: Raw) -> bool:
    """Whether it is a name for its endpoints only."""
    return spec.get("type") != "ExternalName" and not has_address(spec)


def has_node_ports(spec: Raw) -> bool:
    """Whether its type may have ports on nodes."""
    return spec.get("type") in ("NodePort", "LoadBalancer")


def gives_node_ports(spec: Raw) -> bool:
    """Whether its ports get a port on nodes where they name none."""
    if spec.get("type") == "LoadBalancer":
        return spec.get("allocateLoadBalancerNodePorts") is not False
    return spec.get("type") == "NodePort"


def needs_health_port(spec: Raw) -> bool:
    """Whether a load balancer must ask nodes whether they have an endpoint."""
    return spec.get("type") == "LoadBalancer" and spec.get("externalTrafficPolicy") == "Local"


def is_external(spec: Raw) -> bool:
    """Whether it can be reached from outside the cluster."""
    return has_node_ports(spec) or (spec.get("type") == "ClusterIP" and bool(spec.get("externalIPs")))


def addresses(spec: Raw) -> list[str]:
    """The addresses that it holds."""
    if spec.get("type") == "ExternalName":
        return []
    return [address for address in spec.get("clusterIPs") or () if address and address != NONE]


def node_ports(spec: Raw) -> set[int]:
    """The ports on nodes that it holds, its health port among them."""
    found = {port["nodePort"] for port in spec.get("ports") or () if port.get("nodePort")}
    if spec.get("healthCheckNodePort"):
        found.add(spec["healthCheckNodePort"])
    return found


def take_over(new: Raw, old: Raw | None) -> None:
    """``clusterIP`` and ``clusterIPs`` say the same; what was given before and is not mentioned stays. In place."""
    spec = new.setdefault("spec", {})
    if old is None:
        if spec.get("clusterIP") and not spec.get("clusterIPs"):
            spec["clusterIPs"] = [spec["clusterIP"]]
        return
    before = old.get("spec") or {}
    if before.get("type") != "ExternalName" and spec.get("type") != "ExternalName":
        if not spec.get("clusterIP") and before.get("clusterIP"):
            spec["clusterIP"] = before["clusterIP"]
        if not spec.get("clusterIPs") and before.get("clusterIPs"):
            spec["clusterIPs"] = list(before["clusterIPs"])
        spec.setdefault("ipFamilyPolicy", before.get("ipFamilyPolicy"))
    if spec.get("clusterIP") != before.get("clusterIP") and spec.get("clusterIPs") == before.get("clusterIPs"):
        spec["clusterIPs"] = [spec["clusterIP"]] if spec.get("clusterIP") else []
    if gives_node_ports(before) and gives_node_ports(spec):
        _keep_node_ports(spec, before)
    if needs_health_port(before) and needs_health_port(spec) and not spec.get("healthCheckNodePort"):
        spec["healthCheckNodePort"] = before.get("healthCheckNodePort", 0)


def _keep_node_ports(spec: Raw, before: Raw) -> None:
    named = {port.get("name", ""): port.get("nodePort", 0) for port in before.get("ports") or ()}
    used = {port["nodePort"] for port in spec.get("ports") or () if port.get("nodePort")}
    for port in spec.get("ports") or ():
        kept = named.get(port.get("name", ""), 0)
        if not port.get("nodePort") and kept and kept not in used:
            port["nodePort"] = kept


def drop_dependent(new: Raw, old: Raw | None) -> None:
    """What belonged to the type that a service had before goes with it, unless the caller changed it too. In place."""
    if old is None:
        return
    spec, before = new["spec"], old.get("spec") or {}
    if before.get("type") != "ExternalName" and spec.get("type") == "ExternalName":
        _drop_address(spec, before)
    if has_node_ports(before) and not has_node_ports(spec) and _ports(spec) <= _ports(before):
        for port in spec.get("ports") or ():
            port.pop("nodePort", None)
    for name, needed in (("healthCheckNodePort", needs_health_port), ("externalTrafficPolicy", is_external)):
        if needed(before) and not needed(spec) and _same(spec, before, name):
            _drop(spec, name)
    if before.get("type") == "LoadBalancer" and spec.get("type") != "LoadBalancer":
        for name in ("allocateLoadBalancerNodePorts", "loadBalancerClass"):
            if _same(spec, before, name):
                _drop(spec, name)
    if spec.get("type") != "LoadBalancer":
        new.setdefault("status", {})["loadBalancer"] = {}


def _drop_address(spec: Raw, before: Raw) -> None:
    if all(_same(spec, before, name) for name in ("clusterIP", "clusterIPs")):
        _drop(spec, "clusterIP", "clusterIPs")
    for name in ("ipFamilies", "ipFamilyPolicy"):
        if _same(spec, before, name):
            _drop(spec, name)


def _ports(spec: Raw) -> set[int]:
    return {port["nodePort"] for port in spec.get("ports") or () if port.get("nodePort")}


def _same(spec: Raw, before: Raw, name: str) -> bool:
    return bool((spec.get(name) or None) == (before.get(name) or None))


def _drop(spec: dict[str, Any], *names: str) -> None:
    for name in names:
        spec.pop(name, None)
