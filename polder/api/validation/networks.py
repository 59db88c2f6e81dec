"""Polder's own kinds: Tenant, Network, Segment, Port, Address, and the annotations of pods and namespaces."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

from polder.api import cidr, names
from polder.api.errors import Field, FieldError
from polder.api.meta import Raw
from polder.api.polder import ADDRESS_ANNOTATION, DEFAULT_ROUTER, MAC_ANNOTATION, NETWORK_ANNOTATION, address_name
from polder.api.validation.members import validate_members
from polder.api.validation.quotas import validate_tenant_quota

_SPEC: Final = Field("spec")
_IMMUTABLE: Final = "field is immutable"
_MAC: Final = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_MTU: Final = (576, 9000)
_MTU6: Final = 1280
"""RFC 8200, section 5."""
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
    """Prefixes of pods and services, of the same families, that overlap neither each other nor what Polder uses."""
    spec = tenant.get("spec") or {}
    found = []
    for single, plural in (("podCidr", "podCidrs"), ("serviceCidr", "serviceCidrs")):
        problems = list(cidr.check_list(spec, single, plural, _SPEC))
        prefixes = [cidr.prefix(text) for text in cidr.listed(spec, single, plural)]
        for prefix in prefixes:
            if not problems and prefix is not None and cidr.is_transit(prefix):
                taken = cidr.TRANSIT if prefix.version == 4 else cidr.TRANSIT6
                problems.append(
                    (_SPEC / single).invalid(str(prefix), f"must not overlap {taken}, which Polder's routers use")
                )
        yield from problems
        if not problems:
            found.append([prefix for prefix in prefixes if prefix is not None])
    if len(found) == 2:
        yield from _apart(*found)
    yield from validate_members(spec.get("members") or [])
    yield from validate_tenant_quota(spec, _SPEC)


def _apart(pods: list[cidr.Prefix], services: list[cidr.Prefix]) -> Iterator[FieldError]:
    if [one.version for one in pods] != [one.version for one in services]:
        families = ", ".join(f"IPv{one.version}" for one in pods)
        shown = [str(one) for one in services]
        yield (_SPEC / "serviceCidrs").invalid(
            shown, f"must have the families of spec.podCidrs, in its order: {families}"
        )
    for one in services:
        for other in pods:
            if cidr.overlap(one, other):
                yield (_SPEC / "serviceCidr").invalid(str(one), f"must not overlap spec.podCidr {other}")


def validate_tenant_update(new: Raw, old: Raw) -> Iterator[FieldError]:
    """A tenant's prefixes stay: pods and services have addresses from them."""
    yield from _fixed_lists(new, old, (("podCidr", "podCidrs"), ("serviceCidr", "serviceCidrs")))


def _fixed_lists(new: Raw, old: Raw, fields: Iterable[tuple[str, str]]) -> Iterator[FieldError]:
    """What was written before there were lists says the same by its single field."""
    after, before = new.get("spec") or {}, old.get("spec") or {}
    for single, plural in fields:
        if after.get(single) != before.get(single):
            yield (_SPEC / single).invalid(after.get(single, ""), _IMMUTABLE)
        elif cidr.listed(after, single, plural) != cidr.listed(before, single, plural):
            yield (_SPEC / plural).invalid(after.get(plural, []), _IMMUTABLE)


# --- Network ----------------------------------------------------------------------------------------------------------


def validate_network(network: Raw) -> Iterator[FieldError]:
    """Prefixes, gateways inside them, a router that exists, an MTU that frames fit."""
    spec = network.get("spec") or {}
    problems = list(cidr.check_list(spec, "cidr", "cidrs", _SPEC))
    yield from problems
    prefixes = [found for text in cidr.listed(spec, "cidr", "cidrs") if (found := cidr.prefix(text)) is not None]
    if not problems:
        yield from _gateways(spec, prefixes)
    router = spec.get("router", DEFAULT_ROUTER)
    if router not in ("", DEFAULT_ROUTER):
        why = f'router "{router}" is not supported by this version of Polder; "{DEFAULT_ROUTER}" is, and "" for none'
        yield (_SPEC / "router").forbidden(why)
    mtu = spec.get("mtu", 0)
    least = _MTU6 if any(found.version == 6 for found in prefixes) else _MTU[0]
    if mtu and not least <= mtu <= _MTU[1]:
        yield (_SPEC / "mtu").invalid(mtu, f"must be 0 (automatic) or between {least} and {_MTU[1]}")


