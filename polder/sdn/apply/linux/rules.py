"""Rulesets and elements. A ruleset is replaced in one transaction together with the elements that its sets keep, so no
packet meets a table that is half there.
"""

from __future__ import annotations

import errno
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from polder.base.errors import PolderError
from polder.sdn.apply.linux.failure import ItemFailure, failure
from polder.sdn.apply.linux.spaces import OpenSpace, SpaceError, Spaces
from polder.sdn.render.linux.items import Chain, Element, NamedSet, Ruleset
from polder.system.net import nfsets, nft
from polder.system.net.codec import Message
from polder.system.net.nfsets import NftSet
from polder.system.net.nfvalues import ValueTextError, quoted

_SET = re.compile(r"^\s*(?:set|map)\s+(\S+)\s*\{", re.MULTILINE)
_CHUNK = 1000
_FEW = 64
"""Changes of elements for each of which the kernel is asked what stands: microseconds each."""
Single = Chain | NamedSet
"""What stands in a table beside its text."""


def comment_of(prefix: str, content: str) -> str:
    """The comment of a table of ours: whose it is, and the digest of its text."""
    return f"polder {prefix} {nft.digest_of(content)}"


def apply_rulesets(
    spaces: Spaces,
    items: Iterable[Ruleset],
    removed: Iterable[Element],
    added: Iterable[Element],
    single: Iterable[Single],
) -> tuple[list[ItemFailure], set[tuple[str, str, str]]]:
    """Load each table that is not there as wanted, with the elements that stay and those that come. A table with chains and
    sets of its own beside its text (``single``) keeps no others: they come with it. The failures, and the tables of which
    nothing else has to be done.
    """
    failures: list[ItemFailure] = []
    done: set[tuple[str, str, str]] = set()
    for item in items:
        at = (item.space, item.family, item.table)
        going = {(one.set, one.key) for one in removed if (one.space, one.family, one.table) == at}
        coming = [(one.set, one.key, one.value) for one in added if (one.space, one.family, one.table) == at]
        members = [one for one in single if (one.space, one.family, one.table) == at]
        try:
            if _load(spaces, item, going, coming, members):
                done.add(at)
        except (PolderError, ValueError) as exc:
            failures.append(failure(item, exc))
            done.add(at)
    return failures, done


def remove_rulesets(spaces: Spaces, items: Iterable[Ruleset]) -> list[ItemFailure]:
    """Delete tables; one that is gone is fine."""
    failures: list[ItemFailure] = []
    for item in items:
        name = f"{item.family} {item.table}"
        try:
            space = spaces.get(item.space)
            space.sets.pop((item.family, item.table), None)
            spaces.run_in(space, lambda name=name: nft.run_nft(f"add table {name}\ndelete table {name}\n"))  # type: ignore[misc]
        except PolderError as exc:
            failures.append(failure(item, exc))
    return failures


def _load(
    spaces: Spaces, item: Ruleset, going: set[tuple[str, str]], coming: list[tuple[str, str, str]], single: list[Single]
) -> bool:
    """Whether it had to be loaded."""
    space = spaces.get(item.space)
    comment = comment_of(spaces.settings.prefix, item.text)
    there = {(one.family, one.name): one for one in nft.list_tables(space.nft)}.get((item.family, item.table))
    if there and there.comment == comment and there.sealed == there.actual:
        return False
    space.sets.pop((item.family, item.table), None)
    wanted = {(name, key): value for name, key, value in coming}
    if there and not single:
        kept = _listed(space, item, going)
        wanted = {at: value for at, value in kept.items() if at not in wanted} | wanted
    name = f"{item.family} {item.table}"
    parts = [f"add table {name}", f"delete table {name}", f'table {name} {{\ncomment "{comment}"\n{item.text}\n}}']
    parts += single_commands(single)
    parts += element_commands((item.family, item.table), wanted, _defined(item, single))
    spaces.run_in(space, lambda: nft.run_nft("\n".join(parts) + "\n"))
    nft.seal_table(space.nft, item.family, item.table)
    return True


