"""A tenant's names, after the Kubernetes DNS specification 1.1. No input or output.

What a fact costs is bounded by the fact; a question looks at what it asks for only. Names of other tenants are not denied: they
are not there.
"""

from __future__ import annotations

import socket
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from polder.dns import facts
from polder.dns.reverse import address_asked, local_apex, reverse_labels
from polder.dns.wire import AAAA, CNAME, NOERROR, NS, NXDOMAIN, PTR, SOA, SRV, TXT, A, Labels, labels_of
from polder.dns.writer import Record, Reply, soa_data

TTL = 5
"""Seconds for which clients may keep an answer, and a denial: so long after a change somebody may still see the old."""
VERSION = b"1.1.0"
ADDRESSES = 4000
"""Addresses of one answer at most: more do not fit into the largest message."""
TARGETS = 1500
"""The same for SRV."""
NAMES = 2000
"""Names of one address that are looked at: so many pods with one address are somebody's invention."""
SERVER = (b"ns", b"dns")
_Target = tuple[Labels, int, Iterable[bytes]]
"""Name, port, addresses."""
PROTOCOLS = {b"_tcp": "tcp", b"_udp": "udp", b"_sctp": "sctp"}


@dataclass(frozen=True, slots=True)
class Alias:
    """A name that stands for ``target``, which is not of this zone."""

    records: tuple[Record, ...]
    target: Labels


def dashed(address: bytes) -> bytes:
    """An address as a label: what stands for an endpoint without a hostname, and in names of pods."""
    family = socket.AF_INET if len(address) == 4 else socket.AF_INET6
    return socket.inet_ntop(family, address).replace(".", "-").replace(":", "-").encode()


class _Slice:
    """A slice, ready to be asked."""

    __slots__ = ("by_label", "fact", "service")

    def __init__(self, namespace: bytes, fact: facts.Slice) -> None:
        self.fact = fact
        self.service = (namespace, fact.service.encode())
        self.by_label: dict[bytes, list[bytes]] = {}
        for address, hostname in fact.endpoints:
            self.by_label.setdefault(hostname.lower().encode() or dashed(address), []).append(address)


