"""A policy as long as its author likes is gone through once, and not once for each of its selectors, networks or questions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from polder.api.meta import ref_of
from polder.api.netpolicies import NetworkPolicy
from polder.sdn.compile import policies
from polder.sdn.compile.compiler import Compiler
from polder.sdn.compile.policies import compile_network_policy
from polder.sdn.compile.selection import Selector
from polder.sdn.render.linux import policy as rendering
from polder.sdn.render.linux.items import Chain
from tests.unit.sdn.objects import Objects

MANY = 200


def counted(monkeypatch: pytest.MonkeyPatch, where: Any, name: str) -> list[str]:
    """Grows with each call of a function."""
    calls: list[str] = []
    real: Callable[..., Any] = getattr(where, name)

    def counting(*args: Any) -> Any:
        calls.append(name)
        return real(*args)

    monkeypatch.setattr(where, name, counting)
    return calls


class Author:
    """Writes one policy again and again."""

    def __init__(self) -> None:
        self.objects = Objects()
        self.compiler = Compiler()

    def policy(self, peers: list[dict[str, Any]], port: int = 80) -> NetworkPolicy:
        spec = {"podSelector": {}, "ingress": [{"from": peers, "ports": [{"port": port}]}]}
        found = msgspec.convert({"metadata": {"name": "long"}, "spec": spec}, NetworkPolicy)
        return msgspec.structs.replace(found, metadata=self.objects.counter.meta("acme", "default", "long"))

    def put(self, policy: NetworkPolicy) -> None:
        self.compiler.put(NetworkPolicy, ref_of(policy), policy)


def selectors(last: str = "") -> list[dict[str, Any]]:
    apps = [f"a{number}" for number in range(MANY)] + ([last] if last else [])
    return [{"podSelector": {"matchLabels": {"app": app}}} for app in apps]


BLOCKS = [{"ipBlock": {"cidr": f"10.0.{number}.0/24"}} for number in range(0, MANY, 2)]


def test_a_policy_that_is_put_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    author = Author()
    calls = counted(monkeypatch, policies, "_peer")
    author.put(author.policy(selectors()))
    author.compiler.recompile()
    assert len(calls) == MANY
    author.put(author.policy(selectors(), port=81))
    author.compiler.recompile()
    assert len(calls) == 2 * MANY


def test_selectors_of_a_policy_are_compared_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    author = Author()
    author.put(author.policy(selectors()))
    calls = counted(monkeypatch, Selector, "__eq__")
    author.put(author.policy(selectors(last="other")))
    author.put(author.policy(selectors(last="another")))
    author.put(author.policy(selectors(last="another"), port=81))
    assert len(calls) < 10 * MANY


def test_a_policy_is_told_once_for_all_networks_of_its_tenant(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled, _ = compile_network_policy(Author().policy(BLOCKS))
    calls = counted(monkeypatch, rendering, "matches_of")
    items = rendering.render_policy(compiled, [f"space{number}" for number in range(20)])
    assert len([one for one in items if isinstance(one, Chain)]) == 20
    assert len(calls) == 1
