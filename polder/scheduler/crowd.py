"""Where a tenant's pods are, by what is asked about them: kept up to date as pods come and go, so that a decision looks at
nodes and never at pods.

Pods with equal labels are one group. A tally counts, for each node, the pods that a selector means; it is made when it is
first asked for, from the groups, and then follows. A pull is what placed pods ask about pods that come.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from polder.scheduler.demand import Fixed, Shape
from polder.scheduler.terms import PodTerm, Scope

TALLIES: Final = 256
"""Tallies that a tenant may have; the one that was not asked for the longest goes."""
MUST_BE_APART: Final = 0
"""The weight of a pull that is no preference: pods must not be at one place."""
HARD_WEIGHT: Final = 1
"""What a required affinity of placed pods weighs for a pod that comes (upstream's hardPodAffinityWeight)."""

Counts = dict[str, int]
"""Pods by node; nodes without any are left out."""
_Pair = tuple[str, str] | None


def _count(counts: Counts, node: str, sign: int) -> None:
    now = counts.get(node, 0) + sign
    if now:
        counts[node] = now
    else:
        counts.pop(node, None)


@dataclass(slots=True, eq=False)
class Tally:
    """How many pods each node has that all scopes mean; ``leaving``: those of them that are being deleted."""

    scopes: tuple[Scope, ...]
    counts: Counts = field(default_factory=dict)
    leaving: Counts = field(default_factory=dict)
    dead: bool = False

    def means(self, group: Group, namespaces: Mapping[str, Mapping[str, str]]) -> bool:
        """Whether the group's pods are meant."""
        return all(
            scope.covers(group.namespace, namespaces) and scope.selector.matches_labels(group.labels)
            for scope in self.scopes
        )

    def change(self, node: str, leaving: bool, sign: int) -> None:
        """Pods came (more than 0) or went."""
        _count(self.counts, node, sign)
        if leaving:
            _count(self.leaving, node, sign)


@dataclass(slots=True, eq=False)
class Group:
    """Pods of one namespace with equal labels; those in deletion apart."""

    namespace: str
    labels: Fixed[str, str]
    leaving: bool
    counts: Counts = field(default_factory=dict)
    tallies: list[Tally] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Pull:
    """A term of placed pods, with its weight for pods that come (or ``MUST_BE_APART``)."""

    term: PodTerm
    weight: int

    @property
    def pair(self) -> _Pair:
        """A label that every pod has that is meant, if the selector asks for one."""
        for clause in self.term.scope.selector.requirements:
            if clause.operator == "in" and len(clause.values) == 1:
                return clause.key, next(iter(clause.values))
        return None


def pulls_of(shape: Shape) -> Iterator[Pull]:
    """What a pod asks, once it is placed, about pods that come."""
    wishes = shape.wishes
    for term in wishes.apart:
        yield Pull(term, MUST_BE_APART)
    for term in wishes.near:
        yield Pull(term, HARD_WEIGHT)
    for weight, term in wishes.prefer:
        yield Pull(term, weight)


class Crowd:
    """The placed pods of one tenant."""

    def __init__(self) -> None:
        self._groups: dict[str, dict[tuple[Fixed[str, str], bool], Group]] = {}
        self._tallies: OrderedDict[tuple[Scope, ...], Tally] = OrderedDict()
        self._pulls: dict[Pull, Counts] = {}
        self._by_pair: dict[_Pair, dict[Pull, None]] = {}
        self.namespaces: dict[str, Mapping[str, str]] = {}
        """The labels of the tenant's namespaces, where they are known."""

    def __bool__(self) -> bool:
        """Whether there is anything to remember."""
        return bool(self._groups or self.namespaces)

    def change(self, shape: Shape, node: str, leaving: bool, sign: int) -> None:
        """A pod came to a node (1) or left it (-1)."""
        group = self._group(shape, leaving)
        _count(group.counts, node, sign)
        for tally in group.tallies:
            if not tally.dead:
                tally.change(node, leaving, sign)
        if not group.counts:
            groups = self._groups[shape.namespace]
            del groups[shape.labels, leaving]
            if not groups:
                del self._groups[shape.namespace]
        for pull in pulls_of(shape):
            self._pull(pull, node, sign)

    def _group(self, shape: Shape, leaving: bool) -> Group:
        groups = self._groups.setdefault(shape.namespace, {})
        group = groups.get((shape.labels, leaving))
        if group is None:
            group = groups[shape.labels, leaving] = Group(shape.namespace, shape.labels, leaving)
            group.tallies = [t for t in self._tallies.values() if t.means(group, self.namespaces)]
        return group

    def _pull(self, pull: Pull, node: str, sign: int) -> None:
        counts = self._pulls.get(pull)
        if counts is None:
            counts = self._pulls[pull] = {}
            self._by_pair.setdefault(pull.pair, {})[pull] = None
        _count(counts, node, sign)
        if not counts:
            del self._pulls[pull]
            pulls = self._by_pair[pull.pair]
            del pulls[pull]
            if not pulls:
                del self._by_pair[pull.pair]

    def pulls(self, shape: Shape) -> list[tuple[Pull, Counts]]:
        """The pulls that mean a pod, with where the pods are that have them."""
        found = []
        pairs: list[_Pair] = [None, *shape.labels.items()]
        for pair in pairs:
            for pull in self._by_pair.get(pair, ()):
                scope = pull.term.scope
                if scope.covers(shape.namespace, self.namespaces) and scope.selector.matches_labels(shape.labels):
                    found.append((pull, self._pulls[pull]))
        return found

    def tally(self, scopes: tuple[Scope, ...]) -> Tally:
        """Where the pods are that all scopes mean."""
        known = self._tallies.get(scopes)
        if known is not None:
            self._tallies.move_to_end(scopes)
            return known
        made = self._tallies[scopes] = Tally(scopes)
        for group in self._reached(scopes):
            if made.means(group, self.namespaces):
                group.tallies = [*(t for t in group.tallies if not t.dead), made]
                for node, number in group.counts.items():
                    made.change(node, group.leaving, number)
        if len(self._tallies) > TALLIES:
            _, gone = self._tallies.popitem(last=False)
            gone.dead = True
        return made

    def _reached(self, scopes: tuple[Scope, ...]) -> Iterator[Group]:
        """The groups of the namespaces that may be meant."""
        named = next((scope.namespaces for scope in scopes if scope.every is None), None)
        for namespace in list(self._groups) if named is None else named:
            yield from self._groups.get(namespace, {}).values()

    def set_namespace(self, name: str, labels: Mapping[str, str] | None) -> bool:
        """A namespace has these labels, or (None) is gone; whether that is news."""
        if labels == self.namespaces.get(name):
            return False
        if labels is None:
            del self.namespaces[name]
        else:
            self.namespaces[name] = labels
        for scopes, tally in list(self._tallies.items()):
            if any(scope.every is not None for scope in scopes):
                tally.dead = True
                del self._tallies[scopes]
        return True
