"""A tenant's names for tests: two services, a headless one with and without hostnames, an external one."""

from __future__ import annotations

import ipaddress

import dns.flags
import dns.message
import dns.name
import dns.rdatatype

from polder.dns import facts
from polder.dns.forward import Forwarder
from polder.dns.resolver import Resolver

TENANT = "acme"


def ip(text: str) -> bytes:
    return ipaddress.ip_address(text).packed


def some_facts(tenant: str = TENANT) -> list[facts.AnyFact]:
    return [
        facts.Namespace(tenant, "default"),
        facts.Namespace(tenant, "empty"),
        facts.Service(tenant, "default/kubernetes", (ip("10.96.0.1"),), (("https", "tcp", 443),)),
        facts.Slice(tenant, "default/kubernetes", "kubernetes", ((ip("10.96.0.1"), ""),), (("https", "tcp", 443),)),
        facts.Service(
            tenant, "default/web", (ip("10.96.0.20"), ip("fd00::20")), (("http", "tcp", 80), ("dns", "udp", 53))
        ),
        facts.Service(tenant, "default/db", (), (("pg", "tcp", 5432),)),
        facts.Slice(
            tenant,
            "default/db-1",
            "db",
            ((ip("10.0.0.5"), "db-0"), (ip("10.0.0.6"), "db-1"), (ip("10.0.0.7"), "")),
            (("pg", "tcp", 5432),),
        ),
        facts.Slice(tenant, "default/db-2", "db", ((ip("fd00::5"), "db-0"),), (("pg", "tcp", 5432),)),
        facts.Service(tenant, "default/none", (), ()),
        facts.Service(tenant, "default/far", (), (), "www.example.com"),
        facts.Service(tenant, "default/near", (), (), "web.default.svc.cluster.local"),
        facts.Service(tenant, "default/ring", (), (), "ring.default.svc.cluster.local"),
        facts.Pod(tenant, "default/p1", (ip("10.0.0.5"), ip("fd00::5"))),
    ]


def resolver(*more: facts.AnyFact) -> Resolver:
    made = Resolver(TENANT, Forwarder())
    made.zone.address = ip("10.96.0.10")
    for fact in (*some_facts(), *more):
        made.zone.put(fact)
    return made


def query(name: str, kind: str = "A", **options: object) -> dns.message.Message:
    return dns.message.make_query(name, kind, **options)  # type: ignore[arg-type]


def answered(
    made: Resolver, name: str, kind: str = "A", *, stream: bool = False, **options: object
) -> dns.message.Message:
    """The answer, read by dnspython, which also holds that it belongs to the question."""
    asked = query(name, kind, **options)
    data = made.answer(asked.to_wire(), 0.0, stream=stream)
    assert isinstance(data, bytes)
    found = dns.message.from_wire(data)
    assert asked.is_response(found)
    return found


def texts(message: dns.message.Message) -> set[str]:
    """Answers as ``name type data``."""
    return {f"{rrset.name} {dns.rdatatype.to_text(rrset.rdtype)} {item}" for rrset in message.answer for item in rrset}
