"""What is for a group, and pods to whom policies do not let everybody in.

A packet for a group comes to every port of a network, also to sockets that have joined none (224.0.0.1, ff02::1). In the forward
hook of inet it is seen once for each port, and nothing of it says which: rules of policies name addresses. So a pod with such
policies hears no groups at all. The bridge decides by the port's link, in a table that stands before the link does.
"""

from __future__ import annotations

from collections.abc import Sequence

from polder.sdn.render.linux.items import Element, Item, Ruleset
from polder.sdn.render.linux.policy_rules import POLICY_TABLE
from polder.sdn.topology.policies import DENY, INGRESS, NETWORK, Policy

AT = ("bridge", POLICY_TABLE)
QUIET = "quiet"
TEXT = f"""\
 set {QUIET} {{ type ifname; }}
 chain forward {{
  type filter hook forward priority 1; policy accept;
  meta pkttype multicast oifname @{QUIET} drop
 }}
"""


def render_quiet(link: str, space: str, policies: Sequence[Policy]) -> frozenset[Item]:
    """Of a port of this node, by the policies that select it. Without ``link`` nothing is there that could hear."""
    if not link or not any(_keeps_out(one) for one in policies):
        return frozenset()
    return frozenset({Ruleset(space, *AT, TEXT), Element(space, *AT, QUIET, link)})


def _keeps_out(policy: Policy) -> bool:
    return policy.concerns(INGRESS) and (
        policy.tier == NETWORK or any(rule.action == DENY for rule in policy.rules(INGRESS))
    )
