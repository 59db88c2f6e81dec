"""The node's guard lets tenants ask a resolver that they share, and nothing else of the node."""

from __future__ import annotations

from dataclasses import replace

from polder.sdn.render.linux.guard import guard_rules
from tests.unit.sdn.objects import FACTS

RULE = "  ip daddr 192.0.2.5 meta l4proto { tcp, udp } th dport 53 accept\n"


def test_the_rule_stands_before_the_drop_and_only_where_asked_for() -> None:
    shared = guard_rules(replace(FACTS, shared_dns="192.0.2.5"))
    assert f"  ct state established,related accept\n{RULE}  drop\n }}\n chain output" in shared
    assert shared.replace(RULE, "") == guard_rules(FACTS)
