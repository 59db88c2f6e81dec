"""What the Kubernetes DNS specification 1.1 says of a tenant's names."""

from __future__ import annotations

import dns.flags
import dns.message
import dns.rcode
import pytest

from polder.dns import facts
from polder.dns.resolver import Waiting
from tests.unit.dns.kit import answered, ip, query, resolver, texts

SVC = "svc.cluster.local."


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("web.default", "A", {"A 10.96.0.20"}),
        ("WEB.Default", "A", {"A 10.96.0.20"}),
        ("web.default", "AAAA", {"AAAA fd00::20"}),
        ("db.default", "A", {"A 10.0.0.5", "A 10.0.0.6", "A 10.0.0.7"}),
        ("db.default", "AAAA", {"AAAA fd00::5"}),
        ("db-0.db.default", "A", {"A 10.0.0.5"}),
        ("db-0.db.default", "AAAA", {"AAAA fd00::5"}),
        ("10-0-0-7.db.default", "A", {"A 10.0.0.7"}),
        ("_http._tcp.web.default", "SRV", {"SRV 0 100 80 web.default.svc.cluster.local."}),
        (
            "_pg._tcp.db.default",
            "SRV",
            {
                "SRV 0 25 5432 db-0.db.default.svc.cluster.local.",
                "SRV 0 25 5432 db-1.db.default.svc.cluster.local.",
                "SRV 0 25 5432 10-0-0-7.db.default.svc.cluster.local.",
            },
        ),
        ("far.default", "CNAME", {"CNAME www.example.com."}),
    ],
)
def test_services(name: str, kind: str, expected: set[str]) -> None:
    found = answered(resolver(), f"{name}.{SVC}", kind)
    assert found.rcode() == dns.rcode.NOERROR
    assert found.flags & dns.flags.AA
    assert texts(found) == {f"{name}.{SVC} {text}" for text in expected}


def test_srv_brings_the_addresses_of_its_targets() -> None:
    found = answered(resolver(), f"_pg._tcp.db.default.{SVC}", "SRV", use_edns=0)
    glue = {f"{rrset.name} {item}" for rrset in found.additional for item in rrset}
    base = f"db.default.{SVC}"
    assert glue == {
        f"db-0.{base} 10.0.0.5",
        f"db-0.{base} fd00::5",
        f"db-1.{base} 10.0.0.6",
        f"10-0-0-7.{base} 10.0.0.7",
    }


@pytest.mark.parametrize(
    "name",
    [
        "cluster.local.",
        SVC,
        "pod.cluster.local.",
        "dns.cluster.local.",
        f"empty.{SVC}",
        f"none.default.{SVC}",
        f"_tcp.web.default.{SVC}",
        f"_http._tcp.web.default.{SVC}",
        f"web.default.{SVC}",
    ],
)
def test_a_name_without_such_records_exists(name: str) -> None:
    found = answered(resolver(), name, "MX")
    assert found.rcode() == dns.rcode.NOERROR
    assert not found.answer
    (soa,) = found.authority
    assert soa.name.to_text() == "cluster.local."
    assert soa[0].minimum == 5
    assert soa.ttl == 5


@pytest.mark.parametrize(
    "name",
    [
        f"nobody.default.{SVC}",
        f"web.nowhere.{SVC}",
        f"nowhere.{SVC}",
        "nothing.cluster.local.",
        "web.default.cluster.local.",
        f"10-96-0-20.web.default.{SVC}",
        f"db-9.db.default.{SVC}",
        f"_nope._tcp.web.default.{SVC}",
        f"_http._udp.web.default.{SVC}",
        f"http._tcp.web.default.{SVC}",
        f"_sctp.web.default.{SVC}",
        f"a.b.c.web.default.{SVC}",
        f"x.far.default.{SVC}",
        "10-0-0-6.default.pod.cluster.local.",
        "10-0-0-5.empty.pod.cluster.local.",
        "x-0-0-5.default.pod.cluster.local.",
        "9.0.0.10.in-addr.arpa.",
        "1.1.168.192.in-addr.arpa.",
    ],
)
def test_what_is_not_there_is_denied(name: str) -> None:
    found = answered(resolver(), name)
    assert found.rcode() == dns.rcode.NXDOMAIN
    assert found.authority[0].rdtype == dns.rdatatype.SOA
    assert dns.name.from_text(name).is_subdomain(found.authority[0].name)


