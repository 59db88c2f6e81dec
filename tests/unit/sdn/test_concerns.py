"""The mechanism that concerns are made of: homes, indexes, noted looks."""

from __future__ import annotations

import pytest

from polder.api import core
from polder.api import polder as api
from polder.base.ids import TenantName
from polder.base.ref import Ref
from polder.sdn.compile.compiler import Compiler
from polder.sdn.compile.concern import Declaration, Home, Index, View, itself
from polder.sdn.compile.concerns import DECLARATIONS
from polder.sdn.compile.keys import Concern, Key
from polder.sdn.compile.snapshot import Snapshot
from polder.sdn.topology.types import Network, NodeAddress, Part
from tests.unit.sdn.objects import Objects, ref

ADDRESSES: Index[api.Port, tuple[str, ...]] = Index(
    "addresses", api.Port, lambda at, _: (at.tenant,), lambda port: tuple(port.spec.addresses or ())
)
GROUP = Key(Concern.PORT, Ref(TenantName("acme"), "", "all"))


class Group:
    """A concern with one fragment for each tenant that has ports: it lists their addresses and the node that it is named by."""

    def __init__(self) -> None:
        self.compiled = 0
        self.previous: Part | None = None
        self.node = Ref(TenantName("root"), "", "n1")
        homes = (Home(api.Port, lambda at, _: (Ref(at.tenant, "", "all"),)),)
        self.declaration = Declaration(Concern.PORT, NodeAddress, homes, self._compile, (ADDRESSES,))
        self.compiler = Compiler(Snapshot({Concern.NETWORK: NODE_AS_NETWORK, Concern.PORT: self.declaration}))

    def _compile(self, at: Ref, view: View) -> Part:
        self.compiled += 1
        self.previous = view.previous
        node = view.get(core.Node, self.node)
        network = view.part(Key(Concern.NETWORK, self.node), NodeAddress)
        texts = sorted(address for addresses in view.by(ADDRESSES, at.tenant).values() for address in addresses)
        return NodeAddress(f"{node is not None} {network is not None}", " ".join(texts))

    def put(self, obj: api.Port | core.Node, *, present: bool = True) -> str:
        self.compiler.put(type(obj), ref(obj), obj if present else None)
        self.compiler.recompile()
        part = self.compiler.parts.get(GROUP)
        return f"{part.name} {part.underlay}" if isinstance(part, NodeAddress) else ""


NODE_AS_NETWORK = Declaration(
    Concern.NETWORK, NodeAddress, (Home(core.Node, itself),), lambda at, _: NodeAddress(at.name, "")
)


def test_a_fragment_lives_while_any_of_its_homes_does_and_sees_all_of_an_index() -> None:
    make, group = Objects(), Group()
    one, two = make.port("acme", "one", "n1", "10.0.0.5"), make.port("acme", "two", "n1", "10.0.0.6")
    assert group.put(one) == "False False 10.0.0.5"
    assert group.put(two) == "False False 10.0.0.5 10.0.0.6"
    assert group.put(one, present=False) == "False False 10.0.0.6"
    assert group.put(two, present=False) == ""
    assert group.put(make.port("globex", "one", "n1", "10.0.0.5")) == "", "another tenant's is another fragment"


def test_what_was_looked_for_in_vain_concerns_the_fragment_when_it_comes() -> None:
    make, group = Objects(), Group()
    assert group.put(make.port("acme", "one", "n1", "10.0.0.5")) == "False False 10.0.0.5"
    assert group.put(make.node("n1", "")) == "True True 10.0.0.5"
    assert group.previous == NodeAddress("False False", "10.0.0.5")
    before = group.compiled
    group.put(make.node("n2", ""))
    assert group.compiled == before, "nobody looked at that one"
    assert group.put(make.node("n1", ""), present=False) == "False False 10.0.0.5"


def test_a_change_that_an_index_does_not_show_concerns_no_reader_of_it() -> None:
    make, group = Objects(), Group()
    group.put(make.port("acme", "one", "n1", "10.0.0.5"))
    far = Key(Concern.PORT, Ref(TenantName("acme"), "", "all"))
    reader = group.compiler.snapshot
    change = reader.put(api.Port, ref(p := make.port("acme", "one", "n1", "10.0.0.5", sandbox="s")), p)
    assert change.inputs == {(api.Port, ref(p))}
    assert change.keys == {far}, "as their home alone"
    change = reader.put(api.Port, ref(p := make.port("acme", "one", "n1", "10.0.0.7")), p)
    assert (ADDRESSES, "acme") in change.inputs


def test_a_fragment_may_not_build_on_a_later_or_equal_concern() -> None:
    make = Objects()
    declaration = Declaration(
        Concern.NODE,
        NodeAddress,
        (Home(core.Node, itself),),
        lambda at, view: view.part(Key(Concern.NETWORK, at), Network),
    )
    compiler = Compiler(Snapshot({Concern.NODE: declaration}))
    node = make.node("n1", "")
    compiler.put(core.Node, ref(node), node)
    with pytest.raises(ValueError, match="comes no earlier"):
        compiler.recompile()


def test_nothing_is_noted_any_more_of_what_went() -> None:
    make = Objects()
    compiler = Compiler()
    objects = [make.network("acme", "a", "10.0.0.0/24", 1), make.port("acme", "p", "n1", "10.0.0.5")]
    for present in (True, False):
        for obj in objects:
            compiler.put(type(obj), ref(obj), obj if present else None)
        compiler.recompile()
        assert bool(compiler._readers) is present
        assert bool(compiler._reads) is present
        assert bool(compiler.snapshot._entries) is present
        assert bool(list(compiler.snapshot.keys())) is present


def test_every_concern_is_declared_once_and_no_two_make_the_same_part() -> None:
    assert list(DECLARATIONS) == list(Concern), "in the order of compilation"
    parts = [declaration.part for declaration in DECLARATIONS.values()]
    assert len(set(parts)) == len(parts)
