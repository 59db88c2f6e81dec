"""The desired kernel state of a small cluster, as text. After a wanted change: ``python -m tests.golden.sdn.test_render``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from polder.sdn.compile.compiler import Compiler
from polder.sdn.render.linux import service_rules
from polder.sdn.render.linux import text as items_text
from polder.sdn.render.linux.desired import Desired, PartKey, key_of
from polder.sdn.render.linux.guard import guard_rules
from polder.sdn.render.linux.items import Item, Ruleset
from polder.sdn.render.linux.rules import isolated_rules, space_rules
from polder.sdn.render.linux.spoofing import bridge_rules
from polder.sdn.topology import text as topology_text
from polder.sdn.topology.types import Network, Router
from polder.sdn.topology.vips import Vip
from tests.unit.sdn.objects import FACTS, ref, small_cluster
from tests.unit.sdn.service_objects import some_services

HERE = Path(__file__).parent


def produced() -> dict[str, str]:
    compiler, desired = Compiler(), Desired(FACTS)
    for obj in small_cluster():
        compiler.put(type(obj), ref(obj), obj)
    compiler.recompile()
    for part in compiler.parts.values():
        desired.put(key_of(part), part)

    def of(*keys: PartKey) -> str:
        items: frozenset[Item] = frozenset().union(*(desired.render(key) for key in keys))
        return items_text.dump(items)

    parts = {key_of(part): part for part in compiler.parts.values()}
    acme = [part for part in parts.values() if getattr(part, "tenant", "") == "acme"]
    router = next(part for part in acme if isinstance(part, Router))
    texts = {
        "topology": topology_text.dump(topology_text.assemble("acme", acme)),
        "node": of(*(key for key in desired.keys() if key.tenant == "")),  # noqa: SIM118
        "router": of(key_of(router)),
        "networks": of(*(key_of(part) for part in acme if isinstance(part, Network))),
        "rules": "\n".join(
            f"# {name}\n{rules}"
            for name, rules in (
                ("router", space_rules(router, "100.64.0.1")),
                ("isolated", isolated_rules()),
                ("anti-spoofing", bridge_rules()),
                ("node", guard_rules(FACTS)),
            )
        ),
    }
    for key in parts:
        if key.kind == "Port" and key.tenant == "acme":
            texts[f"port-{key.name.rpartition('/')[2].partition('.')[0]}"] = of(key)
    return texts | services()


def services() -> dict[str, str]:
    """What services bring: their part of the topology, and the items of each."""
    compiler, desired = Compiler(), Desired(FACTS)
    for obj in [*small_cluster(), *some_services()]:
        compiler.put(type(obj), ref(obj), obj)
    compiler.recompile()
    for part in compiler.parts.values():
        desired.put(key_of(part), part)
    vips = sorted(part for part in compiler.parts.values() if isinstance(part, Vip))
    texts = {
        f"service-{vip.name.rpartition('/')[2]}": items_text.dump(without_text(desired.render(key_of(vip))))
        for vip in vips
    }
    texts["services"] = topology_text.dump(topology_text.assemble("acme", vips))
    texts["service-rules"] = service_rules.TEXT
    return texts


def without_text(items: frozenset[Item]) -> list[Item]:
    """The table's text is shown once."""
    return [replace(item, text="") if isinstance(item, Ruleset) else item for item in items]


def test_a_tenant_that_is_not_here_has_nothing_here() -> None:
    compiler, desired = Compiler(), Desired(FACTS)
    for obj in small_cluster():
        compiler.put(type(obj), ref(obj), obj)
    compiler.recompile()
    for part in compiler.parts.values():
        desired.put(key_of(part), part)
    assert {key: desired.render(key) for key in desired.keys() if key.tenant == "globex" and desired.render(key)} == {}  # noqa: SIM118


@pytest.mark.parametrize("name", sorted(produced()))
def test_text_is_as_recorded(name: str) -> None:
    assert produced()[name] == (HERE / f"{name}.txt").read_text()


def test_nothing_is_recorded_that_is_not_produced() -> None:
    assert {path.stem for path in HERE.glob("*.txt")} == set(produced())


if __name__ == "__main__":
    for name, content in produced().items():
        (HERE / f"{name}.txt").write_text(content)
