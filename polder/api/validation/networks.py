"""Polder's own kinds: Tenant, Network, Segment, Port, Address, and the annotations of pods and namespaces."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

from polder.api import cidr, names
from polder.api.errors import Field, FieldError
from polder.api.meta import Raw
from polder.api.polder import ADDRESS_ANNOTATION, DEFAULT_ROUTER, MAC_ANNOTATION, NETWORK_ANNOTATION
from polder.api.validation.members import validate_members
from polder.api.validation.quotas import validate_tenant_quota

_SPEC: Final = Field("spec")
_IMMUTABLE: Final = "field is immutable"
_MAC: Final = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_MTU: Final = (576, 9000)
_MAX_VNI: Final = 2**24 - 1
_ANNOTATIONS: Final = Field("metadata.annotations")


def validate_reference(text: str, at: Field) -> Iterator[FieldError]:
    """``namespace/name`` of a network."""
    namespace, slash, name = text.partition("/")
    if not slash or names.dns_label(namespace) or names.dns_label(name):
        yield at.invalid(text, "must be the namespace and name of a network, such as kube-system/default")


def _fixed(new: Raw, old: Raw, fields: Iterable[str]) -> Iterator[FieldError]:
    after, before = new.get("spec") or {}, old.get("spec") or {}
    for name in fields:
        if after.get(name) != before.get(name):
            yield (_SPEC / name).invalid(after.get(name, ""), _IMMUTABLE)


def validate_fixed_spec(new: Raw, old: Raw) -> Iterator[FieldError]:
    """Nothing of the spec changes."""
    keys = {**(old.get("spec") or {}), **(new.get("spec") or {})}
    yield from _fixed(new, old, keys)


# --- Tenant -----------------------------------------------------------------------------------------------------------


def validate_tenant(tenant: Raw) -> Iterator[FieldError]:
    """Two IPv4 prefixes that do not overlap each other or what Polder uses."""
    spec = tenant.get("spec") or {}
    found = []
    for name in ("podCidr", "serviceCidr"):
        at, text = _SPEC / name, spec.get(name, "")
        problems = list(cidr.check(text, at))
        yield from problems
        prefix = cidr.parse(text)
        if problems or prefix is None:
            continue
        if prefix.overlaps(cidr.TRANSIT):
            yield at.invalid(text, f"must not overlap {cidr.TRANSIT}, which Polder's routers use")
        found.append(prefix)
    if len(found) == 2 and found[0].overlaps(found[1]):
        yield (_SPEC / "serviceCidr").invalid(str(found[1]), f"must not overlap spec.podCidr {found[0]}")
    yield from validate_members(spec.get("members") or [])
    yield from validate_tenant_quota(spec, _SPEC)


def validate_tenant_update(new: Raw, old: Raw) -> Iterator[FieldError]:
    """A tenant's prefixes stay: pods and services have addresses from them."""
    yield from _fixed(new, old, ("podCidr", "serviceCidr"))


# --- Network ----------------------------------------------------------------------------------------------------------


def validate_network(network: Raw) -> Iterator[FieldError]:
    """A prefix, a gateway inside it, a router that exists, an MTU that frames fit."""
    spec = network.get("spec") or {}
    problems = list(cidr.check(spec.get("cidr", ""), _SPEC / "cidr"))
    yield from problems
    if not problems:
        yield from _gateway(spec)
    router = spec.get("router", DEFAULT_ROUTER)
    if router not in ("", DEFAULT_ROUTER):
        why = f'router "{router}" is not supported by this version of Polder; "{DEFAULT_ROUTER}" is, and "" for none'
        yield (_SPEC / "router").forbidden(why)
    mtu = spec.get("mtu", 0)
    if mtu and not _MTU[0] <= mtu <= _MTU[1]:
        yield (_SPEC / "mtu").invalid(mtu, f"must be 0 (automatic) or between {_MTU[0]} and {_MTU[1]}")


def _gateway(spec: Raw) -> Iterator[FieldError]:
    text, at = spec.get("gateway", ""), _SPEC / "gateway"
    prefix, gateway = cidr.parse(spec["cidr"]), cidr.address(spec.get("gateway", ""))
    assert prefix is not None
    if not text:
        return
    if ":" in text:
        yield at.forbidden(f"IPv6 ({text}) is not supported by this version of Polder")
    elif spec.get("router") == "":
        yield at.forbidden("an isolated network (spec.router is empty) has no gateway")
    elif gateway is None:
        yield at.invalid(text, "must be an IPv4 address")
    elif gateway not in prefix:
        yield at.invalid(text, f"must be inside spec.cidr {prefix}")
    elif gateway in (prefix.network_address, prefix.broadcast_address):
        yield at.invalid(text, f"must not be the network or broadcast address of spec.cidr {prefix}")


def validate_network_update(new: Raw, old: Raw) -> Iterator[FieldError]:
    """Prefix, gateway and router stay: ports have addresses and routes from them."""
    yield from _fixed(new, old, ("cidr", "gateway", "router"))


def _name(obj: Raw) -> str:
    meta = obj.get("metadata") or {}
    return f"{meta.get('namespace', '')}/{meta.get('name', '')}"


