"""Network policies, ingresses and their classes, IP addresses and service ranges, Endpoints."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Any, Final

from polder.api import names
from polder.api.errors import Field, FieldError
from polder.api.meta import Raw
from polder.api.validation.meta import path_segment
from polder.api.validation.rules import (
    Rules,
    every,
    fixed,
    present,
    selector,
    validate_selector,
)
from polder.api.validation.services import validate_endpoint_ip

_SPEC: Final = Field("spec")
_PROTOCOLS: Final = ("SCTP", "TCP", "UDP")
_BAD_IN_PATH: Final = ("//", "/./", "/../", "%2f", "%2F")
_BAD_AT_END: Final = ("/..", "/.")
_CIDR_RULE: Final = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
_CLASS_ANNOTATION: Final = "kubernetes.io/ingress.class"
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_MOST_MATCHES: Final = 1000
"""Of one policy. Upstream has no bound but the size of an object, which has room for tens of thousands."""


def _network(text: str) -> Network | None:
    try:
        return ipaddress.ip_network(text if "%" not in text else "", strict=False)
    except ValueError:
        return None


# --- network policies -------------------------------------------------------------------------------------------------


def _policy_port(port: Raw, at: Field) -> Iterator[FieldError]:
    number, end = port.get("port"), port.get("endPort")
    if port.get("protocol", "TCP") not in _PROTOCOLS:
        yield (at / "protocol").not_supported(port["protocol"], ("TCP", "UDP", "SCTP"))
    if isinstance(number, str):
        if end is not None:
            yield (at / "endPort").invalid(end, "may not be specified when `port` is non-numeric")
        yield from ((at / "port").invalid(number, said) for said in names.port_name(number))
    elif number is not None:
        yield from ((at / "port").invalid(number, said) for said in names.port_number(number))
        if end is not None and end < number:
            yield (at / "endPort").invalid(number, "must be greater than or equal to `port`")
        if end is not None:
            yield from ((at / "endPort").invalid(end, said) for said in names.port_number(end))
    elif end is not None:
        yield (at / "endPort").invalid(end, "may not be specified when `port` is not specified")


def _peer(peer: Raw, at: Field) -> Iterator[FieldError]:
    found = [name for name in ("podSelector", "namespaceSelector", "ipBlock") if peer.get(name) is not None]
    for name in found:
        if name == "ipBlock":
            yield from _block(peer[name], at / name)
        else:
            yield from validate_selector(peer[name], at / name)
    if not found:
        yield at.required("must specify a peer")
    elif len(found) > 1 and "ipBlock" in found:
        yield at.forbidden("may not specify both ipBlock and another peer")


def _block(block: Raw, at: Field) -> Iterator[FieldError]:
    text = block.get("cidr", "")
    if not text:
        yield (at / "cidr").required()
        return
    whole = _network(text)
    if whole is None or "/" not in text:
        yield (at / "cidr").invalid(text, _CIDR_RULE)
        return
    for number, item in enumerate(block.get("except") or ()):
        where, part = (at / "except")[number], _network(item)
        if part is None or "/" not in item:
            yield where.invalid(item, _CIDR_RULE)
        elif part.version != whole.version or part.prefixlen <= whole.prefixlen or part[0] not in whole:
            yield where.invalid(item, "must be a strict subset of `cidr`")


def _policy_types(policy: Raw) -> Iterator[FieldError]:
    found, at = (policy.get("spec") or {}).get("policyTypes") or [], _SPEC / "policyTypes"
    if len(found) > 2:
        yield at.invalid(found, "may not specify more than two policyTypes")
        return
    for number, name in enumerate(found):
        if name not in ("Ingress", "Egress"):
            yield at[number].not_supported(name, ("Ingress", "Egress"))


def _policy_size(policy: Raw) -> Iterator[FieldError]:
    """Each selector and each port's name is a group that every node of the tenant keeps, and looks at with each pod's change; a
    block with exceptions is a rule. Numbers of ports and whole blocks are matched by sets and do not count.
    """
    spec, size = policy.get("spec") or {}, 0
    for rule in (*(spec.get("ingress") or ()), *(spec.get("egress") or ())):
        peers = [*(rule.get("from") or ()), *(rule.get("to") or ())]
        size += sum(not peer.get("ipBlock") or bool(peer["ipBlock"].get("except")) for peer in peers)
        size += len({(p.get("protocol"), p["port"]) for p in rule.get("ports") or () if isinstance(p.get("port"), str)})
    if size > _MOST_MATCHES:
        why = f"must have at most {_MOST_MATCHES} selectors, blocks with exceptions and names of ports, all rules together"
        yield _SPEC.invalid(size, why)


# --- ingresses --------------------------------------------------------------------------------------------------------


def _ingress(ingress: Raw) -> Iterator[FieldError]:
    spec = ingress.get("spec") or {}
    if not spec.get("rules") and spec.get("defaultBackend") is None:
        yield _SPEC.invalid(spec.get("rules"), "either `defaultBackend` or `rules` must be specified")
    for number, rule in enumerate(spec.get("rules") or ()):
        yield from _rule(rule, (_SPEC / "rules")[number])
    for number, tls in enumerate(spec.get("tls") or ()):
        at = (_SPEC / "tls")[number]
        for index, host in enumerate(tls.get("hosts") or ()):
            yield from _host(host, (at / "hosts")[index])
        if secret := tls.get("secretName"):
            yield from ((at / "secretName").invalid(secret, said) for said in names.dns_subdomain(secret))
    if name := spec.get("ingressClassName"):
        yield from ((_SPEC / "ingressClassName").invalid(name, said) for said in names.dns_subdomain(name))


def _class_once(new: Raw) -> Iterator[FieldError]:
    said = ((new.get("metadata") or {}).get("annotations") or {}).get(_CLASS_ANNOTATION)
    name = (new.get("spec") or {}).get("ingressClassName")
    if said is not None and name is not None and said != name:
        at = Field("annotations") / _CLASS_ANNOTATION
        yield at.invalid(said, "must match `ingressClassName` when both are specified")


def _host(host: str, at: Field) -> Iterator[FieldError]:
    if "*" not in host:
        yield from (at.invalid(host, said) for said in names.dns_subdomain(host))
    elif not host.startswith("*.") or "*" in host[1:] or names.dns_subdomain(host[2:]):
        why = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of "
        yield at.invalid(
            host, why + "lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character"
        )


def _rule(rule: Raw, at: Field) -> Iterator[FieldError]:
    if host := rule.get("host"):
        if _network(host) is not None:
            yield (at / "host").invalid(host, "must be a DNS name, not an IP address")
        yield from _host(host, at / "host")
    if (http := rule.get("http")) is None:
        return
    if not http.get("paths"):
        yield (at / "http" / "paths").required()
    for number, path in enumerate(http.get("paths") or ()):
        yield from _path(path, (at / "http" / "paths")[number])


def _path(path: Raw, at: Field) -> Iterator[FieldError]:
    kind, text = path.get("pathType"), path.get("path", "")
    if kind is None:
        yield (at / "pathType").required("pathType must be specified")
        return
    if kind in ("Exact", "Prefix"):
        if not text.startswith("/"):
            yield (at / "path").invalid(text, "must be an absolute path")
        for bad in _BAD_IN_PATH:
            if bad in text:
                yield (at / "path").invalid(text, f"must not contain '{bad}'")
        for bad in _BAD_AT_END:
            if text.endswith(bad):
                yield (at / "path").invalid(text, f"cannot end with '{bad}'")
    elif kind == "ImplementationSpecific":
        if text and not text.startswith("/"):
            yield (at / "path").invalid(text, "must be an absolute path")
    else:
        yield (at / "pathType").not_supported(kind, ("Exact", "ImplementationSpecific", "Prefix"))
    yield from _backend(path.get("backend") or {}, at / "backend")


def _backend(backend: Raw, at: Field) -> Iterator[FieldError]:
    resource, service = backend.get("resource"), backend.get("service")
    if resource is not None and service is not None:
        yield at.invalid("", "cannot set both resource and service backends")
    elif resource is not None:
        yield from _reference(resource, at / "resource")
    elif service is None:
        yield at.invalid("", "resource or service backend is required")
    else:
        yield from _service_backend(service, at)


def _service_backend(service: Raw, at: Field) -> Iterator[FieldError]:
    name, port = service.get("name", ""), service.get("port") or {}
    if not name:
        yield (at / "service" / "name").required()
    else:
        yield from ((at / "service" / "name").invalid(name, said) for said in names.dns_label(name))
    where = at / "service" / "port"
    if port.get("name") and port.get("number"):
        yield at.invalid("", "cannot set both port name & port number")
    elif port.get("name"):
        yield from ((where / "name").invalid(port["name"], said) for said in names.port_name(port["name"]))
    elif port.get("number"):
        yield from ((where / "number").invalid(port["number"], said) for said in names.port_number(port["number"]))
    else:
        yield at.required("port name or number is required")


def _reference(reference: Raw, at: Field) -> Iterator[FieldError]:
    if group := reference.get("apiGroup"):
        yield from ((at / "apiGroup").invalid(group, said) for said in names.dns_subdomain(group))
    for name in ("kind", "name"):
        value = reference.get(name, "")
        if not value:
            yield (at / name).required()
        yield from ((at / name).invalid(value, said) for said in path_segment(value))


def _parameters(parameters: Raw, at: Field) -> Iterator[FieldError]:
    yield from _reference(parameters, at)
    scope, namespace = parameters.get("scope"), parameters.get("namespace")
    if scope not in ("Cluster", "Namespace"):
        yield (at / "scope").not_supported(scope, ("Cluster", "Namespace"))
    elif scope == "Namespace" and not namespace:
        yield (at / "namespace").required("`parameters.scope` is set to 'Namespace'")
    elif scope == "Cluster" and namespace is not None:
        yield (at / "namespace").forbidden("`parameters.scope` is set to 'Cluster'")


def domain_path(value: str, at: Field) -> Iterator[FieldError]:
    """A path below a domain, such as ``example.com/name``."""
    domain, slash, path = value.partition("/")
    if not value:
        yield at.required()
    elif not slash or not path:
        yield at.invalid(value, 'must be a domain-prefixed path (such as "acme.io/foo")')
    else:
        yield from (at.invalid(domain, said) for said in names.dns_subdomain(domain))


def _controller(ingress_class: Raw) -> Iterator[FieldError]:
    value, at = (ingress_class.get("spec") or {}).get("controller", ""), _SPEC / "controller"
    if len(value) > 250:
        yield at.too_long(250)
    yield from domain_path(value, at)


def _balancer(obj: Raw) -> Iterator[FieldError]:
    at = Field("status.loadBalancer.ingress")
    for number, point in enumerate(((obj.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()):
        if (text := point.get("ip")) and (_network(text) is None or "/" in text):
            why = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
            yield (at[number] / "ip").invalid(text, why)
        if host := point.get("hostname"):
            yield from ((at[number] / "hostname").invalid(host, said) for said in names.dns_subdomain(host))
            if _network(host) is not None:
                yield (at[number] / "hostname").invalid(host, "must be a DNS name, not an IP address")


# --- addresses --------------------------------------------------------------------------------------------------------


def _parent(parent: Raw, at: Field) -> Iterator[FieldError]:
    if group := parent.get("group"):
        yield from ((at / "group").invalid(group, said) for said in names.dns_subdomain(group))
    for name in ("resource", "name", "namespace"):
        value = parent.get(name, "")
        if not value and name != "namespace":
            yield (at / name).required()
        yield from ((at / name).invalid(value, said) for said in path_segment(value))


def _ranges(obj: Raw) -> Iterator[FieldError]:
    found, at = (obj.get("spec") or {}).get("cidrs") or [], _SPEC / "cidrs"
    if not found:
        yield at.required("at least one CIDR required")
    elif len(found) > 2:
        yield at.invalid(obj.get("spec"), "may only hold up to 2 values")
    else:
        parsed: list[Any] = []
        for number, text in enumerate(found):
            network = _network(text)
            parsed.append(network.version if network else number)
            if network is None or "/" not in text:
                yield at[number].invalid(text, _CIDR_RULE)
            elif str(network) != text:
                yield at[number].invalid(text, f'must be in canonical form ("{network}")')
        if len(parsed) == 2 and parsed[0] == parsed[1]:
            why = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64"
            yield at.invalid(found, why)


# --- endpoints --------------------------------------------------------------------------------------------------------


def _subset(subset: Raw, at: Field) -> Iterator[FieldError]:
    if not subset.get("addresses") and not subset.get("notReadyAddresses"):
        yield at.required("must specify `addresses` or `notReadyAddresses`")
    for group in ("addresses", "notReadyAddresses"):
        for number, address in enumerate(subset.get(group) or ()):
            where = (at / group)[number]
            yield from validate_endpoint_ip(address.get("ip", ""), where / "ip")
            for name, rule in (("hostname", names.dns_label), ("nodeName", names.dns_subdomain)):
                if value := address.get(name):
                    yield from ((where / name).invalid(value, said) for said in rule(value))
    ports = subset.get("ports") or []
    for number, port in enumerate(ports):
        yield from _endpoint_port(port, len(ports) > 1, (at / "ports")[number])


def _endpoint_port(port: Raw, several: bool, at: Field) -> Iterator[FieldError]:
    name = port.get("name", "")
    if several and not name:
        yield (at / "name").required()
    elif name:
        yield from ((at / "name").invalid(name, said) for said in names.dns_label(name))
    yield from ((at / "port").invalid(port.get("port", 0), said) for said in names.port_number(port.get("port")))
    if port.get("protocol") not in _PROTOCOLS:
        yield (at / "protocol").not_supported(port.get("protocol", ""), _PROTOCOLS)


TRAFFIC: Final[dict[str, Rules]] = {
    "networkpolicies.networking.k8s.io": Rules(
        (selector("spec.podSelector"), every("spec.ingress[].ports[]", _policy_port), every("spec.ingress[].from[]", _peer),
         every("spec.egress[].ports[]", _policy_port), every("spec.egress[].to[]", _peer), _policy_types,
         _policy_size)
    ),
    "ingresses.networking.k8s.io": Rules(
        (_ingress, every("spec.defaultBackend", _backend), _class_once, _balancer)
    ),
    "ingressclasses.networking.k8s.io": Rules(
        (_controller, every("spec.parameters", _parameters)), (fixed("spec.controller"),)
    ),
    "ipaddresses.networking.k8s.io": Rules(
        (present("spec.parentRef"), every("spec.parentRef", _parent)), (fixed("spec.parentRef"),)
    ),
    "servicecidrs.networking.k8s.io": Rules((_ranges,), (fixed("spec.cidrs"),)),
    "endpoints": Rules((every("subsets[]", _subset),)),
}  # fmt: skip
