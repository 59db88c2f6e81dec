from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from polder.api import polder as api
from polder.sdn.compile.compiler import Compiler
from polder.sdn.compile.errors import CompileError, NotReadyError
from polder.sdn.compile.keys import Concern, Key
from polder.sdn.compile.snapshot import Snapshot
from polder.sdn.render.linux.desired import Desired, PartKey, key_of
from polder.sdn.render.linux.rules import space_rules
from polder.sdn.render.linux.wanted import Wanted
from polder.sdn.topology.types import Network, Port, Router
from tests.unit.sdn.objects import FACTS, Objects, ref, small_cluster


def compiled(objects) -> Compiler:
    compiler = Compiler()
    for obj in objects:
        compiler.put(type(obj), ref(obj), obj)
    compiler.recompile()
    return compiler


def key(concern: Concern, obj) -> Key:
    return Key(concern, ref(obj))


def test_what_is_no_service_of_a_further_range_does_not_leave_the_tenant() -> None:
    make = Objects()
    spec = api.RouterSpec(service_cidr="10.96.0.0/16", further_service_cidrs=["203.0.113.0/24", "10.50.0.0/24"])
    compiler = compiled([api.Router(metadata=make.counter.meta("acme", "kube-system", "default"), spec=spec)])
    (router,) = (part for part in compiler.parts.values() if isinstance(part, Router))
    assert router.further == ("10.50.0.0/24", "203.0.113.0/24")
    rules = space_rules(router, "100.64.0.1")
    for prefix in ("10.96.0.0/16", *router.further):
        assert f'iifname "br-*" ip daddr {prefix} drop' in rules


def test_a_cluster_compiles_to_its_topology() -> None:
    compiler = compiled(small_cluster())
    assert compiler.errors == {}
    router = next(p for p in compiler.parts.values() if isinstance(p, Router) and p.tenant == "acme")
    assert (router.entry, router.address_on("n1"), router.address_on("n3")) == ("10.96.0.1", "100.64.0.1", "")
    network = next(p for p in compiler.parts.values() if isinstance(p, Network) and p.name == "default/a")
    assert network.gateway == "10.0.0.1"
    island = next(p for p in compiler.parts.values() if isinstance(p, Network) and p.name == "default/island")
    assert (island.gateway, island.router) == ("", "")
    assert sum(isinstance(p, Port) for p in compiler.parts.values()) == 6


def test_a_broken_fragment_blocks_no_other() -> None:
    make = Objects()
    good = [make.network("acme", "a", "10.0.0.0/24", 1), make.port("acme", "p", "n1", "10.0.0.5", sandbox="s")]
    bad = make.port("acme", "q", "n1", "10.9.0.5")
    broken = make.network("acme", "b", "10.0.0.1/24", 2)
    orphan = make.port("acme", "r", "n1", "10.0.0.6", network="none")
    compiler = compiled([*good, bad, broken, orphan])
    assert key(Concern.PORT, good[1]) in compiler.parts
    errors = {k.ref.name: e for k, e in compiler.errors.items()}
    assert "spec.addresses" in str(errors["q.eth0"])
    assert "acme:default/b" in str(errors["b"])
    assert "spec.cidr" in str(errors["b"])
    assert isinstance(errors["r.eth0"], NotReadyError)


def test_of_two_networks_that_overlap_the_older_holds() -> None:
    make = Objects()
    older, younger = make.network("acme", "z", "10.0.0.0/16", 1), make.network("acme", "a", "10.0.4.0/24", 2)
    port = make.port("acme", "p", "n1", "10.0.4.5")
    compiler = compiled([younger, older, port])
    assert "overlaps 10.0.0.0/16 of Network acme:default/z" in str(compiler.errors[key(Concern.NETWORK, younger)])
    compiler.put(api.Network, ref(older), None)
    changed = compiler.recompile()
    assert key(Concern.NETWORK, younger) in changed
    assert key(Concern.PORT, port) in changed, "its ports come with it"


def test_an_older_revision_changes_nothing() -> None:
    make = Objects()
    network = make.network("acme", "a", "10.0.0.0/24", 1)
    old, new = make.port("acme", "p", "n1", "10.0.0.5"), make.port("acme", "p", "n1", "10.0.0.5", sandbox="s")
    compiler = compiled([network, new])
    assert compiler.put(api.Port, ref(old), old) == set()
    assert compiler.recompile() == {}