def _gateways(spec: Raw, prefixes: list[cidr.Prefix]) -> Iterator[FieldError]:
    texts = cidr.listed(spec, "gateway", "gateways")
    if texts and spec.get("gateway", texts[0]) != texts[0]:
        yield (_SPEC / "gateway").invalid(spec["gateway"], f"must be the first of spec.gateways, {texts[0]}")
        return
    if len({":" in text for text in texts}) < len(texts):
        yield (_SPEC / "gateways").invalid(texts, "may have one gateway of each family")
    for number, text in enumerate(texts):
        at = _SPEC / "gateway" if len(texts) == 1 else (_SPEC / "gateways")[number]
        gateway = cidr.any_address(text)
        if spec.get("router") == "":
            yield at.forbidden("an isolated network (spec.router is empty) has no gateway")
        elif gateway is None:
            yield at.invalid(text, "must be an IPv6 address" if ":" in text else "must be an IPv4 address")
        else:
            yield from _gateway(gateway, next((one for one in prefixes if one.version == gateway.version), None), at)


def _gateway(gateway: cidr.Address, prefix: cidr.Prefix | None, at: Field) -> Iterator[FieldError]:
    if prefix is None:
        yield at.invalid(str(gateway), f"the network has no IPv{gateway.version} prefix")
    elif gateway not in prefix:
        yield at.invalid(str(gateway), f"must be inside spec.cidr {prefix}")
    elif gateway in (prefix.network_address, prefix.broadcast_address):
        yield at.invalid(str(gateway), f"must not be the network or broadcast address of spec.cidr {prefix}")
    elif not is_host(prefix, gateway):
        yield at.invalid(str(gateway), f"must be among the first 2^32 addresses of spec.cidr {prefix}")


def is_host(prefix: cidr.Prefix, address: cidr.Address) -> bool:
    """Whether a port or gateway may have it: neither the first nor the last address, and of IPv6 among the first 2^32."""
    size = min(prefix.num_addresses, 1 << 32)
    return address.version == prefix.version and 0 < int(address) - int(prefix.network_address) < size - 1


def validate_network_update(new: Raw, old: Raw) -> Iterator[FieldError]:
    """Prefixes, gateways and router stay: ports have addresses and routes from them."""
    yield from _fixed_lists(new, old, (("cidr", "cidrs"), ("gateway", "gateways")))
    yield from _fixed(new, old, ("router",))


def _name(obj: Raw) -> str:
    meta = obj.get("metadata") or {}
    return f"{meta.get('namespace', '')}/{meta.get('name', '')}"


def network_conflicts(
    new: Raw, existing: Iterable[Raw], service_cidrs: Iterable[str], *, platform: bool = False
) -> list[FieldError]:
    """What a valid network overlaps: others of its router, the tenant's services, and Polder's own transit addresses,
    which only ``platform`` (root) may use.
    """
    spec, at = new.get("spec") or {}, _SPEC / "cidr"
    router = spec.get("router", DEFAULT_ROUTER)
    services = _prefixes(service_cidrs)
    rivals = {
        _name(other): _prefixes(cidr.listed(other.get("spec") or {}, "cidr", "cidrs"))
        for other in existing
        if router and (other.get("spec") or {}).get("router", DEFAULT_ROUTER) == router and _name(other) != _name(new)
    }
    found = []
    for prefix in _prefixes(cidr.listed(spec, "cidr", "cidrs")):
        if cidr.is_transit(prefix) and not platform:
            taken = cidr.TRANSIT if prefix.version == 4 else cidr.TRANSIT6
            found.append(at.invalid(str(prefix), f"must not overlap {taken}, which Polder's routers use"))
        meant = [service for service in services if router and cidr.overlap(prefix, service)]
        found.extend(at.invalid(str(prefix), f"must not overlap the tenant's service addresses {one}") for one in meant)
        for name, theirs in rivals.items():
            why = f"must not overlap {{}} of network {name} of the same router"
            found.extend(at.invalid(str(prefix), why.format(other)) for other in theirs if cidr.overlap(prefix, other))
    return found


