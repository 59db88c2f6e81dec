"""Which networks of a tenant could overlap: an index by prefixes, so that one more network looks at few others.

Two prefixes overlap only if one contains the other. Lengths are rounded down to steps of four bits: each network is found at
its own rounded prefix, and inside each shorter one. A network looks for those around it and for those inside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Network, ip_network

from polder.api import polder as api
from polder.base.ref import Ref
from polder.sdn.compile.concern import Index, View
from polder.sdn.topology.invariants import Prefix, parse_prefix

STEP = 4
Term = tuple[str, str, str, int, int, int]
"""How ("at" or "in"), tenant, router, IP version, length, leading bits."""


def _terms(ref: Ref, network: api.Network) -> Iterator[Term]:
    """None for a network without router, which shares addresses with no other."""
    for cidr in _prefixes(network):
        own = _rounded(cidr)
        yield _term("at", ref.tenant, network.spec.router, cidr, own)
        for length in range(0, own + 1, STEP):
            yield _term("in", ref.tenant, network.spec.router, cidr, length)


NETWORKS: Index[api.Network, api.Network] = Index("networks", api.Network, _terms, lambda network: network)


def rivals_of(ref: Ref, network: api.Network, view: View) -> list[api.Network]:
    """The networks of the tenant that may overlap one, in order of their names, without itself."""
    found: dict[Ref, api.Network] = {}
    for cidr in _prefixes(network):
        own = _rounded(cidr)
        for length in range(0, own + 1, STEP):
            found.update(view.by(NETWORKS, _term("at", ref.tenant, network.spec.router, cidr, length)))
        found.update(view.by(NETWORKS, _term("in", ref.tenant, network.spec.router, cidr, own)))
    found.pop(ref, None)
    return [found[at] for at in sorted(found)]


def has_network(tenant: str, text: str, view: View) -> bool:
    """Whether an address lies in one of the networks of a tenant that its router is in."""
    cidr = ip_network(text)
    found = (
        network
        for length in range(0, cidr.prefixlen + 1, STEP)
        for network in view.by(NETWORKS, _term("at", tenant, api.DEFAULT_ROUTER, cidr, length)).values()
    )
    return any(cidr.version == one.version and cidr.network_address in one for net in found for one in _prefixes(net))


def _prefixes(network: api.Network) -> Iterator[Prefix]:
    for text in api.cidrs_of(network.spec) if network.spec.router else ():
        cidr = parse_prefix(text)
        if cidr is not None:
            yield cidr


def _rounded(cidr: Prefix) -> int:
    return cidr.prefixlen // STEP * STEP


def _term(how: str, tenant: str, router: str, cidr: Prefix, length: int) -> Term:
    width = 32 if isinstance(cidr, IPv4Network) else 128
    bits = int(cidr.network_address) >> (width - length)
    return how, tenant, router, cidr.version, length, bits
