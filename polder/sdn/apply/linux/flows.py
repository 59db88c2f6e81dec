"""What the kernel remembers of a service's backends beside its rules: connections without an end of their own (UDP), and which
client has which backend. Both are forgotten when a backend goes, after the rules have forgotten it.

A UDP backend's element of the set ``flows`` is taken away last, so that what a kill leaves undone is seen by the next look.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from polder.base.errors import PolderError
from polder.sdn.apply.linux.failure import ItemFailure, failure
from polder.sdn.apply.linux.rules import apply_elements
from polder.sdn.apply.linux.spaces import OpenSpace, Spaces
from polder.sdn.render.linux.items import Element, Item
from polder.sdn.render.linux.service_rules import ENDS, FLOWS, OWN_MARK, SEEN, SERVICE_TABLE
from polder.system.net import nfsets
from polder.system.net.conntrack import TranslatedFlow, end_flow


def is_flow(item: Item) -> bool:
    """Whether an element stands for connections."""
    return isinstance(item, Element) and item.table == SERVICE_TABLE and item.set.startswith(FLOWS)


def forget(spaces: Spaces, removed: Iterable[Element]) -> list[ItemFailure]:
    """End what goes with removed elements; a flow whose connections could not be ended keeps its element."""
    failures: list[ItemFailure] = []
    ended: list[Element] = []
    marks: dict[tuple[str, str], set[str]] = defaultdict(set)
    for item in removed:
        try:
            if is_flow(item):
                end_flow(spaces.get(item.space).nft, _flow(item.key))
                ended.append(item)
            elif item.table == SERVICE_TABLE and item.set.startswith(ENDS):
                mark = item.key.rpartition(" . ")[2]
                if int(mark) & OWN_MARK:
                    marks[item.space, item.set.removeprefix(ENDS)].add(mark)
        except PolderError as exc:
            failures.append(failure(item, exc))
    failures += apply_elements(spaces, ended, ())
    for (name, family), gone in marks.items():
        _forget_clients(spaces, name, f"{SEEN}{family}", gone)
    return failures


def _forget_clients(spaces: Spaces, name: str, seen: str, marks: set[str]) -> None:
    """A client that comes back finds its backend gone in any case (see ``service_rules.slot_chain``); here it is told another."""
    try:
        space = spaces.get(name)
        known = space.table_sets("inet", SERVICE_TABLE).get(seen)
        if known is not None:
            _delete(space, known, [key for key, mark in nfsets.list_elements(space.nft, known) if mark in marks])
    except PolderError:
        return  # the space or its table went meanwhile, and what was remembered with it


def _delete(space: OpenSpace, known: nfsets.NftSet, keys: list[str]) -> None:
    for key in keys:  # each by itself: one may end by its own time meanwhile
        nfsets.commit(space.nft, nfsets.del_element(known, key))


def _flow(key: str) -> TranslatedFlow:
    address, protocol, port, backend, backend_port = key.split(" . ")
    return TranslatedFlow(protocol, address, int(port), backend, int(backend_port))