def network_conflicts(
    new: Raw, existing: Iterable[Raw], service_cidr: str, *, platform: bool = False
) -> list[FieldError]:
    """What a valid network overlaps: others of its router, the tenant's services, and Polder's own transit addresses,
    which only ``platform`` (root) may use.
    """
    spec, at = new.get("spec") or {}, _SPEC / "cidr"
    prefix = cidr.parse(spec.get("cidr", ""))
    if prefix is None:
        return []
    found = []
    if prefix.overlaps(cidr.TRANSIT) and not platform:
        found.append(at.invalid(str(prefix), f"must not overlap {cidr.TRANSIT}, which Polder's routers use"))
    router = spec.get("router", DEFAULT_ROUTER)
    services = cidr.parse(service_cidr)
    if router and services is not None and prefix.overlaps(services):
        found.append(at.invalid(str(prefix), f"must not overlap the tenant's service addresses {services}"))
    for other in existing:
        theirs = other.get("spec") or {}
        if not router or theirs.get("router", DEFAULT_ROUTER) != router or _name(other) == _name(new):
            continue
        taken = cidr.parse(theirs.get("cidr", ""))
        if taken is not None and taken.overlaps(prefix):
            why = f"must not overlap {taken} of network {_name(other)} of the same router"
            found.append(at.invalid(str(prefix), why))
    return found


# --- Segment, Port, Address -------------------------------------------------------------------------------------------


def validate_segment(segment: Raw) -> Iterator[FieldError]:
    """Named by the identifier that it claims."""
    vni = (segment.get("spec") or {}).get("vni", 0)
    if not 1 <= vni <= _MAX_VNI:
        yield (_SPEC / "vni").invalid(vni, f"must be between 1 and {_MAX_VNI}")
    elif (name := (segment.get("metadata") or {}).get("name", "")) != f"vni-{vni}":
        yield Field("metadata.name").invalid(name, f"must be vni-{vni}, after spec.vni")


def validate_port(port: Raw) -> Iterator[FieldError]:
    """A network, a node, IPv4 addresses, a MAC."""
    spec = port.get("spec") or {}
    yield from validate_reference(spec.get("network", ""), _SPEC / "network")
    if not spec.get("node"):
        yield (_SPEC / "node").required()
    for number, text in enumerate(spec.get("addresses") or ()):
        if cidr.address(text) is None:
            yield (_SPEC / "addresses")[number].invalid(text, "must be an IPv4 address without prefix length")
    if mac := spec.get("mac"):
        yield from _mac(mac, _SPEC / "mac")


def validate_port_update(new: Raw, old: Raw) -> Iterator[FieldError]:
    """Who the port belongs to stays."""
    yield from _fixed(new, old, ("network", "node", "pod", "podUid", "interface", "routerOf"))


def validate_address(address: Raw) -> Iterator[FieldError]:
    """The name of a claimed IPv4 address says network and address."""
    spec, name = address.get("spec") or {}, (address.get("metadata") or {}).get("name", "")
    for field in ("network", "address", "port"):
        if not spec.get(field):
            yield (_SPEC / field).required()
    found = cidr.address(spec.get("address", ""))
    network = str(spec.get("network", "")).rpartition("/")[2]
    if found is not None and name != f"{network}.{found}":
        yield Field("metadata.name").invalid(name, f"must be {network}.{found}, after spec.network and spec.address")


# --- annotations ------------------------------------------------------------------------------------------------------


def _mac(text: str, at: Field) -> Iterator[FieldError]:
    if not _MAC.fullmatch(text):
        yield at.invalid(text, "must be a MAC address in lower case, such as 0a:58:0a:00:00:05")
    elif int(text[:2], 16) & 1 or text == "00:00:00:00:00:00":
        yield at.invalid(text, "must be a unicast MAC address")


def validate_pod_annotations(annotations: Raw) -> Iterator[FieldError]:
    """The static address, MAC and network of a pod."""
    if (text := annotations.get(ADDRESS_ANNOTATION)) is not None:
        at = _ANNOTATIONS[ADDRESS_ANNOTATION]
        if ":" in text:
            yield at.forbidden(f"IPv6 ({text}) is not supported by this version of Polder")
        elif cidr.address(text) is None:
            yield at.invalid(text, "must be an IPv4 address, without prefix length")
    if (text := annotations.get(MAC_ANNOTATION)) is not None:
        yield from _mac(text, _ANNOTATIONS[MAC_ANNOTATION])
    if (text := annotations.get(NETWORK_ANNOTATION)) is not None:
        yield from validate_reference(text, _ANNOTATIONS[NETWORK_ANNOTATION])


def fixed_pod_annotations(new: Raw, old: Raw) -> Iterator[FieldError]:
    """A pod's network, address and MAC are read once."""
    for key in (ADDRESS_ANNOTATION, MAC_ANNOTATION, NETWORK_ANNOTATION):
        if new.get(key) != old.get(key):
            yield _ANNOTATIONS[key].invalid(new.get(key, ""), _IMMUTABLE)