def test_version_pods_and_the_server_itself() -> None:
    made = resolver()
    assert texts(answered(made, "dns-version.cluster.local.", "TXT")) == {'dns-version.cluster.local. TXT "1.1.0"'}
    name = "10-0-0-5.default.pod.cluster.local."
    assert texts(answered(made, name)) == {f"{name} A 10.0.0.5"}
    name = "fd00--5.default.pod.cluster.local."
    assert texts(answered(made, name, "AAAA")) == {f"{name} AAAA fd00::5"}
    assert texts(answered(made, "cluster.local.", "NS")) == {"cluster.local. NS ns.dns.cluster.local."}
    assert texts(answered(made, "ns.dns.cluster.local.")) == {"ns.dns.cluster.local. A 10.96.0.10"}
    assert "SOA ns.dns.cluster.local." in next(iter(texts(answered(made, "cluster.local.", "SOA"))))


def test_addresses_have_names() -> None:
    made = resolver()
    for address, name in (
        ("20.0.96.10.in-addr.arpa.", f"web.default.{SVC}"),
        ("5.0.0.10.in-addr.arpa.", f"db-0.db.default.{SVC}"),
        ("7.0.0.10.in-addr.arpa.", f"10-0-0-7.db.default.{SVC}"),
        ("0.2.0.0" + ".0" * 26 + ".d.f.ip6.arpa.", f"web.default.{SVC}"),
    ):
        assert texts(answered(made, address, "PTR")) == {f"{address} PTR {name}"}
    nothing = answered(made, "20.0.96.10.in-addr.arpa.", "A")
    assert (nothing.rcode(), nothing.answer) == (dns.rcode.NOERROR, [])


def test_endpoints_of_a_service_with_an_address_have_no_names() -> None:
    made = resolver(facts.Slice("acme", "default/web-1", "web", ((ip("10.0.0.9"), "w"),), (("http", "tcp", 80),)))
    assert answered(made, f"w.web.default.{SVC}").rcode() == dns.rcode.NXDOMAIN
    assert answered(made, "9.0.0.10.in-addr.arpa.", "PTR").rcode() == dns.rcode.NXDOMAIN


def test_an_alias_within_the_zone_is_followed_and_a_ring_ends() -> None:
    made = resolver()
    near = f"near.default.{SVC}"
    assert texts(answered(made, near)) == {f"{near} CNAME web.default.{SVC}", f"web.default.{SVC} A 10.96.0.20"}
    assert answered(made, f"ring.default.{SVC}").rcode() == dns.rcode.SERVFAIL


def test_the_rest_is_asked_elsewhere() -> None:
    made = resolver()
    for name in ("www.example.com.", "1.1.1.1.in-addr.arpa.", "cluster.local.example.", f"far.default.{SVC}"):
        assert isinstance(made.answer(query(name).to_wire(), 0.0), Waiting), name


def test_a_change_is_seen_and_what_is_taken_back_leaves_nothing() -> None:
    made = resolver()
    name = f"web.default.{SVC}"
    assert answered(made, name).rcode() == dns.rcode.NOERROR
    assert made.zone.put(facts.Service("acme", "default/web", (ip("10.96.0.21"),)))
    made.changed()
    assert texts(answered(made, name)) == {f"{name} A 10.96.0.21"}
    for place in made.zone.keys():  # noqa: SIM118
        assert made.zone.remove(*place)
    made.changed()
    assert answered(made, name).rcode() == dns.rcode.NXDOMAIN
    kept = (made.zone._services, made.zone._slices, made.zone._reverse, made.zone._pods, made.zone._namespaces)
    assert not any(kept)
