"""The same with IPv6, as text. After a wanted change: ``python -m tests.golden.sdn.test_render6``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from polder.api import polder as api
from polder.api.meta import Object
from polder.sdn.compile.compiler import Compiler
from polder.sdn.render.linux import text as items_text
from polder.sdn.render.linux.desired import Desired, PartKey, key_of
from polder.sdn.render.linux.items import Item, Ruleset
from polder.sdn.topology import text as topology_text
from polder.sdn.topology.addressing import mac_of_port
from tests.unit.sdn.objects import FACTS, Objects, ref

HERE = Path(__file__).parent / "six"
NODE = replace(FACTS, egress6="2001:db8:7::1", protected=("2001:db8:6::/47", "2001:db8:9::1", "192.168.7.254"))


def cluster() -> list[Object]:
    """acme with a network of both families, one of IPv6, and an isolated one, on two nodes."""
    make = Objects()

    def port(name: str, node: str, network: str, *addresses: str) -> api.Port:
        found = make.port("acme", name, node, addresses[0], network=network, sandbox=f"sb-{name}")
        spec = api.PortSpec(
            network=f"default/{network}", node=node, pod=name, addresses=list(addresses), mac=mac_of_port(addresses)
        )
        return api.Port(metadata=found.metadata, spec=spec, status=found.status)

    ranges = ["fd00:96::/112", "10.96.0.0/16"]
    return [
        make.node("n1", "192.168.7.1"),
        make.node("n2", "192.168.7.2"),
        api.Router(
            metadata=make.counter.meta("acme", "kube-system", "default"),
            spec=api.RouterSpec(service_cidr=ranges[0], service_cidrs=ranges),
        ),
        make.transit("acme", "n1", "100.64.0.1"),
        make.transit("acme", "n2", "100.64.0.2"),
        make.network("acme", "both", "fd00:1::/64", 0x1001, cidrs=["fd00:1::/64", "10.0.0.0/16"]),
        make.network("acme", "six", "fd00:2::/64", 0x1002, gateways=["fd00:2::ff"]),
        make.network("acme", "island", "fd00:1::/64", 0x1003, router=""),
        port("near", "n1", "both", "fd00:1::2", "10.0.0.2"),
        port("far", "n2", "both", "fd00:1::3", "10.0.0.3"),
        port("only", "n1", "six", "fd00:2::2"),
        port("alone", "n1", "island", "fd00:1::2"),
    ]


def produced() -> dict[str, str]:
    compiler, desired = Compiler(), Desired(NODE)
    for obj in cluster():
        compiler.put(type(obj), ref(obj), obj)
    compiler.recompile()
    assert not compiler.errors
    parts = {key_of(part): part for part in compiler.parts.values()}
    for key, part in parts.items():
        desired.put(key, part)

    def of(keys: list[PartKey]) -> str:
        items: set[Item] = {item for key in keys for item in desired.render(key)}
        return items_text.dump(item for item in items if not isinstance(item, Ruleset))

    acme = [part for key, part in parts.items() if key.tenant == "acme"]
    texts = {"topology": topology_text.dump(topology_text.assemble("acme", acme))}
    for kind in ("Router", "Network", "Port"):
        texts[kind.lower()] = of([key for key in parts if key.kind == kind])
    texts["node"] = of([key for key in desired.keys() if not key.tenant])  # noqa: SIM118 - no mapping
    return texts


@pytest.mark.parametrize("name", sorted(produced()))
def test_text_is_as_recorded(name: str) -> None:
    assert produced()[name] == (HERE / f"{name}.txt").read_text()


def test_nothing_is_recorded_that_is_not_produced() -> None:
    assert {path.stem for path in HERE.glob("*.txt")} == set(produced())


if __name__ == "__main__":
    for name, content in produced().items():
        (HERE / f"{name}.txt").write_text(content)