@dataclass(slots=True)
class Zone:
    """One tenant's names. ``address`` is where its resolver answers."""

    domain: Labels = (b"cluster", b"local")
    address: bytes = b""
    _facts: dict[tuple[type[facts.Fact], str], facts.AnyFact] = field(default_factory=dict)
    _services: dict[tuple[bytes, bytes], facts.Service] = field(default_factory=dict)
    _slices: defaultdict[tuple[bytes, bytes], dict[str, _Slice]] = field(default_factory=lambda: defaultdict(dict))
    _namespaces: set[bytes] = field(default_factory=set)
    _pods: Counter[tuple[bytes, bytes]] = field(default_factory=Counter)
    _reverse: defaultdict[bytes, Counter[Labels]] = field(default_factory=lambda: defaultdict(Counter))

    # -- facts ----------------------------------------------------------------------------------------------------

    def put(self, fact: facts.AnyFact) -> bool:
        """Takes a fact; whether it is news."""
        place = type(fact), fact.key
        if self._facts.get(place) == fact:
            return False
        self.remove(*place)
        self._facts[place] = fact
        namespace, _, name = (part.encode() for part in fact.key.partition("/"))
        match fact:
            case facts.Namespace():
                self._namespaces.add(namespace)
            case facts.Service():
                self._services[namespace, name] = fact
                self._count(fact.addresses, self._service_name((namespace, name)), 1)
            case facts.Slice():
                held = _Slice(namespace, fact)
                self._slices[held.service][fact.key] = held
                self._count_endpoints(held, 1)
            case facts.Pod():
                self._pods.update((namespace, address) for address in fact.addresses)
        return True

    def remove(self, kind: type[facts.Fact], key: str) -> bool:
        """Takes a fact back; whether it was there."""
        fact = self._facts.pop((kind, key), None)
        if fact is None:
            return False
        namespace, _, name = (part.encode() for part in key.partition("/"))
        match fact:
            case facts.Namespace():
                self._namespaces.discard(namespace)
            case facts.Service():
                del self._services[namespace, name]
                self._count(fact.addresses, self._service_name((namespace, name)), -1)
            case facts.Slice():
                self._drop_slice((namespace, fact.service.encode()), key)
            case facts.Pod():
                for address in fact.addresses:
                    self._pods[namespace, address] -= 1
                    if not self._pods[namespace, address]:
                        del self._pods[namespace, address]
        return True

    def has(self, kind: type[facts.Fact], key: str) -> bool:
        """Whether a fact is known."""
        return (kind, key) in self._facts

    def keys(self) -> list[tuple[type[facts.Fact], str]]:
        """All facts."""
        return list(self._facts)

    def _drop_slice(self, service: tuple[bytes, bytes], key: str) -> None:
        held = self._slices[service].pop(key)
        self._count_endpoints(held, -1)
        if not self._slices[service]:
            del self._slices[service]

    def _count_endpoints(self, held: _Slice, by: int) -> None:
        base = self._service_name(held.service)
        for label, addresses in held.by_label.items():
            self._count(addresses, (label, *base), by)

    def _count(self, addresses: Iterable[bytes], name: Labels, by: int) -> None:
        """Notes whose names an address stands for. Endpoints count while their service is headless, which is seen when asked."""
        for address in addresses:
            names = self._reverse[address]
            names[name] += by
            if not names[name]:
                del names[name]
            if not names:
                del self._reverse[address]

    def _service_name(self, service: tuple[bytes, bytes]) -> Labels:
        return (service[1], service[0], b"svc", *self.domain)

    # -- questions ------------------------------------------------------------------------------------------------

    def find(self, labels: Labels, kind: int) -> Reply | Alias | None:
        """The answer, or by which name to go on; None for names that are not of this zone."""
        depth = len(labels) - len(self.domain)
        if depth >= 0 and labels[depth:] == self.domain:
            return self._find(labels, labels[:depth], kind)
        if labels[-1:] == (b"arpa",):
            return self._find_reverse(labels, kind)
        return None

    def _find(self, labels: Labels, inside: Labels, kind: int) -> Reply | Alias:
        match inside:
            case ():
                return self._apex(kind)
            case (b"dns-version",):
                return self._reply([Record(labels, TXT, TTL, bytes((len(VERSION),)) + VERSION)], kind)
            case (b"dns",) | (b"svc",) | (b"pod",):
                return self._reply([], kind)
            case (b"ns", b"dns"):
                return self._reply(self._addresses(labels, [self.address]), kind)
            case (namespace, b"svc" | b"pod"):
                return self._reply([], kind) if namespace in self._namespaces else self._absent()
            case (*below, name, namespace, b"svc"):
                service = self._services.get((namespace, name))
                return self._of_service(labels, tuple(below), service, kind) if service is not None else self._absent()
            case (label, namespace, b"pod"):
                return self._pod(labels, namespace, label, kind)
        return self._absent()

    def _apex(self, kind: int) -> Reply:
        if kind == SOA:
            return Reply(NOERROR, [self._soa()])
        if kind == NS:
            server = (*SERVER, *self.domain)
            return Reply(
                NOERROR,
                [Record(self.domain, NS, TTL, target=server)],
                additional=list(self._addresses(server, [self.address])),
            )
        return self._reply([], kind)

    def _of_service(self, labels: Labels, below: Labels, service: facts.Service, kind: int) -> Reply | Alias:
        if service.external:
            target = labels_of(service.external)
            if below or target is None:
                return self._absent()
            alias = Record(labels, CNAME, TTL, target=target)
            return Reply(NOERROR, [alias]) if kind == CNAME else Alias((alias,), target)
        slices = self._slices_of(labels[len(below) :])
        headless = not service.addresses
        if not below:
            addresses: Iterable[bytes] = service.addresses
            if headless:
                addresses = (address for held in slices for address, _ in held.fact.endpoints)
            return self._reply(self._addresses(labels, addresses), kind)
        named = [port for port in service.ports if port[0]] if not headless else []
        named += [port for held in slices for port in held.fact.ports if port[0]] if headless else []
        if len(below) == 2 and below[1] in PROTOCOLS:
            wanted = below[0].decode("ascii", "replace").removeprefix("_"), PROTOCOLS[below[1]]
            if not below[0].startswith(b"_") or wanted not in {port[:2] for port in named}:
                return self._absent()
            return self._targets(labels, wanted, service, slices) if kind == SRV else self._reply([], kind)
        if len(below) != 1:
            return self._absent()
        if below[0] in PROTOCOLS and PROTOCOLS[below[0]] in {port[1] for port in named}:
            return self._reply([], kind)
        found = [a for held in slices for a in held.by_label.get(below[0], ())] if headless else []
        return self._reply(self._addresses(labels, found), kind) if found else self._absent()

    def _slices_of(self, name: Labels) -> list[_Slice]:
        return list(self._slices[name[1], name[0]].values()) if (name[1], name[0]) in self._slices else []

    def _targets(self, labels: Labels, wanted: tuple[str, str], service: facts.Service, slices: list[_Slice]) -> Reply:
        """SRV: the service itself, or each endpoint of a headless one. Their addresses come along."""
        base = labels[2:]
        if service.addresses:
            found: list[_Target] = [(base, port[2], service.addresses) for port in service.ports if port[:2] == wanted]
        else:
            found = list(islice(_endpoints(base, wanted, slices), TARGETS))
        weight = max(1, 100 // max(1, len(found)))
        head = (0).to_bytes(2, "big") + weight.to_bytes(2, "big")
        answers = {
            (target, port): Record(labels, SRV, TTL, head + port.to_bytes(2, "big"), target)
            for target, port, _ in found
        }
        glue = dict.fromkeys(record for target, _, addresses in found for record in self._addresses(target, addresses))
        return Reply(NOERROR, list(answers.values()), additional=list(glue))

    def _pod(self, labels: Labels, namespace: bytes, label: bytes, kind: int) -> Reply:
        """``1-2-3-4.namespace.pod``: answered where a pod of the namespace has the address."""
        for separator, family in ((".", socket.AF_INET), (":", socket.AF_INET6)):
            try:
                address = socket.inet_pton(family, label.decode("ascii").replace("-", separator))
            except (OSError, ValueError):
                continue
            if (namespace, address) in self._pods:
                return self._reply(self._addresses(labels, [address]), kind)
        return self._absent()

    def _find_reverse(self, labels: Labels, kind: int) -> Reply | None:
        """Names of the tenant's addresses. What else is private is nobody's: upstream would tell of the platform's network."""
        address = address_asked(labels)
        known = islice(self._reverse.get(address, ()), NAMES) if address else ()
        names = [name for name in known if self._names_address(name)]
        apex = local_apex(labels)
        if not names:
            return self._absent(apex) if apex is not None else None
        owner = reverse_labels(address or b"")
        answers = [Record(owner, PTR, TTL, target=name) for name in sorted(names)]
        if kind == PTR:
            return Reply(NOERROR, answers)
        return Reply(NOERROR, authority=[self._soa(apex or owner)])

    def _names_address(self, name: Labels) -> bool:
        """Whether an address is told by this name: a service's own, or an endpoint's of a headless service."""
        inside = name[: len(name) - len(self.domain)]
        service = self._services.get((inside[-2], inside[-3]))
        return service is not None and not service.external and (len(inside) == 3) == bool(service.addresses)

    # -- answers --------------------------------------------------------------------------------------------------

    def _addresses(self, owner: Labels, addresses: Iterable[bytes]) -> Iterator[Record]:
        for address in dict.fromkeys(islice(addresses, ADDRESSES)):
            yield Record(owner, A if len(address) == 4 else AAAA, TTL, address)

    def _reply(self, records: Iterable[Record], kind: int) -> Reply:
        """The records of that kind; where there are none, that the name has none (RFC 2308, section 2.2)."""
        answers = [record for record in records if record.kind == kind]
        return Reply(NOERROR, answers) if answers else Reply(NOERROR, authority=[self._soa()])

    def _absent(self, apex: Labels | None = None) -> Reply:
        return Reply(NXDOMAIN, authority=[self._soa(apex)])

    def _soa(self, apex: Labels | None = None) -> Record:
        """The zone's. Its serial says nothing: it would tell how often somebody's services change."""
        data = soa_data(1, TTL, (*SERVER, *self.domain), (b"hostmaster", *self.domain))
        return Record(apex or self.domain, SOA, TTL, data)


def _endpoints(base: Labels, wanted: tuple[str, str], slices: list[_Slice]) -> Iterator[_Target]:
    for held in slices:
        for name, protocol, number in held.fact.ports:
            if (name, protocol) == wanted:
                for label, addresses in held.by_label.items():
                    yield (label, *base), number, addresses
