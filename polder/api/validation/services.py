"""Services: as upstream's validateService."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Final

from polder.api import names
from polder.api.errors import Field, FieldError
from polder.api.meta import Raw
from polder.api.service_families import IPV4, IPV6, NONE, family_of
from polder.api.services import is_external, is_headless, needs_health_port
from polder.api.validation.meta import validate_labels

_SPEC: Final = Field("spec")
_PROTOCOLS: Final = ("SCTP", "TCP", "UDP")
_TYPES: Final = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
_POLICIES: Final = ("PreferDualStack", "RequireDualStack", "SingleStack")
_DISTRIBUTIONS: Final = ("PreferClose", "PreferSameNode", "PreferSameZone")
_DAY: Final = 86400
_MOST_PORTS, _MOST_EXTERNAL = 1000, 16
"""Every node holds each port of each address; upstream has no bound but the size of an object."""
_NO_IP: Final = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
_ONLY_BALANCERS: Final = "may only be used when `type` is 'LoadBalancer'"
_NOT_EXTERNAL_NAME: Final = "may not be set for ExternalName services"


def validate_service(service: Raw) -> Iterator[FieldError]:
    """Type, addresses, ports, selector, traffic."""
    spec = service.get("spec") or {}
    kind = spec.get("type", "")
    if kind not in _TYPES:
        yield (_SPEC / "type").not_supported(kind, _TYPES)
    ports = spec.get("ports") or []
    if not ports and kind != "ExternalName" and not is_headless(spec):
        yield (_SPEC / "ports").required()
    if kind == "ExternalName":
        yield from _external_name(spec)
    elif kind in ("LoadBalancer", "NodePort") and is_headless(spec):
        yield (_SPEC / "clusterIPs")[0].invalid(NONE, f"may not be set to 'None' for {kind} services")
    yield from _ports(ports, kind)
    yield from validate_labels(spec.get("selector") or {}, _SPEC / "selector")
    yield from _affinity(spec)
    if kind != "ExternalName":
        yield from _addresses(spec)
    external = spec.get("externalIPs") or []
    for at, found, most in ((_SPEC / "ports", ports, _MOST_PORTS), (_SPEC / "externalIPs", external, _MOST_EXTERNAL)):
        if len(found) > most:
            yield at.too_many(len(found), most)
    for number, address in enumerate(external):
        yield from validate_endpoint_ip(address, (_SPEC / "externalIPs")[number])
    yield from _balancer(spec)
    yield from _traffic(spec)


def _external_name(spec: Raw) -> Iterator[FieldError]:
    for name in ("clusterIPs", "ipFamilies", "ipFamilyPolicy"):
        if spec.get(name):
            yield (_SPEC / name).forbidden(_NOT_EXTERNAL_NAME)
    name = str(spec.get("externalName", "")).removesuffix(".")
    if not name:
        yield (_SPEC / "externalName").required()
    else:
        yield from ((_SPEC / "externalName").invalid(name, said) for said in names.dns_subdomain(name))


def _ports(ports: list[Raw], kind: str) -> Iterator[FieldError]:
    seen_names: set[str] = set()
    seen_ports: set[tuple[object, object]] = set()
    seen_node_ports: set[tuple[object, object]] = set()
    for number, port in enumerate(ports):
        at, name = (_SPEC / "ports")[number], port.get("name", "")
        if not name and len(ports) > 1:
            yield (at / "name").required()
        elif name:
            yield from ((at / "name").invalid(name, said) for said in names.dns_label(name))
            if name in seen_names:
                yield (at / "name").duplicate(name)
            seen_names.add(name)
        yield from _port(port, at)
        key = (port.get("protocol"), port.get("port"))
        if key in seen_ports:
            yield at.duplicate({"protocol": key[0], "port": key[1]})
        seen_ports.add(key)
        if node_port := port.get("nodePort"):
            if kind == "ClusterIP":
                yield (at / "nodePort").forbidden("may not be used when `type` is 'ClusterIP'")
            if (port.get("protocol"), node_port) in seen_node_ports:
                yield (at / "nodePort").duplicate(node_port)
            seen_node_ports.add((port.get("protocol"), node_port))


def _port(port: Raw, at: Field) -> Iterator[FieldError]:
    yield from ((at / "port").invalid(port.get("port", 0), said) for said in names.port_number(port.get("port")))
    if port.get("protocol") not in _PROTOCOLS:
        yield (at / "protocol").not_supported(port.get("protocol", ""), _PROTOCOLS)
    target = port.get("targetPort")
    said = names.port_name(target) if isinstance(target, str) else names.port_number(target)
    yield from ((at / "targetPort").invalid(target, sentence) for sentence in said)
    if protocol := port.get("appProtocol"):
        yield from ((at / "appProtocol").invalid(protocol, sentence) for sentence in names.qualified_name(protocol))


def _affinity(spec: Raw) -> Iterator[FieldError]:
    affinity, config = spec.get("sessionAffinity", ""), spec.get("sessionAffinityConfig")
    if affinity not in ("None", "ClientIP"):
        yield (_SPEC / "sessionAffinity").not_supported(affinity, ("ClientIP", "None"))
    elif affinity == "ClientIP":
        at = _SPEC / "sessionAffinityConfig" / "clientIP" / "timeoutSeconds"
        seconds = ((config or {}).get("clientIP") or {}).get("timeoutSeconds", 0)
        if not 0 < seconds <= _DAY:
            yield at.invalid(seconds, f"must be greater than 0 and less than {_DAY}")


def _addresses(spec: Raw) -> Iterator[FieldError]:
    """clusterIP, clusterIPs, families and their policy fit each other."""
    first, all_, at = spec.get("clusterIP", ""), spec.get("clusterIPs") or [], _SPEC / "clusterIPs"
    if first and not all_:
        yield at.required()
    elif first and all_[0] != first:
        yield at.invalid(all_, "first value must match `clusterIP`")
    elif not first and all_:
        yield at.invalid(all_, "must be empty when `clusterIP` is not specified")
    yield from _families(spec)
    for number, address in enumerate(all_):
        if address == NONE and number == 0:
            if len(all_) > 1:
                yield at.invalid(all_, "'None' must be the first and only value")
            continue
        if _ip(address) is None:
            yield at[number].invalid(address, _NO_IP)
    if len(all_) > 2:
        yield at.invalid(all_, "may only hold up to 2 values")
    elif len(all_) == 2 and NONE not in all_ and len({":" in address for address in all_}) == 1:
        yield at.invalid(all_, "may specify no more than one IP for each IP family")
    if NONE not in all_:
        for number, (address, family) in enumerate(zip(all_, spec.get("ipFamilies") or (), strict=False)):
            if _ip(address) is not None and family in (IPV4, IPV6) and family_of(address) != family:
                yield at[number].invalid(address, f"expected an {family} value as indicated by `ipFamilies[{number}]`")


def _families(spec: Raw) -> Iterator[FieldError]:
    for number, family in enumerate(spec.get("ipFamilies") or ()):
        where = (_SPEC / "ipFamilies")[number]
        if family not in ("IPv4", "IPv6"):
            yield where.not_supported(family, ("IPv4", "IPv6"))
        elif family in spec["ipFamilies"][:number]:
            yield where.duplicate(family)
    policy = spec.get("ipFamilyPolicy")
    if policy is not None and policy not in _POLICIES:
        yield (_SPEC / "ipFamilyPolicy").not_supported(policy, _POLICIES)


def _ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text if "%" not in text else "")
    except ValueError:
        return None


def validate_endpoint_ip(text: str, at: Field) -> Iterator[FieldError]:
    """An address that traffic can be sent to."""
    found = _ip(text)
    if found is None:
        yield at.invalid(text, _NO_IP)
        return
    for wrong, why in (
        (found.is_unspecified, f"may not be unspecified ({text})"),
        (found.is_loopback, "may not be in the loopback range (127.0.0.0/8, ::1/128)"),
        (found.is_link_local, "may not be in the link-local range (169.254.0.0/16, fe80::/10)"),
        (found.is_multicast, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"),
    ):
        if wrong:
            yield at.invalid(text, why)


def _balancer(spec: Raw) -> Iterator[FieldError]:
    is_balancer = spec.get("type") == "LoadBalancer"
    ranges, at = spec.get("loadBalancerSourceRanges") or [], _SPEC / "LoadBalancerSourceRanges"
    if ranges and not is_balancer:
        yield at.forbidden(_ONLY_BALANCERS)
    for number, text in enumerate(ranges):
        try:
            ipaddress.ip_network(text.strip() if "%" not in text else "")
        except ValueError:
            yield at[number].invalid(text, "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)")
    if "allocateLoadBalancerNodePorts" in spec and not is_balancer:
        yield (_SPEC / "allocateLoadBalancerNodePorts").forbidden(_ONLY_BALANCERS)
    if name := spec.get("loadBalancerClass"):
        if not is_balancer:
            yield (_SPEC / "loadBalancerClass").forbidden(_ONLY_BALANCERS)
        yield from ((_SPEC / "loadBalancerClass").invalid(name, said) for said in names.qualified_name(name))


def _traffic(spec: Raw) -> Iterator[FieldError]:
    external, at = spec.get("externalTrafficPolicy", ""), _SPEC / "externalTrafficPolicy"
    if not is_external(spec):
        if external:
            yield at.invalid(external, "may only be set for externally-accessible services")
    elif not external:
        yield at.required()
    elif external not in ("Cluster", "Local"):
        yield at.not_supported(external, ("Cluster", "Local"))
    port, where = spec.get("healthCheckNodePort") or 0, _SPEC / "healthCheckNodePort"
    if not needs_health_port(spec):
        if port:
            why = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"
            yield where.invalid(port, why)
    else:
        yield from (where.invalid(port, said) for said in names.port_number(port))
    internal = spec.get("internalTrafficPolicy")
    if internal is None and spec.get("type") in ("NodePort", "LoadBalancer", "ClusterIP"):
        yield (_SPEC / "internalTrafficPolicy").required()
    elif internal is not None and internal not in ("Cluster", "Local"):
        yield (_SPEC / "internalTrafficPolicy").not_supported(internal, ("Cluster", "Local"))
    distribution = spec.get("trafficDistribution")
    if distribution is not None and distribution not in _DISTRIBUTIONS:
        yield (_SPEC / "trafficDistribution").not_supported(distribution, _DISTRIBUTIONS)


def validate_service_update(new: Raw, old: Raw) -> Iterator[FieldError]:
    """An address, once given, stays, but for changes to and from ExternalName; so do a load balancer's class and port."""
    after, before = new.get("spec") or {}, old.get("spec") or {}
    if "ExternalName" not in (after.get("type"), before.get("type")):
        yield from _kept_addresses(after, before)
    if after.get("type") == before.get("type") == "LoadBalancer":
        was, now = before.get("loadBalancerClass"), after.get("loadBalancerClass")
        if was != now:
            yield (_SPEC / "loadBalancerClass").invalid(now, "may not change once set")
    moved = after.get("healthCheckNodePort") != before.get("healthCheckNodePort")
    if moved and needs_health_port(after) and needs_health_port(before):
        yield (_SPEC / "healthCheckNodePort").forbidden("field is immutable")
    if new.get("status") != old.get("status"):
        yield from _status(new)


