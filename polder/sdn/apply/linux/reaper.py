"""Deleting links later and together: the kernel needs about 17 ms for one veth and hardly more for twenty of a group."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable

from polder.base.errors import PolderError
from polder.sdn.apply.linux.spaces import GONE_GROUP, Spaces, condemn
from polder.sdn.render.linux.items import NODE, Item
from polder.system.net import requests
from polder.system.net.netlink import NetlinkError

_log = logging.getLogger(__name__)


class Reaper:
    """Holds what is condemned until ``reap``; used by one worker thread. ``gone`` is told of items whose links are deleted."""

    def __init__(self, spaces: Spaces, gone: Callable[[list[Item]], None]) -> None:
        self._spaces = spaces
        self.gone = gone
        self._waiting: dict[str, list[Item]] = {}

    def condemn(self, space: str, links: dict[Item, int], strays: list[int] | None = None) -> None:
        """These links pass no packet when this returns; ``strays`` are indexes of links without item."""
        condemn(self._spaces.get(space), [*links.values(), *(strays or [])])
        self._waiting.setdefault(space, []).extend(links)

    @property
    def waiting(self) -> list[str]:
        """The spaces where something waits."""
        return list(self._waiting)

    def reap(self, space: str) -> None:
        """Delete what waits in a space."""
        if space not in self._waiting:
            return
        items = self._waiting.pop(space)
        self._spaces.heed()
        try:
            self._spaces.get(space).route.call(requests.del_group(GONE_GROUP))
        except NetlinkError as exc:
            if exc.number != errno.ENODEV:  # the links went with their pods' namespaces
                _log.warning("links of space %s that pass no packet any more stay for now: %s", space, exc)
        except PolderError as exc:
            _log.info("links of space %s went with it: %s", space, exc)
        self._spaces.unheed((space, NODE))
        if items:
            self.gone(items)
