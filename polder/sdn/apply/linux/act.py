"""One change of the kernel: what goes and what comes, in phases.

Removal: elements (a port's packets are dropped from then on), announcements, entries, links, rulesets, settings, spaces. Then
adding: spaces,
settings, rulesets, policies, links, settings of links, addresses, routes, entries, elements, announcements. So rules stand
before links, and a
port is the last thing that opens. What policies no longer need goes with what they need anew, in one transaction.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeGuard, TypeVar

from polder.base.errors import PolderError
from polder.sdn.apply.linux.announce import announce
from polder.sdn.apply.linux.entries import apply_entries, apply_sysctls
from polder.sdn.apply.linux.failure import ItemFailure, failure
from polder.sdn.apply.linux.flows import forget, is_flow
from polder.sdn.apply.linux.links import Links
from polder.sdn.apply.linux.policy import apply_policies, apply_services
from polder.sdn.apply.linux.reaper import Reaper
from polder.sdn.apply.linux.rules import apply_elements, apply_rulesets, remove_rulesets
from polder.sdn.apply.linux.spaces import Spaces
from polder.sdn.render.linux.items import (
    NODE,
    Addr,
    Announced,
    Bridge,
    Chain,
    Element,
    Fdb,
    Item,
    NamedSet,
    Neigh,
    PortLink,
    Route,
    Ruleset,
    Space,
    Sysctl,
    Transit,
    Vxlan,
)
from polder.sdn.render.linux.policy_rules import POLICY_TABLE
from polder.sdn.render.linux.service_rules import SERVICE_TABLE
from polder.system.net.netlink import NetlinkError

T = TypeVar("T")
LinkItem = Bridge | Vxlan | PortLink | Transit
_LINK_SETTING = re.compile(r"^net/ipv[46]/(?:conf|neigh)/(?!all/|default/)")
"""Settings that exist only once their link does."""


@dataclass(slots=True)
class Change:
    """``remove`` without what ``add`` changes in place, and without what goes with a removed space by itself."""

    remove: tuple[Item, ...]
    add: tuple[Item, ...]
    failures: list[ItemFailure] = field(default_factory=list)

    def __post_init__(self) -> None:
        coming = {item.slot for item in self.add}
        going = {item.name for item in self.remove if isinstance(item, Space) and item.slot not in coming}
        tables = {_table(item) for item in self.remove if isinstance(item, Ruleset) and item.slot not in coming}
        self.remove = tuple(
            item
            for item in self.remove
            if item.slot not in coming
            and (isinstance(item, Space) or item.space not in going or _pays(item))
            and not (isinstance(item, Chain | NamedSet) and _table(item) in tables)
        )

    @property
    def announced(self) -> list[Announced]:
        """What the node answers for from now on: said last, when all is there that serves it."""
        return _of(self.add, Announced)

    @property
    def links_removed(self) -> list[LinkItem]:
        """The links that will be reported as gone."""
        return [item for item in self.remove if isinstance(item, Bridge | Vxlan | PortLink | Transit)]

    def run(self, spaces: Spaces, reaper: Reaper) -> list[ItemFailure]:
        """Do it, in the worker thread."""
        spaces.heed()
        self._take_away(spaces, reaper)
        self._put(spaces, reaper)
        spaces.unheed({NODE, *(item.slot[1] for item in (*self.remove, *self.add))})
        self.failures += forget(spaces, _of(self.remove, Element))
        rules = (item for item in (*self.remove, *self.add) if isinstance(item, Ruleset | Chain | NamedSet | Element))
        spaces.noted({item.space for item in rules})
        return self.failures

    def _take_away(self, spaces: Spaces, reaper: Reaper) -> None:
        # tables that are replaced take their old elements along in their own transaction
        fresh = {_table(one) for one in _of(self.add, Ruleset)}
        elements = [one for one in _of(self.remove, Element) if _table(one) not in fresh and not _guards(one)]
        self.failures += apply_elements(spaces, elements, ())
        for kind in (Announced, Fdb, Neigh, Route, Addr):
            self.failures += apply_entries(spaces, _of(self.remove, kind), add=False)
        self._condemn(spaces, reaper)
        self.failures += remove_rulesets(spaces, _of(self.remove, Ruleset))
        for item in _of(self.remove, Space):
            try:
                spaces.remove(item.name)
            except (PolderError, OSError) as exc:
                self.failures.append(failure(item, exc))

    def _condemn(self, spaces: Spaces, reaper: Reaper) -> None:
        grouped: dict[str, dict[Item, int]] = defaultdict(dict)
        absent: dict[str, list[Item]] = defaultdict(list)
        for item in self.links_removed:
            try:
                grouped[item.space][item] = spaces.get(item.space).index(item.name)
            except PolderError:
                absent[item.space].append(item)  # gone already, with the pod's namespace
        for name, links in grouped.items():
            reaper.condemn(name, links)
        for items in absent.values():
            reaper.gone(items)

    def _put(self, spaces: Spaces, reaper: Reaper) -> None:
        for item in _of(self.add, Space):
            try:
                spaces.ensure(item.name, item.owner)
            except (PolderError, OSError) as exc:
                self.failures.append(failure(item, exc))
        settings = _of(self.add, Sysctl)
        self.failures += apply_sysctls(spaces, [one for one in settings if not _LINK_SETTING.match(one.path)])
        removed, added = _of(self.remove, Element), _of(self.add, Element)
        single: list[NamedSet | Chain] = [*_of(self.add, NamedSet), *_of(self.add, Chain)]
        failures, fresh = apply_rulesets(spaces, _of(self.add, Ruleset), removed, added, single)
        self.failures += failures
        fresh |= {_table(one) for one in _of(self.remove, Ruleset)}
        for name, apply in ((POLICY_TABLE, apply_policies), (SERVICE_TABLE, apply_services)):
            gone, come = (
                [one for one in some if _guards(one) and one.table == name and _table(one) not in fresh]
                for some in ([one for one in self.remove if not is_flow(one)], self.add)
            )
            self.failures += apply(spaces, gone, come)
        policies = (one for one in self.failures if getattr(one.item, "table", "") == POLICY_TABLE)
        unguarded = {one.item.slot[1]: one.reason for one in policies}
        links = Links(spaces, reaper)
        for kind in (Bridge, Vxlan, Transit):
            self._put_links(links, _of(self.add, kind))
        ports = _of(self.add, PortLink)
        self._put_links(links, [one for one in ports if one.space not in unguarded])
        why = "no pod is connected while policies of its tenant are not in force"
        self.failures += [
            ItemFailure(one, f"{why}: {unguarded[one.space]}", retry=True) for one in ports if one.space in unguarded
        ]
        self.failures += apply_sysctls(spaces, [one for one in settings if _LINK_SETTING.match(one.path)])
        for entry in (Addr, Route, Neigh, Fdb):
            self.failures += apply_entries(spaces, _of(self.add, entry), add=True)
        self.failures += apply_elements(spaces, (), [one for one in added if not _guards(one)])
        self.failures += apply_entries(spaces, self.announced, add=True)
        announce(spaces, self.announced)

    def _put_links(self, links: Links, items: Iterable[LinkItem]) -> None:
        for item in items:
            try:
                links.add(item)
            except NetlinkError as exc:
                links.spaces.get(item.space).indexes.pop(item.name, None)
                self.failures.append(failure(item, exc))
            except (PolderError, OSError, ValueError) as exc:
                self.failures.append(failure(item, exc))


def _of(items: Iterable[Item], kind: type[T]) -> list[T]:
    return [item for item in items if isinstance(item, kind)]


def _table(item: Ruleset | Element | Chain | NamedSet) -> tuple[str, str, str]:
    return item.space, item.family, item.table


def _guards(item: Item) -> TypeGuard[Element | Chain | NamedSet]:
    """Whether it says what may pass: it stands before links come up, and goes after links have gone."""
    return isinstance(item, Element | Chain | NamedSet) and item.table in (POLICY_TABLE, SERVICE_TABLE)


def _pays(item: Item) -> bool:
    """Whether to remove it although its space goes: ports, so that those who wait for them hear of it."""
    return isinstance(item, PortLink)