def _status(service: Raw) -> Iterator[FieldError]:
    """What a load balancer says of itself; upstream looks at it only where the status is written."""
    points = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or []
    at = Field("status") / "loadBalancer" / "ingress"
    if points and (service.get("spec") or {}).get("type") != "LoadBalancer":
        yield at.forbidden("may only be used when `spec.type` is 'LoadBalancer'")
        return
    for number, point in enumerate(points):
        address, mode, host = point.get("ip", ""), point.get("ipMode"), point.get("hostname", "")
        if address and _ip(address) is None:
            yield (at[number] / "ip").invalid(address, _NO_IP)
        if mode is None and address:
            yield (at[number] / "ipMode").required("must be specified when `ip` is set")
        elif mode is not None and not address:
            yield (at[number] / "ipMode").forbidden("may not be specified when `ip` is not set")
        elif mode not in (None, "Proxy", "VIP"):
            yield (at[number] / "ipMode").not_supported(mode, ("Proxy", "VIP"))
        if host:
            yield from ((at[number] / "hostname").invalid(host, said) for said in names.dns_subdomain(host))
            if _ip(host) is not None:
                yield (at[number] / "hostname").invalid(host, "must be a DNS name, not an IP address")


def _kept_addresses(after: Raw, before: Raw) -> Iterator[FieldError]:
    """The first address stays; a second one comes and goes, and goes only where the policy says so."""
    if is_headless(before) and is_headless(after):
        return
    had, has, at = before.get("clusterIPs") or [], after.get("clusterIPs") or [], _SPEC / "clusterIPs"
    if had and not has:
        yield at[0].invalid(has, "primary clusterIP can not be unset")
    for number, (old, new) in enumerate(zip(had, has, strict=False)):
        if old != new:
            yield at[number].invalid(has, "may not change once set")
    single = after.get("ipFamilyPolicy") == "SingleStack"
    if len(had) == 2 and len(has) == 1 and not single:
        why = "must be set to 'SingleStack' when releasing the secondary clusterIP"
        yield (_SPEC / "ipFamilyPolicy").invalid(after.get("ipFamilyPolicy"), why)
    families, now = before.get("ipFamilies") or [], after.get("ipFamilies") or []
    if is_headless(before) or is_headless(after) or not families:
        return
    if any(old != new for old, new in zip(families, now, strict=False)):
        yield (_SPEC / "ipFamilies")[0].invalid(now, "may not change once set")
    if len(families) == 2 and len(now) == 1 and not single:
        why = "must be set to 'SingleStack' when releasing the secondary ipFamily"
        yield (_SPEC / "ipFamilyPolicy").invalid(after.get("ipFamilyPolicy"), why)