def test_a_port_in_deletion_is_attached_to_nothing_and_gives_a_router_no_address() -> None:
    make = Objects()
    port = make.port("acme", "p", "n1", "10.0.0.5", sandbox="s")
    gone = api.Port(
        metadata=make.counter.meta("acme", "default", "p.eth0", deletion_timestamp="2026-01-02T00:00:00Z"),
        spec=port.spec,
        status=port.status,
    )
    leaving = make.transit("acme", "n1", "100.64.0.1", deletion_timestamp="2026-01-02T00:00:00Z")
    router = make.router("acme")
    compiler = compiled([make.network("acme", "a", "10.0.0.0/24", 1), port, gone, leaving, router])
    part = compiler.parts[key(Concern.PORT, gone)]
    assert isinstance(part, Port)
    assert not part.attached
    assert compiler.parts[key(Concern.ROUTER, router)].addresses == ()


def test_a_second_router_is_refused_by_name() -> None:
    make = Objects()
    other = api.Router(metadata=make.counter.meta("acme", "default", "mine"))
    error = compiled([other]).errors[key(Concern.ROUTER, other)]
    assert isinstance(error, CompileError)
    assert "acme:default/mine" in str(error)


def test_what_the_node_did_holds_against_the_object_until_it_says_so_itself() -> None:
    make = Objects()
    port = make.port("acme", "p", "n1", "10.0.0.5", sandbox="s")
    compiler = compiled([make.network("acme", "a", "10.0.0.0/24", 1), port])
    where = key(Concern.PORT, port)
    compiler.expect(ref(port), api.PortStatus())
    assert not compiler.touched()[where].attached, "at once, also before all objects were seen"
    again = make.port("acme", "p", "n1", "10.0.0.5", sandbox="s")
    compiler.put(api.Port, ref(again), again)
    compiler.recompile()
    assert not compiler.parts[where].attached, "a newer revision that still names the sandbox"
    compiler.expect(ref(port), api.PortStatus(sandbox="t", netns="/run/t", link="pt"))
    compiler.recompile()
    assert compiler.parts[where].sandbox == "t", "before the API knows"
    for sandbox in ("t", "u"):
        other = make.port("acme", "p", "n1", "10.0.0.5", sandbox=sandbox)
        compiler.put(api.Port, ref(other), other)
        compiler.recompile()
        assert compiler.parts[where].sandbox == sandbox, "it knows now, and is believed from here on"
    compiler.expect(ref(port), api.PortStatus(sandbox="v", netns="/run/v", link="pv"))
    compiler.expect(ref(port), None)
    compiler.recompile()
    assert compiler.parts[where].sandbox == "u", "taken back"


def test_seeds_stay_until_all_was_seen() -> None:
    before = compiled(small_cluster())
    after = Compiler()
    after.seed(before.parts)
    some = small_cluster()[:12]
    for obj in some:
        after.put(type(obj), ref(obj), obj)
    assert after.parts == before.parts
    after.forget_unseen()
    after.recompile()
    assert after.parts == compiled(some).parts


def test_one_port_costs_the_same_at_ten_and_at_ten_thousand() -> None:
    """Counted, not timed: the fragments compiled, and the parts and slots rendered anew."""
    costs = []
    for size in (10, 10_000):
        make = Objects()
        base = [*small_cluster()[:6], make.network("acme", "big", "10.32.0.0/11", 99)]
        many = [make.port("acme", f"p{n}", f"n{n % 2 + 1}", f"10.32.{n // 250}.{n % 250 + 2}", network="big", sandbox=f"s{n}")
                for n in range(size)]  # fmt: skip
        compiler, desired, wanted = compiled([*base, *many]), Desired(FACTS), Wanted()
        for part in compiler.parts.values():
            desired.put(key_of(part), part)
        for owner in list(desired.keys()):
            wanted.put(owner, desired.render(owner))
        fresh = make.port("acme", "fresh", "n1", "10.33.1.1", network="big", sandbox="fresh")
        dirty = compiler.put(api.Port, ref(fresh), fresh)
        changed = compiler.recompile()
        owners = {o for part in changed.values() for o in desired.put(key_of(part), part)}
        slots = {slot for owner in owners for slot in wanted.put(owner, desired.render(owner))}
        costs.append((len(dirty), len(changed), len(owners), len(slots)))
    assert costs[0] == costs[1]
    assert costs[0] == (1, 1, 1, 7)


