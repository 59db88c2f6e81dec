"""A pod's resolv.conf, by its dnsPolicy and dnsConfig; resolv.conf(5) gives the limits."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from polder.api.core import Pod
from polder.api.meta import tenant_of
from polder.api.podspec import PodDnsConfig
from polder.base.ids import TenantName
from polder.system.cri_types import DnsConfig

DOMAIN = "cluster.local"
SERVERS, SEARCHES = 3, 32


def _nowhere(_: TenantName) -> str:
    return ""


@dataclass(frozen=True, slots=True)
class Resolver:
    """``address_of`` gives the address of a tenant's resolver on this node, empty where it has none; ``host`` is the
    machine's own resolv.conf.
    """

    address_of: Callable[[TenantName], str] = _nowhere
    host: DnsConfig = field(default_factory=DnsConfig)
    domain: str = DOMAIN


def parse_resolv_conf(text: str) -> DnsConfig:
    """A resolv.conf: of several lines with searches the last counts, servers add up."""
    servers: list[str] = []
    searches: list[str] = []
    options: list[str] = []
    for line in text.splitlines():
        words = line.split()
        if len(words) < 2 or words[0][0] in "#;":
            continue
        if words[0] == "nameserver":
            servers.append(words[1])
        elif words[0] in ("search", "domain"):
            searches = words[1:]
        elif words[0] == "options":
            options += words[1:]
    return DnsConfig(tuple(servers), tuple(searches), tuple(options))


def dns_config(pod: Pod, resolver: Resolver) -> DnsConfig:
    """What the pod asks for; where nothing is left, the runtime gives it the machine's file. A pod in the node's own network has
    the machine's servers, unless it has its own: from there no tenant's resolver is reached.
    """
    policy, address = pod.spec.dns_policy, resolver.address_of(tenant_of(pod.metadata))
    base = resolver.host
    if policy == "None":
        base = DnsConfig()
    elif policy != "Default" and not pod.spec.host_network and address:
        domain = resolver.domain
        own = (f"{pod.metadata.namespace}.svc.{domain}", f"svc.{domain}", domain)
        base = DnsConfig((address,), _united(own, resolver.host.searches), ("ndots:5",))
    return _with(base, pod.spec.dns_config or PodDnsConfig())


def _with(base: DnsConfig, more: PodDnsConfig) -> DnsConfig:
    """The pod's own additions: servers and searches behind, options over those of the same name."""
    options = {option.partition(":")[0]: option for option in base.options}
    for option in more.options or ():
        options[option.name] = option.name if option.value is None else f"{option.name}:{option.value}"
    return DnsConfig(
        _united(base.servers, more.nameservers or ())[:SERVERS],
        _united(base.searches, more.searches or ())[:SEARCHES],
        tuple(options.values()),
    )


def _united(first: Iterable[str], second: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys([*first, *second]))
