"""Addresses, routes, neighbours, forwarding entries and sysctls: small things, sent in batches for each space."""

from __future__ import annotations

import errno
from collections import defaultdict
from collections.abc import Iterable

from polder.base.errors import PolderError
from polder.sdn.apply.linux.failure import ItemFailure, failure
from polder.sdn.apply.linux.spaces import OpenSpace, Spaces
from polder.sdn.render.linux.items import Addr, Announced, Fdb, Neigh, Route, Sysctl
from polder.system.net import requests
from polder.system.net.codec import Message
from polder.system.net.requests import NewRoute
from polder.system.net.sysctl import write_sysctl

Entry = Addr | Route | Neigh | Fdb | Announced
_GONE = frozenset({errno.ENOENT, errno.ENODEV, errno.ESRCH, errno.EADDRNOTAVAIL})


def apply_entries(spaces: Spaces, items: Iterable[Entry], *, add: bool) -> list[ItemFailure]:
    """Add or delete; having it already, or no longer, is success."""
    failures: list[ItemFailure] = []
    grouped: dict[str, list[Entry]] = defaultdict(list)
    for item in items:
        grouped[item.space].append(item)
    for name, members in grouped.items():
        try:
            space = spaces.get(name)
        except PolderError as exc:
            failures += [failure(item, exc) for item in members] if add else []
            continue
        failures += _batch(space, members, add=add)
    return failures


def apply_sysctls(spaces: Spaces, items: Iterable[Sysctl]) -> list[ItemFailure]:
    """Write the settings, each from inside its space."""
    failures: list[ItemFailure] = []
    for item in items:
        try:
            spaces.run_in(spaces.get(item.space), lambda item=item: write_sysctl(item.path, item.value))  # type: ignore[misc]
        except PolderError as exc:
            failures.append(failure(item, exc))
    return failures


def _batch(space: OpenSpace, members: list[Entry], *, add: bool) -> list[ItemFailure]:
    failures: list[ItemFailure] = []
    messages: list[Message] = []
    asked: list[Entry] = []
    for item in members:
        try:
            messages.append(_message(item, space.index(item.link), add=add))
            asked.append(item)
        except (PolderError, OSError, ValueError) as exc:
            if add:
                failures.append(failure(item, exc))
    for item, failed in zip(asked, space.route.batch(messages), strict=True):
        fine = failed is None or (failed.number == errno.EEXIST if add else failed.number in _GONE)
        if failed and failed.number == errno.ENODEV:
            space.indexes.pop(item.link, None)  # made anew behind our back: the next try asks again
        if failed and not fine:
            failures.append(failure(item, failed))
    return failures


def _message(item: Entry, index: int, *, add: bool) -> Message:
    match item:
        case Addr():
            return requests.address(index, item.address, item.prefix, add=add)
        case Route():
            return requests.route(NewRoute(item.destination, index, item.via, item.src, item.onlink), add=add)
        case Neigh():
            return requests.neighbour(index, item.address, item.mac, add=add)
        case Announced():
            return requests.proxy(index, item.address, add=add)
        case Fdb():
            return requests.forwarding(index, item.mac, item.remote, add=add)