# -- incremental equals from scratch --------------------------------------------------------------------------------

NODES, TENANTS, NETS = st.sampled_from(["n1", "n2"]), st.sampled_from(["acme", "acme", "globex"]), st.sampled_from("ab")
CIDRS = st.sampled_from(["10.0.0.0/16", "10.1.0.0/24", "10.0.0.0/24", "bad", None])
PORTS = st.sampled_from(["web", "far", "other", "new"])
ADDRESSES = st.sampled_from(["10.0.0.2", "10.0.0.3", "10.1.0.2", "10.0.0.1", None])
steps = st.one_of(
    st.tuples(st.just("node"), NODES, st.sampled_from(["192.168.7.1", "192.168.7.2", "192.168.7.3", "", None])),
    st.tuples(st.just("router"), TENANTS, st.sampled_from(["10.96.0.0/16", "", "x", None])),
    st.tuples(st.just("transit"), TENANTS, NODES, st.sampled_from([1, 2, None])),
    st.tuples(
        st.just("network"), TENANTS, NETS, CIDRS, st.sampled_from([0, 1, 2, 3]), st.sampled_from(["default", ""])
    ),
    st.tuples(st.just("port"), TENANTS, PORTS, NODES, NETS, ADDRESSES, st.sampled_from(["", "s", "t"])),
)


def build(make: Objects, step):
    """The object of a step, and whether it is there."""
    match step:
        case ("node", name, underlay):
            return make.node(name, underlay or ""), underlay is not None
        case ("router", tenant, cidr):
            return make.router(tenant, cidr or ""), cidr is not None
        case ("transit", tenant, node, number):
            return make.transit(tenant, node, f"100.64.0.{number}"), number is not None
        case ("network", tenant, name, cidr, vni, router):
            return make.network(tenant, name, cidr or "", vni, router=router), cidr is not None
        case ("port", tenant, name, node, net, address, sandbox):
            made = make.port(tenant, name, node, address or "10.0.0.2", network=net, sandbox=sandbox)
            return made, address is not None
    raise AssertionError(step)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(steps, min_size=1, max_size=3), min_size=1, max_size=5))
def test_incremental_is_the_same_as_from_scratch(runs) -> None:
    """From a cluster where everything is rendered, whatever happens to it in whatever order."""
    make, compiler, desired, wanted = Objects(), Compiler(), Desired(FACTS), Wanted()
    make.counter.last = 1000
    alive: dict[tuple[type, object], object] = {}
    for owner in desired.keys():  # noqa: SIM118
        wanted.put(owner, desired.render(owner))
    for run in [small_cluster(), *runs]:
        for step in run:
            obj, present = build(make, step) if isinstance(step, tuple) else (step, True)
            at = type(obj), ref(obj)
            compiler.put(*at, obj if present else None)
            alive.pop(at, None)
            if present:
                alive[at] = obj
        owners: set[PartKey] = set()
        for changed, part in compiler.recompile().items():
            owners |= desired.put(_part_key(changed), part)
        for owner in owners:
            wanted.put(owner, desired.render(owner))
    scratch = Snapshot()
    for (kind, at), obj in alive.items():
        scratch.put(kind, at, obj)
    fresh, clean, anew = Compiler(scratch), Desired(FACTS), Wanted()
    fresh.recompile()
    assert compiler.parts == fresh.parts
    assert {k: str(e) for k, e in compiler.errors.items()} == {k: str(e) for k, e in fresh.errors.items()}
    for part in fresh.parts.values():
        clean.put(key_of(part), part)
    for owner in list(clean.keys()):
        anew.put(owner, clean.render(owner))
    assert wanted.all_items() == anew.all_items()


def _part_key(changed: Key) -> PartKey:
    from polder.sdn.partkeys import part_key as convert

    return convert(changed)
