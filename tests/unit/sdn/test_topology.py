from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polder.sdn.render.linux import text as items_text
from polder.sdn.render.linux.items import Element, PortLink, Route, Ruleset, Transit
from polder.sdn.topology import invariants, text
from polder.sdn.topology.addressing import link_name, mac_of
from polder.sdn.topology.lines import LineError
from polder.sdn.topology.types import Network, Port, Router, RouterAddress, TenantTopology

words = st.text(max_size=12)
routers = st.builds(
    Router,
    words,
    words,
    service_cidr=words,
    entry=words,
    addresses=st.lists(st.builds(RouterAddress, words, words), max_size=3).map(lambda found: tuple(sorted(found))),
)
networks = st.builds(
    Network, words, words, st.integers(0, 1 << 24), words, gateway=words, router=words, mtu=st.integers(0, 9000)
)
ports = st.builds(
    Port, words, words, words, words, st.lists(words, max_size=3).map(tuple), words,
    pod=words, interface=words, sandbox=words, netns=words, link=words,
)  # fmt: skip


@given(
    st.from_regex(r"[a-z][a-z0-9-]{0,20}", fullmatch=True),
    st.lists(routers, max_size=3),
    st.lists(networks, max_size=3),
    st.lists(ports, max_size=3),
)
def test_what_is_dumped_parses_to_the_same(tenant, some_routers, some_networks, some_ports) -> None:
    topology = TenantTopology(
        tenant, tuple(sorted(some_routers)), tuple(sorted(some_networks)), tuple(sorted(some_ports))
    )
    assert text.parse(text.dump(topology)) == topology


@given(words, words, st.booleans())
def test_items_parse_to_the_same_with_what_is_not_compared(one: str, two: str, flag: bool) -> None:
    items = {
        Route(one, "10.0.0.0/8", two, onlink=flag),
        Ruleset(one, "inet", "t", f"{two}\n chain x {{ }}"),
        Element(one, "inet", "t", "s", two),
    }
    assert items_text.parse(items_text.dump(items)) == items
    for item in (PortLink(one, "p", "b", 1, two, netns=one, addresses=(two, one)), Transit(one, two, "n", 1, "o", one)):
        again = items_text.parse_item(items_text.dump_item(item))
        assert repr(again) == repr(item)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("Nothing a=1", "'Nothing' is none of"),
        ('Route space="x" what="y"', "no field 'what'"),
        ('Route space=5 destination="d" link="l"', "field space"),
        ('Route space="x', "field space"),
        ('Route space="x"', "missing"),
    ],
)
def test_a_line_that_nobody_dumped_is_refused_with_what_is_wrong(line: str, words: str) -> None:
    with pytest.raises(LineError, match=words):
        items_text.parse_item(line)
    with pytest.raises(LineError, match="starts with Tenant"):
        text.parse("Router\n")


NET = Network("acme", "default/a", 5, "10.0.0.0/24", "10.0.0.1", "default")
PORT = Port("acme", "default/p", "default/a", "n1", ("10.0.0.5",), "0a:58:0a:00:00:05")


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (Network("acme", "default/a", 0, "10.0.0.0/24", "10.0.0.1", "default"), "status.vni 0"),
        (Network("acme", "default/a", 5, "10.0.0.5/24", "10.0.0.1", "default"), "spec.cidr '10.0.0.5/24'"),
        (Network("acme", "default/a", 5, "10.0.0.0/24", "10.0.1.1", "default"), "spec.gateway '10.0.1.1'"),
        (Network("acme", "default/a", 5, "10.0.0.0/24", "10.0.0.255", "default"), "spec.gateway '10.0.0.255'"),
        (Network("acme", "default/a", 5, "10.0.0.0/31", "10.0.0.1", "default"), "no room"),
        (Network("acme", "default/a", 5, "10.0.0.0/24", "10.0.0.1", "default", 70000), "spec.mtu 70000"),
        (Network("acme", "default/a", 5, "10.0.0.0/24", "10.0.0.1"), "isolated network has no gateway"),
    ],
)
def test_a_network_that_cannot_be_is_named_with_its_field(network: Network, words: str) -> None:
    found = list(invariants.network_violations(network))
    assert any("Network acme:default/a" in sentence and words in sentence for sentence in found), found


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"addresses": ("10.0.1.5",)}, "'10.0.1.5'"),
        ({"addresses": ("10.0.0.1",)}, "the gateway"),
        ({"addresses": ()}, "spec.addresses is empty"),
        ({"mac": "0A:58:0a:00:00:05"}, "spec.mac"),
        ({"mac": "01:00:5e:00:00:05"}, "group address"),
        ({"node": ""}, "spec.node"),
        ({"link": "x" * 16}, "status.link"),
    ],
)
def test_a_port_that_cannot_be_is_named_with_its_field(change: dict, words: str) -> None:
    from dataclasses import replace

    assert list(invariants.port_violations(PORT, NET)) == []
    found = list(invariants.port_violations(replace(PORT, **change), NET))
    assert any("Port acme:default/p" in sentence and words in sentence for sentence in found), found


def test_violations_across_a_topology() -> None:
    twin = Port("acme", "default/q", "default/a", "n1", ("10.0.0.5",), "0a:58:0a:00:00:06")
    lost = Port("acme", "default/r", "default/none", "n1", ("10.0.0.7",), "0a:58:0a:00:00:07")
    over = Network("acme", "default/b", 5, "10.0.0.128/25", "10.0.0.129", "default")
    router = Router(
        "acme", "kube-system/default", "10.96.0.0/12x", "", (RouterAddress("n1", "x"), RouterAddress("n1", "y"))
    )
    found = invariants.violations(TenantTopology("acme", (router,), (NET, over), (PORT, twin, lost)))
    for words in ("belongs to Port default/p", "is no network of the tenant", "overlaps", "status.vni 5 is that",
                  "spec.serviceCidr", "more than one address on node n1"):  # fmt: skip
        assert any(words in sentence for sentence in found), (words, found)
    assert invariants.violations(TenantTopology("acme", (), (NET,), (PORT,))) == []


def test_derived_names_are_short_and_distinct() -> None:
    names = {link_name(f"acme:default/{n}", "sandbox", attempt) for n in range(500) for attempt in range(2)}
    assert len(names) == 1000
    assert all(len(name) <= 14 and name.startswith("p") and name.isalnum() for name in names)
    assert mac_of("10.0.1.255") == "0a:58:0a:00:01:ff"
