"""Changes of what policies are made of: chains, sets and elements, in one transaction for each table.

Where elements alone change, they go by nfnetlink, which costs microseconds each. With chains or sets among them all of it is
one text for nft, so that no packet meets a new rule without the group that it names.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from polder.base.errors import PolderError
from polder.sdn.apply.linux.failure import ItemFailure, failure
from polder.sdn.apply.linux.rules import Single, apply_elements, element_commands, single_commands
from polder.sdn.apply.linux.spaces import OpenSpace, Spaces
from polder.sdn.render.linux.items import Chain, Element, NamedSet
from polder.system.net import nfsets, nft
from polder.system.net.nfvalues import quoted

PolicyItem = Element | Single


@dataclass(slots=True)
class _Table:
    """What changes in one table."""

    removed: list[PolicyItem] = field(default_factory=list)
    added: list[PolicyItem] = field(default_factory=list)


def apply_policies(spaces: Spaces, removed: Iterable[PolicyItem], added: Iterable[PolicyItem]) -> list[ItemFailure]:
    """Take away and put, table by table."""
    tables: dict[tuple[str, str, str], _Table] = defaultdict(_Table)
    for one in removed:
        tables[one.space, one.family, one.table].removed.append(one)
    for one in added:
        tables[one.space, one.family, one.table].added.append(one)
    failures: list[ItemFailure] = []
    for at, table in tables.items():
        try:
            space = spaces.get(at[0])
        except PolderError as exc:
            failures += [failure(item, exc) for item in table.added]
            continue
        failures += _apply(spaces, space, table)
    return failures


def apply_services(spaces: Spaces, removed: Iterable[PolicyItem], added: Iterable[PolicyItem]) -> list[ItemFailure]:
    """The same for what need not change together: chains before the elements that lead to them, and after those when they go.
    So elements go by nfnetlink in any case, however many there are in the table.
    """
    gone, come = list(removed), list(added)
    failures = apply_policies(spaces, (), [one for one in come if isinstance(one, Single)])
    failures += apply_elements(spaces, _elements(gone), _elements(come))
    return failures + apply_policies(spaces, [one for one in gone if isinstance(one, Single)], ())


def _apply(spaces: Spaces, space: OpenSpace, table: _Table) -> list[ItemFailure]:
    single = [one for one in (*table.removed, *table.added) if isinstance(one, Single)]
    if not single:
        return apply_elements(spaces, _elements(table.removed), _elements(table.added))
    try:
        _load(spaces, space, table.removed, table.added)
        return []
    except (PolderError, ValueError) as exc:
        if len(table.added) + len(table.removed) == 1:
            return [failure(item, exc) for item in table.added]
    return _one_by_one(spaces, space, table)


def _one_by_one(spaces: Spaces, space: OpenSpace, table: _Table) -> list[ItemFailure]:
    """Something of it is refused: so that it fails alone, sets first, then chains, elements, and what goes."""
    failures: list[ItemFailure] = []
    for kind in (NamedSet, Chain):
        for one in (one for one in table.added if isinstance(one, kind)):
            failures += _apply(spaces, space, _Table(added=[one]))
    failures += apply_elements(spaces, _elements(table.removed), _elements(table.added))
    for kind in (Chain, NamedSet):
        for one in (one for one in table.removed if isinstance(one, kind)):
            _apply(spaces, space, _Table(removed=[one]))  # what is still used stays; the next look finds it
    return failures


def _load(spaces: Spaces, space: OpenSpace, removed: list[PolicyItem], added: list[PolicyItem]) -> None:
    at = (added or removed)[0]
    single = [one for one in added if isinstance(one, Single)]
    gone = [one for one in removed if isinstance(one, Single)]
    ending = {one.name for one in gone if isinstance(one, NamedSet)}
    coming = {(one.set, one.key): one.value for one in _elements(added)}
    going = {(one.set, one.key) for one in _elements(removed) if one.set not in ending}
    space.sets.pop((at.family, at.table), None)
    there = _standing(space, at, {name for (name, _), value in coming.items() if value} | {name for name, _ in going})
    going = {one for one in going if one in there} | {
        one for one in coming if there.get(one, coming[one]) != coming[one]
    }
    parts = single_commands(single)
    parts += [f"delete element {at.family} {at.table} {name} {{ {quoted(key)} }}" for name, key in sorted(going)]
    parts += element_commands((at.family, at.table), coming, {name for name, _ in coming})
    known = nft.list_chains(space.nft, at.family, at.table) if any(isinstance(one, Chain) for one in gone) else {}
    chains = [one for one in gone if isinstance(one, Chain) and one.name in known]
    parts += [f"flush chain {one.family} {one.table} {one.name}" for one in chains]
    parts += [f"delete chain {one.family} {one.table} {one.name}" for one in chains]
    sets = space.table_sets(at.family, at.table)
    parts += [f"delete set {at.family} {at.table} {name}" for name in sorted(ending) if name in sets]
    space.sets.pop((at.family, at.table), None)
    if parts:
        spaces.run_in(space, lambda: nft.run_nft("\n".join(parts) + "\n"))


def _standing(space: OpenSpace, at: PolicyItem, names: set[str]) -> dict[tuple[str, str], str]:
    """What the kernel holds in some sets."""
    known = space.table_sets(at.family, at.table)
    return {
        (name, key): value
        for name in names
        if name in known
        for key, value in nfsets.list_elements(space.nft, known[name])
    }


def _elements(some: Iterable[PolicyItem]) -> list[Element]:
    return [one for one in some if isinstance(one, Element)]
