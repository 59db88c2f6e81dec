"""Policies and their groups on one node: whose packets go through which chains.

A NetworkPolicy has a chain for each direction in which it isolates. What a pod's address leads to depends on the policies that
select the pod: a chain (``c.``) that jumps to each of theirs and then drops. The other tiers' rules are few and must be told
apart in order, so each tier has a chain with the rules of all its policies that select the pod, and goes on to the next. These
chains are named by the policies that they and what follows are made of, and shared by all pods that the same policies select.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from polder.sdn.render.linux.items import Chain, Element, Item, NamedSet, Ruleset
from polder.sdn.render.linux.policy_rules import (
    DROP,
    FAMILIES,
    POLICY_TABLE,
    TEXT,
    family_of,
    group_set,
    matches_of,
    ports_key,
    set_type,
    verdict_of,
)
from polder.sdn.topology.policies import (
    ADMIN,
    BASELINE,
    DEFAULT,
    DIRECTIONS,
    NETWORK,
    Group,
    Policy,
    group_id,
)

AT = ("inet", POLICY_TABLE)


def render_policy(policy: Policy, spaces: Iterable[str]) -> frozenset[Item]:
    """The table, the sets that the policy's rules name, and a NetworkPolicy's own chains, in each space of its tenant."""
    items: set[Item] = set()
    groups = {peer.group for rule in (*policy.ingress, *policy.egress) for peer in rule.peers if peer.group}
    named = {one.group for rule in (*policy.ingress, *policy.egress) for one in rule.ports if one.group}
    isolates = policy.isolates if policy.tier == NETWORK else ()
    chains = [chain for direction in isolates for chain in _policy_chains(policy, direction)]
    for space in spaces:
        items.add(Ruleset(space, *AT, TEXT))
        for group in groups | named:
            items.update(_set(space, group, named=group in named))
        items.update(Chain(space, *AT, name, text) for name, text in chains)
    return frozenset(items)


def _policy_chains(policy: Policy, direction: str) -> Iterable[tuple[str, str]]:
    """Name and text of the policy's chain, and of one for the ports of each rule that has many peers and many ports."""
    lines: list[str] = []
    for number, rule in enumerate(policy.rules(direction)):
        matches = matches_of(rule, direction)
        if not matches.many:
            lines += matches.lines("accept")
            continue
        name = f"{policy_chain(policy, direction)}.{number}"
        peers, ports = matches.split("accept", name)
        lines += peers
        yield name, "\n".join(ports)
    yield policy_chain(policy, direction), "\n".join(lines)


def policy_chain(policy: Policy, direction: str) -> str:
    """The chain of a NetworkPolicy."""
    return f"p.{direction}.{group_id(f'policy {policy.name}')}"


def render_group(group: Group, spaces: Mapping[str, str]) -> frozenset[Item]:
    """The set of a group that rules name, in each space of its tenant; each member in the space of its network (``spaces``, the
    empty name for the router's own).
    """
    if not group.peer:
        return frozenset()
    items: set[Item] = set()
    for space in set(spaces.values()):
        items.add(Ruleset(space, *AT, TEXT))
        items.update(_set(space, group.id, named=group.named))
    for member in group.members:
        space = spaces.get(member.network, "")
        for address in member.addresses if space else ():
            at = (space, *AT, group_set(group.id, family_of(address), named=group.named))
            if group.named:
                items.update(Element(*at, ports_key(one, address)) for one in member.ports)
            else:
                items.add(Element(*at, address))
    return frozenset(items)


def render_way(addresses: Sequence[str], space: str, policies: Sequence[Policy]) -> frozenset[Item]:
    """The way of a port's packets on its node, through the ``policies`` that select it, in order."""
    items: set[Item] = {Ruleset(space, *AT, TEXT)}
    for direction in DIRECTIONS:
        chains = direction_chains(space, direction, [one for one in policies if one.concerns(direction)])
        items.update(chains)
        for address in addresses if chains else ():
            family = family_of(address)
            items.add(Element(space, *AT, f"{direction}{family}", address, f"goto {chains[0].name}"))
            items.add(Element(space, *AT, f"self{family}", f"{address} . {address}"))
    return frozenset(items)


def direction_chains(space: str, direction: str, policies: Sequence[Policy]) -> list[Chain]:
    """The chains for all that these policies select, the one that is gone to first; none for no policies."""
    return [
        Chain(space, *AT, stage.name, "\n".join(line for line, _ in stage.rows))
        for stage in _stages(direction, policies)
    ]


def drop_titles(direction: str, policies: Sequence[Policy]) -> dict[str, list[str]]:
    """For each of these chains, whose drop each of its rules is; empty where a rule drops nothing."""
    stages = _stages(direction, [one for one in policies if one.concerns(direction)])
    return {stage.name: [title if DROP in line else "" for line, title in stage.rows] for stage in stages}


class _Stage(NamedTuple):
    """A chain's name and its rules, each with the title of whoever says it."""

    name: str
    rows: list[tuple[str, str]]


def _stages(direction: str, policies: Sequence[Policy]) -> list[_Stage]:
    """A stage for each tier that has policies. Where a NetworkPolicy isolates, nothing comes after it."""
    stages: list[_Stage] = []
    rest: list[Policy] = []
    isolated = any(one.tier == NETWORK for one in policies)
    for tier in reversed((ADMIN, NETWORK) if isolated else (ADMIN, BASELINE, DEFAULT)):
        some = [one for one in policies if one.tier == tier]
        if not some:
            continue
        rest = [*some, *rest]
        if tier == NETWORK:
            rows = [(f"jump {policy_chain(one, direction)}", one.title) for one in some]
            rows.append((DROP, ", ".join(one.title for one in some)))
        else:
            beyond = f"goto {stages[0].name}" if stages else "accept"
            rows = [*_rows(some, direction, beyond), (beyond, "")]
        stages.insert(0, _Stage(class_chain(direction, rest), rows))
    return stages


def class_chain(direction: str, policies: Iterable[Policy]) -> str:
    """The chain of all that the same policies select."""
    names = " ".join(f"{one.tier}:{one.name}" for one in policies)
    return f"c.{direction}.{group_id(f'class {names}')}"


def _rows(policies: Iterable[Policy], direction: str, beyond: str) -> list[tuple[str, str]]:
    return [
        (line, policy.title)
        for policy in policies
        for rule in policy.rules(direction)
        for line in matches_of(rule, direction).lines(verdict_of(rule.action, beyond))
    ]


def _set(space: str, group: str, *, named: bool) -> Iterable[NamedSet]:
    return (
        NamedSet(space, *AT, group_set(group, family, named=named), set_type(family, named=named))
        for family in FAMILIES
    )
