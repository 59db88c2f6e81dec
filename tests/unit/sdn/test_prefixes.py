"""Networks of a tenant that overlap are found by prefixes, and no others are looked at."""

from __future__ import annotations

from ipaddress import ip_network

from hypothesis import given, settings
from hypothesis import strategies as st

from polder.sdn.compile.compiler import Compiler
from polder.sdn.compile.keys import Concern, Key
from polder.sdn.topology.invariants import share
from tests.unit.sdn.objects import Objects, ref


@st.composite
def prefixes(draw: st.DrawFn) -> str:
    """Few leading bits, so that many overlap."""
    if draw(st.booleans()):
        return str(ip_network((0x0A000000 | draw(st.integers(0, 15)) << 20, draw(st.integers(8, 14))), strict=False))
    return str(ip_network((0xFD << 120 | draw(st.integers(0, 15)) << 108, draw(st.integers(16, 24))), strict=False))


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(prefixes(), st.booleans()), min_size=2, max_size=8), st.randoms())
def test_of_two_that_overlap_the_older_holds(wanted: list[tuple[str, bool]], chance) -> None:
    make, compiler = Objects(), Compiler()
    networks = [
        make.network("acme", f"n{number}", cidr, 0x1000 + number, router="default" if routed else "")
        for number, (cidr, routed) in enumerate(wanted)
    ]
    for network in chance.sample(networks, len(networks)):
        compiler.put(type(network), ref(network), network)
        compiler.recompile()
    for number, (cidr, routed) in enumerate(wanted):
        older = [other for other, also in wanted[:number] if also and share(cidr, other)]
        broken = Key(Concern.NETWORK, ref(networks[number])) in compiler.errors
        assert broken is bool(routed and older), (number, wanted)


def test_a_network_beside_many_others_is_compiled_alone() -> None:
    make, compiler = Objects(), Compiler()
    for number in range(50):
        network = make.network("acme", f"n{number}", f"10.{number}.0.0/16", 0x1000 + number)
        compiler.put(type(network), ref(network), network)
        assert len(compiler.recompile()) == 1
    late = make.network("acme", "late", "10.99.0.0/16", 0x2000, cidrs=["10.99.0.0/16", "fd00:99::/64"])
    assert compiler.put(type(late), ref(late), late) == {Key(Concern.NETWORK, ref(late))}
    wide = make.network("acme", "wide", "10.0.0.0/11", 0x2001)
    compiler.put(type(wide), ref(wide), wide)
    compiler.recompile()
    assert "overlaps 10.0.0.0/16" in str(compiler.errors[Key(Concern.NETWORK, ref(wide))])