def _prefixes(texts: Iterable[str]) -> list[cidr.Prefix]:
    return [found for text in texts if (found := cidr.prefix(text)) is not None]


# --- Segment, Port, Address -------------------------------------------------------------------------------------------


def validate_segment(segment: Raw) -> Iterator[FieldError]:
    """Named by the identifier that it claims."""
    vni = (segment.get("spec") or {}).get("vni", 0)
    if not 1 <= vni <= _MAX_VNI:
        yield (_SPEC / "vni").invalid(vni, f"must be between 1 and {_MAX_VNI}")
    elif (name := (segment.get("metadata") or {}).get("name", "")) != f"vni-{vni}":
        yield Field("metadata.name").invalid(name, f"must be vni-{vni}, after spec.vni")


def validate_port(port: Raw) -> Iterator[FieldError]:
    """A network, a node, an address of each family at most, a MAC."""
    spec = port.get("spec") or {}
    yield from validate_reference(spec.get("network", ""), _SPEC / "network")
    if not spec.get("node"):
        yield (_SPEC / "node").required()
    addresses = spec.get("addresses") or ()
    for number, text in enumerate(addresses):
        if cidr.any_address(text) is None:
            yield (_SPEC / "addresses")[number].invalid(text, "must be an address without prefix length")
    if len({":" in text for text in addresses}) < len(addresses):
        yield (_SPEC / "addresses").invalid(list(addresses), "may have one address of each family")
    if mac := spec.get("mac"):
        yield from _mac(mac, _SPEC / "mac")


def validate_port_update(new: Raw, old: Raw) -> Iterator[FieldError]:
    """Who the port belongs to stays."""
    yield from _fixed(new, old, ("network", "node", "pod", "podUid", "interface", "routerOf"))


def validate_address(address: Raw) -> Iterator[FieldError]:
    """The name of a claimed address says network and address."""
    spec, name = address.get("spec") or {}, (address.get("metadata") or {}).get("name", "")
    for field in ("network", "address", "port"):
        if not spec.get(field):
            yield (_SPEC / field).required()
    found = cidr.any_address(spec.get("address", ""))
    wanted = address_name(str(spec.get("network", "")).rpartition("/")[2], str(found))
    if found is not None and name != wanted:
        yield Field("metadata.name").invalid(name, f"must be {wanted}, after spec.network and spec.address")


# --- annotations ------------------------------------------------------------------------------------------------------


def _mac(text: str, at: Field) -> Iterator[FieldError]:
    if not _MAC.fullmatch(text):
        yield at.invalid(text, "must be a MAC address in lower case, such as 0a:58:0a:00:00:05")
    elif int(text[:2], 16) & 1 or text == "00:00:00:00:00:00":
        yield at.invalid(text, "must be a unicast MAC address")


def validate_pod_annotations(annotations: Raw) -> Iterator[FieldError]:
    """The static address, MAC and network of a pod."""
    if (text := annotations.get(ADDRESS_ANNOTATION)) is not None:
        at, asked = _ANNOTATIONS[ADDRESS_ANNOTATION], text.split(",")
        if any(cidr.any_address(one) is None for one in asked) or len({":" in one for one in asked}) < len(asked):
            yield at.invalid(text, "must be an address in canonical form, or one of each family: 10.0.0.5,fd00::5")
    if (text := annotations.get(MAC_ANNOTATION)) is not None:
        yield from _mac(text, _ANNOTATIONS[MAC_ANNOTATION])
    if (text := annotations.get(NETWORK_ANNOTATION)) is not None:
        yield from validate_reference(text, _ANNOTATIONS[NETWORK_ANNOTATION])


def fixed_pod_annotations(new: Raw, old: Raw) -> Iterator[FieldError]:
    """A pod's network, address and MAC are read once."""
    for key in (ADDRESS_ANNOTATION, MAC_ANNOTATION, NETWORK_ANNOTATION):
        if new.get(key) != old.get(key):
            yield _ANNOTATIONS[key].invalid(new.get(key, ""), _IMMUTABLE)