def _listed(space: OpenSpace, item: Ruleset, going: set[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """What the kernel holds in the sets that the new text has too, without what goes."""
    defined = _defined(item, [])
    found: dict[tuple[str, str], str] = {}
    for one in space.table_sets(item.family, item.table).values():
        if one.name in defined and one.kept:
            listed = nfsets.list_elements(space.nft, one)
            found |= {(one.name, key): value for key, value in listed if (one.name, key) not in going}
    space.sets.pop((item.family, item.table), None)
    return found


def _defined(item: Ruleset, single: Iterable[Single]) -> set[str]:
    """The sets that a table will have."""
    return {*_SET.findall(item.text), *(one.name for one in single if isinstance(one, NamedSet))}


def single_commands(single: Iterable[Single]) -> list[str]:
    """Sets, then chains by name, since they lead to each other, then the rules, each with the digest by which it is known."""
    known = list(single)
    chains = [one for one in known if isinstance(one, Chain)]
    parts = [f"add set {_where(one)} {{ type {one.type}; }}" for one in known if isinstance(one, NamedSet)]
    parts += [f"add chain {_where(one)}" for one in chains]
    for one in chains:
        parts.append(f"flush chain {_where(one)}")
        parts += [f'add rule {_where(one)} {rule} comment "{nft.digest_of(rule)}"' for rule in one.text.splitlines()]
    return parts


def _where(one: Single) -> str:
    return f"{one.family} {one.table} {one.name}"


def element_commands(table: tuple[str, str], wanted: dict[tuple[str, str], str], defined: set[str]) -> list[str]:
    """Additions of elements by (set, key) with their values, as far as their sets are ``defined``."""
    grouped: dict[str, list[str]] = defaultdict(list)
    for (name, key), value in wanted.items():
        if name in defined:
            grouped[name].append(f"{quoted(key)} : {_value(value)}" if value else quoted(key))
    commands = []
    for name, members in grouped.items():
        for start in range(0, len(members), _CHUNK):
            some = ", ".join(members[start : start + _CHUNK])
            commands.append(f"add element {' '.join(table)} {name} {{ {some} }}")
    return commands


def _value(value: str) -> str:
    """A verdict keeps its word unquoted; a value's parts may be names."""
    return value if value.split(" ", maxsplit=1)[0] in nfsets.VERDICTS else quoted(value)


def apply_elements(spaces: Spaces, removed: Iterable[Element], added: Iterable[Element]) -> list[ItemFailure]:
    """Delete and add elements, one transaction for each space, so that a changed element is never missing."""
    grouped: dict[str, tuple[list[Element], list[Element]]] = defaultdict(lambda: ([], []))
    for item in removed:
        grouped[item.space][0].append(item)
    for item in added:
        grouped[item.space][1].append(item)
    failures: list[ItemFailure] = []
    for name, (going, coming) in grouped.items():
        try:
            space = spaces.get(name)
        except PolderError as exc:
            failures += [failure(item, exc) for item in coming]
            continue
        failures += _Transaction(space, going, coming).run()
    return failures


@dataclass(frozen=True, slots=True)
class _Step:
    """One element to add or delete; ``replaces`` where another value for its key goes in the same transaction."""

    item: Element
    add: bool
    messages: tuple[Message, ...]
    replaces: bool = False


class _Transaction:
    """Elements of one space. A refused element is left out and the rest tried again, so that one fails alone."""

    def __init__(self, space: OpenSpace, going: list[Element], coming: list[Element]) -> None:
        self._space = space
        self._failures: list[ItemFailure] = []
        self._steps: list[_Step] = []
        for item in going:
            self._plan(item, add=False)
        for item in coming:
            self._plan(item, add=True)

    def run(self) -> list[ItemFailure]:
        """Send in chunks; the failures."""
        for start in range(0, len(self._steps), _CHUNK // 2):
            steps = self._steps[start : start + _CHUNK // 2]
            if len(steps) <= _FEW:
                steps = [found for step in steps if (found := self._foreseen(step))]
            while steps:
                steps = self._send(steps)
        return self._failures

    def _foreseen(self, step: _Step) -> _Step | None:
        """The step as it will hold: the kernel is asked first, since it waits for all processors when it undoes a transaction."""
        try:
            one = self._set_of(step.item)
            if one.ranged or (step.add and not step.item.value):
                return step
            stands = nfsets.value_of(self._space.nft, one, step.item.key)
        except PolderError:
            return step  # the transaction says what is wrong
        if not step.add:
            return step if stands is not None else None
        return self._replacing(step) if stands not in (None, step.item.value) else step

    def _plan(self, item: Element, *, add: bool) -> None:
        try:
            one = self._set_of(item)
            messages = nfsets.add_element(one, item.key, item.value) if add else nfsets.del_element(one, item.key)
        except (PolderError, ValueTextError) as exc:
            if add:
                self._failures.append(failure(item, exc))
            return
        self._steps.append(_Step(item, add, tuple(messages)))

    def _set_of(self, item: Element) -> NftSet:
        sets = self._space.table_sets(item.family, item.table)
        if item.set not in sets:
            self._space.sets.pop((item.family, item.table), None)
            raise SpaceError(f"element {item.key}: table {item.family} {item.table} has no set {item.set}")
        return sets[item.set]

    def _send(self, steps: list[_Step]) -> list[_Step]:
        """One transaction; empty when it held, else what is to be tried again."""
        answers = iter(nfsets.commit(self._space.nft, [one for step in steps for one in step.messages]))
        again: list[_Step] = []
        refused = False
        for step in steps:
            failed = next((one for one in [next(answers) for _ in step.messages] if one), None)
            if failed is None:
                again.append(step)
                continue
            refused = True
            if step.add and failed.number == errno.EEXIST and not step.replaces:
                again.append(self._replacing(step))
            elif step.add or failed.number != errno.ENOENT:
                self._space.sets.pop((step.item.family, step.item.table), None)
                self._failures.append(failure(step.item, failed))
        return again if refused else []

    def _replacing(self, step: _Step) -> _Step:
        deleting = nfsets.del_element(self._set_of(step.item), step.item.key)
        return _Step(step.item, True, (*deleting, *step.messages), replaces=True)
